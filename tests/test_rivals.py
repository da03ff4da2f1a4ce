"""Whole sweeps whose trials and rivals are other selectors than the product's."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky import get_reusable_executor
from markupsafe import escape

from mtselect.config import load
from mtselect.executors.local import Local
from mtselect.progress import Advance
from mtselect.resolve import trial_experiment
from mtselect.stages.lineage import Bench
from mtselect.stages.trial import at_seeds
from mtselect.store import Store

ONE = {"selection.seed": {"choices": [0]}}


def test_rivals_have_no_options_of_the_trials_selector(warm_lab: Callable[..., Any]) -> None:
    """And where a rival alone asks for gradients, their rank is decided before any work."""
    lab = warm_lab(experiment__selection={"method": "loss_band", "options": {"centre": 0.4}, "budget": 20, "gate": None},
                   experiment__attribution__seed_rank="auto", search=ONE, study__n_trials=1,
                   study__baselines=["random", "length", "gdig"])
    assert lab.run("sweep", "sweep.yaml") == 0
    children = lab.children()
    assert {"random-20", "length-20", "gdig-20", "t000"} <= children.keys()
    assert children["t000"].data.params["selection.options.centre"] == "0.4"
    assert not [name for name in children["length-20"].data.params if name.startswith("selection.options")]


def test_few_shot_trains_nothing_and_reads_seeds(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab(experiment__selection={"method": "random", "budget": 20, "gate": None}, search=ONE, study__n_trials=1,
                   study__baselines=["untuned", "few-shot"])
    assert lab.run("sweep", "sweep.yaml") == 0
    children = lab.children()
    assert children["few-shot"].data.metrics["select/pairs"] == 0
    found = load(lab.artifact(children["few-shot"], "experiment.yaml"), []).experiment
    seed = json.loads((lab.folder / "data" / "seeds.jsonl").read_text().splitlines()[0])
    assert f"{seed['src']}\n{seed['tgt']}\n\n" in found.model.prompt and found.model.prompt.endswith("{src}\n")
    assert found.evaluation.stop == "\n"
    assert children["few-shot"].data.params["method"] == "few-shot"


def test_only_the_filters_rival_is_thinned_as_the_trial_is(warm_lab: Callable[..., Any],
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(experiment__selection={"method": "loss", "budget": 20, "gate": "seed_loss", "near_duplicates": 0.5},
                   search=ONE, study__n_trials=1, study__baselines=["random", "filter-random", "length"])
    assert lab.run("sweep", "sweep.yaml") == 0
    assert "optuna-dashboard" not in capsys.readouterr().out, "it has nothing to draw of one trial"
    children = lab.children()
    found = {name: "select/near_duplicates" in run.data.metrics for name, run in children.items()}
    assert found == {"t000": True, "t000-again": True, "filter-random-20": True, "random-20": False, "length-20": False}
    scores = {name: run.data.metrics["eval/chrf"] for name, run in children.items()}
    for end, rival in (("filter", "filter-random-20"), ("random", "random-20")):
        assert children["t000"].data.metrics[f"eval/chrf_vs_{end}"] == pytest.approx(scores["t000"] - scores[rival], abs=1e-3)
    assert children["t000"].data.metrics["select/near_duplicates"] > 0
    for name, run in children.items():
        page = lab.artifact(run, "gate.html")
        assert page.exists() == lab.artifact(run, "gate.json").exists() == found[name]
        if page.exists():
            report = json.loads(lab.artifact(run, "gate.json").read_text(encoding="utf-8"))
            said = page.read_text(encoding="utf-8")
            assert f"Of <b>{report['candidates']}</b> candidates it drops <b>{report['dropped']}</b>" in said
            assert f"{run.data.metrics['select/near_duplicates']:.0f} are near-duplicates" in said
            examples = report["looks"]["a higher loss than the seeds"]["examples"]
            assert escape(examples[0]["tgt"]) in said and escape(examples[-1]["tgt"]) in said


def test_a_rival_that_cannot_be_selected_fails_once_and_the_study_ends_without_it(
        warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Also where rivals are finetuned side by side, ahead of time."""
    lab = warm_lab(stages=("base",), experiment__selection={"method": "random", "budget": 20, "gate": None}, search=ONE,
                   study__n_trials=1, study__finetune_seeds=1, study__baselines=["filter-random", "random"],
                   runtime__processes=2)
    seeds = (lab.folder / "data" / "seeds.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    (lab.folder / "data" / "seeds.jsonl").write_text("\n".join([*seeds, *seeds]), encoding="utf-8")
    try:
        assert lab.run("sweep", "sweep.yaml") == 2
        assert "learned needs at least 10 seeds, got 6: add trusted pairs" in capsys.readouterr().err
        assert lab.run("sweep", "sweep.yaml") == 0
    finally:
        get_reusable_executor().shutdown(wait=True)
    assert lab.children().keys() == {"t000", "t000-again", "random-20"}


def test_rivals_of_a_finetuning_without_epochs_have_none(warm_lab: Callable[..., Any]) -> None:
    """All are the model as it was."""
    lab = warm_lab(stages=("corpus", "base", "tokens", "warmup"), experiment__finetune={"epochs": 0}, search=ONE,
                   experiment__selection={"method": "random", "budget": 20, "gate": None}, study__n_trials=1,
                   study__finetune_seeds=1, study__baselines=["random", "pool", "pool-cost"])
    assert lab.run("sweep", "sweep.yaml") == 0
    steps = {name: run.data.metrics["finetune/steps"] for name, run in lab.children().items()}
    assert steps == dict.fromkeys(["t000", "t000-again", "random-20", "pool", "pool-cost"], 0)
    assert lab.run("promote", "tiny", "--dry-run", "--force", "--licence", "cc0-1.0") == 0


class Watched:
    """Progress that keeps, of each advance, how much and how many finetunings had ended."""

    def __init__(self, store: Path) -> None:
        self.store, self.totals, self.advances = store, dict[str, int](), list[tuple[int, int]]()

    @contextlib.contextmanager
    def task(self, name: str, total: int) -> Iterator[Advance]:
        self.totals[name] = total
        yield (lambda n: self.advances.append((n, len(list(self.store.glob("finetune/*/manifest.json")))))
               if name.startswith("finetune, ") else None)


def test_finetunings_side_by_side_are_shown_while_they_run(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab(experiment__finetune={"steps": 300, "learning_rate": 0.01, "batch_size": 8})
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", ["--runtime.processes", "2"])
        watched = Watched(lab.store)
        bench = Bench(store=Store(lab.store), runtime=sweep.runtime, progress=watched)
        one = trial_experiment(sweep.experiment, {"selection.method": "random", "selection.budget": 20})
        try:
            Local(bench).ahead([*at_seeds(one, [1, 2]), trial_experiment(one, {"selection.method": "untuned"})])
        finally:
            get_reusable_executor().shutdown(wait=True)
    # 20 pairs in batches of 8: 100 epochs of three steps.
    assert watched.totals["finetune, 2 at a time"] == sum(n for n, _ in watched.advances) == 2 * 100 * 20
    assert any(n > 0 and ended == 0 for n, ended in watched.advances), "it moves before the first has ended"
    assert all(n >= 0 for n, _ in watched.advances) and lab.manifests("finetune") and len(lab.manifests("evaluation")) == 3


def test_a_selector_that_fixes_the_curvature_takes_one_pass(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab(stages=("corpus", "base", "tokens", "warmup"), search=ONE,
                   experiment__selection={"method": "dot", "budget": 20, "gate": None},
                   study__n_trials=1, study__baselines=["random", "paper"])
    assert lab.run("sweep", "sweep.yaml") == 0
    assert len(lab.manifests("curvature")) == 2 and len(lab.manifests("gradients")) == 2, "dot's, and paper's with its sketches"
    assert "gate" not in lab.children()["paper-20"].data.params


@pytest.mark.parametrize(("method", "space", "said"), [
    ("loss_band", {"centr": {"low": 0.1, "high": 0.2}}, "selection.options.centr is no option of selection.method"),
    ("loss_band", {"centre": {"choices": ["high"]}}, "selection.options.centre: Input should be a valid number"),
    ("gdig", {"x": {"choices": [1]}}, "selection.options.x is no option of selection.method 'gdig', which has none")])
def test_options_are_looked_at_before_any_work(method: str, space: dict[str, Any], said: str, warm_lab: Callable[..., Any],
                                               capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=(), experiment__selection={"method": method, "budget": 20},
                   search={f"selection.options.{name}": values for name, values in space.items()})
    assert lab.run("sweep", "sweep.yaml") == 2
    assert said in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not lab.manifests()
