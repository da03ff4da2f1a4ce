"""Sentence pairs from any source to four clean tables: read, check, quarantine, deduplicate.

`build_corpus` reads test, dev, seeds and pool, in this order and row by row, so that a pool streams from
file to file; only a hash per pair stays in memory, some 80 bytes (and JSON arrays, which are read whole).

Duplicate: the same pair again, in the pool or in the seeds; the first stays. Dev and test keep theirs.
Seed in the pool: the same pair, as `normalise` sees it; it leaves the pool.
Leak: a pool or seed row whose source sentence is also a source sentence of dev or test, or a dev row whose
source sentence is one of test, as `normalise` sees it (whatever its case, spaces, punctuation and Unicode
form) and whatever its target. That covers the same pair; a shared target alone ("Yes.") is legitimate.
There is no exception for short sentences.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from mtselect.config import DataConfig
from mtselect.data.normalise import sentence_key
from mtselect.data.pairs import Corpus, LabelTable, Pair, PairTable, pair_id
from mtselect.data.rows import Role, SourceRow, read_rows
from mtselect.data.tables import TableWriter
from mtselect.errors import DataError
from mtselect.readers.base import EXCERPT_CHARS

RowsRead = Callable[[int], None]

ROLES: tuple[Role, ...] = ("test", "dev", "seeds", "pool")  # each may hold nothing of those before it
SCORED: tuple[Role, ...] = ("dev", "test")  # which a set alone does without
_PROGRESS_ROWS = 1000
_EXAMPLES = 3
_JSON = json.JSONEncoder(ensure_ascii=False)
_PAIRS = pa.schema([("id", pa.string()), ("src", pa.large_string()), ("tgt", pa.large_string())])
_LABELS = pa.schema([("label", pa.string())])


def build_corpus(config: DataConfig, out: Path, progress: RowsRead | None = None) -> None:
    """Read the four sources and write them, checked, into the folder `out`.

    pool.arrow, seeds.arrow, dev.arrow, test.arrow: id, src, tgt; in the order of their sources.
    labels.arrow: the label of every pool row; only with `data.label_column`.
    quarantine.jsonl: source, line, reason and excerpt of every unusable row.
    summary.json: per source `read`, `usable`, `duplicates`, `seeds_dropped`, `leaked_dropped`, `kept`,
    `quarantined` and, for each reason that occurred, `quarantined/<reason>`; as in `pool/kept`.

    Args:
        config: the sources and what makes a row unusable.
        out: folder to write into; made if absent.
        progress: called now and then with the number of rows read since its last call.

    Raises:
        DataError: a source or a column is missing, too many rows of a source are unusable, a source keeps
            no row, or (unless `data.drop_leaked`) a row of the pool, the seeds or dev leaked.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "quarantine.jsonl").write_text("", "utf-8")
    (out / "labels.arrow").unlink(missing_ok=True)
    summary: dict[str, int] = {}
    held_out: dict[int, str] = {}
    seeds: set[int] = set()
    for role in ROLES:
        counts: Counter[str] = Counter()
        fresh: dict[int, str] = {}  # apart, since a split may hold a sentence twice
        entries = _usable(config, role, out, counts, progress)
        if role == "pool":
            entries = _without_seeds(entries, seeds, counts)
        if role != "test":
            entries = _without_leaks(entries, config, role, held_out, counts)
        if role in ("seeds", "pool"):
            entries = _without_duplicates(entries, counts)
        for entry in _written(entries, out, role, labelled=role == "pool" and bool(config.label_column)):
            counts["kept"] += 1
            if role in SCORED:
                fresh.setdefault(sentence_key(entry.pair.src), role)
            elif role == "seeds":
                seeds.add(sentence_key(entry.pair.src, entry.pair.tgt))
        held_out |= fresh
        _refuse_empty(config, role, counts)
        summary |= _named_counts(role, counts)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")


def load_corpus(folder: Path) -> Corpus:
    """What `build_corpus` wrote into `folder`, to be read row by row."""
    parts = {role: PairTable(folder / f"{role}.arrow") for role in ROLES}
    labels = folder / "labels.arrow"
    return Corpus(**parts, labels=LabelTable(labels) if labels.exists() else None,
                  summary=json.loads((folder / "summary.json").read_text("utf-8")))


class _Entry(NamedTuple):
    """A usable pair on its way through the filters of `build_corpus`."""

    line: int
    pair: Pair
    label: str


