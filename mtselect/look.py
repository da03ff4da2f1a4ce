"""What files of pairs hold, as far as a first look tells: their roles, columns, languages and rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mtselect.config import DataConfig
from mtselect.config.section import raise_faults
from mtselect.data.corpus import ROLES, SCORED
from mtselect.data.languages import guessed_languages, language_name, named_languages
from mtselect.data.rows import READ_ERRORS, column_names, count_rows, read_rows
from mtselect.errors import ConfigError, DataError, Faults
from mtselect.readers.base import ZIPPED, TableReader, excerpt, reader_of

# Words of a file's name that tell its role; `pool` is what has none of the others'.
_WORDS = {"seeds": "seeds?|trusted|gold|clean", "dev": "dev|devel|development|valid|validation|tune", "test": "test|eval"}
_LABELS = re.compile("(?<![a-z])(nois[ey]|labels?|wrong|bad|clean|good|correct)(?![a-z])")  # words of a column's name
_FORMS = ("csv", "tmx", "tsv", "txt", "zip")  # some of which are languages, too
_USUAL = (("src", "tgt"), ("source", "target"), ("src_text", "tgt_text"), ("source_text", "target_text"))
_KNOWN = {name for pair in _USUAL for name in pair}
_LOOKED_AT = 1000  # rows of a source
_EVERY_COLUMN = [""]  # none is called that, so that a reader leaves nothing out


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found.

    Args:
        data: the sources, with their columns and languages.
        rows: role -> about how many rows.
        told_by: what tells the languages, in words.
        label: a column of the pool that may say which pairs are wrong, and the share of its first rows that
            `data.label_column` would then count as such; null where none is called so.
    """

    data: DataConfig
    rows: Mapping[str, int]
    told_by: str
    label: tuple[str, float] | None = None


def assign_roles(files: Sequence[str], named: Mapping[str, str | None]) -> dict[str, str]:
    """Role -> source of files: those that were named, the others by words in their names.

    Two files of a language each (`crawl.de crawl.en`, as `crawl.*` gives them) are one source. Without both dev and test they
    are for a set alone.

    Raises:
        ConfigError: a role has no file or several; Faults: some have none and some have several.
    """
    found: dict[str, list[str]] = {role: [source] if (source := named.get(role)) else [] for role in reversed(ROLES)}
    for source in _joined(files):
        name = Path(source).name.lower()
        role = next((role for role, words in _WORDS.items() if re.search(rf"(?<![a-z])({words})(?![a-z])", name)), "pool")
        found[role].append(source)
    faults = [f"{role} must be one file, got {' and '.join(sources)}: name it, as --{role} FILE"
              for role, sources in found.items() if len(sources) > 1]
    scored = found["dev"] or found["test"]
    if missing := [role for role, sources in found.items() if not sources and (scored or role not in SCORED)]:
        each, them = (" each", "them") if len(missing) > 1 else ("", "it")
        got = f"none of {', '.join(files)} is called so" if files else "no other file was given"
        faults.append(f"{' and '.join(missing)} must be one file{each}, and {got}: name {them}, as "
                      + " ".join(f"--{role} FILE" for role in missing))
    if faults:
        raise_faults(faults)
    return {role: sources[0] for role, sources in found.items() if sources}


def look(sources: Mapping[str, str]) -> Look:
    """Look at files, whose roles are known; without dev and test both are null.

    Raises:
        ConfigError: nothing tells columns or languages.
        DataError: a file is missing or cannot be read; Faults: several are.
    """
    src, tgt = _columns(sources)
    data = DataConfig(**{role: sources.get(role) for role in ROLES}, src_column=src, tgt_column=tgt)  # type: ignore[arg-type]
    languages = next((named for source in sources.values() if (named := named_languages(source))), None)
    told_by = "by a file's name" if languages else "guessed from the seeds: correct it if it is wrong"
    languages = languages or guessed_languages(data)
    if languages is None:
        raise ConfigError(f"languages must be told by the names of the files or by {sources['seeds']}, got rows that tell "
                          "none, or one for both sides: end a name in both, such as .de-en")
    data = replace(data, src_lang=languages[0], tgt_lang=languages[1])
    return Look(data=data, rows={role: count_rows(data, role) for role in reversed(ROLES) if role in sources}, told_by=told_by,
                label=_label(data))


def _joined(files: Sequence[str]) -> list[str]:
    """With two files of one name and a language each as one source, in the order they were given."""
    parts = {file: _language_parts(file) for file in files}
    found = []
    for file, part in parts.items():
        others = [other for other, theirs in parts.items() if part and theirs and theirs[0] == part[0]]
        if part is None or len(others) != 2:
            found.append(file)
        elif file == others[0]:
            found.append(f"{part[0]}{{{part[1]},{_language_parts(others[1])[1]}}}{part[2]}")  # type: ignore[index]
    return found


def _language_parts(file: str) -> tuple[str, str, str] | None:
    """Of `crawl.de.gz` what stands before the language, itself, and what is behind it."""
    path, end = (file[: -len(end)], end) if (end := Path(file).suffix) in ZIPPED else (file, "")
    code = Path(path).suffix.removeprefix(".")
    return (path.removesuffix(code), code, end) if code and code not in _FORMS and language_name(code) else None


def _columns(sources: Mapping[str, str]) -> tuple[str, str]:
    """Of source and target, in every source."""
    found, faults = dict[str, list[str]](), list[str]()
    for source in sources.values():
        try:
            found[source] = _names(source)
        except DataError as error:
            faults.append(str(error))
        except READ_ERRORS as error:
            faults.append(f"{source} cannot be read, {type(error).__name__}: {error}; check the file, or give another one")
    if faults:
        raise Faults(*faults) if len(faults) > 1 else DataError(faults[0])
    first, *others = found.values()
    there = [name for name in first if all(name in names for names in others)]
    usual = [pair for pair in _USUAL if set(pair) <= set(there)]
    languages = [name for name in there if _is_language(name)]
    for pair in (*usual, languages, there):
        if len(pair) == 2:
            return pair[0], pair[1]
    if unnamed := [source for source, names in found.items() if isinstance(reader_of(source), TableReader)
                   and not any(name in _KNOWN or _is_language(name) for name in names)]:
        raise ConfigError(f"{' and '.join(unnamed)} must begin with a line of column names, src and tgt as in every file, got "
                          f"{', '.join(map(excerpt, found[unnamed[0]])) or 'none'}: add such a line")
    raise ConfigError(f"columns of source and target must be src and tgt in every file, got {', '.join(there) or 'none'} in "
                      "all of them: rename those that hold the sentences")


def _label(data: DataConfig) -> tuple[str, float] | None:
    """What may be the pool's `data.label_column`, and the share of its first rows that have a label there."""
    own = (data.src_column, data.tgt_column)
    column = next((name for name in _names(data.pool) if name not in own and _LABELS.search(name.lower())), None)
    if column is None:
        return None
    rows = [row for row in islice(read_rows(replace(data, label_column=column), "pool"), _LOOKED_AT) if row.reason is None]
    return (column, sum(row.label != "" for row in rows) / len(rows)) if rows else None


def _names(source: str) -> list[str]:
    """Of all columns in the first rows."""
    records = islice(reader_of(source).records(source, _EVERY_COLUMN), _LOOKED_AT)
    fields = [record.fields for record in records if record.fields]
    return list(dict.fromkeys(name for one in fields[:10] for name in column_names(one)))


def _is_language(column: str) -> bool:
    return language_name(column.rpartition(".")[2]) is not None
