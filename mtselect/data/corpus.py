"""Sentence pairs from any source to four clean tables: read, check, quarantine, deduplicate.

`build_corpus` reads test, dev, seeds and pool, in this order and row by row, so that a pool streams from
file to file; only a hash per pair stays in memory, some 80 bytes (and JSON arrays, which are read whole).

Text is kept as it is, but for this: outer whitespace goes, and a run of spaces, tabs and line breaks
(also U+0085, U+2028, U+2029) becomes one space, so that a pair is one line. No-break and ideographic
spaces inside a sentence stay.

Duplicate: the same pair again, in the pool or in the seeds; the first stays. Dev and test keep theirs.
Seed in the pool: the same pair, as `normalise` sees it; it leaves the pool.
Leak: a pool or seed row whose source sentence is also a source sentence of dev or test, or a dev row whose
source sentence is one of test, as `normalise` sees it (whatever its case, spaces, punctuation and Unicode
form) and whatever its target. That covers the same pair; a shared target alone ("Yes.") is legitimate.
There is no exception for short sentences.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mtselect.config import DataConfig
from mtselect.data.normalise import sentence_key
from mtselect.data.tables import Table, TableWriter
from mtselect.errors import DataError
from mtselect.hub import located, pin

Role = Literal["dev", "test", "seeds", "pool"]
Progress = Callable[[int], None]

NOT_JSON = "not valid JSON"
NOT_UTF8 = "not UTF-8"
COLUMN_MISSING = "column missing"
TOO_MANY_COLUMNS = "too many columns"
NOT_TEXT = "not text"
EMPTY_SIDE = "empty side"
TOO_LONG = "longer than data.max_chars"

SOURCES = (".jsonl, .json, .tsv, .csv (each also .gz), .parquet, a folder that Hugging Face datasets can open, "
           "hub:NAME[@REVISION][:CONFIG]:SPLIT, or quickstart:pool|seeds|dev|test")

ROLES: tuple[Role, ...] = ("test", "dev", "seeds", "pool")  # each may hold nothing of those before it
_MAX_LINE_BYTES = 2**24  # a longer line is never parsed; 16 MiB holds any pair of sentences many times over
_PROBED_ROWS = 1000  # a column that none of the first rows has is a wrong name, not a gap in the data
_PROGRESS_ROWS = 1000
_EXCERPT_CHARS = 80
_NAMED_DEPTH = 3  # nested columns that a message lists
_EXAMPLES = 3
_JSON = json.JSONEncoder(ensure_ascii=False)
_PAIRS = pa.schema([("id", pa.string()), ("src", pa.large_string()), ("tgt", pa.large_string())])
_LABELS = pa.schema([("label", pa.string())])
_ABSENT = object()  # the row has no such column; None is a value, JSON's null

_BREAKS = re.compile(r"[ \t-\r\x1c-\x1f\x85\u2028\u2029]+")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # what the error handler `surrogateescape` makes of a bad byte
_UNTEXTUAL = re.compile("[\0\ud800-\udfff]")
_HUB = re.compile(r"hub:(?P<name>[^:\s@]+(@[^:\s]+)?)(:(?P<config>[^:\[\s]+))?:(?P<split>[^:\[\s]+(\[.*)?)")
_READ_ERRORS = (OSError, EOFError, zlib.error, csv.Error)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One usable sentence pair.

    Args:
        id: 16 hex digits, BLAKE2b of source, tab and target: the same pair has the same id everywhere.
        src: source sentence, one line.
        tgt: target sentence, one line.
    """

    id: str
    src: str
    tgt: str


