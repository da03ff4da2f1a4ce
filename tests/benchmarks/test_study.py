"""The study: records there and back, a page written from them, and a cell of it run whole with a tiny base."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mtselect.config import Experiment, with_fields

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
GOOD = {"ours": 9, "random": 5, "pool": 1}  # matching n-grams of ten


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("study")
    for name in ("study", "study_records", "study_report"):
        sys.modules.pop(name, None)


def records(study: Any, cells: list[str]) -> list[Any]:
    """Systems that differ by how many n-grams of every order match."""
    found = []
    for cell in cells:
        for system, matches in GOOD.items():
            rng = np.random.default_rng(len(system))
            statistics = {f"{split}/chrf/{seed}": np.stack([np.array([10, 10, min(10, matches + int(rng.integers(2)))] * 6)
                                                            for _ in range(30)]).astype(np.float64)
                          for split in ("dev", "test") for seed in range(2)}
            facts = {"noise": 0.1, "pairs": 100, "seconds": 3.0, "selection": {"method": system}, "steps": 5,
                     **{f"{split}/chrf/{seed}": 50.0 for split in ("dev", "test") for seed in range(2)}}
            found.append(study.Record(cell=cell, system=system, key=f"{cell} {system}", facts=facts, statistics=statistics))
    return found


def test_records_go_to_mlflow_and_to_files_and_back(study: Any, tmp_path: Path) -> None:
    store = study.Records(f"sqlite:///{tmp_path}/mlflow.db")
    one, *others = records(study, ["a noise 50% budget 33%"])
    for record in (one, one, *others):  # the second replaces the first
        store.add(record)
    assert store.has(one.cell, one.system, one.key) and not store.has(one.cell, one.system, "other")
    study.save(list(store.all()), tmp_path / "files", "chrf")
    again = {record.system: record for record in study.load(tmp_path / "files")}
    assert again.keys() == GOOD.keys()
    for name, values in one.statistics.items():
        assert (again[one.system].statistics[name] == values).all() and again[one.system].statistics[name].dtype == np.uint16
    assert dict(again[one.system].facts) == one.facts and again[one.system].key == one.key


def test_the_page_is_written_between_its_marks(study: Any, tmp_path: Path) -> None:
    page = tmp_path / "study.md"
    names = ("noisy dev", "noisy test", "one domain dev", "one domain test", "clean dev", "clean test", "scores", "cells")
    page.write_text("hand\n" + "".join(f"<!-- {name} -->\nold\n<!-- end -->\nbetween\n" for name in names))
    cells = ["a noise 50% budget 33%", "b noise 25% budget 33%", "c noise 0% budget 33%"]
    study.write(records(study, cells), cells, "ours", page, tmp_path)
    text = page.read_text()
    assert text.startswith("hand\n") and text.count("between\n") == len(names) and "old" not in text
    noisy = text.split("<!-- noisy dev -->")[1].split("<!-- end -->")[0].splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in noisy[3:]] == ["random", "pool"], "the hardest rival first"
    assert noisy[3].split(" | ")[3:] == ["2 of 2", "2", "0 |"] and "**+" in noisy[3]
    assert (tmp_path / "noisy.png").stat().st_size > 5000
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="must have one part <!-- noisy dev -->, has 0"):
        study.write(records(study, cells), cells, "ours", page, tmp_path)


def test_the_plans_default_is_that_of_mtselect(study: Any) -> None:
    plan = yaml.safe_load(study.PLAN.read_text())
    said = {f"selection.{name}": value for name, value in plan["systems"][plan["default"]].items()}
    assert with_fields(Experiment(), said).selection == Experiment().selection
    assert all("gate" in one or one["method"] in ("pool", "untuned") for one in plan["systems"].values()), "lest it moves"


@pytest.mark.skipif(not DATA.exists(), reason=f"needs the real parallel data in {DATA}")
def test_a_cell_runs_and_is_not_run_again(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    plan = yaml.safe_load((ROOT / "benchmarks" / "study.yaml").read_text())
    base = plan["bases"]["all"] | {"corpora": ["software.de-en"]}
    base["model"] |= {"hidden_size": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 400, "max_tokens": 512}
    base["train"] |= {"epochs": 1, "batch_size": 512}
    base["evaluation"] |= {"max_new_tokens": 2, "dev_rows": 20}
    base["attribution"] |= {"curvature_rows": 50}
    base["runtime"] = {"workdir": str(tmp_path / "mlruns"), "batch_size": 64, "processes": 1}
    pool = {"base": "tiny", "corpora": ["software.de-en"], "target": "software.de-en", "rows": 100, "seeds": 20, "held_out": 20}
    plan |= {"corpora": str(DATA), "work": str(tmp_path / "work"), "bases": {"tiny": base}, "pools": {"tiny": pool},
             "cells": [{"pool": "tiny", "noise": 0.5, "budget": 0.2}], "seeds": [1, 2],
             "systems": {"ours": {"gate": "learned"}, "untuned": {"method": "untuned"}, "few-shot": {"few_shot": True},
                         "12 seeds": {"gate": "learned", "n_seeds": 12}}}
    store = study.Records(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    study.run(plan, [], store)
    found = {one.system: one for one in store.all()}
    assert found.keys() == plan["systems"].keys()
    assert found["ours"].facts["pairs"] == 20 and 0 <= found["ours"].facts["noise"] <= 1
    assert found["ours"].facts["steps"] == round(2 * 20 / 32)
    assert {f"{split}/chrf/{seed}" for split in ("dev", "test") for seed in range(2)} <= found["ours"].statistics.keys()
    assert "dev/chrf/1" not in found["untuned"].statistics, "nothing is trained: one is as good as two"
    rows = {name: {row["src"] for row in study._lines(tmp_path / "work" / where)} for name, where in
            {"base": "base.tiny/pool.jsonl", "pool": "tiny-0.5/pool.jsonl", "seeds": "tiny-0.5/seeds.jsonl"}.items()}
    assert rows["base"].isdisjoint(rows["pool"] | rows["seeds"])
    few = (tmp_path / "work" / "tiny-0.5" / "seeds.12.jsonl").read_text().splitlines()
    assert few == (tmp_path / "work" / "tiny-0.5" / "seeds.jsonl").read_text().splitlines()[:12]
    assert found["12 seeds"].facts["pairs"] == 20
    capsys.readouterr()
    shutil.rmtree(tmp_path / "mlruns")
    study.run(plan, [], store)
    assert capsys.readouterr().out == "" and not (tmp_path / "mlruns").exists()
