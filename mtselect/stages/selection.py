"""selection: the selected set, selected.jsonl in the pool's order, and summary.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtselect.attribution.index import SketchIndex
from mtselect.config import Experiment, SelectionConfig
from mtselect.data.corpus import Pair, PairTable
from mtselect.selection.baselines import all_rows, lowest, random_rows
from mtselect.selection.gate import Gated, bound
from mtselect.selection.resample import select
from mtselect.stages.candidates import READS, candidate_rows, usable_rows
from mtselect.stages.columns import STANDARDISED, load_columns
from mtselect.stages.corpus import POOL
from mtselect.stages.gate import GATED, is_gated, load_gated
from mtselect.stages.gradients import INDEXED, load_rows
from mtselect.stages.lineage import Input, Lineage, Stage, Work
from mtselect.stages.losses import MEASURED, loss_per_token
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.store import hash_ids, read_lines, write_lines

# Dropped candidates that a gate's report shows of each kind: the clearest, and as many of the closest.
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class SelectedPair:
    """One line of `selected.jsonl`: what is null was not asked for.

    Args:
        id: hash of the pair.
        src: source sentence.
        tgt: target sentence.
        z: mean z-score of its benefits.
        benefit: mean over the seeds.
        benefit_share: share of the seeds for which it is above the pool's mean.
        cluster: of its sketch.
        gate: score of the gate.
    """

    id: str
    src: str
    tgt: str
    z: float | None = None
    benefit: float | None = None
    benefit_share: float | None = None
    cluster: int | None = None
    gate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selected set, in the pool's order.

    Args:
        pairs: the set.
        n_candidates: rows it was chosen from.
        n_passed: rows that passed gate and threshold.
        gate: what the gate did (`_gate_report`); null without one.
    """

    pairs: list[SelectedPair]
    n_candidates: int
    n_passed: int
    gate: dict[str, Any] | None = None

    @property
    def digest(self) -> str:
        """Hash of the selected ids."""
        return hash_ids(pair.id for pair in self.pairs)

    @property
    def dropped_looks(self) -> str:
        """What the gate dropped, by what it looks like, most first: `1,503 copied, 12 merged`."""
        looks = {} if self.gate is None else self.gate["looks"]
        return ", ".join(f"{look['rows']:,} {kind}" for kind, look in looks.items())


def _by_gradients(work: Work) -> None:
    chosen, folder, pool = work.experiment.selection, work.read(INDEXED), work.read(POOL)
    index, rows = SketchIndex(folder), load_rows(folder)
    columns = load_columns(index, work.read(STANDARDISED))
    gated = _gated(work)
    passed = np.ones(len(rows), bool) if gated is None else _lets_through(gated, chosen)
    found = select(columns, index if index.shape[1] else None, passed, chosen.pairs(len(pool)), chosen)
    pairs = [SelectedPair(**asdict(pair), z=float(columns.z[row]), benefit=float(columns.mean[row]),
                          benefit_share=float(columns.share[row]), cluster=int(cluster),
                          gate=None if gated is None else float(gated.pool[row]))
             for pair, row, cluster in zip(pool.take(rows[found.rows]), found.rows, found.cluster, strict=True)]
    _write(work, pairs, len(rows), found.n_passed, _gate_report(pool, rows, gated, chosen))


def _by_baseline(work: Work) -> None:
    experiment, chosen, pool, examples = work.experiment, work.experiment.selection, work.read(POOL), work.read(POOL_TOKENS)
    rows = usable_rows(experiment, examples) if chosen.method == "pool" else candidate_rows(experiment, examples)
    gated = _gated(work)
    passed = np.arange(len(rows)) if gated is None else np.flatnonzero(_lets_through(gated, chosen))
    if chosen.method == "loss":
        picked = lowest(loss_per_token(work.read(MEASURED))[passed], chosen.pairs(len(pool)))
    elif chosen.method == "random":  # another set for each finetuning seed, so that intervals over seeds cover the draw
        picked = random_rows(len(passed), chosen.pairs(len(pool)), chosen.seed + experiment.finetune.seed)
    else:
        picked = all_rows(len(passed) if chosen.method == "pool" else 0)
    picked = passed[picked]
    scores = [None] * len(picked) if gated is None else gated.pool[picked].tolist()
    pairs = [SelectedPair(**asdict(pair), gate=score) for pair, score in zip(pool.take(rows[picked]), scores, strict=True)]
    _write(work, pairs, len(rows), len(passed), _gate_report(pool, rows, gated, chosen))


