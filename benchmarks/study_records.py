"""What `study.py` measured, in MLflow and as files.

Each (cell, system) is a run of the MLflow experiment `study`. The files, one a cell, are what is kept of them where MLflow's
store is not: they are read back into it.
"""

from __future__ import annotations

import io
import json
import lzma
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

EXPERIMENT = "study"
_ENDING = ".npz.xz"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One system in one cell.

    Args:
        cell: its name.
        system: its name.
        key: hash of what the plan says of both.
        facts: numbers and texts about it.
        statistics: `split/metric/seed` -> of each sentence, [n, S].
    """

    cell: str
    system: str
    key: str
    facts: Mapping[str, Any]
    statistics: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


class Records:
    """In MLflow.

    Args:
        uri: of the tracking server; null is MLflow's own default.
    """

    def __init__(self, uri: str | None) -> None:
        self._client = MlflowClient(uri)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        self._experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)

    def _runs(self, query: str = "") -> list[Run]:
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], f"attributes.status = 'FINISHED' {query}", page_token=token)
            found += page
            if not (token := page.token):
                return found

    def has(self, cell: str, system: str, key: str) -> bool:
        """Whether there is one, of this plan."""
        return any(run.data.tags["study.key"] == key and run.data.tags["study.cell"] == cell
                   and run.data.tags["study.system"] == system for run in self._runs(f"and tags.`study.key` = '{key}'"))

    def add(self, one: Record) -> None:
        """Another run; an older one of the same cell and system goes."""
        for old in self._runs(f"and tags.`study.cell` = '{one.cell}' and tags.`study.system` = '{one.system}'"):
            self._client.delete_run(old.info.run_id)
        tags = {"study.cell": one.cell, "study.system": one.system, "study.key": one.key}
        run_id = self._client.create_run(self._experiment, tags=tags, run_name=f"{one.cell}: {one.system}").info.run_id
        for name, value in one.facts.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                split, _, rest = name.partition("/")
                metric, _, number = rest.partition("/")
                self._client.log_metric(run_id, f"{split}/{metric}" if number else name, value, step=int(number or 0))
        for name, value in one.facts["selection"].items():
            self._client.log_param(run_id, f"selection.{name}", value)
        self._client.log_dict(run_id, dict(one.facts), "facts.json")
        with tempfile.TemporaryDirectory() as folder:
            np.savez_compressed(Path(folder) / "statistics.npz", allow_pickle=False, **one.statistics)
            self._client.log_artifact(run_id, f"{folder}/statistics.npz")
        self._client.set_terminated(run_id, "FINISHED")

    def all(self) -> Iterator[Record]:
        """Every record."""
        for run in self._runs():
            folder = Path(self._client.download_artifacts(run.info.run_id, ""))
            with np.load(folder / "statistics.npz") as statistics:
                yield Record(cell=run.data.tags["study.cell"], system=run.data.tags["study.system"],
                             key=run.data.tags["study.key"], statistics=dict(statistics),
                             facts=json.loads((folder / "facts.json").read_text(encoding="utf-8")))


def save(records: list[Record], folder: Path, metric: str) -> None:
    """A file a cell, with the statistics of one metric; counts of sentences are small whole numbers, and are kept as such.

    xz finds what systems have in common, the references' counts; zip, as numpy compresses, does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for cell in sorted({one.cell for one in records}):
        here = sorted((one for one in records if one.cell == cell), key=lambda one: one.system)
        arrays = {f"{one.system}/{name}": _compact(values) for one in here for name, values in one.statistics.items()
                  if name.split("/")[1] == metric}
        facts = json.dumps([{"cell": cell, "system": one.system, "key": one.key, "facts": dict(one.facts)} for one in here])
        name = cell.replace(" ", "-").replace("%", "")
        with lzma.open(folder / f"{name}{_ENDING}", "wb") as file:
            np.savez(file, allow_pickle=False, facts=np.frombuffer(facts.encode(), np.uint8), **arrays)


def load(folder: Path) -> Iterator[Record]:
    """Of all files of a folder."""
    for path in sorted(folder.glob(f"*{_ENDING}")):
        with lzma.open(path, "rb") as file, np.load(io.BytesIO(file.read())) as arrays:
            for one in json.loads(arrays["facts"].tobytes()):
                prefix = f"{one['system']}/"
                yield Record(**one, statistics={name.removeprefix(prefix): arrays[name] for name in arrays.files
                                                if name.startswith(prefix)})


def _compact(values: NDArray[np.generic]) -> NDArray[np.generic]:
    small = values.astype(np.uint16)
    return small if np.array_equal(small, values) else values
