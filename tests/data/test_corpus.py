"""Every form of source gives the same rows, every unusable row its reason, and no row leaks."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtselect.config import DataConfig
from mtselect.data.corpus import build_corpus, load_corpus
from mtselect.data.pairs import Pair, pair_id
from mtselect.data.rows import SourceRow, count_rows, read_rows
from mtselect.errors import ConfigError, DataError
from mtselect.promotion import gates
from mtselect.readers import _lines
from mtselect.readers.base import source_fingerprint
from mtselect.stages.selection import SelectedPair
from tests.sources import reasons, rows_of, texts

ROWS = [("Guten Tag.", "Good day."), ('Er sagt "ja', "He says “yes”, twice"), ("日本 語", "e\u0301\u00a0!"),
        ("Ein Satz, mit Komma", "A sentence, with a comma")]


@pytest.fixture(autouse=True)
def _offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def pairs(*rows: tuple[str, str]) -> list[dict[str, str]]:
    return [{"src": src, "tgt": tgt} for src, tgt in rows]


def with_source(config: DataConfig, role: str, source: str) -> DataConfig:
    changed: dict[str, Any] = {role: source}
    return replace(config, **changed)


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Four sound sources: 20 pool rows, 3 seeds, 2 dev, 2 test."""
    return DataConfig(
        pool=jsonl(tmp_path / "pool.jsonl", pairs(*((f"Zeile {i}", f"Line {i}") for i in range(20)))),
        seeds=jsonl(tmp_path / "seeds.jsonl", pairs(*((f"Saat {i}", f"Seed {i}") for i in range(3)))),
        dev=jsonl(tmp_path / "dev.jsonl", pairs(("Wer da?", "Who is there?"), ("Ja.", "Yes."))),
        test=jsonl(tmp_path / "test.jsonl", pairs(("Ende", "End"), ("Ende", "End"))))


# -- Forms -----------------------------------------------------------------------------------------


def write_jsonl(path: Path) -> Path:
    jsonl(path, pairs(*ROWS))
    return path


def write_array(path: Path) -> Path:
    path.write_text(json.dumps(pairs(*ROWS), indent=1), "utf-8")
    return path


def write_tsv(path: Path) -> Path:
    path.write_text("src\ttgt\n" + "".join(f"{src}\t{tgt}\n" for src, tgt in ROWS), "utf-8")
    return path


def write_csv(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("src", "tgt"), *ROWS])
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(pairs(*ROWS)), path)
    return path


def write_saved(path: Path) -> Path:
    datasets.Dataset.from_list(pairs(*ROWS)).save_to_disk(str(path))
    return path


def write_saved_dict(path: Path) -> Path:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(pairs(*ROWS))}).save_to_disk(str(path))
    return path


def write_folder(path: Path) -> Path:
    path.mkdir()
    return write_jsonl(path / "train.jsonl").parent


WRITERS = {"a.jsonl": write_jsonl, "a.json": write_array, "lines.json": write_jsonl, "a.TSV": write_tsv,
           "a.csv": write_csv, "a.parquet": write_parquet, "saved": write_saved, "saved_dict": write_saved_dict,
           "folder": write_folder}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert texts(rows_of(WRITERS[name](tmp_path / name))) == ROWS


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "lines.json", "a.TSV", "a.csv"])
def test_compressed_files_give_the_same_rows(tmp_path: Path, name: str) -> None:
    plain = WRITERS[name](tmp_path / name)
    for suffix, compress in (("gz", gzip.compress), ("zst", zstd)):
        zipped = tmp_path / f"{name}.{suffix}"
        zipped.write_bytes(compress(plain.read_bytes()))
        assert rows_of(zipped) == rows_of(plain)


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return compressed


@pytest.mark.parametrize("write", [
    lambda path, rows: jsonl(path.with_suffix(".jsonl"), rows),
    lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet")),
    lambda path, rows: datasets.Dataset.from_list(rows).save_to_disk(str(path))])
def test_dots_reach_into_nested_columns(tmp_path: Path, write: Callable[[Path, Any], Any]) -> None:
    write(tmp_path / "wmt", [{"n": 1, "translation": {"de": src, "en": tgt}} for src, tgt in ROWS])
    path = next(path for path in tmp_path.glob("wmt*"))
    rows = rows_of(path, src_column="translation.de", tgt_column="translation.en")
    assert texts(rows) == ROWS


