"""tmx: translation memories (TMX 1.4), one unit a row.

`memory.tmx` is read from the language its header names as the source (`srclang`) into the other one; `memory.tmx:en-de` says
which, and must where there are more than two. `de` also takes `de-AT`. Of markup within a segment the text stays, the codes
of other formats go. Columns: `src` and `tgt`, and the same under the two languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect.errors import DataError
from mtselect.readers._directed import DirectedFile
from mtselect.readers.base import SourceRecord, open_file

if TYPE_CHECKING:
    from lxml.etree import _Element

_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_CODES = ("bpt", "ept", "it", "ph", "ut")  # elements that hold another format's codes, and no text


class Tmx(DirectedFile):
    """Streams, by lxml, which knows the line of every element."""

    about = ".tmx[.gz|.zst][:SRC-TGT]"
    suffix = r"\.tmx(?:\.gz|\.zst)?"

    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        """Unit by unit; the line is the one that the unit begins in."""
        from lxml import etree

        path, (_, languages), header = self.path(source), self.parts(source), ""
        with open_file(path) as stream:
            try:
                for _, element in etree.iterparse(stream, tag=("header", "tu"), resolve_entities=False, no_network=True):
                    if element.tag == "header":
                        header = element.get("srclang", "")
                    else:
                        segments = list(_segments(element))
                        languages = languages or _languages(path, header, [language for language, _ in segments])
                        yield SourceRecord(int(element.sourceline or 0), _fields(segments, languages))
                    _forget(element)
            except etree.XMLSyntaxError as error:
                raise DataError(f"{path} must be a TMX file, got text that is not well-formed XML ({error}): mend it, or write "
                                "it again") from error

    def count(self, source: str) -> int:
        """Its units."""
        last, count = b"", 0
        with open_file(self.path(source)) as stream:
            while block := stream.read(2**20):
                count += (last + block).count(b"</tu>")
                last = block[-4:]
        return count


def _languages(path: Path, header: str, there: Sequence[str]) -> tuple[str, str]:
    """Of a memory that names its source, and whose first unit has one more language. Raises DataError if it does not say."""
    for name in (_primary, str):  # `str`: from one kind of a language into another
        source, names = name(header), [name(language) for language in there]
        if len(names) == 2 and names.count(source) == 1:
            return source, names[1 - names.index(source)]
    raise DataError(f"{path} must say what is translated into what, got srclang {header!r} and a first unit in "
                    f"{', '.join(there) or 'no language'}: name both, as {path}:de-en")


def _primary(language: str) -> str:
    """`de` of `de-AT`."""
    return re.split("[-_]", language.lower(), maxsplit=1)[0]


def _same(language: str, asked: str) -> bool:
    """Whether a segment's language is the one asked for, or a kind of it."""
    one, other = (code.lower().replace("_", "-") for code in (language, asked))
    return one == other or one.startswith(f"{other}-")


def _segments(unit: _Element) -> Iterator[tuple[str, str]]:
    """Language and text of each variant of a unit."""
    for variant in unit.iterchildren("tuv"):
        segment = variant.find("seg")
        if segment is not None:
            yield variant.get(_XML_LANG) or variant.get("lang") or "", "".join(_text(segment))


def _text(element: _Element) -> Iterator[str]:
    if isinstance(element.tag, str) and element.tag not in _CODES:  # that of a comment is a function
        yield element.text or ""
        for child in element:
            yield from _text(child)
            yield child.tail or ""


def _fields(segments: Sequence[tuple[str, str]], languages: tuple[str, str]) -> dict[str, str]:
    """A side that the unit does not have is left out."""
    found = {}
    for side, asked in zip(("src", "tgt"), languages, strict=True):
        text = next((text for language, text in segments if _same(language, asked)), None)
        if text is not None:
            found[side] = found[asked] = text
    return found


def _forget(element: _Element) -> None:
    """Free an element and those before it: lxml keeps what was parsed."""
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]


READER = Tmx
