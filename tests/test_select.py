"""`python -m mtselect.select`: the same set as in a trial, and nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from mtselect.config import load
from mtselect.data.pairs import pair_id
from mtselect.data.prompts import encode_pairs
from mtselect.data.rows import one_line
from mtselect.progress import SilentProgress
from mtselect.stages import tokens
from mtselect.stages.base import BASE_MODEL
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.store import Store
from mtselect.training.language_model import load_tokenizer


def test_it_writes_the_ids_of_the_trial_and_nothing_else(swept: Any, warm_lab: Callable[..., Any],
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    (lab.folder / "mlflow.db").unlink()
    before = {path.name for path in lab.folder.iterdir()}
    params = swept.children()["t001"].data.params
    fields = {name: str(params[name]) for name in ("budget", "n_clusters")}
    # The param is rounded for people; the experiment has all its digits.
    recorded = swept.artifact(swept.children()["t001"], "experiment.yaml").read_text(encoding="utf-8")
    exact = re.search(r"threshold: (\S+)", recorded)
    assert exact
    capsys.readouterr()
    assert lab.run("select", "sweep.yaml", "--out=chosen.jsonl", "--experiment.selection.threshold", exact[1],
                   *(part for name, value in fields.items() for part in (f"--experiment.selection.{name}", value))) == 0
    rows = [json.loads(line) for line in (lab.folder / "chosen.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == swept.lines(swept.children()["t001"])
    assert {path.name for path in lab.folder.iterdir()} - before == {"chosen.jsonl", "mlruns"}
    assert {path.name for path in (lab.folder / "mlruns").iterdir()} == {"store"}
    assert {path.name for path in lab.store.iterdir()} == {
        "corpus", "base", "tokens", "warmup", "curvature", "gradients", "columns", "selection"}
    assert re.search(rf"{len(rows)} of 200 candidates written to chosen\.jsonl", capsys.readouterr().out)


def test_out_must_be_given(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    assert lab.run("select", "sweep.yaml") == 2
    assert capsys.readouterr().err == "error: --out is missing: name the file to write, such as --out selected.jsonl\n"
    assert lab.run("select", "sweep.yaml", "--out") == 2
    assert not lab.store.exists()


@pytest.mark.parametrize("out", ["none/selected.jsonl", "data"])
def test_an_out_that_cannot_be_written_is_one_line(out: str, warm_lab: Callable[..., Any],
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    assert lab.run("select", "sweep.yaml", "--out", out, "--experiment.selection.n_clusters", "4",
                   "--experiment.selection.budget", "20") == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"error: --out '{out}' cannot be written: name a file in a folder that exists and .*\n", error), error
    assert not lab.store.exists(), "it should say so before any work"


def test_a_random_set_larger_than_the_pool_is_all_of_it(warm_lab: Callable[..., Any],
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab()
    assert lab.run("select", "sweep.yaml", "--out", "x.jsonl", "--experiment.selection.method", "random",
                   "--experiment.selection.budget", "201") == 0
    assert "200 of 200 candidates written to x.jsonl" in capsys.readouterr().out


def test_it_says_what_share_of_the_set_is_wrong(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab()
    budget = ("--experiment.selection.budget", "40")
    assert lab.run("select", "sweep.yaml", "--out", "x.jsonl", *budget) == 0
    labels = dict[str, str]()
    for line in (lab.folder / "data/pool.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        labels.setdefault(pair_id(one_line(row["src"]), one_line(row["tgt"])), row["noise"])  # a repeat is dropped
    chosen = [json.loads(line)["id"] for line in (lab.folder / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    wrong = sum(bool(labels[one]) for one in chosen)
    said = " ".join(capsys.readouterr().out.split())
    assert 0 < wrong < 40 and said.endswith(f"threshold 0); {wrong / 40:.1%} of them are wrong by data.label_column"), said
    assert lab.run("select", "sweep.yaml", "--out", "x.jsonl", *budget, "--experiment.data.label_column", "null") == 0
    assert "wrong" not in capsys.readouterr().out


def test_a_budget_larger_than_the_pool_takes_what_passes(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab()
    assert lab.run("select", "sweep.yaml", "--out", "x.jsonl", "--experiment.selection.threshold", "0",
                   "--experiment.selection.budget", "999", "--experiment.selection.n_clusters", "999") == 0
    assert len((lab.folder / "x.jsonl").read_text(encoding="utf-8").splitlines()) == 200


def lineage_of(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Lineage:
    """Of a lab's sweep file, in its folder."""
    monkeypatch.chdir(lab.folder)
    sweep = load("sweep.yaml", [])
    return Lineage(Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress()), sweep.experiment)