def test_a_dot_may_be_part_of_a_column_name(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"t.de": "Hallo", "t.en": "Hello"}]), tmp_path / "a.parquet")
    assert texts(rows_of(tmp_path / "a.parquet", src_column="t.de", tgt_column="t.en")) == [("Hallo", "Hello")]


def test_array_of_src_text_and_trg_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([
        {"src_lang": "de", "trg_lang": "en", "src_text": "Hallo", "trg_text": "Hello"}]))
    assert texts(rows_of(tmp_path / "a.json", src_column="src_text", tgt_column="trg_text")) == [("Hallo", "Hello")]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.TSV", "a.csv"):
        path = WRITERS[name](tmp_path / name)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        assert texts(rows_of(path)) == ROWS, name
    array = write_array(tmp_path / "a.json")
    array.write_bytes(b"\xef\xbb\xbf" + array.read_bytes())
    assert texts(rows_of(array)) == ROWS


def test_a_pair_becomes_one_line_and_keeps_its_other_spaces(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", pairs((" a \r\n\tb\u2028c\u0085d ", "\u00a0Bonjour\u202f!\u00a0x\u3000y ")))
    assert texts(rows_of(source)) == [("a b c d", "Bonjour\u202f!\u00a0x\u3000y")]


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("src\ttgt\n\na\tb\n\n")
    (tmp_path / "a.csv").write_text("src,tgt\n\na,b\n\n")
    (tmp_path / "a.jsonl").write_text('\n\n{"src": "a", "tgt": "b"}\n  \n')
    for suffix in ("tsv", "csv", "jsonl"):
        assert [(row.line, row.src) for row in rows_of(tmp_path / f"a.{suffix}")] == [(3, "a")]


def test_csv_line_numbers_count_lines_not_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('src,tgt\n"a\nb",c\n"",d\n')
    rows = rows_of(tmp_path / "a.csv")
    assert [(row.line, row.src, row.reason) for row in rows] == [(2, "a b", None), (4, "", "empty side")]


@pytest.mark.parametrize(("source", "expected"), [
    ("hub:wmt/wmt14:de-en:train", ("wmt/wmt14", "de-en", "train", None)),
    ("hub:me/data:test", ("me/data", None, "test", None)),
    ("hub:me/data@v1.2:test", ("me/data", None, "test", "v1.2")),
    ("hub:me/data@v1.2:de-en:test", ("me/data", "de-en", "test", "v1.2")),
    ("hub:me/data:train[:10%]", ("me/data", None, "train[:10%]", None))])
def test_hub_names(monkeypatch: pytest.MonkeyPatch, source: str, expected: tuple[str | None, ...]) -> None:
    asked: list[tuple[str | None, ...]] = []

    def load_dataset(name: str, config: str | None, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, config, split, revision))
        return datasets.Dataset.from_list(pairs(*ROWS))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert texts(rows_of(source)) == ROWS
    assert asked == [expected]


def test_quickstart_parts_are_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of("quickstart:pool", label_column="noise")
    assert len(texts(rows)) == 12000
    assert 0.3 < sum(bool(row.label) for row in rows) / len(rows) < 0.7


# -- Unusable rows ---------------------------------------------------------------------------------


