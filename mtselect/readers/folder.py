"""folder: one that Hugging Face datasets can open: what `save_to_disk` wrote (of several splits, `train`), or files of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mtselect.errors import DataError
from mtselect.readers._datasets import dataset_records, load_split
from mtselect.readers.base import OnePath, SourceRecord

if TYPE_CHECKING:
    from datasets import Dataset


class Folder(OnePath):
    """By `datasets`."""

    about = "a folder that Hugging Face datasets can open"

    def takes(self, source: str) -> bool:
        """What is one."""
        return Path(source).expanduser().is_dir()

    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        """Of its dataset."""
        return dataset_records(_open(self.path(source)), columns)

    def count(self, source: str) -> int:
        """Of its dataset."""
        return len(_open(self.path(source)))


def _open(path: Path) -> Dataset:
    from datasets import load_from_disk

    if (path / "state.json").exists():
        return cast("Dataset", load_from_disk(str(path)))
    if not (path / "dataset_dict.json").exists():
        return load_split(str(path), str(path), None, split="train")
    splits = cast("Mapping[str, Dataset]", load_from_disk(str(path)))
    if "train" not in splits:
        raise DataError(f"{path} must hold a split 'train', got {', '.join(splits)}: "
                        "give the folder of one split, such as " + str(path / next(iter(splits), "train")))
    return splits["train"]


READER = Folder