def test_the_pools_tokens_are_those_of_its_pairs(warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of pairs is tokenised at a time."""
    monkeypatch.setattr(tokens, "_AT_A_TIME", 7)
    lab = warm_lab(stages=("corpus", "base"))
    lineage = lineage_of(lab, monkeypatch)
    examples, pool = POOL_TOKENS.read(lineage), POOL.read(lineage)
    tokenizer = load_tokenizer(BASE_MODEL.read(lineage).name)
    assert list(examples) == encode_pairs(list(pool), tokenizer, lineage.experiment.data, lineage.experiment.model)
    assert examples.lengths.tolist() == [len(example) for example in examples]


@pytest.mark.parametrize(("threads", "parallel"), [(1, "false"), (2, "true")])
def test_a_tokenizer_has_the_threads_of_the_run_while_it_works_and_none_later(
        warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, threads: int, parallel: str) -> None:
    """A process that is forked while it may have several waits for ever for threads that it has not."""
    seen = set()

    def watched(*arguments: Any) -> Any:
        seen.add(os.environ["TOKENIZERS_PARALLELISM"])
        return encode_pairs(*arguments)

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(tokens, "encode_pairs", watched)
    POOL_TOKENS.read(lineage_of(warm_lab(stages=("corpus", "base")), monkeypatch))
    assert seen == {parallel}
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_the_form_is_that_of_the_ending(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab()
    arguments = ("--experiment.selection.budget", "20", "--experiment.selection.n_clusters", "4")
    for out in ("a.jsonl", "a.de-en", "a.parquet"):
        assert lab.run("select", "sweep.yaml", "--out", out, *arguments) == 0
    rows = [json.loads(line) for line in (lab.folder / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["src"] for row in rows] == (lab.folder / "a.de").read_text(encoding="utf-8").splitlines()
    assert [row["tgt"] for row in rows] == (lab.folder / "a.en").read_text(encoding="utf-8").splitlines()
    assert pq.read_table(lab.folder / "a.parquet").to_pylist() == rows


def test_scores_of_every_pair_are_a_table(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab()
    assert lab.run("score", "sweep.yaml", "--out", "scores.parquet", "--signals", "benefits,tokens") == 0
    assert "200 candidates written to scores.parquet, with z, benefit, " in capsys.readouterr().out
    scores = {row["id"]: row for row in pq.read_table(lab.folder / "scores.parquet").to_pylist()}
    assert len(scores) == 200
    assert lab.run("select", "sweep.yaml", "--out", "a.jsonl", "--experiment.selection.budget", "20") == 0
    for line in (lab.folder / "a.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert scores[row["id"]]["benefit"] == row["benefit"] and scores[row["id"]]["tokens"] > 1


def verdicts_of(lab: Any, *settings: str) -> dict[str, dict[str, Any]]:
    """Id -> what `score` says of each candidate, having held it to what `select` takes."""
    assert lab.run("score", "sweep.yaml", "--out", "v.parquet", "--signals", "set", *settings) == 0
    found = {row["id"]: row for row in pq.read_table(lab.folder / "v.parquet").to_pylist()}
    assert lab.run("select", "sweep.yaml", "--out", "v.jsonl", *settings) == 0
    chosen = [json.loads(line)["id"] for line in (lab.folder / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one for one, row in found.items() if row["selected"]] == chosen
    assert all(row["why"].startswith("in: " if row["selected"] else "out: ") for row in found.values())
    return found


def test_every_candidate_has_its_rank_and_why(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab()
    options = ("--experiment.selection.threshold", "0.4", "--experiment.selection.budget", "20")
    found = verdicts_of(lab, *options)
    below = [row for row in found.values() if not row["rank"]]
    assert below and {row["why"] for row in below} == {"out: it does not reach selection.threshold (0.4 on raw_share)"}
    ranked = sorted((row for row in found.values() if row["rank"]), key=lambda row: row["rank"])
    assert [row["rank"] for row in ranked] == list(range(1, 201 - len(below)))
    assert [row["selected"] for row in ranked] == [True] * 20 + [False] * (180 - len(below))
    assert re.fullmatch(rf"in: rank 20 of {len(ranked)} \(benefit_per_norm \S+\)", ranked[19]["why"])
    assert re.fullmatch(rf"out: rank 21 of {len(ranked)} \(benefit_per_norm \S+\), the budget took 20", ranked[20]["why"])
    evenly = verdicts_of(lab, *options, "--experiment.selection.n_clusters", "4", "--experiment.attribution.sketch_rank", "4")
    assert sorted(row["rank"] for row in evenly.values()) == sorted(row["rank"] for row in found.values())
    assert all("drawn evenly from 4 clusters" in row["why"] for row in evenly.values() if row["rank"])


@pytest.mark.parametrize(("method", "settings", "best_first"), [
    ("gdig", ("--experiment.selection.rank", "z"), {"z": -1}),
    ("gdig", ("--experiment.selection.rank", "benefit"), {"benefit": -1}),
    ("gdig", ("--experiment.selection.rank", "z_and_loss"), {"z": 0, "seeded_loss": 0}),
    ("seeded_loss", (), {"seeded_loss": 1}),
    ("loss", (), {"loss": 1}), ("pmi", (), {"pmi": -1}), ("length", (), {"tokens": -1}), ("borda", (), {"z": 0, "loss": 0}),
    ("gdig", ("--experiment.selection.draw", "random"), {}), ("random", (), {})])
def test_a_rank_comes_with_what_it_is_by(method: str, settings: tuple[str, ...], best_first: dict[str, int],
                                         warm_lab: Callable[..., Any]) -> None:
    """The values that `score` has in columns of these names, to three digits, in the order of the ranks."""
    lab = warm_lab()
    assert lab.run("score", "sweep.yaml", "--out", "v.parquet", "--signals", "benefits,losses,seeded_losses,pmi,tokens,set",
                   "--experiment.selection.method", method, "--experiment.selection.budget", "20", *settings) == 0
    table = pq.read_table(lab.folder / "v.parquet").sort_by("rank")
    rows = [row for row in table.to_pylist() if row["rank"]]
    assert bool(rows) == (method != "random")
    for row in rows:
        said = ", ".join(f"{name} {row[name]:.3g}" for name in best_first)
        said = re.escape(f" ({said})" if said else "")
        assert re.fullmatch(rf"(?:in|out): rank \d+ of \d+{said}(?:, the budget took 20)?", row["why"]), row["why"]
    for name, sign in best_first.items():
        values = [sign * row[name] for row in rows]
        assert values == sorted(values)


def test_the_gate_says_its_reason_and_a_near_duplicate_what_stands_for_it(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab(experiment__warmup={"epochs": 1, "rows": 100, "exclude": False, "learning_rate": 0.01}, stages=("base",))
    settings = ("--experiment.selection.method", "loss", "--experiment.selection.gate", "seed_loss",
                "--experiment.selection.gate_keeps", "0.8", "--experiment.selection.near_duplicates", "0.5",
                "--experiment.selection.budget", "30")
    found = verdicts_of(lab, *settings)
    dropped = re.compile(r"out: the gate drops it: a higher loss than the seeds \(score (-\S+), bound (-\S+)\)")
    matches = [match for row in found.values() if (match := dropped.fullmatch(row["why"]))]
    assert matches and all(float(match[1]) < float(match[2]) for match in matches)
    assert [not row["passed"] for row in found.values()] == [bool(dropped.fullmatch(row["why"])) for row in found.values()]
    alike = [match[1] for row in found.values()
             if (match := re.fullmatch(r"out: a near-duplicate of (\w+), which stands for both", row["why"]))]
    assert alike and all(found[other]["rank"] for other in alike)
    unranked = verdicts_of(lab, "--experiment.selection.method", "random", "--experiment.selection.gate", "null",
                           "--experiment.selection.budget", "30")
    n_rows = len(unranked)
    assert {row["why"] for row in unranked.values()} == {f"in: random took 30 of {n_rows}",
                                                         f"out: random took 30 of {n_rows}, not this one"}
