"""opus: a zip of OPUS, with a corpus as two files of a sentence a line (`moses`) beside its licence and readme.

`de-en.txt.zip` is read in the order of the names in it (`Europarl.de-en.de` before `.en`), `de-en.txt.zip:en-de` the other way.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator

from mtselect.errors import DataError
from mtselect.readers._directed import DirectedFile
from mtselect.readers.base import SourceRecord
from mtselect.readers.moses import LANGUAGE, side_by_side

_NAMED = re.compile(rf"(?:.*\.)?(?P<src>{LANGUAGE})-(?P<tgt>{LANGUAGE})\.(?P<side>{LANGUAGE})")


class Opus(DirectedFile):
    """Streams, out of the zip."""

    about = "a .zip of OPUS[:SRC-TGT]"
    suffix = r"\.zip"

    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        path, (name, asked) = self.path(source), self.parts(source)
        try:
            with zipfile.ZipFile(path) as archive:
                (src, tgt), languages = _members(source, name, asked, archive.namelist())
                with archive.open(src) as one, archive.open(tgt) as other:
                    yield from side_by_side(one, other, languages, f"{src} and {tgt} in {path}")
        except (zipfile.BadZipFile, RuntimeError) as error:  # the latter: encrypted, or compressed strangely
            raise DataError(f"{path} must be a zip file as OPUS has them, got one that cannot be read ({error}): download it "
                            "again, or unpack it") from error


def _members(source: str, path: str, asked: tuple[str, str] | None, names: list[str]
             ) -> tuple[tuple[str, str], tuple[str, str]]:
    """The two files of a zip, source first, and their languages. Raises DataError if there are none or several."""
    if asked:
        found = [[name for name in names if name.endswith(f".{language}")] for language in asked]
        if [len(some) for some in found] == [1, 1]:
            return (found[0][0], found[1][0]), asked
    else:
        whole = {(name.removesuffix(f".{named['side']}"), named["src"], named["tgt"]) for name in names
                 if (named := _NAMED.fullmatch(name)) and named["side"] in (named["src"], named["tgt"])}
        pairs = [(stem, languages) for stem, *languages in sorted(whole)
                 if all(f"{stem}.{language}" in names for language in languages)]
        if len(pairs) == 1:
            stem, (src, tgt) = pairs[0]
            return (f"{stem}.{src}", f"{stem}.{tgt}"), (src, tgt)
    raise DataError(f"{source} must hold one pair of files such as NAME.de-en.de and NAME.de-en.en, got "
                    f"{', '.join(names[:10])}: unpack it, or say which languages, as {path}:de-en")


READER = Opus
