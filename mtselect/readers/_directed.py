"""Files of several languages, of which the source may say which is translated into which: `PATH` or `PATH:SRC-TGT`."""

from __future__ import annotations

import re
from pathlib import Path

from mtselect.readers.base import Reader, existing
from mtselect.readers.moses import LANGUAGE


class DirectedFile(Reader):
    """What their readers have in common. A subclass has `suffix`, a pattern."""

    suffix: str

    def takes(self, source: str) -> bool:
        return self._match(source) is not None

    def path(self, source: str) -> Path:
        """The file. Raises DataError if it is missing."""
        return existing(self.parts(source)[0])

    def parts(self, source: str) -> tuple[str, tuple[str, str] | None]:
        """The file's name, and the languages if they were asked for."""
        match = self._match(source)
        assert match, source
        return match["path"], (match["src"], match["tgt"]) if match["src"] else None

    def _match(self, source: str) -> re.Match[str] | None:
        form = rf"(?P<path>.+{self.suffix})(?::(?P<src>{LANGUAGE})-(?P<tgt>{LANGUAGE}))?"
        return re.fullmatch(form, source, re.IGNORECASE)
