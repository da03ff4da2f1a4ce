"""Hugging Face datasets, loaded and read as Arrow batches: they stream from a memory map."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mtselect.errors import DataError
from mtselect.readers._arrow import BATCH_ROWS, batch_records, top_columns
from mtselect.readers.base import Reader, SourceRecord, forms

if TYPE_CHECKING:
    from datasets import Dataset


def load_split(source: str, name: str, config: str | None, split: str, revision: str | None = None) -> Dataset:
    """A split. Raises DataError naming the source."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(f"Hugging Face datasets cannot load {source}, {type(error).__name__}: {error}; "
                        f"check name, configuration, split and network; {forms()}") from error


class DatasetReader(Reader):
    """What their readers have in common. A subclass has `open`."""

    @abstractmethod
    def open(self, source: str) -> Dataset:
        """The dataset of a source. Raises DataError."""

    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        dataset = self.open(source)
        names = top_columns(dataset.column_names, columns)
        chosen = dataset.select_columns(names) if names else dataset
        return batch_records(chosen.with_format("arrow").iter(batch_size=BATCH_ROWS))

    def count(self, source: str) -> int:
        return len(self.open(source))