def test_each_reason_with_its_line(tmp_path: Path) -> None:
    lines = [b'{"src": "a", "tgt": "b"}', b'{"src": "a", "tgt": ', b'{"src": "\xff", "tgt": "b"}', b'{"src": "a"}',
             b'{"src": "a", "tgt": 3}', b'{"src": ["a"], "tgt": "b"}', b'{"src": null, "tgt": "b"}',
             b'{"src": "a\\u0000", "tgt": "b"}', b'{"src": "a", "tgt": "\\ud83d"}', b'{"src": " \\n", "tgt": "b"}',
             b'{"src": "aaaaaaaaaaa", "tgt": "b"}', b'["a", "b"]', b"[" * 100_000, b"\xff\xfe",
             b'{"src": "c", "tgt": "d"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows = rows_of(tmp_path / "a.jsonl", max_chars=10)
    assert reasons(rows) == {
        2: "not valid JSON", 3: "not UTF-8", 4: "column missing", 5: "not text", 6: "not text", 7: "not text",
        8: "not text", 9: "not text", 10: "empty side", 11: "longer than data.max_chars", 12: "column missing",
        13: "not valid JSON", 14: "not UTF-8"}
    assert [(row.src, row.tgt) for row in rows if row.reason is None] == [("a", "b"), ("c", "d")]
    for row in rows:
        assert bool(row.excerpt) == bool(row.reason)
        row.excerpt.encode("utf-8")


@pytest.mark.parametrize(("name", "separator"), [("a.tsv", b"\t"), ("a.csv", b",")])
def test_tables_lose_only_the_bad_rows(tmp_path: Path, name: str, separator: bytes) -> None:
    rows = [(b"src", b"tgt", b"x"), (b"a", b"b", b"1"), (b"a\xff", b"b", b"1"), (b"a",), (b"a", b"b", b"1", b"more"),
            (b"a\0", b"b", b"1"), (b"c", b"d", b"\xff"), (b"e", b"f", b"1", b"")]
    (tmp_path / name).write_bytes(b"".join(separator.join(row) + b"\n" for row in rows))
    read = rows_of(tmp_path / name)
    assert reasons(read) == {3: "not UTF-8", 4: "column missing", 5: "too many columns", 6: "not text"}
    assert [(row.src, row.tgt) for row in read if row.reason is None] == [("a", "b"), ("c", "d"), ("e", "f")]


def test_an_open_quote_in_csv_does_not_lose_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('src,tgt\na,b\n"open,b\n' + "a,b\n" * 60_000)
    read = rows_of(tmp_path / "a.csv")
    assert reasons(read) == {3: "longer than data.max_chars"}
    assert len(read) > 20_000


def test_parquet_loses_only_the_row_that_is_not_utf8(tmp_path: Path) -> None:
    src = pa.array([b"a", b"b\xff", b"c"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"src": src, "tgt": ["x", "y", None]}), tmp_path / "a.parquet")
    read = rows_of(tmp_path / "a.parquet")
    assert reasons(read) == {2: "not UTF-8", 3: "not text"}
    assert (read[0].src, read[0].tgt) == ("a", "x")


def test_parquet_counts_rows_beyond_one_batch(tmp_path: Path) -> None:
    pq.write_table(pa.table({"src": ["a"] * 2500, "tgt": [""] + ["b"] * 2498 + [""]}), tmp_path / "a.parquet")
    assert list(reasons(rows_of(tmp_path / "a.parquet"))) == [1, 2500]


def test_a_huge_line_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lines, "MAX_LINE_BYTES", 64)
    for suffix, line in (("jsonl", '{"src": "%s", "tgt": "%s"}\n'), ("tsv", "%s\t%s\n")):
        header = "src\ttgt\n" if suffix == "tsv" else ""
        path = tmp_path / f"a.{suffix}"
        path.write_text(header + line % ("a", "b") + line % ("a" * 1000, "b") + line % ("c", "d"))
        read = rows_of(path)
        assert list(reasons(read).values()) == ["longer than data.max_chars"]
        assert [row.src for row in read] == ["a", "", "c"]


def test_quarantine_file(tmp_path: Path, config: DataConfig) -> None:
    with Path(config.pool).open("ab") as file:
        file.write(b'{"src": "a\xff", "tgt": "b"}\n')
    build_corpus(config, tmp_path / "out")
    line = json.loads((tmp_path / "out/quarantine.jsonl").read_text("utf-8"))
    assert line == {"source": "pool", "line": 21, "reason": "not UTF-8", "excerpt": "a\\udcff ||| b"}
    summary = load_corpus(tmp_path / "out").summary
    assert summary["pool/quarantined"] == summary["pool/quarantined/not UTF-8"] == 1
    assert (summary["pool/read"], summary["pool/usable"], summary["pool/kept"]) == (21, 20, 20)