class PairTable(Table[Pair]):
    """Pairs on disk, as `build_corpus` wrote them."""

    def _made(self, fields: Mapping[str, Any]) -> Pair:
        return Pair(**fields)

    def among(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """[N]: whether each row's id is one of these."""
        return self._values(pc.is_in(self._table.column("id"), pa.array(ids, pa.string())))

    @property
    def digest(self) -> str:
        """SHA-256 of the ids in their order, which stand for the texts; first 20 hex digits."""
        hashed = hashlib.sha256()
        for batch in self._table.to_batches():
            hashed.update("".join(batch.column("id").to_pylist()).encode())
        return hashed.hexdigest()[:20]


class LabelTable(Table[str]):
    """Noise labels on disk, "" for clean."""

    def _made(self, fields: Mapping[str, Any]) -> str:
        return str(fields["label"])

    @property
    def noisy(self) -> NDArray[np.bool_]:
        """[N]: whether each row has one."""
        return self._values(pc.not_equal(self._table.column("label"), ""))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What `build_corpus` wrote.

    Args:
        pool: candidates, without duplicates, seeds and leaked rows.
        seeds: trusted pairs, without duplicates and leaked rows.
        dev: pairs that decide between trials.
        test: pairs that are scored once.
        labels: the noise label of each row of the pool, "" for clean; None without `data.label_column`.
        summary: counts, such as `pool/read`; their names are those of `build_corpus`.
    """

    pool: PairTable
    seeds: PairTable
    dev: PairTable
    test: PairTable
    labels: LabelTable | None
    summary: dict[str, int]

    @property
    def noisy(self) -> NDArray[np.bool_] | None:
        """[N]: whether each row of the pool has a noise label; None without labels."""
        return None if self.labels is None else self.labels.noisy


class Row(NamedTuple):
    """One row of a source, usable if `reason` is None.

    `line` counts from 1: lines of a .jsonl, .tsv or .csv file (header included), rows elsewhere.
    `excerpt` is the start of an unusable row, safe to print, and "" for a usable one.
    """

    line: int
    src: str
    tgt: str
    label: str
    reason: str | None
    excerpt: str


class _Record(NamedTuple):
    """A row before its columns are looked up; `fields` is None where `reason` says why there are none."""

    line: int
    fields: Mapping[str, object] | None
    reason: str | None = None
    excerpt: str = ""


def pair_id(src: str, tgt: str) -> str:
    """16 hex digits: BLAKE2b with 8 bytes over source, tab and target; neither side can hold a tab."""
    return hashlib.blake2b(f"{src}\t{tgt}".encode(), digest_size=8).hexdigest()


def one_line(text: str) -> str:
    """`text` without outer whitespace, its runs of spaces, tabs and line breaks as one space."""
    return _BREAKS.sub(" ", text).strip()


# -- The whole corpus ------------------------------------------------------------------------------


def build_corpus(config: DataConfig, out: Path, progress: Progress | None = None) -> None:
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
            if role in ("dev", "test"):
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
            progress: Progress | None) -> Iterator[_Entry]:
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
            quarantine.write(_json_line(
                {"source": role, "line": row.line, "reason": row.reason, "excerpt": row.excerpt}))
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
            examples.append(f"line {entry.line} {entry.pair.src[:_EXCERPT_CHARS]!r} (in {where})")
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
    if counts["kept"] == 0:
        raise DataError(
            f"data.{role} ({getattr(config, role)}) must keep at least one pair, got none: of {counts['read']} rows "
            f"{counts['quarantined']} are unusable, {counts['leaked_dropped']} leaked from dev or test and "
            f"{counts['seeds_dropped']} are seeds; give a source with more rows")


def _named_counts(role: Role, counts: Counter[str]) -> dict[str, int]:
    always = ("read", "usable", "duplicates", "seeds_dropped", "leaked_dropped", "kept", "quarantined")
    reasons = sorted(name for name in counts if name.startswith("quarantined/"))
    return {f"{role}/{name}": counts[name] for name in (*always, *reasons)}


def _watched(rows: Iterable[Row], progress: Progress | None) -> Iterator[Row]:
    waiting = 0
    for row in rows:
        yield row
        waiting += 1
        if progress and waiting == _PROGRESS_ROWS:
            progress(waiting)
            waiting = 0
    if progress and waiting:
        progress(waiting)


def _json_line(fields: Mapping[str, object]) -> str:
    return _JSON.encode(fields) + "\n"


# -- One source, row by row ------------------------------------------------------------------------


def read_rows(config: DataConfig, role: Role) -> Iterator[Row]:
    """Every row of the source `data.<role>`, usable or not, in order; labels only in the pool.

    Blank lines of .jsonl, .tsv and .csv are no rows. Files stream, JSON arrays do not.

    Raises:
        DataError: the source is missing, of an unknown form or cannot be read, or its rows lack a column.
    """
    source = getattr(config, role)
    label_column = config.label_column if role == "pool" else None
    columns = [config.src_column, config.tgt_column, *([label_column] if label_column else [])]
    try:
        for record in _with_columns(_records(source, columns), source, columns):
            yield _row(record, config, label_column)
    except _READ_ERRORS as error:
        raise DataError(f"data.{role} ({source}) cannot be read, {type(error).__name__}: {error}; "
                        "check the file, or give another source") from error


def count_rows(config: DataConfig, role: Role) -> int:
    """About how many rows `read_rows` gives, for a progress bar; only JSON arrays and what is damaged are read for it."""
    source = getattr(config, role)
    if source.startswith("quickstart:"):
        return len(getattr(_quickstart(), _quickstart_part(source)))
    if (dataset := _dataset(source)) is not None:
        return len(dataset)
    path = _existing(source)
    with contextlib.suppress(*_READ_ERRORS, pa.ArrowException):
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return int(pq.read_metadata(path).num_rows)
        if _form(path) in (".jsonl", ".tsv", ".csv"):
            with _opened(path) as stream:
                return _count_lines(stream)
    return sum(1 for _ in read_rows(config, role))


def _count_lines(stream: IO[bytes]) -> int:
    count, last = 0, b"\n"
    while block := stream.read(2**20):
        count, last = count + block.count(b"\n"), block
    return count + (not last.endswith(b"\n"))


def _row(record: _Record, config: DataConfig, label_column: str | None) -> Row:
    if record.fields is None:
        return Row(record.line, "", "", "", record.reason, record.excerpt)
    raw = [_cell(record.fields, column) for column in (config.src_column, config.tgt_column)]
    src, tgt = (one_line(side) if isinstance(side, str) else "" for side in raw)
    reason = record.reason or _side_reason(raw) or _length_reason(src, tgt, config.max_chars)
    if reason:
        return Row(record.line, "", "", "", reason, " ||| ".join(_excerpt(side) for side in raw))
    return Row(record.line, src, tgt, _label(record.fields, label_column) if label_column else "", None, "")


def _label(fields: Mapping[str, object], column: str) -> str:
    """The label as text; "" (clean) for null, false, 0 and where the row has none."""
    label = _cell(fields, column)
    return "" if label in (None, False, _ABSENT) else _printable(one_line(str(label)))


def _side_reason(sides: list[object]) -> str | None:
    if _ABSENT in sides:
        return COLUMN_MISSING
    texts = [side for side in sides if isinstance(side, str)]
    if any(_ESCAPED_BYTE.search(text) for text in texts):
        return NOT_UTF8
    if len(texts) < len(sides) or any(_UNTEXTUAL.search(text) for text in texts):
        return NOT_TEXT
    return None


def _length_reason(src: str, tgt: str, max_chars: int) -> str | None:
    if not src or not tgt:
        return EMPTY_SIDE
    return TOO_LONG if max(len(src), len(tgt)) > max_chars else None


def _with_columns(records: Iterable[_Record], source: str, columns: list[str]) -> Iterator[_Record]:
    """The records, once it is clear that each column exists: in the first rows, at the latest in the last."""
    missing = list(columns)
    names: list[str] | None = None
    probed = 0
    for record in records:
        if missing and record.fields is not None:
            fields = record.fields
            names = names or list(_column_names(fields))
            missing = [column for column in missing if _cell(fields, column) is _ABSENT]
            probed += 1
            if probed == _PROBED_ROWS:
                _refuse_missing(source, missing, names)
        yield record
    _refuse_missing(source, missing if names is not None else [], names or [])


def _refuse_missing(source: str, missing: list[str], names: list[str]) -> None:
    if missing:
        raise DataError(
            f"{source} has no column {' and no column '.join(map(repr, missing))}, it has "
            f"{', '.join(_excerpt(name) for name in names[:20]) or 'none'}: set --experiment.data.src_column, "
            "tgt_column and label_column to these names (.tsv and .csv need a header line)")


def _column_names(fields: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, Mapping) and value and prefix.count(".") < _NAMED_DEPTH:
            yield from _column_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _cell(fields: Mapping[str, object], column: str) -> object:
    """The value under `column`, taken literally or as a path of names with dots; `_ABSENT` if there is none."""
    if column in fields:
        return fields[column]
    value: object = fields
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _excerpt(value: object) -> str:
    text = "(missing)" if value is _ABSENT else value if isinstance(value, str) else repr(value)
    return _printable(text[:_EXCERPT_CHARS])


# -- The forms of a source -------------------------------------------------------------------------


def _records(source: str, columns: list[str]) -> Iterator[_Record]:
    if source.startswith("quickstart:"):
        return _quickstart_records(source)
    if (dataset := _dataset(source)) is not None:
        return _dataset_records(dataset, columns)
    return _file_records(_existing(source), columns)


def _dataset(source: str) -> Any:
    """The Hugging Face dataset of a hub name or a folder; None where the source is a file."""
    if source.startswith("hub:"):
        return _hub_dataset(source)
    path = _existing(source)
    return _folder_dataset(path) if path.is_dir() else None


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{source} is neither a file nor a folder: a source is {SOURCES}")
    if not path.exists():
        raise DataError(f"{source} does not exist (looked for {path.absolute()}): correct the path; "
                        f"a source is {SOURCES}")
    return path


def _file_records(path: Path, columns: list[str]) -> Iterator[_Record]:
    form = _form(path)
    readers = {".jsonl": _jsonl_records, ".json": _json_records, ".tsv": _tsv_records, ".csv": _csv_records}
    if path.suffix.lower() == ".parquet":
        yield from _parquet_records(path, columns)
    elif form in readers:
        with _opened(path) as stream:
            yield from readers[form](stream)
    else:
        raise DataError(f"{path} has the unknown suffix {''.join(path.suffixes[-2:])!r}: rename or convert it; "
                        f"a source is {SOURCES}")


def _form(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb"))


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, str | None]]:
    """Number and text of each line, without its end; None for a line that is too long to be parsed.

    Bytes that are not UTF-8 become lone surrogates, which `_side_reason` and `_parsed` recognise.
    """
    for number in itertools.count(1):
        line = stream.readline(_MAX_LINE_BYTES)
        if not line:
            return
        rest = line
        while len(rest) == _MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(_MAX_LINE_BYTES)
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").rstrip("\r\n")
        yield number, text if rest is line else None


def _jsonl_records(stream: IO[bytes]) -> Iterator[_Record]:
    for number, text in _lines(stream):
        if text is None:
            yield _Record(number, None, TOO_LONG, "(line not read)")
        elif text.strip():
            yield _parsed(number, text)


def _parsed(number: int, text: str) -> _Record:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return _Record(number, None, NOT_UTF8 if _ESCAPED_BYTE.search(text) else NOT_JSON, _excerpt(text))
    return _object(number, fields)


def _object(number: int, fields: object) -> _Record:
    if isinstance(fields, Mapping):
        return _Record(number, fields)
    return _Record(number, None, COLUMN_MISSING, _excerpt(fields))


def _json_records(stream: IO[bytes]) -> Iterator[_Record]:
    """A list of rows; a .json file that does not open with `[` is taken as JSON lines."""
    opening = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    stream.seek(0)
    if opening != b"[":
        yield from _jsonl_records(stream)
        return
    try:
        rows = json.loads(stream.read().decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{stream.name} must be one JSON list of rows, got text that is not valid JSON ({error}): "
                        "mend it, or write one row per line as .jsonl") from error
    for number, fields in enumerate(rows, 1):
        yield _object(number, fields)


def _tsv_records(stream: IO[bytes]) -> Iterator[_Record]:
    """Tabs part columns and nothing quotes them: translation corpora hold bare quotation marks."""
    header: list[str] | None = None
    for number, text in _lines(stream):
        if text is None:
            yield _Record(number, None, TOO_LONG, "(line not read)")
        elif header is None:
            header = text.split("\t")
        elif text:
            yield _tabular(number, header, text.split("\t"))


def _csv_records(stream: IO[bytes]) -> Iterator[_Record]:
    """Standard quoting; a row that runs over csv's field limit (an open quote, say) is skipped."""
    reader = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline=""))
    header = next(reader, [])
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Record(number, None, TOO_LONG, str(error))
            continue
        if cells:
            yield _tabular(number, header, cells)


