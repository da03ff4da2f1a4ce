"""gate: scores of `selection.gate` for candidates and seeds: pool.npy [N], seeds.npy [Q], looks.npy [N] and kinds.json
(`selection.gate.Gated`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtselect.config import SelectionConfig
from mtselect.data.pairs import Pair
from mtselect.data.prompts import encode_pairs
from mtselect.progress import Advance
from mtselect.selection.corrupt import corruptions
from mtselect.selection.features import features
from mtselect.selection.gate import Gated, by_adequacy, by_loss, learn
from mtselect.selectors.base import SELECTORS
from mtselect.stages.adequacy import COMPARED, comparer, encoder_digest
from mtselect.stages.corpus import POOL, SEEDS
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.losses import MEASURED, NAMES, fill_losses, loss_per_token, other_rows
from mtselect.stages.models import load_weights
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import derive_seed
from mtselect.training.language_model import LanguageModel


def _run(work: Work) -> None:
    _write(work, _by_loss(work) if work.experiment.selection.gate == "seed_loss" else _learned(work))


def _write(work: Work, gated: Gated) -> None:
    for name in ("pool", "seeds", "looks"):
        np.save(work.out / f"{name}.npy", getattr(gated, name))
    (work.out / "kinds.json").write_text(json.dumps(gated.kinds), encoding="utf-8")


def _by_loss(work: Work) -> Gated:
    seeds = work.read(SEEDS)[:]
    with work.bench.progress.task("losses of seeds", 2 * len(seeds)) as advance:
        found = _losses(work, _model(work), seeds, advance)
    return by_loss(loss_per_token(work.read(MEASURED)), found["loss"] / found["tokens"])


def _learned(work: Work, compared: bool = False) -> Gated:
    """`learned`; with `compared`, `learned_adequacy`."""
    pool, lm, seed = work.read(POOL), _model(work), work.experiment.seed
    texts = [(pair.src, pair.tgt) for pair in work.read(SEEDS)]
    wrong = corruptions(texts, derive_seed(seed, "corruptions"))
    compare = comparer(work.experiment, work.bench.runtime) if compared else None
    cosines = work.read(COMPARED).cosine if compared else None

    def seen(some: Sequence[tuple[str, str]], advance: Advance) -> NDArray[np.float64]:
        pairs = [Pair(id="", src=source, tgt=target) for source, target in some]
        found = features(some, **_losses(work, lm, pairs, advance))
        return found if compare is None else np.column_stack([found, compare(pairs).cosine])

    def pool_features() -> Iterator[NDArray[np.float64]]:
        index, begin = work.read(MEASURED), 0
        rows = index.rows
        for loss, other, tokens in zip(*(index.shards(name) for name in NAMES), strict=True):
            here = slice(begin, begin + len(loss))
            found = features([(pair.src, pair.tgt) for pair in pool.take(rows[here])], loss, other, tokens)
            yield found if cosines is None else np.column_stack([found, cosines[here]])
            begin += len(loss)

    with work.bench.progress.task("losses of seeds", 2 * (len(texts) + sum(map(len, wrong.values())))) as advance:
        right = seen(texts, advance)
        shown = {kind: (np.array([row for row, _ in some]), seen([text for _, text in some], advance))
                 for kind, some in wrong.items()}
    return learn(right, shown, pool_features(), derive_seed(seed, "gate"))


def _adequate(work: Work) -> None:
    """`adequacy`, by the encoder that the candidates were compared by."""
    seeds = comparer(work.experiment, work.bench.runtime)(work.read(SEEDS)[:])
    pool = work.read(COMPARED)
    _write(work, by_adequacy(*(np.column_stack([found.cosine, found.overlap]) for found in (pool, seeds))))


def _model(work: Work) -> LanguageModel:
    return load_weights(work.experiment, work.bench.runtime, work.read(WARM_MODEL).name)


def _losses(work: Work, lm: LanguageModel, pairs: Sequence[Pair], advance: Advance) -> dict[str, NDArray[np.float64]]:
    """Of some pairs, as the losses stage has them of the pool."""
    experiment = work.experiment
    examples = encode_pairs(pairs, lm.tokenizer, experiment.data, experiment.model, lm.decoder_start)
    values = {name: np.empty(len(examples)) for name in NAMES}
    others = [examples[other] for other in other_rows(len(examples), experiment.seed)]
    fill_losses(lm, examples, others, values, work.bench.runtime, advance)
    return values


GATE = Stage(name="gate", version=1, inputs=lambda _: [POOL, SEEDS, WARM_MODEL, MEASURED], run=_run,
             reads=("selection.gate", "model", "data.src_lang", "data.tgt_lang", "seed"))
LEARNED_ADEQUACY_GATE = Stage(name="gate", version=1, constants={"gate": "learned_adequacy"}, sources=encoder_digest,
                              inputs=lambda _: [POOL, SEEDS, WARM_MODEL, MEASURED, COMPARED],
                              run=lambda work: _write(work, _learned(work, compared=True)),
                              reads=("model", "data.src_lang", "data.tgt_lang", "seed", "adequacy.encoder"))
ADEQUACY_GATE = Stage(name="gate", version=1, constants={"gate": "adequacy"}, inputs=lambda _: [SEEDS, COMPARED],
                      run=_adequate, reads=("adequacy.encoder",), sources=encoder_digest)


def is_gated(chosen: SelectionConfig) -> bool:
    """Whether a gate stands before this selector."""
    return chosen.gate is not None and SELECTORS.load(chosen.method).gated


def gate_output(chosen: SelectionConfig) -> Output[Gated]:
    """The input that is the gate's scores."""
    stage = {"adequacy": ADEQUACY_GATE, "learned_adequacy": LEARNED_ADEQUACY_GATE}.get(chosen.gate or "", GATE)
    return Output(stage=stage, opens=load_gated)


def load_gated(folder: Path) -> Gated:
    """Of an entry."""
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("pool", "seeds", "looks")}
    return Gated(**arrays, kinds=tuple(json.loads((folder / "kinds.json").read_text(encoding="utf-8"))))
