"""`python -m mtselect.promote`: what it registers, and all it refuses.

The study here has one trial that selects every candidate, so that it equals the random baseline of its size: no luck of a tiny
model can make it better, and the refusal is sure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtselect.evaluation.metrics import PairedResult
from mtselect.promote import Candidate, choose, gates
from mtselect.tracking import RecordedRun

NAME = "mtselect.tiny"


@pytest.fixture(scope="module")
def finished(warm_lab: Callable[..., Any]) -> Any:
    """A finished study of one trial with all 200 candidates and one random baseline."""
    lab = warm_lab(search={"selection.seed": {"choices": [0]}}, study__n_trials=1, study__random_seeds=1,
                   study__baselines=["random"], experiment__selection={"budget": 200, "n_clusters": 2, "threshold": 0.0})
    assert lab.run("sweep", "sweep.yaml") == 0
    return lab


@pytest.fixture(scope="module")
def promoted(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Promoted by force, and downloaded as a team would."""
    import mlflow

    assert finished.run("promote", "tiny", "--force") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished.folder}/mlflow.db")
        out = tmp_path_factory.mktemp("champion")
        return Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion", dst_path=str(out)))


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: "), error
    assert "\n" not in error, error
    return error


def versions(lab: Any) -> list[Any]:
    return list(lab.client().search_model_versions(f"name = '{NAME}'"))