def _tabular(number: int, header: list[str], cells: list[str]) -> _Record:
    surplus = any(cells[len(header):])
    return _Record(number, dict(zip(header, cells, strict=False)), TOO_MANY_COLUMNS if surplus else None)


def _parquet_records(path: Path, columns: list[str]) -> Iterator[_Record]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        with pq.ParquetFile(path) as file:
            names = _wanted(file.schema_arrow.names, columns)
            yield from _arrow_records(file.iter_batches(batch_size=_PROGRESS_ROWS, columns=names))
    except ArrowException as error:
        raise DataError(f"{path} must be a Parquet file, got one that cannot be read ({error}): "
                        "write it again, or give another source") from error


def _wanted(names: list[str], columns: list[str]) -> list[str] | None:
    """The top-level columns to read; None, all of them, if one is missing, for the message."""
    tops = [column if column in names else column.split(".")[0] for column in columns]
    return list(dict.fromkeys(tops)) if set(tops) <= set(names) else None


def _arrow_records(batches: Iterable[Any]) -> Iterator[_Record]:
    first = 1
    for batch in batches:
        try:
            yield from (_Record(number, fields) for number, fields in enumerate(batch.to_pylist(), first))
        except UnicodeDecodeError:
            yield from (_arrow_record(first + offset, batch.slice(offset, 1)) for offset in range(batch.num_rows))
        first += batch.num_rows