def _gated(work: Work) -> Gated | None:
    """Scores of the experiment's gate, if it has one."""
    return load_gated(work.read(GATED)) if is_gated(work.experiment.selection) else None


def _lets_through(gated: Gated, chosen: SelectionConfig) -> NDArray[np.bool_]:
    passed: NDArray[np.bool_] = gated.pool >= bound(gated.seeds, chosen.gate_keeps)
    return passed


def _gate_report(pool: PairTable, rows: NDArray[np.int64], gated: Gated | None, chosen: SelectionConfig
                 ) -> dict[str, Any] | None:
    """How many candidates the gate dropped, by what they look like, with the clearest and the closest examples of each."""
    if gated is None:
        return None
    dropped = np.flatnonzero(~_lets_through(gated, chosen))
    looks: dict[str, dict[str, Any]] = {}
    for number, kind in enumerate(gated.kinds):
        here = dropped[gated.looks[dropped] == number]
        if len(here):
            order = here[np.argsort(gated.pool[here], kind="stable")]
            shown = order if len(order) <= 2 * _EXAMPLES else np.concatenate([order[:_EXAMPLES], order[-_EXAMPLES:]])
            looks[kind] = {"rows": len(here), "examples": [{**asdict(pair), "score": float(score)} for pair, score in
                                                           zip(pool.take(rows[shown]), gated.pool[shown], strict=True)]}
    return {"gate": chosen.gate, "keeps": chosen.gate_keeps, "bound": bound(gated.seeds, chosen.gate_keeps),
            "candidates": len(rows), "dropped": len(dropped),
            "looks": dict(sorted(looks.items(), key=lambda item: -int(item[1]["rows"])))}


def _write(work: Work, pairs: list[SelectedPair], n_candidates: int, n_passed: int, gate: dict[str, Any] | None) -> None:
    write_lines(work.out / "selected.jsonl", [asdict(pair) for pair in pairs])
    summary = {"n_candidates": n_candidates, "n_passed": n_passed, "gate": gate}
    (work.out / "summary.json").write_text(json.dumps(summary, ensure_ascii=False), encoding="utf-8")


def _gate_inputs(experiment: Experiment) -> list[Input[object]]:
    return [GATED] if is_gated(experiment.selection) else []


BY_GRADIENTS = Stage(name="selection", version=2, reads=("selection",), run=_by_gradients,
                     inputs=lambda experiment: [POOL, INDEXED, STANDARDISED, *_gate_inputs(experiment)])
BY_LOSS = Stage(name="selection", version=2, reads=("selection", *READS), run=_by_baseline,
                inputs=lambda experiment: [POOL, POOL_TOKENS, MEASURED, *_gate_inputs(experiment)])
AT_RANDOM = Stage(name="selection", version=2, reads=("selection", "finetune.seed", *READS), run=_by_baseline,
                  inputs=lambda experiment: [POOL, POOL_TOKENS, *_gate_inputs(experiment)])
ALL_OR_NOTHING = Stage(name="selection", version=2, reads=("selection.method", "selection.gate", *READS), run=_by_baseline,
                       inputs=lambda _: [POOL, POOL_TOKENS])
_STAGES = {"gdig": BY_GRADIENTS, "loss": BY_LOSS, "random": AT_RANDOM, "pool": ALL_OR_NOTHING, "untuned": ALL_OR_NOTHING}


def selection_stage(experiment: Experiment) -> Stage:
    """The stage of the experiment's selector."""
    return _STAGES[experiment.selection.method]


def select_pairs(lineage: Lineage) -> Selection:
    """The selected set of an experiment."""
    return lineage.open(selection_stage(lineage.experiment), load_selection)


def load_selection(folder: Path) -> Selection:
    """Of an entry."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Selection(pairs=[SelectedPair(**row) for row in read_lines(folder / "selected.jsonl")], **summary)


@dataclass(frozen=True, kw_only=True)
class SelectedPairs:
    """The input that is the selected set, known by its ids, whatever selected them."""

    def key(self, lineage: Lineage) -> str:
        """Hash of the ids."""
        return select_pairs(lineage).digest

    def read(self, lineage: Lineage) -> Sequence[Pair]:
        """The pairs, in the pool's order."""
        return [Pair(id=pair.id, src=pair.src, tgt=pair.tgt) for pair in select_pairs(lineage).pairs]


SELECTED = SelectedPairs()
