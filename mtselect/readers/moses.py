"""moses: two files with a sentence a line, of which line n of one translates line n of the other.

`crawl.de-en` stands for `crawl.de` and `crawl.en`, or OPUS's `crawl.de-en.de` and `crawl.de-en.en`; the first language is the
source. `crawl.{de,en}` names the endings whatever they are. Columns: `src` and `tgt`, and the same under the endings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import IO

from mtselect.data.fingerprint import file_digest
from mtselect.errors import DataError
from mtselect.readers._lines import TOO_LONG, lines
from mtselect.readers.base import ZIPPED, Reader, SourceRecord, count_lines, existing, forms, open_file

LANGUAGE = r"[A-Za-z]{2,3}(?:_[A-Za-z0-9]+)*"  # de, deu_Latn, pt_BR
# What both names begin with, the two endings that tell them apart, and what both end with.
_DASHED = re.compile(rf"(.+\.)({LANGUAGE})-({LANGUAGE})()")
_BRACED = re.compile(r"(.+)\{([^{},]+),([^{},]+)\}([^{},]*)")


class Moses(Reader):
    """Streams."""

    about = "BASE.SRC-TGT or BASE.{SRC,TGT} (files BASE.SRC and BASE.TGT, each [.gz|.zst])"

    def takes(self, source: str) -> bool:
        """By the name, where no folder has it."""
        return side_names(source) is not None and not Path(source).expanduser().exists()

    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        src, tgt, languages = _sides(source)
        with open_file(src) as one, open_file(tgt) as other:
            yield from side_by_side(one, other, languages, f"{src} and {tgt}")

    def count(self, source: str) -> int:
        """Lines of either. Raises DataError if one has more."""
        src, tgt, _ = _sides(source)
        one, other = count_lines(src), count_lines(tgt)
        if one != other:
            raise _unequal(f"{src} and {tgt}", f"{one:,} and {other:,} lines")
        return one

    def fingerprint(self, source: str) -> str:
        """SHA-256 over both files' digests."""
        src, tgt, _ = _sides(source)
        return hashlib.sha256(f"{file_digest(src)} {file_digest(tgt)}".encode()).hexdigest()


def side_names(source: str) -> tuple[str, str] | None:
    """The two files that a source stands for, by its name alone; null where it stands for no two."""
    match = _match(source)
    return None if match is None else (f"{match[1]}{match[2]}{match[4]}", f"{match[1]}{match[3]}{match[4]}")


def _sides(source: str) -> tuple[Path, Path, tuple[str, str]]:
    """Both files, and the endings that tell them apart. Raises DataError naming those that were looked for."""
    match = _match(source)
    assert match, source
    begin, src, tgt, end = match.groups()
    if match.re is _BRACED:
        return existing(f"{begin}{src}{end}"), existing(f"{begin}{tgt}{end}"), (src, tgt)
    begins = [begin, f"{begin}{src}-{tgt}.", f"{begin}{tgt}-{src}."]
    for one in begins:
        found = [_file(f"{one}{language}") for language in (src, tgt)]
        if found[0] and found[1]:
            return found[0], found[1], (src, tgt)
    looked = ", ".join(f"{one}{language}" for one in begins for language in (src, tgt))
    raise DataError(f"{source} stands for two files, and no two of {looked} (each perhaps .gz or .zst) are in "
                    f"{Path(source).expanduser().absolute().parent}: correct the path; {forms()}")


def _match(source: str) -> re.Match[str] | None:
    return _BRACED.fullmatch(source) or _DASHED.fullmatch(source)


def side_by_side(src: IO[bytes], tgt: IO[bytes], languages: tuple[str, str], names: str) -> Iterator[SourceRecord]:
    """Line n of both, as row n. Raises DataError, at its end, if one file is longer: then nobody knows which lines belong
    together."""
    for one, other in zip_longest(lines(src), lines(tgt)):
        if one is None or other is None:
            raise _unequal(names, f"only {'the second' if one is None else 'the first'} has a line {(one or other)[0]:,}")
        number, texts = one[0], (one[1], other[1])
        if None in texts:
            yield SourceRecord(number, None, TOO_LONG, "(line not read)")
        else:
            yield SourceRecord(number, dict(zip(("src", "tgt", *languages), texts * 2, strict=True)))


def _file(path: str) -> Path | None:
    return next((file for end in ("", *ZIPPED) if (file := Path(f"{path}{end}").expanduser()).is_file()), None)


def _unequal(names: str, found: str) -> DataError:
    return DataError(f"{names} must have as many lines as each other, got {found}: line n of one is the translation of line n "
                     "of the other, so take both from one export again")


READER = Moses
