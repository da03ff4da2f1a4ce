"""`python -m mtselect.sweep --dry-run`: says what is there and what is left, and does nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mtselect.config import ModelConfig
from mtselect.plan import _measured


def files(lab: Any) -> dict[str, int]:
    """Path -> time of change of all that is there, but locks."""
    return {str(path.relative_to(lab.folder)): path.stat().st_mtime_ns for path in lab.folder.rglob("*")
            if path.is_file() and path.suffix != ".lock"}


def plan(lab: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Step -> the cells of its line; and that nothing was written."""
    before = files(lab)
    capsys.readouterr()
    assert lab.run("sweep", "sweep.yaml", "--dry-run") == 0
    assert files(lab) == before
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if cells[0]}


def test_before_anything_ran_all_is_to_do(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    found = plan(lab, capsys)
    assert [found[name][0] for name in ("corpus", "base", "tokens", "warmup", "curvature", "gradients")] == ["to run"] * 6
    assert found["finetune"][0] == found["evaluation"][0] == str(3 + 2 * 4)  # rivals and the best again: two seeds
    assert found["corpus"][1] == "?"
    for name in ("warmup", "curvature", "gradients", "finetune"):
        assert found[name][-1] == "arithmetic" and float(found[name][1]) < 1
    assert "tiny: 0 of 3 trials done" in found
    assert any(line.startswith("under a minute and what is marked ? with one worker") for line in found)
    assert "under a minute of that for the baselines that study.baselines names, and the best trial again" in found


def test_the_pool_for_as_long_as_the_choosing_took(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Its row is the seconds of the choosing's stages, at each finetuning seed; hours are not rounded to none."""
    lab = warm_lab(study__baselines=["random", "pool", "pool-cost"])
    for path in lab.store.glob("curvature/*/manifest.json"):
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "seconds": 150.0}), encoding="utf-8")
    others = sum(json.loads(path.read_text(encoding="utf-8"))["seconds"]
                 for name in ("gradients", "columns") for path in lab.store.glob(f"{name}/*/manifest.json"))
    found = plan(lab, capsys)
    left, minutes, _, source = found["pool-cost"]
    assert (left, source) == ("2", "as long as the choosing"), "the stages in the store have their minutes"
    assert float(minutes) == pytest.approx(2 * (150 + others) / 60, abs=0.1)
    assert any(re.match(r"about [56]\.\d minutes with one worker", line) for line in found)
    assert any(re.match(r"about [56]\.\d minutes of that for the baselines", line) for line in found)
    fresh = plan(warm_lab(stages=(), study__baselines=["random", "pool", "pool-cost"]), capsys)
    assert fresh["pool-cost"][-1] == "as long as the choosing, what is known of it"
    alone = warm_lab(stages=(), study__baselines=["random", "pool", "pool-cost"],
                     experiment__selection={"method": "length", "gate": None})
    assert "pool-cost" not in plan(alone, capsys), "nothing is computed for that choice"


def test_stages_in_the_store_are_not_to_do_again(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=("corpus", "base", "tokens", "warmup"))
    found = plan(lab, capsys)
    assert [found[name] for name in ("corpus", "base", "tokens", "warmup")] == [["in the store"]] * 4
    assert found["curvature"][0] == found["gradients"][0] == "to run"
    changed = warm_lab(experiment__warmup={"epochs": 1, "rows": 100, "exclude": True, "learning_rate": 0.02})
    found = plan(changed, capsys)
    assert found["base"] == ["in the store"]
    assert [found[name][0] for name in ("warmup", "curvature", "gradients")] == ["to run"] * 3
    assert found["warmup"][-1] == "measured here"


def test_what_a_searched_field_decides_is_each_trials_own(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]
                                                          ) -> None:
    """The training on the seeds is as trials are finetuned; the gradients are not."""
    lab = warm_lab(stages=("corpus", "base", "tokens", "warmup"), experiment__selection={"gate": None, "rank": "z_and_loss"},
                   search={"finetune.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}})
    found = plan(lab, capsys)
    assert [found[name][0] for name in ("gradients", "seeded", "drops")] == ["to run", "3", "3"]
    assert found["seeded"][-1] == found["drops"][-1] == "arithmetic"
    two = warm_lab(stages=("corpus", "base", "tokens", "warmup"), experiment__selection={"gate": None, "rank": "z_and_loss"},
                   search={"finetune.learning_rate": {"choices": [1e-3, 1e-2]}})
    assert plan(two, capsys)["seeded"][0] == "2"
    assert found["finetune"][0] == str(3 + 2 * 4)


def test_the_gradients_were_measured_too(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    damped = {"curvature_rows": 60, "sketch_rank": 4, "damping": 0.2}
    lab = warm_lab(experiment__attribution=damped)
    found = plan(lab, capsys)
    assert found["gradients"][0] == "to run" and found["gradients"][-1] == "measured here"
    other = {"hidden_size": 64, "n_layers": 1, "n_heads": 2, "vocab_size": 400, "dtype": "float32"}
    assert plan(warm_lab(experiment__model=other), capsys)["gradients"][-1] == "arithmetic", "of another model"


def test_measured_seconds_are_those_of_as_many_pairs(tmp_path: Path) -> None:
    for n_rows in (100, 200):
        (tmp_path / str(n_rows)).mkdir()
        manifest = {"section": {"model": asdict(ModelConfig())}, "seconds": 0.6 * n_rows, "n_rows": n_rows}
        (tmp_path / str(n_rows) / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert _measured(tmp_path, ModelConfig(), 1000) == pytest.approx(10)
    assert _measured(tmp_path, ModelConfig(), None) == pytest.approx(1.5)
    assert _measured(tmp_path, ModelConfig(n_layers=1), 1000) is None


@pytest.mark.parametrize("part", ["pool", "seeds", "dev", "test"])
def test_a_source_without_its_columns_is_refused(part: str, warm_lab: Callable[..., Any],
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    (lab.folder / "data" / f"{part}.jsonl").write_text('{"source": "a", "tgt": "b"}\n', encoding="utf-8")
    assert lab.run("sweep", "sweep.yaml", "--dry-run") != 0
    assert "has no column 'src'" in capsys.readouterr().err


def test_after_the_sweep_nothing_is_left(swept: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(swept, capsys)
    assert found["gradients"] == ["in the store"]
    assert found["finetune"] == found["evaluation"] == ["none"]
    assert any(line.startswith("under a minute with one worker") for line in found)
    assert not any("study.baselines" in line for line in found)
    assert "tiny: 3 of 3 trials done" in found


def test_a_model_that_cannot_be_seen_is_refused(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=("corpus",), experiment__model__name="Nobody/no-such-model")
    assert lab.run("sweep", "sweep.yaml", "--dry-run") == 2
    assert re.match("error: model.name 'Nobody/no-such-model' cannot be loaded", capsys.readouterr().err)
