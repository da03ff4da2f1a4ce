"""Content-addressed outputs of the stages.

    <root>/<stage>/<key>/               a finished output, never written again
    <root>/<stage>/<key>/manifest.json  stage, version, section, upstream keys, seconds of its own; written last
    <root>/<stage>/<key>.part-*         work in progress; renamed when finished, else left behind and swept

`key` = hash of {stage, its version, its section, upstream keys, content hashes of input files}: the same
work has the same key, so it is done once, and an entry that exists is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mtselect.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A finished stage output: its key, its folder, and whether this call computed it."""

    key: str
    path: Path
    computed: bool

    @property
    def seconds(self) -> float:
        """It took to compute, without the stages it asked for meanwhile."""
        return float(json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))["seconds"])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides a stage's output.

    Args:
        stage: its name, also the folder's.
        version: raised whenever the same section would give another output.
        section: dataclass or JSON value.
        upstream: keys of the entries it reads, and content hashes of its input files.
    """

    stage: str
    version: int
    section: object
    upstream: Sequence[str]

    def content(self) -> dict[str, object]:
        """As JSON value."""
        return dataclasses.asdict(self)

    @property
    def key(self) -> str:
        """Hash of the content."""
        return hash_json(self.content())


class Store:
    """Stage outputs under one folder, shared by any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inner = [0.0]  # of each stage that is being computed: seconds of the stages it asked for meanwhile

    def fetch(self, recipe: Recipe, compute: Callable[[Path], None]) -> Entry:
        """Return the entry of a recipe, computing it first if it is missing.

        Args:
            recipe: what decides the output.
            compute: writes the output into the empty folder it is given.

        Raises:
            StorageError: the folder cannot be written (no space, no permission).
        """
        return self._entry(recipe, lambda path: self._compute(path, recipe, compute), alone=True)

    def share(self, recipe: Recipe, write: Callable[[Path], None], *, alone: bool = True) -> Entry:
        """Like `fetch`, for an entry that is written piece by piece: a killed process's successor goes on with it.

        Args:
            recipe: what decides the output.
            write: writes what is missing into the entry's own folder, its manifest.json last.
            alone: false for a part of it: the others are written by other processes meanwhile, and one that asks for them all
                is `alone`.
        """
        def fill(path: Path) -> None:
            path.mkdir(parents=True, exist_ok=True)
            write(path)

        return self._entry(recipe, fill, alone=alone)

    @contextlib.contextmanager
    def alone(self, recipe: Recipe) -> Iterator[None]:
        """Wait until no other process writes an entry, and keep others from it while the block runs."""
        from filelock import FileLock

        path = self.where(recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            yield

    def _entry(self, recipe: Recipe, fill: Callable[[Path], None], *, alone: bool) -> Entry:
        if found := self.find(recipe):
            return found
        path = self.where(recipe)
        with self._disk(recipe.stage), self.alone(recipe) if alone else contextlib.nullcontext():
            if found := self.find(recipe):
                return found
            fill(path)
        return Entry(key=recipe.key, path=path, computed=True)

    def find(self, recipe: Recipe) -> Entry | None:
        """The entry of a recipe, if it is there."""
        path = self.where(recipe)
        return Entry(key=recipe.key, path=path, computed=False) if (path / "manifest.json").is_file() else None

    def where(self, recipe: Recipe) -> Path:
        """The folder of a recipe's entry, whether it is there or not."""
        return self.root / recipe.stage / recipe.key

    def discard(self, recipe: Recipe) -> None:
        """Remove a recipe's entry, if there is one; the next fetch computes it again."""
        self.remove(self.where(recipe))

    def remove(self, path: Path) -> bool:
        """Remove an entry by its path, and say whether it is gone."""
        with contextlib.suppress(OSError):  # renamed first: a half-removed entry must not be taken for a whole one
            shutil.rmtree(path.rename(aside(path)))
        return not path.exists()

    def entries(self) -> list[Path]:
        """The paths of all finished entries."""
        return [path.parent for path in sorted(self.root.glob("*/*/manifest.json")) if ".part-" not in path.parent.name]

    @contextlib.contextmanager
    def _disk(self, stage: str) -> Iterator[None]:
        """Says what to do when the disk fails."""
        try:
            yield
        except Exception as error:
            full = isinstance(error, OSError) or "No space left" in str(error)  # safetensors has its own class
            if isinstance(error, StorageError) or not full:  # the first: of a stage that this one asked for
                raise
            raise StorageError(f"stage {stage!r} cannot be stored under {self.root}: {error}: "
                               "free space or set runtime.workdir to another disk, then run the same command") from error

    def _compute(self, path: Path, recipe: Recipe, compute: Callable[[Path], None]) -> None:
        for left in path.parent.glob(f"{path.name}.part-*"):  # of a killed process: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        part = aside(path)
        part.mkdir()
        start = time.time()
        try:
            seconds = self._own_seconds(partial(compute, part))
            manifest = {**recipe.content(), "started": start, "seconds": round(seconds, 3)}
            (part / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _own_seconds(self, call: Callable[[], None]) -> float:
        """A call's seconds, without those of the stages computed in it, so that each counts once."""
        start = time.monotonic()
        self._inner.append(0.0)
        try:
            call()
        finally:
            spent, inner = time.monotonic() - start, self._inner.pop()
            self._inner[-1] += spent
        return spent - inner


class NotStored(Exception):  # noqa: N818  (an answer, not a fault)
    """The store has no such entry."""


class LookingStore(Store):
    """A store that computes nothing.

    Raises:
        NotStored: from `fetch` and `share`, where the entry is not there.
    """

    def _entry(self, recipe: Recipe, fill: Callable[[Path], None], *, alone: bool) -> Entry:
        if found := self.find(recipe):
            return found
        raise NotStored(recipe.stage)


def aside(path: Path) -> Path:
    """Where this process writes a folder that is renamed when it is whole."""
    return Path(f"{path}.part-{_writer()}")


def _writer() -> str:
    """Names this process among all that share a folder."""
    return f"{socket.gethostname()}-{os.getpid()}"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file aside and rename it: it is whole whenever it exists, also if processes of several hosts write it at once. A
    link keeps its place; a device or a pipe is written to."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        write(path)
        return
    part = path.with_name(f"{_writer()}.{path.name}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """The same of a text, in UTF-8."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def jsonl(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write JSON lines, one after the other: a pool's would not fit as one text."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(jsonl([row]) for row in rows)


def read_lines(path: Path) -> list[dict[str, object]]:
    """The rows of JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def hash_json(value: object) -> str:
    """SHA-256 of the canonical JSON form, first 20 hex digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def hash_ids(ids: Iterable[str]) -> str:
    """Hash of a set of ids, in whatever order."""
    return hash_json(sorted(ids))


def derive_seed(seed: int, name: str) -> int:
    """A seed for one purpose, from the experiment's seed and the purpose's name; 32 bits."""
    return int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:8], 16)