def _arrow_record(number: int, row: Any) -> _Record:
    try:
        return _Record(number, row.to_pylist()[0])
    except UnicodeDecodeError as error:
        return _Record(number, None, NOT_UTF8, _excerpt(error.object.decode("utf-8", "backslashreplace")))


def _dataset_records(dataset: Any, columns: list[str]) -> Iterator[_Record]:
    """Rows of a Hugging Face dataset, as Arrow batches: they stream from its memory map."""
    names = _wanted(dataset.column_names, columns)
    chosen = dataset.select_columns(names) if names else dataset
    return _arrow_records(chosen.with_format("arrow").iter(batch_size=_PROGRESS_ROWS))


def _hub_dataset(source: str) -> Any:
    match = _hub_parts(source)
    name, revision = located(match["name"])
    return _loaded(source, name, match["config"], split=match["split"], revision=revision)


def _hub_parts(source: str) -> re.Match[str]:
    match = _HUB.fullmatch(source)
    if not match:
        raise DataError(f"a hub source must be hub:NAME[@REVISION][:CONFIG]:SPLIT, got {source!r}: "
                        "write for example hub:wmt/wmt14:de-en:train")
    return match


def _folder_dataset(path: Path) -> Any:
    from datasets import load_from_disk

    if (path / "state.json").exists():
        return load_from_disk(str(path))
    if not (path / "dataset_dict.json").exists():
        return _loaded(str(path), str(path), None, split="train")
    splits = cast(Mapping[str, Any], load_from_disk(str(path)))
    if "train" not in splits:
        raise DataError(f"{path} must hold a split 'train', got {', '.join(splits)}: "
                        "give the folder of one split, such as " + str(path / next(iter(splits), "train")))
    return splits["train"]


