"""What is written is what our readers read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtselect.config import DataConfig
from mtselect.data.output import check_output, is_output_file, write_rows
from mtselect.data.rows import read_rows
from mtselect.errors import ConfigError
from mtselect.readers.base import reader_of

ROWS = [{"id": "a", "src": 'Er sagt "ja', "tgt": "日本 語", "z": 0.1, "cluster": 1},
        {"id": "b", "src": "Grüße,", "tgt": "Good \u2028 day", "z": -2.5, "cluster": 0}]
SIDES = [('Er sagt "ja', "日本 語"), ("Grüße,", "Good day")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.JSONL.zst", "a.tsv", "a.tsv.gz", "a.tsv.zst", "a.parquet",
                                  "a.de-en", "a.{de,en}.gz", "a.{de,en}.zst"])
def test_every_form_is_read_again(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert is_output_file(path)
    check_output("--out", path)
    write_rows(path, ROWS)
    assert [(row.src, row.tgt) for row in read_rows(DataConfig(pool=str(path)), "pool")] == SIDES
    if not name.startswith(("a.de", "a.{")):
        fields = [record.fields or {} for record in reader_of(str(path)).records(str(path), list(ROWS[0]))]
        assert [(one["id"], float(str(one["z"])), str(one["cluster"])) for one in fields] == [("a", 0.1, "1"), ("b", -2.5, "0")]
    again = sorted(file.read_bytes() for file in tmp_path.iterdir())
    write_rows(path, ROWS)
    assert sorted(file.read_bytes() for file in tmp_path.iterdir()) == again, "the same bytes, and nothing left beside them"


def test_moses_has_both_sides_under_their_languages(tmp_path: Path) -> None:
    write_rows(tmp_path / "chosen.deu_Latn-en", ROWS[:1])
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        "chosen.deu_Latn": 'Er sagt "ja\n', "chosen.en": "日本 語\n"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.parquet", "a.de-en"])
def test_a_set_may_be_empty(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / name, [])
    assert list(tmp_path.iterdir())


def test_another_ending_is_json_lines(tmp_path: Path) -> None:
    write_rows(tmp_path / "chosen", ROWS)
    write_rows(tmp_path / "a.jsonl", ROWS)
    assert not is_output_file(tmp_path / "chosen")
    assert (tmp_path / "chosen").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["a.csv", "a.json.gz", "a.tmx", "a.zip"])
def test_forms_that_are_only_read_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--out '.*' has the ending of a form that is only read: end it in \.jsonl or"):
        check_output("--out", tmp_path / name)
