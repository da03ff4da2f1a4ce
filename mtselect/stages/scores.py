"""scores: every candidate with what is known of it, scores.arrow: id, src, tgt, a column each of `COLUMNS`, and the verdict of
the experiment's own selector; for people.

An Arrow stream, which `datasets.Dataset.from_file` opens without reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtselect.config import Experiment
from mtselect.errors import ConfigError
from mtselect.selectors.base import Need
from mtselect.stages.candidates import READS, candidate_pairs
from mtselect.stages.corpus import POOL
from mtselect.stages.gate import gate_output
from mtselect.stages.lineage import Input, Stage, Work
from mtselect.stages.signals import SIGNALS
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.verdicts import verdicts_output

if TYPE_CHECKING:
    from datasets import Dataset

Values = NDArray[np.generic]
Signal = Need | Literal["set"]
SET: Literal["set"] = "set"  # the columns of `stages/verdicts.py`

# What each signal leaves, by the names that the columns have in `selected.jsonl`, too.
COLUMNS: Mapping[Need, Mapping[str, Callable[[Any], Values]]] = {
    "benefits": {"z": lambda found: found.z, "benefit": lambda found: found.mean, "benefit_share": lambda found: found.share,
                 "raw_share": lambda found: found.raw_share, "gradient_norm": lambda found: found.norm},
    "losses": {"loss": lambda found: found},
    "pmi": {"pmi": lambda found: found},
    "drops": {"loss_drop": lambda found: found},
    "seeded_losses": {"seeded_loss": lambda found: found},
    "tokens": {"tokens": lambda found: found},
    "adequacy": {"cosine": lambda found: found.cosine, "overlap": lambda found: found.overlap},
    "kiwi": {"kiwi": lambda found: found},
}
_BATCH = 4096  # rows


def _run(work: Work, signals: Sequence[Need], verdicts: bool) -> None:
    experiment, candidates = work.experiment, candidate_pairs(work)
    columns = {name: read(found) for signal in signals for found in [SIGNALS[signal].read(work)]
               for name, read in COLUMNS[signal].items()}
    chosen = experiment.selection
    if chosen.gate is not None:
        gated = work.read(gate_output(chosen))
        columns |= {"gate": gated.pool, "passed": gated.lets_through(chosen.gate_keeps)}
    texts = [(name, pa.large_string()) for name in ("id", "src", "tgt")]
    judged = work.read(verdicts_output(experiment)) if verdicts else pa.table({})
    schema = pa.schema([*texts, *((name, pa.from_numpy_dtype(values.dtype)) for name, values in columns.items()),
                        *judged.schema])
    with pa.OSFile(str(work.out / "scores.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for begin in range(0, len(candidates), _BATCH):
            here = slice(begin, begin + _BATCH)
            pairs = candidates[here]
            sides = [[getattr(pair, name) for pair in pairs] for name, _ in texts]
            values = [np.ascontiguousarray(column[here]) for column in columns.values()]
            table = pa.table([*sides, *values, *judged.slice(begin, _BATCH).columns], schema=schema)
            stream.write_table(table.combine_chunks())


def _inputs(experiment: Experiment, signals: Sequence[Need], verdicts: bool) -> Sequence[Input[object]]:
    gate = [gate_output(experiment.selection)] if experiment.selection.gate is not None else []
    own = [verdicts_output(experiment)] if verdicts else []
    given = [one for signal in signals for one in SIGNALS[signal].inputs]
    return list(dict.fromkeys([POOL, POOL_TOKENS, *given, *gate, *own]))


def scores_stage(signals: Sequence[str]) -> Stage:
    """The stage of some signals. Raises ConfigError for one that is neither in `COLUMNS` nor `set`."""
    for name in signals:
        if name not in (*COLUMNS, SET):
            raise ConfigError(f"signals must be of {', '.join((*COLUMNS, SET))}, got {name!r}: correct it")
    return _stage(tuple(name for name in COLUMNS if name in signals), SET in signals)


@cache
def _stage(signals: tuple[Need, ...], verdicts: bool) -> Stage:
    reads = ("selection",) if verdicts else ("selection.gate", "selection.gate_keeps")
    return Stage(name="scores", version=1, constants={"signals": " ".join((*signals, *([SET] if verdicts else [])))},
                 run=lambda work: _run(work, signals, verdicts),
                 inputs=lambda experiment: _inputs(experiment, signals, verdicts),
                 reads=(*reads, *READS))


def open_scores(folder: Path) -> Dataset:
    """Of an entry, memory-mapped."""
    from datasets import Dataset

    return Dataset.from_file(str(folder / "scores.arrow"))
