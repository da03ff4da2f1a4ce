"""selection: the selected set, selected.jsonl in the pool's order, and summary.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtselect.config import Experiment, SelectionConfig, budget_pairs
from mtselect.data.pairs import Pair, PairTable
from mtselect.errors import ConfigError
from mtselect.selection.duplicates import representatives
from mtselect.selection.gate import Gated, bound
from mtselect.selectors.base import SELECTORS, Candidates, Chosen, Need, read_options
from mtselect.stages.candidates import READS, candidate_rows, usable_rows
from mtselect.stages.corpus import POOL
from mtselect.stages.duplicates import GROUPED, is_thinned
from mtselect.stages.gate import gate_output, is_gated
from mtselect.stages.lineage import Input, Lineage, Stage, Work
from mtselect.stages.signals import SIGNALS
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.store import hash_ids, read_lines, write_lines

# Dropped candidates that a gate's report shows of each kind: the clearest, and as many of the closest.
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class SelectedPair(Pair):
    """One line of `selected.jsonl`.

    Args:
        scores: what stands beside it: the selector's columns, and the score of the `gate` if there is one.
    """

    scores: Mapping[str, float | int] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """As a line of `selected.jsonl`."""
        return {"id": self.id, "src": self.src, "tgt": self.tgt, **self.scores}

    @staticmethod
    def of(row: Mapping[str, Any]) -> SelectedPair:
        """Of a line of `selected.jsonl`."""
        own = ("id", "src", "tgt")
        return SelectedPair(**{name: row[name] for name in own}, scores={key: row[key] for key in row if key not in own})


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selected set, in the pool's order.

    Args:
        pairs: the set.
        n_candidates: rows it was chosen from.
        n_passed: rows that passed gate and threshold.
        n_repeats: rows that passed the gate and are near-duplicates of one that was kept.
        gate: what the gate did (`_gate_report`); null without one.
    """

    pairs: list[SelectedPair]
    n_candidates: int
    n_passed: int
    n_repeats: int = 0
    gate: dict[str, Any] | None = None

    @property
    def digest(self) -> str:
        """Hash of the selected ids."""
        return hash_ids(pair.id for pair in self.pairs)

    def in_words(self, experiment: Experiment) -> list[str]:
        """How the experiment chose it, a sentence each."""
        said, chosen = [], experiment.selection
        if self.gate is not None:
            looks = ", ".join(f"{look['rows']:,} {kind}" for kind, look in self.gate["looks"].items())
            said.append(f"The gate `{chosen.gate}`, calibrated to let {chosen.gate_keeps:.0%} of the seeds through, dropped "
                        f"{self.gate['dropped']:,} candidates{looks and f' that look {looks}'}.")
        if self.n_repeats:
            said.append(f"{self.n_repeats:,} near-duplicates of what passed were left out.")
        return [*said, SELECTORS.load(chosen.method)().say(experiment, len(self.pairs), self.n_passed)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What a selector chose, and from what.

    Args:
        rows: of the pool, [N], that it chose from.
        gated: scores of the gate before it; null without one.
        through: whether the gate lets each row through, [N].
        groups: of near-duplicates (`stages/duplicates.py`), [N]; null where they are not thinned.
        passed: whether gate and thinning let each row through, [N].
        found: what it chose.
    """

    rows: NDArray[np.int64]
    gated: Gated | None
    through: NDArray[np.bool_]
    groups: NDArray[np.int64] | None
    passed: NDArray[np.bool_]
    found: Chosen


def choose(work: Work) -> Choice:
    """Let the experiment's selector choose; of a stage with the selection's fields and inputs."""
    experiment, chosen, tokens = work.experiment, work.experiment.selection, work.read(POOL_TOKENS)
    selector = SELECTORS.load(chosen.method)()
    read_options(selector, chosen)  # for its errors
    rows = (candidate_rows if selector.excludes else usable_rows)(experiment, tokens)
    gated = work.read(gate_output(chosen)) if is_gated(chosen) else None
    groups = work.read(GROUPED) if is_thinned(chosen) else None
    through = np.ones(len(rows), bool) if gated is None else gated.lets_through(chosen.gate_keeps)
    passed = through if groups is None else representatives(groups, through, None if gated is None else gated.pool)
    # Another set for each finetuning seed where it is drawn.
    seed = chosen.seed + (experiment.finetune.seed if selector.drawn else 0)
    n_pairs = budget_pairs(chosen.budget, len(work.read(POOL))) if selector.sized else 0
    signals = {need: SIGNALS[need].read(work) for need in selector.needs | selector.also_needs(chosen)}
    found = selector.select(Candidates(passed=passed, **signals), n_pairs, chosen, seed)  # type: ignore[arg-type]
    return Choice(rows=rows, gated=gated, through=through, groups=groups, passed=passed, found=found)


def _run(work: Work) -> None:
    choice, chosen, pool = choose(work), work.experiment.selection, work.read(POOL)
    rows, gated, found = choice.rows, choice.gated, choice.found
    pairs = pool.take(rows[found.rows])[:]
    columns = {name: [getattr(pair, name) for pair in pairs] for name in ("id", "src", "tgt")}
    columns |= {name: found.columns[name].tolist() for name in SELECTORS.load(chosen.method).columns}
    if gated is not None:
        columns["gate"] = gated.pool[found.rows].tolist()
    write_lines(work.out / "selected.jsonl", (dict(zip(columns, values, strict=True))
                                              for values in zip(*columns.values(), strict=True)))
    summary = {"n_candidates": len(rows), "n_passed": found.n_passed,
               "n_repeats": int(choice.through.sum() - choice.passed.sum()), "gate": _gate_report(pool, rows, gated, chosen)}
    (work.out / "summary.json").write_text(json.dumps(summary, ensure_ascii=False), encoding="utf-8")


def _gate_report(pool: PairTable, rows: NDArray[np.int64], gated: Gated | None, chosen: SelectionConfig
                 ) -> dict[str, Any] | None:
    """How many candidates the gate dropped, by what they look like, with the clearest and the closest examples of each."""
    if gated is None:
        return None
    looks: dict[str, dict[str, Any]] = {}
    for kind, here in gated.dropped(chosen.gate_keeps).items():
        shown = here if len(here) <= 2 * _EXAMPLES else np.concatenate([here[:_EXAMPLES], here[-_EXAMPLES:]])
        looks[kind] = {"rows": len(here), "examples": [{**asdict(pair), "score": float(score)} for pair, score in
                                                       zip(pool.take(rows[shown]), gated.pool[shown], strict=True)]}
    return {"gate": chosen.gate, "keeps": chosen.gate_keeps, "bound": bound(gated.seeds, chosen.gate_keeps),
            "candidates": len(rows), "dropped": sum(look["rows"] for look in looks.values()), "looks": looks}


@cache
def _stage(method: str, also: frozenset[Need]) -> Stage:
    selector = SELECTORS.load(method)
    if not selector.excludes and (selector.needs or selector.gated):
        raise ConfigError(f"selection.method {method!r} chooses among the warm-up's rows too (`excludes` is false), of which "
                          "nothing is measured: it can have neither `needs` nor a gate (`gated`)")
    fields = [*selector.fields, "seed", "options", "method", *(["budget"] if selector.sized else []), "gate",
              *(["gate_keeps", "near_duplicates"] if selector.gated else [])]
    draws = ["finetune.seed"] if selector.drawn else []
    needs = list(dict.fromkeys(given for need in sorted(selector.needs | also) for given in SIGNALS[need].inputs))
    return Stage(name="selection", version=3, run=_run, reads=(*(f"selection.{name}" for name in fields), *draws, *READS),
                 sources=lambda _: SELECTORS.origin(method),
                 inputs=lambda experiment: [POOL, POOL_TOKENS, *needs, *_before(experiment.selection)])


def _before(chosen: SelectionConfig) -> list[Input[object]]:
    return [*([gate_output(chosen)] if is_gated(chosen) else []), *([GROUPED] if is_thinned(chosen) else [])]


def selection_stage(experiment: Experiment) -> Stage:
    """The stage of the experiment's selector."""
    chosen = experiment.selection
    return _stage(chosen.method, SELECTORS.load(chosen.method)().also_needs(chosen))


def select_pairs(lineage: Lineage) -> Selection:
    """The selected set of an experiment."""
    return lineage.open(selection_stage(lineage.experiment), load_selection)


def load_selection(folder: Path) -> Selection:
    """Of an entry."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Selection(pairs=[SelectedPair.of(row) for row in read_lines(folder / "selected.jsonl")], **summary)


@dataclass(frozen=True, kw_only=True)
class SelectedPairs:
    """The input that is the selected set, known by its ids, whatever selected them."""

    def stages(self, experiment: Experiment) -> list[Stage]:
        return [selection_stage(experiment)]

    def key(self, lineage: Lineage) -> str:
        """Hash of the ids."""
        return select_pairs(lineage).digest

    def read(self, lineage: Lineage) -> Sequence[Pair]:
        """The pairs, in the pool's order."""
        return select_pairs(lineage).pairs


SELECTED = SelectedPairs()