def test_a_trial_no_better_than_random_is_refused_with_the_reason(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(versions(finished))
    assert finished.run("promote", "tiny") == 2
    assert re.search(r"t000 is not promoted: chrf on test is not significantly above random-200-0 \(\S+ against \S+, "
                     r"p = 1\.000, needed p < 0\.05\); --force promotes it all the same", refusal(capsys))
    assert len(versions(finished)) == before


def test_by_force_it_becomes_the_champion(finished: Any, promoted: Path) -> None:
    (version,) = versions(finished)
    assert str(version.version) == "1"
    assert str(finished.client().get_model_version_by_alias(NAME, "champion").version) == "1"
    run = finished.children()["t000"]
    assert version.run_id == run.info.run_id
    assert version.tags["mtselect.selected"] == run.data.tags["mtselect.selected"]
    assert {path.name for path in promoted.iterdir()} >= {"selected.jsonl", "README.md", "scores.json", "experiment.yaml"}
    assert (promoted / "selected.jsonl").read_bytes() == finished.artifact(run, "selected.jsonl").read_bytes()


def test_twice_makes_one_version(finished: Any, promoted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished.run("promote", "tiny", "--force") == 0
    printed = capsys.readouterr().out
    assert "version 1 is champion (the same set was registered before)" in printed
    assert "mlflow.artifacts.download_artifacts('models:/mtselect.tiny@champion'" in printed
    assert len(versions(finished)) == 1


def test_the_card_is_a_hugging_face_card(finished: Any, promoted: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    card = (promoted / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    front = yaml.safe_load(header)
    assert front["pretty_name"] == NAME
    assert front["configs"] == [{"config_name": "default", "data_files": "selected.jsonl"}]
    assert "> Promoted by force although chrf on test is not significantly above random-200-0" in body
    for signature in re.findall(r"^\| (?:dev|test) \| .*`(.*)` \|$", body, re.MULTILINE):
        assert re.search(r"nrefs:1.*version:", signature)
    assert len(re.findall(r"^\| (?:dev|test) \|", body, re.MULTILINE)) == 4  # two splits, two metrics
    assert "{" not in re.sub(r"```.*?```", "", body, flags=re.DOTALL), "a placeholder was left"
    pairs = load_dataset("json", data_files=str(promoted / "selected.jsonl"), split="train", cache_dir=str(tmp_path))
    assert [row["id"] for row in pairs] == finished.selected()["t000"]
    assert set(pairs.column_names) == {"id", "src", "tgt", "benefit", "benefit_share", "cluster"}


def test_the_cards_way_to_load_it_works(finished: Any, promoted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (promoted / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished.folder}/mlflow.db")
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["pairs"]) == 200


def test_test_scores_are_on_the_trials_run(finished: Any, promoted: Path) -> None:
    metrics = finished.children()["t000"].data.metrics
    assert metrics.keys() >= {"test/bleu", "test/chrf", "test/chrf_low", "test/chrf_high"}
    assert metrics["test/p_value_against_random"] == 1
    assert metrics["test/difference_to_random"] == 0
    assert "test/chrf" not in finished.children()["random-200-0"].data.metrics


def test_a_set_that_does_not_come_out_again_is_refused(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, client = finished.children()["t000"], finished.client()
    digest = run.data.tags["mtselect.selected"]
    client.set_tag(run.info.run_id, "mtselect.selected", "0" * len(digest))
    try:
        assert finished.run("promote", "tiny", "--force") == 2
    finally:
        client.set_tag(run.info.run_id, "mtselect.selected", digest)
    assert re.search(r"t000 selects other pairs when computed again: .*run the sweep again", refusal(capsys))


def test_a_score_that_does_not_come_out_again_is_refused(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, client = finished.children()["t000"], finished.client()
    score = run.data.metrics["eval/chrf"]
    client.log_metric(run.info.run_id, "eval/chrf", score + 1)
    try:
        assert finished.run("promote", "tiny", "--force") == 2
    finally:
        client.log_metric(run.info.run_id, "eval/chrf", score, timestamp=2**42)
    assert re.search(r"t000 scores chrf \S+ on dev when computed again, recorded was \S+: results are not reproducible here",
                     refusal(capsys))


@pytest.mark.parametrize(("name", "message"), [
    ("none", r"MLflow at sqlite:.*mlflow\.db has no study 'none': check the name, or set --tracking\.uri"),
    ("it's", r"study\.name must be a name of letters, digits, '-', '_' and '\.', got \"it's\""),
])
def test_an_unknown_study_is_refused(name: str, message: str, finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    experiments = len(finished.client().search_experiments())
    assert finished.run("promote", name) == 2
    assert re.search(message, refusal(capsys))
    assert len(finished.client().search_experiments()) == experiments, "asking for a study made an experiment"


def test_a_sweep_without_a_random_baseline_is_refused(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(study__n_trials=1, study__baselines=["untuned"])
    assert lab.run("sweep", "sweep.yaml") == 0
    capsys.readouterr()
    assert lab.run("promote", "tiny", "--force") == 2
    assert re.search(r"no random baseline has \d+ pairs like t000: let the sweep run to its end, with `random` in "
                     r"study\.baselines", refusal(capsys))


# --- the decision alone --------------------------------------------------------------------------------


def result(difference: float, p_value: float) -> PairedResult:
    return PairedResult(name="chrf", system=40.0, baseline=40.0 - difference, difference=difference, low=0.0, high=0.0,
                        p_value=p_value, n_bootstrap=1000, signature="nrefs:1")


RUN = RecordedRun(run_id="1", name="t003", metrics={"eval/chrf": 40.0, "select/pairs": 20.0}, params={"method": "gdig"},
                  tags={"mtselect.kind": "trial", "mtselect.trial": "3"})
BETTER, WORSE, CHANCE, EDGE = result(3.0, 0.001), result(-3.0, 0.001), result(0.1, 0.4), result(3.0, 0.05)


@pytest.mark.parametrize(("comparisons", "against"), [
    ({"random-20-0": BETTER, "random-20-1": BETTER}, []),
    ({"random-20-0": BETTER, "random-20-1": WORSE}, ["random-20-1"]),
    ({"random-20-0": CHANCE, "random-20-1": BETTER}, ["random-20-0"]),
    ({"random-20-0": EDGE}, ["random-20-0"]),
    ({"random-20-0": CHANCE, "random-20-1": WORSE}, ["random-20-0", "random-20-1"]),
])
def test_the_gate_wants_every_random_baseline_beaten(comparisons: dict[str, PairedResult], against: list[str]) -> None:
    candidate: Any = Candidate(run=RUN, experiment=None, selection=None, dev=None, test=None,  # type: ignore[arg-type]
                               comparisons=comparisons)
    reasons = gates(candidate, "chrf")
    assert [re.search(r"not significantly above (\S+) \(40\.00", reason)[1] for reason in reasons] == against  # type: ignore[index]


def test_the_best_trial_is_optunas_and_its_rivals_are_of_its_size() -> None:
    from mtselect.config import Sweep

    def run(name: str, kind: str, number: int, score: float, pairs: int, method: str = "gdig") -> RecordedRun:
        return replace(RUN, name=name, metrics={"eval/chrf": score, "select/pairs": float(pairs)}, params={"method": method},
                       tags={"mtselect.kind": kind, "mtselect.trial": str(number)})

    runs = [run("t002", "trial", 2, 41.0, 40), run("t001", "trial", 1, 41.0, 20), run("t000", "trial", 0, 50.0, 0),
            run("pool", "baseline", 5, 60.0, 300, "pool"), run("random-20-0", "baseline", 6, 39.0, 20, "random"),
            run("random-40-0", "baseline", 7, 39.0, 40, "random")]
    best, rivals = choose(runs, Sweep())
    assert best.name == "t001"  # of equals the first, as Optuna has it; an empty set cannot be promoted
    assert [rival.name for rival in rivals] == ["random-20-0"]
