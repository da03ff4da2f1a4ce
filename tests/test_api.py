"""`mtselect.select`, `mtselect.score`, `mtselect.load_set`: the commands' stages, from Python."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mtselect
from mtselect.config import Experiment, with_fields
from mtselect.errors import ConfigError, DataError, Faults, UserError
from mtselect.readers.base import reader_of

TINY: Mapping[str, object] = {
    "model.hidden_size": 32, "model.n_layers": 1, "model.n_heads": 2, "model.vocab_size": 400, "model.dtype": "float32",
    "warmup.epochs": 1, "warmup.learning_rate": 0.01, "attribution.curvature_rows": 60, "runtime.threads": 1}
Rows = list[dict[str, Any]]


def rows_of(part: str, count: int) -> Rows:
    source = f"quickstart:{part}"
    return [dict(record.fields or {}) for record, _ in zip(reader_of(source).records(source, []), range(count), strict=False)]


@pytest.fixture(scope="module")
def pool() -> Rows:
    return rows_of("pool", 300)


@pytest.fixture(scope="module")
def seeds() -> Rows:
    return rows_of("seeds", 40)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def select(workdir: Path) -> Callable[..., datasets.Dataset]:
    return partial(mtselect.select, workdir=workdir, settings=TINY)


def entries(workdir: Path) -> dict[str, int]:
    """What was computed, and when."""
    return {str(path): path.stat().st_mtime_ns for path in workdir.glob("store/*/*/manifest.json")}


def moses(folder: Path, name: str, rows: Rows) -> str:
    for side, language in (("src", "de"), ("tgt", "en")):
        (folder / f"{name}.{language}").write_text("".join(f"{row[side]}\n" for row in rows), encoding="utf-8")
    return str(folder / f"{name}.de-en")


def test_a_set_comes_in_one_line(select: Callable[..., Any], pool: Rows, seeds: Rows) -> None:
    chosen = select(pool, seeds, budget=50)
    assert isinstance(chosen, datasets.Dataset) and chosen.num_rows == 50
    assert chosen.column_names == ["id", "src", "tgt", "z", "benefit", "benefit_share", "cluster", "gate"]
    there = [(row["src"], row["tgt"]) for row in pool]
    places = [there.index((row["src"], row["tgt"])) for row in chosen]
    assert places == sorted(places), "in the pool's order"
    clean = [not pool[place]["noise"] for place in places]
    assert np.mean(clean) > np.mean([not row["noise"] for row in pool]), "noise is what it is to leave out"


FORMS: dict[str, Callable[[Path, Rows], Any]] = {
    "mappings": lambda folder, rows: rows,
    "pairs": lambda folder, rows: [(row["src"], row["tgt"]) for row in rows],
    "generator": lambda folder, rows: ((row["src"], row["tgt"]) for row in rows),
    "pandas": lambda folder, rows: pd.DataFrame(rows),
    "arrow": lambda folder, rows: pa.Table.from_pylist(rows),
    "dataset": lambda folder, rows: datasets.Dataset.from_list(rows),
    "chosen rows": lambda folder, rows: datasets.Dataset.from_list([rows[0], *rows]).select(range(1, 1 + len(rows))),
    "moses": lambda folder, rows: moses(folder, "rows", rows),
    "path": lambda folder, rows: Path(pd.DataFrame(rows).to_json(folder / "a.jsonl", orient="records", lines=True)
                                      or folder / "a.jsonl")}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_set_and_no_stage_runs_twice(form: str, select: Callable[..., Any], pool: Rows, seeds: Rows,
                                                               workdir: Path, tmp_path: Path) -> None:
    expected = select(pool, seeds, budget=50).to_list()
    before = entries(workdir)
    assert select(FORMS[form](tmp_path, pool), seeds, budget=50).to_list() == expected
    new = {Path(path).parts[-3] for path in entries(workdir).items() - before.items() for path in [path[0]]}
    assert new <= {"corpus"}, "what was read is known by its content"
    again = entries(workdir)
    assert select(FORMS[form](tmp_path, pool), seeds, budget=50).to_list() == expected
    assert entries(workdir) == again


def test_it_is_what_the_command_selects(select: Callable[..., Any], pool: Rows, seeds: Rows, workdir: Path, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = {"pool": moses(tmp_path, "crawl", pool), "seeds": moses(tmp_path, "trusted", seeds)}
    fields = {**{f"experiment.data.{role}": source for role, source in sources.items()}, "experiment.data.dev": "null",
              "experiment.data.test": "null", "experiment.selection.budget": "0.2", "runtime.workdir": str(workdir),
              **{name if name.startswith("runtime.") else f"experiment.{name}": str(value) for name, value in TINY.items()}}
    options = [part for name, value in fields.items() for part in (f"--{name}", value)]
    Path("empty.yaml").write_text("{}", encoding="utf-8")
    assert importlib.import_module("mtselect.select").main(["empty.yaml", "--out", "chosen.jsonl", *options]) == 0
    rows = [json.loads(line) for line in Path("chosen.jsonl").read_text(encoding="utf-8").splitlines()]
    assert select(*sources.values(), budget=0.2).to_list() == rows and len(rows) == 60


def test_any_field_can_be_set(select: Callable[..., Any], pool: Rows, seeds: Rows) -> None:
    settings = {**TINY, "selection.method": "loss", "experiment.selection.gate": None, "runtime.batch_size": 7}
    found = select(pool, seeds, budget=30, settings=settings)
    assert found.column_names == ["id", "src", "tgt"]
    scored = mtselect.score(pool, seeds, signals=["losses"], settings=TINY, workdir=select.keywords["workdir"]).to_pandas()  # type: ignore[attr-defined]
    assert set(found["id"]) == set(scored.nsmallest(30, "loss")["id"])


def test_all_that_is_known_of_every_pair(select: Callable[..., Any], pool: Rows, seeds: Rows, workdir: Path) -> None:
    chosen = {row["id"]: row for row in select(pool, seeds, budget=50)}
    before = entries(workdir)
    scored = mtselect.score(pool, seeds, settings={**TINY, "selection.budget": 50}, workdir=workdir)
    assert scored.column_names == ["id", "src", "tgt", "z", "benefit", "benefit_share", "raw_share", "gradient_norm", "loss",
                                   "pmi", "seeded_loss", "tokens", "cosine", "overlap", "gate", "passed", "selected",
                                   "rank", "why"]
    assert {Path(path).parts[-3] for path in entries(workdir).keys() - before.keys()} <= {"scores", "verdicts"}
    assert {row["id"] for row in scored if row["selected"]} == chosen.keys()
    assert scored.num_rows == len(set(scored["id"])) > 250
    for row in scored:
        if row["id"] in chosen:
            assert row["passed"]
            assert {name: row[name] for name in ("z", "benefit", "gate")} == {
                name: chosen[row["id"]][name] for name in ("z", "benefit", "gate")}
    after = scored.to_pandas()
    after = after[after["passed"]]
    places = after["z"].rank() + after["seeded_loss"].rank(ascending=False)
    assert set(after["id"][places.sort_values(ascending=False, kind="stable").index[:50]]) == chosen.keys()


def test_only_what_is_asked_for_is_computed(pool: Rows, seeds: Rows, tmp_path: Path) -> None:
    scored = mtselect.score(pool, seeds, signals=["adequacy"], settings={**TINY, "selection.gate": None}, workdir=tmp_path)
    assert scored.column_names == ["id", "src", "tgt", "cosine", "overlap"]
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"corpus", "base", "tokens", "adequacy", "scores"}


def test_a_leak_is_refused_where_dev_is_named(select: Callable[..., Any], pool: Rows, seeds: Rows) -> None:
    with pytest.raises(DataError, match=r"data\.pool \(.*\.parquet\) has \d rows whose source sentence is also in dev or test"):
        select(pool, seeds, dev=pool[:3])


@pytest.mark.parametrize(("change", "error", "said"), [
    ({"pool": 5}, DataError, r"^pool must be a source .*, got int \(which has no rows\): bring it"),
    ({"seeds": {"src": ["a"]}}, DataError, r"^seeds must be a source .*, got dict"),
    ({"pool": ["one", "two"]}, DataError, r"^pool must be a source .*, got list \(.*\): bring it"),
    ({"pool": "no.jsonl"}, DataError, r"^no\.jsonl does not exist"),
    ({"pool": [{"de": "a", "en": "b"}]}, DataError, r"has no column 'src' and no column 'tgt', it has de, en"),
    ({"budget": -1}, ConfigError, r"^selection\.budget must be "),
    ({"settings": {"selection.bugdet": 5}}, ConfigError, r"^unknown field 'selection\.bugdet': did you mean 'selection\.b"),
    ({"settings": {"runtime.treads": 5}}, ConfigError, r"^unknown field '(runtime\.)?treads': did you mean"),
    ({"settings": {"selection.n_clusters": 4, "attribution.sketch_rank": 0}}, ConfigError, r"attribution\.sketch_rank must be"),
    ({"settings": {"model.n_heads": 0, "selection.seed": -1}}, Faults, r"model\.n_heads must .*\n.*selection\.seed must")])
def test_what_is_wrong_is_one_of_our_errors(change: dict[str, Any], error: type[UserError], said: str, pool: Rows, seeds: Rows,
                                            tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"pool": pool, "seeds": seeds, "workdir": tmp_path, **change}
    with pytest.raises(error, match=said):
        mtselect.select(**arguments)


def test_a_signal_that_there_is_not_is_refused(select: Callable[..., Any], pool: Rows, seeds: Rows, workdir: Path) -> None:
    with pytest.raises(ConfigError, match=r"signals must be of benefits, losses, pmi, .*, got 'loss'"):
        mtselect.score(pool, seeds, signals=["loss"], workdir=workdir)  # type: ignore[list-item]


def test_a_name_that_is_no_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a promoted set must be STUDY, STUDY@ALIAS or STUDY/VERSION, .* got 'a/b'"):
        mtselect.load_set("a/b")


def test_a_server_that_is_not_there_is_told_as_python_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no MLflow at sqlite:.*: set the argument uri \(or MLFLOW_TRACKING_URI\)$"):
        mtselect.load_set("a", uri=f"sqlite:///{tmp_path}/mlflow.db")


# -- Languages -------------------------------------------------------------------------------------


def test_languages_come_from_names_then_seeds(pool: Rows, seeds: Rows, tmp_path: Path) -> None:
    from mtselect.api import _sweep

    def asked(source: Any, src: str | None = None, tgt: str | None = None, seeds: Any = seeds, settings: Any = None
              ) -> tuple[str, str]:
        data = _sweep(source, seeds, None, src, tgt, None, None, {}, settings, tmp_path).experiment.data
        return data.src_lang, data.tgt_lang

    assert asked(pool) == ("German", "English")
    assert asked("crawl.cs-en") == ("Czech", "English")
    assert asked("crawl.cs-en", src="ces_Latn") == ("ces_Latn", "English")
    assert asked(pool, settings={"data.src_lang": "Swabian"}) == ("Swabian", "English")
    assert asked(pool, settings={"experiment.data.src_lang": "Swabian"}) == ("Swabian", "English")
    with pytest.raises(ConfigError, match=r"src_lang and tgt_lang must be given where neither a source's name .*: name"):
        asked(pool, tgt="English", seeds=[("日本", "1"), ("a", "2"), ("ñandú así", "3"), ("привет", "4")])


# -- The package -----------------------------------------------------------------------------------

IMPORTED = """
import sys, time
before = set(sys.modules)
start = time.process_time()
import mtselect
assert time.process_time() - start < 0.3
print(*{name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
import mtselect.select, mtselect.sweep
from mtselect import load_set, score, select
assert callable(mtselect.select) and mtselect.select is select and mtselect.sweep.run_sweep
"""


def test_importing_loads_nothing_and_commands_do_not_hide_functions() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["mtselect"]


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="module 'mtselect' has no attribute 'selct'"):
        mtselect.selct  # noqa: B018
    assert mtselect.__all__ == ["load_set", "score", "select"]


def test_a_sweep_wants_dev_and_test(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = importlib.import_module("mtselect.sweep").main
    assert sweep(["--dry-run", "--experiment.data.dev", "null", "--experiment.data.test", "null"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: data.dev must be a source where there is a sweep, got None: name the pairs that decide between trials",
        "error: data.test must be a source where there is a sweep, got None: name the pairs that promotion scores"]
    assert with_fields(Experiment(), {"data.dev": None, "data.test": None}).data.dev is None