def _usable(config: DataConfig, role: Role, out: Path, counts: Counter[str],
            progress: RowsRead | None) -> Iterator[_Entry]:
    """The usable rows of a source; the others go to the quarantine, and too many of them stop the run."""
    unusable: dict[str, list[int]] = {}
    with (out / "quarantine.jsonl").open("a", encoding="utf-8", newline="\n") as quarantine:
        for row in _watched(read_rows(config, role), progress):
            counts["read"] += 1
            if row.reason is None:
                counts["usable"] += 1
                yield _Entry(row.line, Pair(id=pair_id(row.src, row.tgt), src=row.src, tgt=row.tgt), row.label)
                continue
            counts["quarantined"] += 1
            counts[f"quarantined/{row.reason}"] += 1
            examples = unusable.setdefault(row.reason, [])
            if len(examples) < _EXAMPLES:
                examples.append(row.line)
            fields = {"source": role, "line": row.line, "reason": row.reason, "excerpt": row.excerpt}
            quarantine.write(_JSON.encode(fields) + "\n")
    _refuse_unusable(config, role, out, counts, unusable)


def _refuse_unusable(config: DataConfig, role: Role, out: Path, counts: Counter[str],
                     lines: Mapping[str, list[int]]) -> None:
    share = counts["quarantined"] / max(counts["read"], 1)
    if share <= config.max_unusable_share:
        return
    reason = max(lines, key=lambda reason: counts[f"quarantined/{reason}"])
    examples = ", ".join(str(line) for line in lines[reason])
    raise DataError(
        f"data.{role} ({getattr(config, role)}) has {counts['quarantined']} unusable rows of {counts['read']} "
        f"({share:.1%}), at most {config.max_unusable_share:.1%} are allowed; most often {reason!r} "
        f"({counts[f'quarantined/{reason}']} rows, for example line {examples}): see {out / 'quarantine.jsonl'} and "
        "mend the source, or raise --experiment.data.max_unusable_share")


def _without_leaks(entries: Iterable[_Entry], config: DataConfig, role: Role, held_out: Mapping[int, str],
                   counts: Counter[str]) -> Iterator[_Entry]:
    """Drop and count the entries whose source sentence is in test or dev; unless allowed, stop at the end."""
    examples: list[str] = []
    for entry in entries:
        where = held_out.get(sentence_key(entry.pair.src))
        if where is None:
            yield entry
            continue
        counts["leaked_dropped"] += 1
        if len(examples) < _EXAMPLES:
            examples.append(f"line {entry.line} {entry.pair.src[:EXCERPT_CHARS]!r} (in {where})")
    if examples and not config.drop_leaked:
        raise DataError(
            f"data.{role} ({getattr(config, role)}) has {counts['leaked_dropped']} rows whose source sentence is also "
            f"in {'test' if role == 'dev' else 'dev or test'}, none is allowed: {', '.join(examples)}; take these rows out, "
            "or drop them with --experiment.data.drop_leaked true")


def _without_seeds(entries: Iterable[_Entry], seeds: set[int], counts: Counter[str]) -> Iterator[_Entry]:
    for entry in entries:
        if sentence_key(entry.pair.src, entry.pair.tgt) in seeds:
            counts["seeds_dropped"] += 1
        else:
            yield entry


def _without_duplicates(entries: Iterable[_Entry], counts: Counter[str]) -> Iterator[_Entry]:
    seen: set[int] = set()
    for entry in entries:
        key = int(entry.pair.id, 16)
        if key in seen:
            counts["duplicates"] += 1
            continue
        seen.add(key)
        yield entry


def _written(entries: Iterable[_Entry], out: Path, role: Role, labelled: bool) -> Iterator[_Entry]:
    """Write every entry, then hand it on."""
    with contextlib.ExitStack() as files:
        pairs = files.enter_context(TableWriter(out / f"{role}.arrow", _PAIRS))
        labels = files.enter_context(TableWriter(out / "labels.arrow", _LABELS)) if labelled else None
        for entry in entries:
            pairs.write(vars(entry.pair))
            if labels:
                labels.write({"label": entry.label})
            yield entry


def _refuse_empty(config: DataConfig, role: Role, counts: Counter[str]) -> None:
    if counts["kept"] == 0 and getattr(config, role) is not None:
        raise DataError(
            f"data.{role} ({getattr(config, role)}) must keep at least one pair, got none: of {counts['read']} rows "
            f"{counts['quarantined']} are unusable, {counts['leaked_dropped']} leaked from dev or test and "
            f"{counts['seeds_dropped']} are seeds; give a source with more rows")


def _named_counts(role: Role, counts: Counter[str]) -> dict[str, int]:
    always = ("read", "usable", "duplicates", "seeds_dropped", "leaked_dropped", "kept", "quarantined")
    reasons = sorted(name for name in counts if name.startswith("quarantined/"))
    return {f"{role}/{name}": counts[name] for name in (*always, *reasons)}


def _watched(rows: Iterable[SourceRow], progress: RowsRead | None) -> Iterator[SourceRow]:
    waiting = 0
    for row in rows:
        yield row
        waiting += 1
        if progress and waiting == _PROGRESS_ROWS:
            progress(waiting)
            waiting = 0
    if progress and waiting:
        progress(waiting)