def test_too_many_unusable_rows_stop(tmp_path: Path, config: DataConfig) -> None:
    with Path(config.pool).open("a") as file:
        file.write('{"src": "", "tgt": "b"}\n{"src": "a", "tgt": "b"\n{"src": "c"\n')
    message = (r"data\.pool \(.*pool\.jsonl\) has 3 unusable rows of 23 \(13\.0%\), at most 5\.0% are allowed; most "
               r"often 'not valid JSON' \(2 rows, for example line 22, 23\): see .*quarantine\.jsonl and mend the "
               r"source, or raise --experiment\.data\.max_unusable_share")
    with pytest.raises(DataError, match=message):
        build_corpus(config, tmp_path / "out")
    assert len((tmp_path / "out/quarantine.jsonl").read_text().splitlines()) == 3
    build_corpus(replace(config, max_unusable_share=0.2), tmp_path / "out")
    assert len((tmp_path / "out/quarantine.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("role", ["pool", "seeds", "dev", "test"])
def test_a_source_without_rows_stops(tmp_path: Path, config: DataConfig, role: str) -> None:
    with pytest.raises(DataError, match=rf"data\.{role} \(.*\) must keep at least one pair, got none: of 0 rows"):
        build_corpus(with_source(config, role, jsonl(tmp_path / "none.jsonl", [])), tmp_path / "out")


# -- Duplicates, seeds, leaks, labels --------------------------------------------------------------


def test_duplicates_leave_pool_and_seeds_only(tmp_path: Path, config: DataConfig) -> None:
    for source in (config.pool, config.seeds):
        path = Path(source)
        path.write_text(path.read_text() * 2)
    build_corpus(config, tmp_path / "out")
    built = load_corpus(tmp_path / "out")
    assert [len(part) for part in (built.pool, built.seeds, built.dev, built.test)] == [20, 3, 2, 2]
    assert (built.summary["pool/duplicates"], built.summary["seeds/duplicates"]) == (20, 3)


def test_one_source_with_two_targets_is_no_duplicate(tmp_path: Path, config: DataConfig) -> None:
    pool = jsonl(tmp_path / "two.jsonl", pairs(("a", "b"), ("a", "c"), ("A", "b")))
    build_corpus(replace(config, pool=pool), tmp_path / "out")
    assert [(pair.src, pair.tgt) for pair in load_corpus(tmp_path / "out").pool] == [("a", "b"), ("a", "c"), ("A", "b")]


def test_seeds_leave_the_pool(tmp_path: Path, config: DataConfig) -> None:
    rows = pairs(("Saat 1", "Seed 1"), ("a", "b"), ("SAAT  1!", "\u201eSeed 1\u201c."), ("Saat 1", "x"))
    pool = jsonl(tmp_path / "p.jsonl", rows)
    build_corpus(replace(config, pool=pool), tmp_path / "out")
    built = load_corpus(tmp_path / "out")
    assert [(pair.src, pair.tgt) for pair in built.pool] == [("a", "b"), ("Saat 1", "x")]
    assert (built.summary["pool/seeds_dropped"], built.summary["pool/duplicates"]) == (2, 0)


@pytest.mark.parametrize("sentence", ["Ende", "ENDE!", "\u00bbEnde\u00ab", " ende .", "\uff25nde", "E-n-d-e"])
def test_a_sentence_leaks_whatever_its_case_spaces_punctuation_and_form(tmp_path: Path, config: DataConfig,
                                                                       sentence: str) -> None:
    """The gate of promotion looks with the same eyes, so that nothing is found only at the end."""
    for role in ("dev", "seeds", "pool"):
        leaking = with_source(config, role, jsonl(tmp_path / "leak.jsonl", pairs(("a", "b"), (sentence, "x"))))
        with pytest.raises(DataError, match=rf"data\.{role} .* has 1 rows whose source sentence is also in (dev or )?test"):
            build_corpus(leaking, tmp_path / "out")
        build_corpus(replace(leaking, drop_leaked=True), tmp_path / "out")
        assert [pair.src for pair in getattr(load_corpus(tmp_path / "out"), role)] == ["a"]
    assert not gates.contamination([SelectedPair(id="1", src=sentence, tgt="x")],
                                   {"test": load_corpus(tmp_path / "out").test}).passed


def test_marks_are_letters(tmp_path: Path, config: DataConfig) -> None:
    """Vowels of Hindi are marks: two words are not the same sentence."""
    test = jsonl(tmp_path / "test.jsonl", pairs(("\u0915\u093f", "that"), ("\u0915\u0940", "of")))
    dev = jsonl(tmp_path / "dev.jsonl", pairs(("\u0915\u093e", "of")))
    build_corpus(replace(config, test=test, dev=dev), tmp_path / "out")
    assert len(load_corpus(tmp_path / "out").dev) == 1


def test_dev_may_not_be_test(config: DataConfig) -> None:
    with pytest.raises(ConfigError, match=r"data\.dev must be another source than data\.test, got '.*': what is chosen, and"):
        replace(config, dev=config.test)


@pytest.mark.parametrize("role", ["pool", "seeds"])
def test_leaks_stop_or_are_dropped(tmp_path: Path, config: DataConfig, role: str) -> None:
    leaking = jsonl(tmp_path / "leak.jsonl", pairs(("a", "b"), ("wer  DA?", "x"), ("Ende", "End"), ("Jawohl", "Yes.")))
    config = with_source(config, role, leaking)
    message = (rf"data\.{role} \(.*leak\.jsonl\) has 2 rows whose source sentence is also in dev or test, none is "
               r"allowed: line 2 'wer DA\?' \(in dev\), line 3 'Ende' \(in test\); take these rows out, or drop them "
               r"with --experiment\.data\.drop_leaked true")
    with pytest.raises(DataError, match=message):
        build_corpus(config, tmp_path / "out")
    build_corpus(replace(config, drop_leaked=True), tmp_path / "out")
    built = load_corpus(tmp_path / "out")
    assert [pair.src for pair in getattr(built, role)] == ["a", "Jawohl"]
    assert built.summary[f"{role}/leaked_dropped"] == 2


def test_labels_stay_aside(tmp_path: Path, config: DataConfig) -> None:
    noise = ["copied", "", None, False, True, 0]
    rows = [{"src": f"s{i}", "tgt": f"t{i}", "noise": label} for i, label in enumerate(noise)]
    pool = jsonl(tmp_path / "labelled.jsonl", [*rows, {"src": "s", "tgt": "t"}])
    build_corpus(replace(config, pool=pool, label_column="noise"), tmp_path / "out")
    built = load_corpus(tmp_path / "out")
    assert built.labels is not None and built.noisy is not None
    assert list(built.labels) == ["copied", "", "", "", "True", "", ""]
    assert built.noisy.tolist() == [True, False, False, False, True, False, False]
    assert list(pd.read_feather(tmp_path / "out/pool.arrow")) == ["id", "src", "tgt"], "no selector sees a label"
    build_corpus(replace(config, pool=pool), tmp_path / "out")
    built = load_corpus(tmp_path / "out")
    assert built.labels is None and built.noisy is None


# -- Messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "message"), [
    ("no/such.jsonl", r"^no/such\.jsonl does not exist \(looked for /.*\): correct the path; a source is one of .*\.jsonl"),
    ("hub:", r"a hub source must be hub:NAME\[@REVISION\]\[:CONFIG\]:SPLIT, got 'hub:': write for example hub:wmt/wmt14"),
    ("hub:name", r"a hub source must be hub:NAME\[@REVISION\]\[:CONFIG\]:SPLIT, got 'hub:name'"),
    ("quickstart:train", r"must be one of quickstart:test, .*quickstart:pool, got 'quickstart:train': correct it")])