def _loaded(source: str, name: str, config: str | None, split: str, revision: str | None = None) -> Any:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(f"Hugging Face datasets cannot load {source}, {type(error).__name__}: {error}; "
                        f"check name, configuration, split and network; a source is {SOURCES}") from error


def _quickstart_records(source: str) -> Iterator[_Record]:
    part = _quickstart_part(source)
    for number, fields in enumerate(getattr(_quickstart(), part), 1):
        yield _Record(number, fields)


@cache
def _quickstart() -> Any:
    from mtselect.data import quickstart

    return quickstart.generate()


def _quickstart_part(source: str) -> str:
    part = source.removeprefix("quickstart:")
    if part not in ROLES:
        raise DataError(f"a quickstart source must be one of {', '.join(f'quickstart:{role}' for role in ROLES)}, "
                        f"got {source!r}: correct it")
    return part


# -- What a source is, for the stage key -----------------------------------------------------------


def pinned_source(source: str) -> str:
    """A hub source with the commit that its name stands for now; any other as it is."""
    if not source.startswith("hub:"):
        return source
    start, end = _hub_parts(source).span("name")
    return source[:start] + pin(source[start:end], "dataset") + source[end:]


def source_fingerprint(source: str) -> str:
    """A text that changes when the source's content does.

    File: SHA-256 of its bytes. Folder: SHA-256 over the names and digests of its files. Quickstart: SHA-256
    over the part's name and the generator's code. Hub: the name itself, which `pinned_source` pins to a commit.

    Raises:
        DataError: the file or folder does not exist, or the source names no part of the quickstart.
    """
    if source.startswith("hub:"):
        return source
    if source.startswith("quickstart:"):
        code = _files_digest(Path(__file__).parent, "quickstart*.py")
        return hashlib.sha256(f"{_quickstart_part(source)} {code}".encode()).hexdigest()
    path = _existing(source)
    return _files_digest(path, "**/*") if path.is_dir() else _file_digest(path)


def _file_digest(path: Path) -> str:
    stat = path.stat()
    return _digest_of(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@cache
def _digest_of(path: Path, *version: int) -> str:
    """Read once for each version of the file: every stage asks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files_digest(folder: Path, pattern: str) -> str:
    files = sorted(file for file in folder.glob(pattern) if file.is_file())
    lines = [f"{file.relative_to(folder).as_posix()} {_file_digest(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
