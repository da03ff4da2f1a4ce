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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from mtselect.config import DataConfig
from mtselect.data.normalise import sentence_key
from mtselect.data.pairs import Corpus, LabelTable, PairTable, pair_id
from mtselect.data.rows import Role, read_rows
from mtselect.data.tables import table_writer
from mtselect.errors import DataError
from mtselect.progress import Advance
from mtselect.readers.base import EXCERPT_CHARS
from mtselect.store import jsonl

ROLES: tuple[Role, ...] = ("test", "dev", "seeds", "pool")  # each may hold nothing of those before it
SCORED: tuple[Role, ...] = ("dev", "test")  # which a set alone does without
_PROGRESS_ROWS = 1000
_EXAMPLES = 3
_COUNTS = ("read", "usable", "duplicates", "seeds_dropped", "leaked_dropped", "kept", "quarantined")
_PAIRS = pa.schema([("id", pa.string()), ("src", pa.large_string()), ("tgt", pa.large_string())])
_LABELS = pa.schema([("label", pa.string())])


def build_corpus(config: DataConfig, out: Path, progress: Advance = lambda n: None) -> None:
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
    (out / "labels.arrow").unlink(missing_ok=True)
    summary: dict[str, int] = {}
    kept: dict[Role, set[int]] = {}
    with (out / "quarantine.jsonl").open("w", encoding="utf-8", newline="\n") as quarantine:
        for role in ROLES:
            counts, kept[role] = _build_part(config, role, out, quarantine, kept, progress)
            reasons = sorted(name for name in counts if name.startswith("quarantined/"))
            summary |= {f"{role}/{name}": counts[name] for name in (*_COUNTS, *reasons)}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")


def load_corpus(folder: Path) -> Corpus:
    """What `build_corpus` wrote into `folder`, to be read row by row."""
    parts = {role: PairTable(folder / f"{role}.arrow") for role in ROLES}
    labels = folder / "labels.arrow"
    return Corpus(**parts, labels=LabelTable(labels) if labels.exists() else None,
                  summary=json.loads((folder / "summary.json").read_text("utf-8")))


def _build_part(config: DataConfig, role: Role, out: Path, quarantine: TextIO, before: Mapping[Role, set[int]],
                progress: Advance) -> tuple[Counter[str], set[int]]:
    """Write the usable rows of a source that are in none of the parts before it.

    Returns:
        What became of how many rows; and for the parts behind it the keys of its source sentences (dev, test) or pairs (seeds).
    """
    counts: Counter[str] = Counter()
    unusable: dict[str, list[str]] = {}  # reason -> its first lines
    leaked: list[str] = []
    ids: set[int] = set()
    keys: set[int] = set()
    with contextlib.ExitStack() as files:
        write_pair = files.enter_context(table_writer(out / f"{role}.arrow", _PAIRS))
        labelled = role == "pool" and config.label_column
        write_label = files.enter_context(table_writer(out / "labels.arrow", _LABELS)) if labelled else None
        for row in read_rows(config, role):
            counts["read"] += 1
            if counts["read"] % _PROGRESS_ROWS == 0:
                progress(_PROGRESS_ROWS)
            if row.reason is not None:
                counts["quarantined"] += 1
                counts[f"quarantined/{row.reason}"] += 1
                if counts[f"quarantined/{row.reason}"] <= _EXAMPLES:
                    unusable.setdefault(row.reason, []).append(str(row.line))
                quarantine.write(jsonl([{"source": role, "line": row.line, "reason": row.reason, "excerpt": row.excerpt}]))
                continue
            counts["usable"] += 1
            identity, source, pair = pair_id(row.src, row.tgt), sentence_key(row.src), sentence_key(row.src, row.tgt)
            if pair in before.get("seeds", ()):
                counts["seeds_dropped"] += 1
            elif where := [part for part in SCORED if source in before.get(part, ())]:
                counts["leaked_dropped"] += 1
                if counts["leaked_dropped"] <= _EXAMPLES:
                    leaked.append(f"line {row.line} {row.src[:EXCERPT_CHARS]!r} (in {where[0]})")
            elif role not in SCORED and int(identity, 16) in ids:
                counts["duplicates"] += 1
            else:
                counts["kept"] += 1
                ids.add(int(identity, 16))
                if role != "pool":
                    keys.add(source if role in SCORED else pair)
                write_pair({"id": identity, "src": row.src, "tgt": row.tgt})
                if write_label:
                    write_label({"label": row.label})
    progress(counts["read"] % _PROGRESS_ROWS)
    _check(config, role, out, counts, unusable, leaked)
    return counts, keys


def _check(config: DataConfig, role: Role, out: Path, counts: Counter[str], unusable: Mapping[str, Sequence[str]],
           leaked: Sequence[str]) -> None:
    """Raise DataError where too many rows are unusable, some leaked and may not, or none is kept."""
    source = f"data.{role} ({getattr(config, role)})"
    share = counts["quarantined"] / max(counts["read"], 1)
    if share > config.max_unusable_share:
        reason = max(unusable, key=lambda reason: counts[f"quarantined/{reason}"])
        raise DataError(
            f"{source} has {counts['quarantined']} unusable rows of {counts['read']} "
            f"({share:.1%}), at most {config.max_unusable_share:.1%} are allowed; most often {reason!r} "
            f"({counts[f'quarantined/{reason}']} rows, for example line {', '.join(unusable[reason])}): "
            f"see {out / 'quarantine.jsonl'} and mend the source, or raise --experiment.data.max_unusable_share")
    if leaked and not config.drop_leaked:
        raise DataError(
            f"{source} has {counts['leaked_dropped']} rows whose source sentence is also "
            f"in {'test' if role == 'dev' else 'dev or test'}, none is allowed: {', '.join(leaked)}; take these rows out, "
            "or drop them with --experiment.data.drop_leaked true")
    if not counts["kept"] and getattr(config, role) is not None:
        raise DataError(
            f"{source} must keep at least one pair, got none: of {counts['read']} rows "
            f"{counts['quarantined']} are unusable, {counts['leaked_dropped']} leaked from dev or test and "
            f"{counts['seeds_dropped']} are seeds; give a source with more rows")