def test_sources_that_are_not_there(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_of(source)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl.bz2", "a.parquet.gz", "a"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"has the unknown suffix '.*': rename or convert it; a source is one of \.csv"):
        rows_of(tmp_path / name)


@pytest.mark.parametrize("name", WRITERS)
def test_missing_columns(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"has no column 'de' and no column 'noise', it has src, tgt: set --experiment\."
                                        r"data\.src_column, tgt_column and label_column to these names"):
        rows_of(WRITERS[name](tmp_path / name), src_column="de", label_column="noise")


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_table_without_names_is_told_so_first(tmp_path: Path, name: str) -> None:
    parts = "\t" if name.endswith("tsv") else ","
    (tmp_path / name).write_text(f"Hallo{parts}Hello\nWelt{parts}World\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name} must begin with a line of column names, src and tgt, it begins with Hallo, "
                                        r"Hello: add such a line, or if this is one, set --experiment\.data\.src_column"):
        rows_of(tmp_path / name)


def test_missing_nested_column_names_what_is_there(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", [{"translation": {"fr": "x", "en": "y"}}])
    with pytest.raises(DataError, match=r"no column 'translation\.de', it has translation\.fr, translation\.en:"):
        rows_of(source, src_column="translation.de", tgt_column="translation.en")


def test_a_wrong_column_stops_early(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", pairs(*ROWS) * 300 + ["x"] * 10_000)
    read: list[SourceRow] = []
    with pytest.raises(DataError, match="no column 'de'"):
        read.extend(read_rows(DataConfig(pool=source, src_column="de"), "pool"))
    assert len(read) < 1000


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.json.zst", zstd(b'[{"src": "a"'), r"a\.json\.zst must be one JSON list of rows"),
    ("a.jsonl.zst", b"plain", r"data\.pool \(.*\) cannot be read, OSError: .*; check the file, or give another"),
    ("a.jsonl.zst", zstd(b'{"src": "a", "tgt": "b"}\n' * 9)[:-9], r"cannot be read, OSError"),
    ("a.json", b'[{"src": "a"', r"must be one JSON list of rows, got text that is not valid JSON \(.*\): mend it, or"),
    ("a.jsonl.gz", b"plain", r"data\.pool \(.*\) cannot be read, BadGzipFile: .*; check the file, or give another"),
    ("a.jsonl.gz", gzip.compress(b'{"src": "a", "tgt": "b"}\n' * 9, mtime=0)[:-9], r"cannot be read, EOFError"),
    ("a.parquet", b"PAR1 not", r"must be a Parquet file, got one that cannot be read \(.*\): write it again, or")])
def test_broken_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path / name)


