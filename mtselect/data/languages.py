"""Which languages a source is in: as the endings of its name say, else guessed from its sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from mtselect.config import DataConfig
from mtselect.data.rows import read_rows
from mtselect.readers.moses import LANGUAGE

_ENDINGS = re.compile(rf".+[.:]({LANGUAGE})-({LANGUAGE})|.*\{{({LANGUAGE}),({LANGUAGE})\}}.*|(?:.*/)?([a-z]{{2}})-([a-z]{{2}})")
_CONTAINERS = re.compile(r"(\.(gz|zst|zip|txt|tmx|jsonl|json|tsv|csv|parquet))+$", re.IGNORECASE)
_LOOKED_AT = 200  # seeds, whose sentences vote
_LEAST_SHARE = 0.5  # of the votes that decides


def named_languages(source: str) -> tuple[str, str] | None:
    """English names of the languages that a source's name ends in: of `crawl.de-en.tsv.gz`, `m.tmx:de-en`, `de-en.txt.zip`."""
    match = _ENDINGS.fullmatch(without_form(source))
    names = [language_name(code) for code in match.groups() if code] if match else []
    return (names[0], names[1]) if len(names) == 2 and names[0] and names[1] else None


def without_form(name: str) -> str:
    """`crawl.de-en` of `crawl.de-en.tsv.gz`."""
    return _CONTAINERS.sub("", name)


def language_name(code: str) -> str | None:
    """`German` of `de`, `deu` or `deu_Latn`; null where there is no such language."""
    from langcodes import Language
    from langcodes.tag_parser import LanguageTagError

    try:
        language = Language.get(code)
    except LanguageTagError:
        return None
    return language.language_name() if language.is_valid() else None


def language_tag(name: str) -> str | None:
    """BCP 47 tag of a language by its English name or code: `de` of `German`, `deu` and `deu_Latn`, `pt-BR` of `Brazilian
    Portuguese`; null where there is no such language."""
    from langcodes import Language, find
    from langcodes.tag_parser import LanguageTagError

    try:
        language = find(name)  # first, as `Mon` is also a code, of Mongolian
    except LookupError:
        try:
            language = Language.get(name)
        except LanguageTagError:
            return None
    return language.simplify_script().to_tag() if language.is_valid() else None


def guessed_languages(data: DataConfig) -> tuple[str, str] | None:
    """Of source and target, by the seeds; null where they tell none, or one for both.

    Raises:
        DataError: they cannot be read.
    """
    rows = [row for row in islice(read_rows(data, "seeds"), _LOOKED_AT) if row.reason is None]
    src, tgt = guessed_language([row.src for row in rows]), guessed_language([row.tgt for row in rows])
    return (src, tgt) if src and tgt and src != tgt else None


def guessed_language(sentences: Sequence[str]) -> str | None:
    """English name of the language that most sentences seem to be in, by py3langid; null where no language has half of them."""
    import py3langid

    votes = Counter(py3langid.classify(sentence)[0] for sentence in sentences)
    ((code, count),) = votes.most_common(1) or [("", 0)]
    return language_name(code) if count and count >= _LEAST_SHARE * votes.total() else None
