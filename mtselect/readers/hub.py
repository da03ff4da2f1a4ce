"""hub: a split of a dataset on the Hugging Face hub, `hub:NAME[@REVISION][:CONFIG]:SPLIT`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from mtselect.errors import DataError
from mtselect.hub import located, pin
from mtselect.readers._datasets import DatasetReader, load_split

if TYPE_CHECKING:
    from datasets import Dataset

_FORM = re.compile(r"hub:(?P<name>[^:\s@]+(@[^:\s]+)?)(:(?P<config>[^:\[\s]+))?:(?P<split>[^:\[\s]+(\[.*)?)")


class HubSplit(NamedTuple):
    """What a source names, as `datasets.load_dataset` takes it; the name may be a folder's."""

    name: str
    config: str | None
    split: str
    revision: str | None


class Hub(DatasetReader):
    """By `datasets`."""

    about = "hub:NAME[@REVISION][:CONFIG]:SPLIT"

    def takes(self, source: str) -> bool:
        return source.startswith("hub:")

    def open(self, source: str) -> Dataset:
        return load_split(source, *hub_split(source))

    def fingerprint(self, source: str) -> str:
        """The name itself, which `pinned` pins to a commit."""
        return source

    def pinned(self, source: str) -> str:
        """With the commit that its name stands for now."""
        start, end = _parts(source).span("name")
        return source[:start] + pin(source[start:end], "dataset") + source[end:]


def hub_split(source: str) -> HubSplit:
    """Of a source of this form. Raises DataError if it is of another."""
    match = _parts(source)
    name, revision = located(match["name"])
    return HubSplit(name, match["config"], match["split"], revision)


def _parts(source: str) -> re.Match[str]:
    match = _FORM.fullmatch(source)
    if not match:
        raise DataError(f"a hub source must be hub:NAME[@REVISION][:CONFIG]:SPLIT, got {source!r}: "
                        "write for example hub:wmt/wmt14:de-en:train")
    return match


READER = Hub