def test_folders_that_datasets_cannot_open(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"Hugging Face datasets cannot load .*empty, .*; check name, configuration"):
        rows_of(tmp_path / "empty")
    datasets.DatasetDict({"de": datasets.Dataset.from_list(pairs(*ROWS))}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(DataError, match=r"splits must hold a split 'train', got de: give the folder of one split, "):
        rows_of(tmp_path / "splits")


# -- Identity --------------------------------------------------------------------------------------


def test_ids_are_what_they_always_were() -> None:
    assert pair_id("Guten Tag.", "Good day.") == "53320927bc099d2e"
    assert pair_id("Grüße", "日本") != pair_id("Grüße日", "本")


def test_the_same_corpus_twice_has_the_same_bytes(tmp_path: Path, config: DataConfig) -> None:
    for out in ("one", "two"):
        build_corpus(config, tmp_path / out)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["dev.arrow", "pool.arrow", "quarantine.jsonl", "seeds.arrow", "summary.json", "test.arrow"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert pd.read_feather(tmp_path / "one/test.arrow").to_dict("records")[0] == {
        "id": pair_id("Ende", "End"), "src": "Ende", "tgt": "End"}


def test_the_digest_is_of_the_pairs_in_their_order(tmp_path: Path, config: DataConfig) -> None:
    def digest(*rows: tuple[str, str], taken: slice = slice(None)) -> str:
        build_corpus(replace(config, pool=jsonl(tmp_path / "other.jsonl", pairs(*rows))), tmp_path / "out")
        pool = load_corpus(tmp_path / "out").pool
        return (pool if taken == slice(None) else pool.take(np.arange(len(pool))[taken])).digest

    assert digest(("a", "b"), ("c", "d")) == digest(("a ", "b"), ("c", "d"), ("a", "b"))
    assert len({digest(("a", "b"), ("c", "d")), digest(("c", "d"), ("a", "b")), digest(("a", "b"), ("c", "e"))}) == 3
    assert digest(("a", "b"), ("c", "d"), taken=slice(1)) == digest(("a", "b")) != digest(("a", "b"), ("c", "d"))
    assert digest(("a", "b"), ("c", "d"), taken=slice(2)) == digest(("a", "b"), ("c", "d"))


def test_ids_find_their_rows(tmp_path: Path, config: DataConfig) -> None:
    build_corpus(config, tmp_path / "out")
    pool = load_corpus(tmp_path / "out").pool
    assert np.flatnonzero(pool.among([pool[7].id, "0" * 16, pool[2].id])).tolist() == [2, 7]
    assert np.flatnonzero(pool.take(np.array([9, 7, 1])).among([pool[7].id])).tolist() == [1]
    assert not pool.among([]).any()


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_counted_before_they_are_read(tmp_path: Path, name: str) -> None:
    """A header is none."""
    path = WRITERS[name](tmp_path / name)
    assert count_rows(DataConfig(pool=str(path)), "pool") == len(ROWS)
    if path.suffix == ".jsonl":
        path.write_bytes(path.read_bytes().rstrip())
        assert count_rows(DataConfig(pool=str(path)), "pool") == len(ROWS)


def test_progress_adds_up_to_the_rows(tmp_path: Path, config: DataConfig) -> None:
    pool = jsonl(tmp_path / "many.jsonl", pairs(*((f"s{i}", f"t{i}") for i in range(2500))))
    steps: list[int] = []
    build_corpus(replace(config, pool=pool), tmp_path / "out", steps.append)
    assert steps == [2, 2, 3, 1000, 1000, 500]


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl")
    first = source_fingerprint(str(path))
    path.write_bytes(path.read_bytes() + b"\n")
    assert len(first) == 64
    assert source_fingerprint(str(path)) != first
    folder = write_folder(tmp_path / "folder")
    first = source_fingerprint(str(folder))
    (folder / "train.jsonl").rename(folder / "renamed.jsonl")
    assert source_fingerprint(str(folder)) != first
    assert source_fingerprint("hub:me/data:train") == "hub:me/data:train"
    with pytest.raises(DataError, match=r"no/such\.jsonl does not exist"):
        source_fingerprint("no/such.jsonl")


def test_fingerprint_of_the_quickstart() -> None:
    assert len(source_fingerprint("quickstart:pool")) == 64
    assert source_fingerprint("quickstart:pool") != source_fingerprint("quickstart:dev")
    with pytest.raises(DataError, match="must be one of quickstart:test"):
        source_fingerprint("quickstart:nothing")


def test_import_loads_no_heavy_library() -> None:
    code = "import sys, mtselect.data.corpus; print({'datasets', 'pandas', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["a.jsonl", "a.json", "a.tsv", "a.csv", "a.jsonl.gz", "a.parquet"]),
       st.lists(st.one_of(st.binary(max_size=20), st.sampled_from(
           [b'{"src":', b'"a"', b',"tgt":"b"}', b"src\ttgt", b"src,tgt", b"a\tb", b"a,b", b"\n", b"[", b"]", b'"',
            b"\r"]))))
def test_any_bytes_give_rows_or_a_data_error(name: str, parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(b"".join(parts))
        try:
            rows = rows_of(Path(folder) / name)
        except DataError:
            return
    assert [row.line for row in rows] == sorted({row.line for row in rows})
    for row in rows:
        (row.src + row.tgt + row.label + row.excerpt).encode("utf-8")


SIDE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=5))
def test_any_text_reads_back_equal_up_to_whitespace(written: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(jsonl(Path(folder) / "a.jsonl", pairs(*written)))
    for (src, tgt), row in zip(written, rows, strict=True):
        usable = bool(src.strip() and tgt.strip())
        assert row.reason == (None if usable else "empty side")
        if usable:
            assert (row.src.split(), row.tgt.split()) == (src.split(), tgt.split())
            assert len((row.src + row.tgt).splitlines()) == 1
            assert "\t" not in row.src + row.tgt


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(SIDE, SIDE).filter(lambda pair: bool(pair[0].strip() and pair[1].strip())), min_size=1,
                max_size=5))
def test_any_corpus_loads_as_it_was_read(written: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = jsonl(Path(folder) / "a.jsonl", pairs(*written))
        other = jsonl(Path(folder) / "b.jsonl", pairs(("\N{SNOWMAN} only here", "x")))
        test = jsonl(Path(folder) / "d.jsonl", pairs(("\N{SNOWMAN} only in test, which no strategy writes", "x")))
        config = DataConfig(pool=other, dev=source, test=test, drop_leaked=True)
        rows = list(read_rows(config, "dev"))
        config = replace(config, seeds=jsonl(Path(folder) / "c.jsonl", pairs(("\N{SNOWMAN} seed", "x"))))
        build_corpus(config, Path(folder) / "out")
        assert list(load_corpus(Path(folder) / "out").dev) == [
            Pair(id=pair_id(row.src, row.tgt), src=row.src, tgt=row.tgt) for row in rows]
