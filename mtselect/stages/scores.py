"""scores: every candidate with what is known of it, scores.arrow: id, src, tgt, and a column each of `COLUMNS`; for people.

An Arrow stream, which `datasets.Dataset.from_file` opens without reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtselect.config import Experiment
from mtselect.errors import ConfigError
from mtselect.selectors.base import Need
from mtselect.stages.candidates import READS, candidate_rows
from mtselect.stages.corpus import POOL
from mtselect.stages.gate import gate_output, load_gated
from mtselect.stages.lineage import Input, Stage, Work
from mtselect.stages.signals import SIGNALS
from mtselect.stages.tokens import POOL_TOKENS

if TYPE_CHECKING:
    from datasets import Dataset

Values = NDArray[np.generic]

# What each signal leaves, by the names that the columns have in `selected.jsonl`, too.
COLUMNS: Mapping[Need, Mapping[str, Callable[[Any], Values]]] = {
    "benefits": {"z": lambda found: found.z, "benefit": lambda found: found.mean, "benefit_share": lambda found: found.share,
                 "raw_share": lambda found: found.raw_share, "gradient_norm": lambda found: found.norm},
    "losses": {"loss": lambda found: found},
    "pmi": {"pmi": lambda found: found},
    "drops": {"loss_drop": lambda found: found},
    "tokens": {"tokens": lambda found: found},
    "adequacy": {"cosine": lambda found: found.cosine, "overlap": lambda found: found.overlap},
    "kiwi": {"kiwi": lambda found: found},
}
_BATCH = 4096  # rows


def _run(work: Work, signals: Sequence[Need]) -> None:
    experiment, pool = work.experiment, work.read(POOL)
    rows = candidate_rows(experiment, work.read(POOL_TOKENS))
    columns = {name: read(found) for signal in signals for found in [SIGNALS[signal].read(work)]
               for name, read in COLUMNS[signal].items()}
    chosen = experiment.selection
    if chosen.gate is not None:
        gated = load_gated(work.read(gate_output(chosen)))
        columns |= {"gate": gated.pool, "passed": gated.lets_through(chosen.gate_keeps)}
    texts = [(name, pa.large_string()) for name in ("id", "src", "tgt")]
    schema = pa.schema([*texts, *((name, pa.from_numpy_dtype(values.dtype)) for name, values in columns.items())])
    with pa.OSFile(str(work.out / "scores.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for begin in range(0, len(rows), _BATCH):
            here = slice(begin, begin + _BATCH)
            pairs = pool.take(rows[here])[:]
            sides = [[getattr(pair, name) for pair in pairs] for name, _ in texts]
            arrays = [*sides, *(np.ascontiguousarray(values[here]) for values in columns.values())]
            stream.write_batch(pa.record_batch([pa.array(one, kind) for one, kind in zip(arrays, schema.types, strict=True)],
                                               schema=schema))


def _inputs(experiment: Experiment, signals: Sequence[Need]) -> Sequence[Input[object]]:
    gate = [gate_output(experiment.selection)] if experiment.selection.gate is not None else []
    return list(dict.fromkeys([POOL, POOL_TOKENS, *(given for signal in signals for given in SIGNALS[signal].inputs), *gate]))


def scores_stage(signals: Sequence[str]) -> Stage:
    """The stage of some signals. Raises ConfigError for one that `COLUMNS` does not know."""
    for name in signals:
        if name not in COLUMNS:
            raise ConfigError(f"signals must be of {', '.join(COLUMNS)}, got {name!r}: correct it")
    return _stage(tuple(name for name in COLUMNS if name in signals))


@cache
def _stage(signals: tuple[Need, ...]) -> Stage:
    return Stage(name="scores", version=1, constants={"signals": " ".join(signals)}, run=lambda work: _run(work, signals),
                 inputs=lambda experiment: _inputs(experiment, signals),
                 reads=("selection.gate", "selection.gate_keeps", *READS))


def open_scores(folder: Path) -> Dataset:
    """Of an entry, memory-mapped."""
    from datasets import Dataset

    return Dataset.from_file(str(folder / "scores.arrow"))
