"""Forms in which translators and OPUS keep texts: Moses pairs, zips of OPUS, translation memories."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from mtselect.config import DataConfig
from mtselect.data.rows import count_rows
from mtselect.errors import DataError
from mtselect.readers.base import source_fingerprint
from tests.sources import reasons, rows_of, texts

DE, EN = ["Guten Tag.", "Er sagt \u2028 ja", "Drei\r"], ["Good day.", "He says yes", "Three"]
ROWS = [("Guten Tag.", "Good day."), ("Er sagt ja", "He says yes"), ("Drei", "Three")]


def swapped(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(tgt, src) for src, tgt in rows]


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    packed = {".gz": gzip.compress, ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}
    path.write_bytes(packed.get(path.suffix, lambda data: data)(data))
    return path


def lines(sentences: list[str]) -> str:
    return "".join(f"{sentence}\n" for sentence in sentences)


def moses(folder: Path, src: str = "crawl.de", tgt: str = "crawl.en", de: str | bytes = lines(DE),
          en: str | bytes = lines(EN)) -> Path:
    write(folder / src, de)
    write(folder / tgt, en)
    return folder


# -- Moses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("src", "tgt", "source"), [
    ("crawl.de", "crawl.en", "crawl.de-en"), ("crawl.de.gz", "crawl.en.zst", "crawl.de-en"),
    ("crawl.de-en.de", "crawl.de-en.en", "crawl.de-en"), ("crawl.en-de.de", "crawl.en-de.en", "crawl.de-en"),
    ("crawl.de", "crawl.en", "crawl.{de,en}"), ("crawl.de.gz", "crawl.en.gz", "crawl.{de,en}.gz"),
    ("crawl.deu_Latn", "crawl.eng_Latn", "crawl.deu_Latn-eng_Latn"), ("source.txt", "target.txt", "{source,target}.txt")])
def test_two_files_are_one_source(tmp_path: Path, src: str, tgt: str, source: str) -> None:
    moses(tmp_path, src, tgt)
    assert texts(rows_of(tmp_path / source)) == ROWS
    assert count_rows(DataConfig(pool=str(tmp_path / source)), "pool") == 3


def test_the_order_of_the_languages_decides(tmp_path: Path) -> None:
    source = moses(tmp_path) / "crawl.en-de"
    assert texts(rows_of(source)) == swapped(ROWS)
    assert texts(rows_of(source, src_column="de", tgt_column="en")) == ROWS
    assert source_fingerprint(str(source)) != source_fingerprint(str(tmp_path / "crawl.de-en"))


def test_the_fingerprint_sees_both_files(tmp_path: Path) -> None:
    source = str(moses(tmp_path) / "crawl.de-en")
    seen = {source_fingerprint(source)}
    for name in ("crawl.de", "crawl.en"):
        write(tmp_path / name, lines(["a", "b", "c"]))
        seen.add(source_fingerprint(source))
    assert len(seen) == 3


def test_a_folder_of_that_name_stays_a_folder(tmp_path: Path) -> None:
    (tmp_path / "crawl.de-en").mkdir()
    write(tmp_path / "crawl.de-en" / "train.jsonl", '{"src": "Ja.", "tgt": "Yes."}\n')
    assert texts(rows_of(tmp_path / "crawl.de-en")) == [("Ja.", "Yes.")]


def test_bad_lines_are_quarantined_and_shift_nothing(tmp_path: Path) -> None:
    source = moses(tmp_path, de=b"eins\n\nB\xe4r\nvier\n" + b"x" * 2**24 + b"y\nsechs",
                   en="one\ntwo\nbear\nfour\nfive\nsix\n") / "crawl.de-en"
    rows = rows_of(source)
    assert reasons(rows) == {2: "empty side", 3: "not UTF-8", 5: "longer than data.max_chars"}
    assert [(row.src, row.tgt) for row in rows if not row.reason] == [("eins", "one"), ("vier", "four"), ("sechs", "six")]


@pytest.mark.parametrize(("de", "longer", "counted"), [("a\nb\n", "second has a line 3", "2 and 3 lines"),
                                                       ("a\nb\nc\nd", "first has a line 4", "4 and 3 lines")])
def test_files_of_different_length_are_refused(tmp_path: Path, de: str, longer: str, counted: str) -> None:
    source = moses(tmp_path, de=de) / "crawl.de-en"
    with pytest.raises(DataError, match=rf"crawl\.de and .*\.en must have as many lines as each other, got only the {longer}"):
        rows_of(source)
    with pytest.raises(DataError, match=rf"must have as many lines as each other, got {counted}: .* take both from one export"):
        count_rows(DataConfig(pool=str(source)), "pool")


def test_a_missing_side_is_named(tmp_path: Path) -> None:
    write(tmp_path / "crawl.de", "a\n")
    with pytest.raises(DataError, match=r"crawl\.de-en stands for two files, and no two of .*crawl\.de, .*crawl\.en, .* \(each "
                                        r"perhaps \.gz or \.zst\) are in /.*: correct the path; a source is one of"):
        rows_of(tmp_path / "crawl.de-en")
    with pytest.raises(DataError, match=r"crawl\.en does not exist"):
        rows_of(tmp_path / "crawl.{de,en}")


def test_another_column_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'fr', it has src, tgt, de, en:"):
        rows_of(moses(tmp_path) / "crawl.de-en", src_column="fr", tgt_column="en")


# -- OPUS ------------------------------------------------------------------------------------------


def opus(path: Path, members: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


SIDES = {"Books.de-en.de": lines(DE), "Books.de-en.en": lines(EN)}
BESIDE = {"README": "x", "LICENSE": "y", "Books.de-en.ids": "1\n2\n3\n", "Books.de-en.xml": "<x/>"}


@pytest.mark.parametrize("members", [{**BESIDE, **SIDES}, {f"de-en/{name}": text for name, text in SIDES.items()}])
def test_a_zip_of_opus_is_read_as_it_comes(tmp_path: Path, members: Mapping[str, str]) -> None:
    path = opus(tmp_path / "de-en.txt.zip", members)
    assert texts(rows_of(path)) == texts(rows_of(f"{path}:de-en")) == ROWS
    assert texts(rows_of(f"{path}:en-de")) == swapped(ROWS)
    assert count_rows(DataConfig(pool=str(path)), "pool") == 3
    assert len(source_fingerprint(str(path))) == 64


@pytest.mark.parametrize(("members", "asked"), [
    ({"README": "x"}, ""), (SIDES, ":de-fr"), ({"Books.de-en.de": "a"}, ""),
    ({**SIDES, "Bible.de-en.de": "a\n", "Bible.de-en.en": "b\n"}, ""), ({**SIDES, "Bible.de-en.de": "a\n"}, ":de-en")])
def test_a_zip_without_one_pair_of_files_is_refused(tmp_path: Path, members: Mapping[str, str], asked: str) -> None:
    path = opus(tmp_path / "a.zip", members)
    with pytest.raises(DataError, match=r"a\.zip.* must hold one pair of files such as NAME\.de-en\.de .*, got .*: unpack it"):
        rows_of(f"{path}{asked}")


def test_what_is_no_zip_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", "no zip")
    with pytest.raises(DataError, match=r"a\.zip must be a zip file as OPUS has them, got one that cannot be .*: download"):
        rows_of(tmp_path / "a.zip")


# -- TMX -------------------------------------------------------------------------------------------

TMX = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4">
 <header srclang="{srclang}" adminlang="en" datatype="plaintext" segtype="sentence" o-tmf="x" creationtool="x"
  creationtoolversion="1"/>
 <body>{body}
 </body>
</tmx>
"""


