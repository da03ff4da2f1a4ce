"""When two sentences count as the same: one rule, for the corpus, the gates of promotion and the labels of noise."""

from __future__ import annotations

import hashlib
import unicodedata


class _Kept(dict[int, int | None]):
    """Code point -> itself if it is a letter, a mark or a digit, else None; filled in as characters are met."""

    def __missing__(self, code: int) -> int | None:
        self[code] = kept = code if unicodedata.category(chr(code))[0] in "LMN" else None
        return kept


_KEPT = _Kept()


def normalise(sentence: str) -> str:
    """Letters, their marks (vowels, in many scripts) and digits alone, in one case and one Unicode form (NFKC); a sentence that
    has none is itself, in that case and form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", sentence).casefold())
    return folded.translate(_KEPT) or folded


def sentence_key(*sentences: str) -> int:
    """Equal for sentences (a source, or a source and its target) that are the same; 8 bytes, so a clash is out of reach."""
    text = "\t".join(map(normalise, sentences))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
