"""What a reader is, what it gives, and how the one of a source is found."""

from __future__ import annotations

import gzip
import io
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple, Protocol, cast

from mtselect.data.fingerprint import path_digest
from mtselect.errors import DataError
from mtselect.plugins import Plugins, part_names

EXCERPT_CHARS = 80
ZIPPED = (".gz", ".zst")  # what a text file may have behind its suffix
NOT_UTF8 = "not UTF-8"
NOT_A_ROW = "column missing"  # what has no columns at all lacks those that are wanted, too


class SourceRecord(NamedTuple):
    """A row before its columns are looked up.

    Args:
        line: counts from 1: lines of a text file (header included), rows elsewhere.
        fields: column -> value; null where `reason` says why there are none.
        reason: why it cannot be used.
        excerpt: of what cannot be used, safe to print.
    """

    line: int
    fields: Mapping[str, object] | None
    reason: str | None = None
    excerpt: str = ""


class Reader(Protocol):
    """A form of sources. One that is no file and no folder has its own `fingerprint`."""

    @property
    @abstractmethod
    def about(self) -> str:
        """The sources that it takes, for messages: `.tsv`, `hub:NAME:SPLIT`."""

    @abstractmethod
    def takes(self, source: str) -> bool:
        """Whether a source is of this form; by its name, or what it is on disk."""

    @abstractmethod
    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        """Its rows in order, one at a time where the form allows it.

        Args:
            source: as the sweep file has it.
            columns: those that will be looked up (with dots for nested ones); others need not be read.

        Raises:
            DataError: it is missing, or cannot be read at all. OSError is said by the caller.
        """

    def path(self, source: str) -> Path:
        """Where a file or folder is. Raises DataError if it is missing."""
        return existing(source)

    def count(self, source: str) -> int | None:
        """About how many rows there are; null if that is only known when they are read."""
        return None

    def fingerprint(self, source: str) -> str:
        """A text that changes when the content does: SHA-256 of a file's bytes, or over the names and digests of a folder's."""
        return path_digest(self.path(source))

    def pinned(self, source: str) -> str:
        """The source with what its name stands for now; a path is itself."""
        return source


class FileReader(Reader):
    """What readers of a file known by its suffix have in common. A subclass has `suffixes` and `read`."""

    suffixes: tuple[str, ...] = ()
    zipped = True  # whether it may be compressed, with one of `ZIPPED` behind the suffix

    @property
    def about(self) -> str:
        """Its suffixes."""
        return " ".join(f"{suffix}[.gz|.zst]" if self.zipped else suffix for suffix in self.suffixes)

    def takes(self, source: str) -> bool:
        path = Path(source)
        zipped = self.zipped and path.suffix.lower() in ZIPPED
        return (Path(path.stem) if zipped else path).suffix.lower() in self.suffixes and not path.expanduser().is_dir()

    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        with open_file(self.path(source)) as stream:
            yield from self.read(stream)

    def read(self, stream: IO[bytes]) -> Iterator[SourceRecord]:
        """Rows of an open file, unless the subclass has its own `records`."""
        raise NotImplementedError


class TableReader(FileReader):
    """What readers have in common whose first line has the columns' names."""

    def count(self, source: str) -> int:
        """Lines below the first."""
        return max(0, count_lines(self.path(source)) - 1)


class _Zstandard(io.BufferedReader):
    """What a file holds that is compressed with zstd, by Arrow, which is there for Parquet; Python has its own from 3.14 on."""

    name = ""

    def __init__(self, path: Path) -> None:
        import pyarrow

        super().__init__(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))
        self.name = str(path)


def open_file(path: Path) -> IO[bytes]:
    """For reading; what ends in .gz or .zst as what it holds."""
    if path.suffix.lower() == ".zst":
        return _Zstandard(path)
    return cast(IO[bytes], gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb"))


def count_lines(path: Path) -> int:
    """Of a file."""
    count, last = 0, b"\n"
    with open_file(path) as stream:
        while block := stream.read(2**20):
            count, last = count + block.count(b"\n"), block
    return count + (not last.endswith(b"\n"))


def existing(source: str) -> Path:
    """The file or folder of a source. Raises DataError if it is neither."""
    path = Path(source).expanduser()
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{source} is neither a file nor a folder: {forms()}")
    if not path.exists():
        raise DataError(f"{source} does not exist (looked for {path.absolute()}): correct the path; {forms()}")
    return path


def printable(text: str) -> str:
    """With what cannot be encoded as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def excerpt(value: object) -> str:
    """The start of a value, safe to print."""
    return printable((value if isinstance(value, str) else repr(value))[:EXCERPT_CHARS])


READERS: Plugins[type[Reader]] = Plugins("mtselect.readers", "READER", "a reader")


def reader_of(source: str) -> Reader:
    """The reader that takes a source. Raises DataError if none does."""
    return _named(source)[1]


def _named(source: str) -> tuple[str, Reader]:
    if (found := _found(source)) is not None:
        return found
    path = existing(source)
    raise DataError(f"{path} has the unknown suffix {''.join(path.suffixes[-2:])!r}: rename or convert it; {forms()}")


def source_fingerprint(source: str) -> str:
    """A text that changes when the source's content does. Raises DataError if there is no such source."""
    name, reader = _named(source)
    return " ".join([reader.fingerprint(source), *READERS.origin(name)])


def pinned_source(source: str) -> str:
    """A hub source with the commit that its name stands for now; a file or folder as it is, whether it is there or not."""
    found = _found(source)
    return source if found is None else found[1].pinned(source)


def _found(source: str) -> tuple[str, Reader] | None:
    """Ours first; those of other packages are imported only where none of ours takes it."""
    return next(((name, reader) for name in part_names("mtselect.readers") if (reader := READERS.load(name)()).takes(source)),
                None)


def forms() -> str:
    """What there is to read, for messages."""
    return "a source is one of " + ", ".join(READERS.load(name)().about for name in part_names("mtselect.readers"))
