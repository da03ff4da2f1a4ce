"""folder: one that Hugging Face datasets can open: what `save_to_disk` wrote (of several splits, `train`), or files of rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mtselect.errors import DataError
from mtselect.readers._datasets import DatasetReader, load_split

if TYPE_CHECKING:
    from datasets import Dataset


class Folder(DatasetReader):
    """By `datasets`."""

    about = "a folder that Hugging Face datasets can open"

    def takes(self, source: str) -> bool:
        return Path(source).expanduser().is_dir()

    def open(self, source: str) -> Dataset:
        from datasets import load_from_disk

        path = self.path(source)
        if (path / "state.json").exists():
            return cast("Dataset", load_from_disk(str(path)))
        if not (path / "dataset_dict.json").exists():
            return load_split(str(path), str(path), None, "train")
        splits = cast("Mapping[str, Dataset]", load_from_disk(str(path)))
        if "train" not in splits:
            raise DataError(f"{path} must hold a split 'train', got {', '.join(splits)}: "
                            "give the folder of one split, such as " + str(path / next(iter(splits), "train")))
        return splits["train"]


READER = Folder
