"""What files and folders hold, as a hash: the content that stage keys stand for."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from mtselect.hub import is_local


def path_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or over the names and digests of a folder's files."""
    if not path.is_dir():
        return file_digest(path)
    files = sorted(file for file in path.glob("**/*") if file.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {file_digest(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read once for each version of the file: every stage asks."""
    stat = path.stat()
    return _digest_of(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@cache
def _digest_of(path: Path, *version: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def local_digest(name: str) -> str | None:
    """Of what a file or folder holds; null for a name on the hub, which says by itself what it stands for."""
    return path_digest(Path(name)) if is_local(name) else None