def unit(**segments: str) -> str:
    variants = "".join(f'<tuv xml:lang="{language.replace("_", "-")}"><seg>{text}</seg></tuv>'
                       for language, text in segments.items())
    return f"\n  <tu tuid='1'><prop type='x'>no text</prop>{variants}</tu>"


def tmx(path: Path, *units: str, srclang: str = "de") -> Path:
    return write(path, TMX.format(srclang=srclang, body="".join(units)))


UNITS = [unit(en=en, de=de) for de, en in zip(DE, EN, strict=True)]


@pytest.mark.parametrize("name", ["m.tmx", "m.tmx.gz", "m.TMX.zst"])
def test_a_memory_is_read_from_its_source_language(tmp_path: Path, name: str) -> None:
    path = tmx(tmp_path / name, *UNITS)
    assert texts(rows_of(path)) == texts(rows_of(f"{path}:de-en")) == ROWS
    assert texts(rows_of(f"{path}:en-de")) == texts(rows_of(path, src_column="en", tgt_column="de")) == swapped(ROWS)
    assert count_rows(DataConfig(pool=str(path)), "pool") == 3
    assert len(source_fingerprint(f"{path}:en-de")) == 64


def test_markup_leaves_its_text_and_no_codes(tmp_path: Path) -> None:
    marked = 'Drücken <bpt i="1">&lt;b&gt;</bpt><hi>Sie <ph x="1">{0}</ph>hier</hi><ept i="1">&lt;/b&gt;</ept> &amp; dort'
    path = tmx(tmp_path / "m.tmx", unit(de=marked, en="Press <it pos='begin'>x<sub>y</sub></it>here &amp; there"))
    assert texts(rows_of(path)) == [("Drücken Sie hier & dort", "Press here & there")]


