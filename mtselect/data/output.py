"""Rows of pairs written in a form that other tools read, by the ending of the name.

    .jsonl[.gz|.zst]   one JSON object a line; also what has no ending that is known
    .parquet           with types
    .tsv[.gz|.zst]     a header line, nothing quoted: no side holds a tab
    .de-en  .{de,en}   Moses: two files of a sentence a line, without scores
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtselect.errors import ConfigError
from mtselect.readers.moses import side_names
from mtselect.store import jsonl, write_whole

Rows = Sequence[Mapping[str, object]]

_WRITTEN = re.compile(r".*\.(?:jsonl(?:\.gz|\.zst)?|(?P<tsv>tsv)(?:\.gz|\.zst)?|(?P<parquet>parquet))", re.IGNORECASE)
_READ_ONLY = re.compile(r".*\.(csv|json|tmx|zip)(\.gz|\.zst)?", re.IGNORECASE)


def is_output_file(path: Path) -> bool:
    """Whether a name has one of the endings."""
    return bool(_WRITTEN.fullmatch(path.name) or side_names(str(path)))


def check_output(option: str, path: Path) -> None:
    """Raise ConfigError where the file of an option cannot be written, or has the ending of a form that is only read."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"{option} {str(path)!r} cannot be written: name a file in a folder that exists and may be written "
                          "to")
    if _READ_ONLY.fullmatch(path.name):
        raise ConfigError(f"{option} {str(path)!r} has the ending of a form that is only read: end it in .jsonl or .tsv (each "
                          "perhaps .gz or .zst), .parquet, or for Moses in both languages, such as .de-en")


def write_rows(path: Path, rows: Rows) -> None:
    """Write rows with `src` and `tgt`, whose other columns are the same in each; each file appears whole or not at all."""
    ending = _WRITTEN.fullmatch(path.name)
    if sides := side_names(str(path)):
        for name, column in zip(sides, ("src", "tgt"), strict=True):
            _write(Path(name), "".join(f"{row[column]}\n" for row in rows))
    elif ending and ending["parquet"]:
        import pyarrow
        from pyarrow import parquet

        write_whole(path, lambda part: parquet.write_table(pyarrow.Table.from_pylist(list(rows)), part))
    else:
        _write(path, _tsv(rows) if ending and ending["tsv"] else jsonl(rows))


def _tsv(rows: Rows) -> str:
    header = list(rows[0]) if rows else ["id", "src", "tgt"]
    return "".join("\t".join(map(str, cells)) + "\n" for cells in (header, *(row.values() for row in rows)))


def _write(path: Path, text: str) -> None:
    data = text.encode()
    match path.suffix.lower():
        case ".gz":
            data = gzip.compress(data, mtime=0)
        case ".zst":
            import pyarrow

            data = pyarrow.compress(data, codec="zstd", asbytes=True)
    write_whole(path, lambda part: part.write_bytes(data))
