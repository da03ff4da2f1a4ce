"""Where the datasets that we log to MLflow come from, for whoever has a run and MLflow alone:

    run = mlflow.get_run(RUN)
    mlflow.data.get_source(run.inputs.dataset_inputs[0]).load()       # a datasets.Dataset, or the path of a file
    mlflow.data.load_mtselect("crawl-de-en@champion")                 # for mlflow.log_input in a run of one's own

MLflow finds both by the entry points in pyproject.toml, in every process that imports it: nothing heavy is loaded before it is
asked for. Files and datasets of the Hugging Face hub have MLflow's own kinds of sources.
"""

# No `from __future__ import annotations`: MLflow wants the class that a constructor's annotation names, not its name.
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource

from mtselect.errors import DataError
from mtselect.hub import is_local
from mtselect.store import hash_ids
from mtselect.tracking.fetch import ADDRESS, fetch_selected, set_address

if TYPE_CHECKING:
    import datasets

    from mtselect.config import DataConfig


class _KeptSource(DatasetSource):
    """A source that MLflow keeps as its attributes."""

    def to_dict(self) -> dict[str, Any]:
        """As MLflow keeps it."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, source_dict: Mapping[str, Any]) -> Self:
        """As MLflow kept it."""
        return cls(**source_dict)


class SelectedSetSource(_KeptSource):
    """A selected set: a run's, or a version of a promoted dataset.

    Args:
        uri: `runs:/RUN/selected.jsonl`, `models:/mtselect.STUDY@ALIAS` or `models:/mtselect.STUDY/NUMBER`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def load(self, tracking_uri: str | None = None) -> "datasets.Dataset":
        """Its rows, in the pool's order: `id`, `src`, `tgt` and the selector's columns.

        Args:
            tracking_uri: of the server; null takes MLflow's own.

        Raises:
            DataError: there is no such set.
            StorageError: MLflow does not answer.
        """
        return fetch_selected(self.uri, tracking_uri)

    @staticmethod
    def _get_source_type() -> str:
        return "mtselect"

    @staticmethod
    def _can_resolve(raw_source: object) -> bool:
        return isinstance(raw_source, str) and ADDRESS.fullmatch(raw_source) is not None

    @classmethod
    def _resolve(cls, raw_source: str) -> Self:
        return cls(raw_source)


class PairsSource(_KeptSource):
    """A source of a sweep file that is neither one file or folder nor on the Hugging Face hub: two files of a sentence a line
    (`crawl.de-en`), `quickstart:pool`, or another package's form.

    Args:
        source: as the sweep file has it, with an absolute path.
        src_column: of the source sentence.
        tgt_column: of the target sentence.
        max_chars: that a side may have.
    """

    def __init__(self, source: str, src_column: str, tgt_column: str, max_chars: int) -> None:
        self.source, self.src_column, self.tgt_column, self.max_chars = source, src_column, tgt_column, max_chars

    def load(self) -> "datasets.Dataset":
        """Its usable rows, `src` and `tgt`, before duplicates and leaks are dropped. Raises DataError."""
        from datasets import Dataset

        from mtselect.config import DataConfig
        from mtselect.data.rows import read_rows

        data = DataConfig(pool=self.source, seeds="", dev=None, test=None, src_column=self.src_column,
                          tgt_column=self.tgt_column, max_chars=self.max_chars)
        return Dataset.from_list([{"src": row.src, "tgt": row.tgt} for row in read_rows(data, "pool") if row.reason is None])

    @staticmethod
    def _get_source_type() -> str:
        return "mtselect_pairs"

    @staticmethod
    def _can_resolve(raw_source: object) -> bool:
        return False  # names of other things look like these

    @classmethod
    def _resolve(cls, raw_source: str) -> Self:
        raise NotImplementedError


def source_of(data: "DataConfig", source: str) -> DatasetSource:
    """Where one of the sources of a sweep file comes from, as MLflow has it.

    Args:
        data: its columns count.
        source: of its four.

    Returns:
        MLflow's own kind for a split on the hub (loads a `datasets.Dataset`) and for a file or folder (loads its path).
    """
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json
    from mlflow.data.huggingface_dataset_source import HuggingFaceDatasetSource

    if source.startswith("hub:"):
        from mtselect.readers.hub import hub_split

        there = hub_split(source)
        return HuggingFaceDatasetSource(there.name, there.config, split=there.split, revision=there.revision)
    path = Path(source).expanduser().absolute()
    if is_local(str(path)):
        return get_dataset_source_from_json(json.dumps({"uri": str(path)}), "local")
    return PairsSource(_absolute(source, str(path)), data.src_column, data.tgt_column, data.max_chars)


def _absolute(source: str, path: str) -> str:
    """The source with an absolute path, if it has a path: then the same reader takes that, too."""
    from mtselect.readers.base import reader_of

    with contextlib.suppress(DataError):
        if type(reader_of(path)) is type(reader_of(source)):
            return path
    return source


def load_mtselect(address: str, name: str = "selected", digest: str | None = None) -> Dataset:
    """A selected set as `mlflow.log_input` takes it; as `mlflow.data.load_mtselect` it is among MLflow's constructors.

    Args:
        address: as for `mtselect.load_set`: `crawl-de-en@champion`, `crawl-de-en/3`, `runs:/RUN/selected.jsonl`.
        name: of the dataset; that of our own runs.
        digest: of the dataset; null: the hash of its ids, as our own runs have it, so that MLflow takes both for one.

    Returns:
        MLflow's HuggingFaceDataset, whose `ds` is the `datasets.Dataset`.

    Raises:
        ConfigError, DataError: there can be, or is, no such set.
        StorageError: MLflow does not answer.
    """
    from mlflow.data.huggingface_dataset import HuggingFaceDataset

    source = SelectedSetSource(set_address(address))
    pairs = source.load()
    return HuggingFaceDataset(pairs, source, name=name, digest=digest or hash_ids(pairs["id"]))  # type: ignore[arg-type]