def test_comments_in_a_segment_are_no_text(tmp_path: Path) -> None:
    path = tmx(tmp_path / "m.tmx", unit(de="Drücken <!-- checked -->Sie <?memory of=1?>hier", en="Press <!-- by A. -->here"))
    assert texts(rows_of(path)) == [("Drücken Sie hier", "Press here")]


def test_a_unit_without_a_side_is_quarantined_at_its_line(tmp_path: Path) -> None:
    rows = rows_of(tmx(tmp_path / "m.tmx", unit(de="a", en="b"), unit(de="c", fr="d"), unit(de="e", en=" ")))
    assert reasons(rows) == {8: "column missing", 9: "empty side"}
    assert [row.line for row in rows] == [7, 8, 9]


def test_line_numbers_have_no_end(tmp_path: Path) -> None:
    rows = rows_of(tmx(tmp_path / "m.tmx", "\n" * 70_000, *UNITS))
    assert [row.line for row in rows] == [70_007, 70_008, 70_009]


def test_kinds_of_a_language_are_that_language(tmp_path: Path) -> None:
    path = tmx(tmp_path / "m.tmx", unit(de_AT="Jänner", en_GB="January"), unit(de_DE="Januar", en="January"), srclang="DE")
    assert texts(rows_of(path)) == [("Jänner", "January"), ("Januar", "January")]
    rows = rows_of(f"{path}:en_GB-de")
    assert (rows[0].src, rows[0].tgt) == ("January", "Jänner") and reasons(rows) == {8: "column missing"}


def test_a_memory_may_be_of_two_kinds_of_one_language(tmp_path: Path) -> None:
    path = tmx(tmp_path / "m.tmx", unit(pt_PT="autocarro", pt_BR="ônibus"), srclang="pt-BR")
    assert texts(rows_of(path)) == [("ônibus", "autocarro")]


@pytest.mark.parametrize(("srclang", "units"), [("*all*", UNITS), ("fr", UNITS), ("de", [unit(de="a", en="b", fr="c")])])
def test_a_memory_that_does_not_say_its_direction_is_asked(tmp_path: Path, srclang: str, units: list[str]) -> None:
    said = re.escape(f"must say what is translated into what, got srclang '{srclang}' and a first unit in ")
    with pytest.raises(DataError, match=rf"m\.tmx {said}.*: name both, as .*m\.tmx:de-en"):
        rows_of(tmx(tmp_path / "m.tmx", *units, srclang=srclang))


def test_what_is_not_well_formed_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmx(tmp_path / "m.tmx", *UNITS, "<tu>")
    with pytest.raises(DataError, match=r"m\.tmx must be a TMX file, got text that is not well-formed XML .*line \d+.*: mend"):
        rows_of(path)


def test_entities_of_a_memory_open_no_file(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", "secret")
    text = TMX.format(srclang="de", body=unit(de="&s;", en="b")).replace(
        'SYSTEM "tmx14.dtd"', f'[<!ENTITY s SYSTEM "file://{secret}">]')
    assert "secret" not in str(rows_of(write(tmp_path / "m.tmx", text)))
