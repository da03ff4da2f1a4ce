"""Stages as values: what is hashed is all that is given, and a lineage asks for everything once."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtselect.config import Experiment, load, parse, with_fields
from mtselect.progress import SilentProgress
from mtselect.stages import corpus
from mtselect.stages.columns import COLUMNS
from mtselect.stages.corpus import CORPUS, POOL, SEEDS
from mtselect.stages.evaluation import EVALUATION
from mtselect.stages.gate import GATE
from mtselect.stages.gradients import GRADIENTS
from mtselect.stages.lineage import Bench, Lineage, Output, Stage, Work
from mtselect.stages.selection import select_pairs, selection_stage
from mtselect.stages.tokens import TOKENS
from mtselect.stages.trial import all_stages, run_trial, shared_stages
from mtselect.stages.warmup import WARMUP
from mtselect.store import Store


def bench_of(lab: Any) -> tuple[Bench, Experiment]:
    """Of a lab in the current directory."""
    sweep = load("sweep.yaml", [])
    return Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress()), sweep.experiment


def toy(run: Callable[[Work], object], reads: tuple[str, ...] = (), **more: Any) -> Stage:
    """A stage that writes what `run` returns."""
    def write(work: Work) -> None:
        (work.out / "text").write_text(str(run(work)), encoding="utf-8")

    return Stage(name="toy", version=1, reads=reads, run=write, **more)


def text(lineage: Lineage, stage: Stage) -> str:
    return (lineage.path(stage) / "text").read_text(encoding="utf-8")


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    sweep = parse("", [])
    return Lineage(Bench(store=Store(tmp_path), runtime=sweep.runtime, progress=SilentProgress()), sweep.experiment)


@pytest.mark.parametrize(("reads", "run", "path"), [
    ((), lambda work: work.experiment.seed, "seed"),
    (("seed",), lambda work: work.experiment.model.dtype, "model"),
    (("model.dtype",), lambda work: work.experiment.model.prompt, "model.prompt"),
    (("model.dtype", "data.pool"), lambda work: work.experiment.data.seeds, "data.seeds"),
])
def test_a_field_that_is_not_declared_cannot_be_read(reads: tuple[str, ...], run: Callable[[Work], object], path: str,
                                                     lineage: Lineage) -> None:
    with pytest.raises(AttributeError, match=f"^stage 'toy' reads {path} and does not declare it: add it to its fields$"):
        lineage.path(toy(run, reads))


def test_declared_fields_and_sections_are_given(lineage: Lineage) -> None:
    stage = toy(lambda work: (work.experiment.model.hidden_size, work.experiment.data.pool), ("model", "data.pool"))
    assert text(lineage, stage) == "(160, 'quickstart:pool')"


def test_an_input_that_is_not_declared_cannot_be_read(lineage: Lineage) -> None:
    first = toy(lambda work: 1)
    given = Output(stage=first)
    assert text(lineage, toy(lambda work: work.read(given).name, inputs=lambda _: [given])) == lineage.key(first)
    with pytest.raises(AttributeError, match=r"stage 'toy' reads Output.* and does not declare it: add it to its inputs"):
        lineage.path(toy(lambda work: work.read(given), ("seed",)))


def test_a_key_is_of_version_fields_constants_inputs_and_sources(lineage: Lineage) -> None:
    one = toy(lambda work: 1, ("seed",))
    others = [toy(lambda work: 1, ("seed", "model.dtype")), toy(lambda work: 1, ("seed",), constants={"split": "dev"}),
              toy(lambda work: 1, ("seed",), inputs=lambda _: [Output(stage=one)]),
              toy(lambda work: 1, ("seed",), sources=lambda _: ["a file's hash"])]
    assert len({lineage.key(stage) for stage in (one, *others)}) == 5
    assert lineage.key(toy(lambda work: 2, ("seed",))) == lineage.key(one), "code is no part of it: versions are"
    changed = Lineage(lineage.bench, with_fields(lineage.experiment, {"seed": 1}))
    same = Lineage(lineage.bench, with_fields(lineage.experiment, {"model.max_tokens": 99}))
    assert changed.key(one) != lineage.key(one) == same.key(one)


def test_a_discarded_entry_is_computed_again(lineage: Lineage) -> None:
    times: list[int] = []
    stage = toy(lambda work: times.append(1))
    lineage.path(stage), lineage.path(stage)
    lineage.discard(stage)
    lineage.path(stage)
    assert len(times) == 2


def test_a_trial_opens_the_corpus_once_and_hashes_each_source_once(warm_lab: Callable[..., Any],
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(corpus, name)

        def call(argument: Any) -> Any:
            calls[f"{name} {Path(argument).name if name == 'source_fingerprint' else ''}"] += 1
            return original(argument)

        return call

    for name in ("load_corpus", "source_fingerprint", "load_digests"):
        monkeypatch.setattr(corpus, name, counted(name))
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_of(lab)
        run_trial(bench, with_fields(experiment, {"selection.budget": 20, "selection.threshold": 0.3}))
    assert calls == {"load_corpus ": 1, "load_digests ": 1, **{
        f"source_fingerprint {part}.jsonl": 1 for part in ("pool", "seeds", "dev", "test")}}


def test_a_stage_is_shared_by_what_does_not_concern_it(warm_lab: Callable[..., Any]) -> None:
    """New seeds ask for no other warm-up; another budget for no other gradients; another selector for no other corpus."""
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_of(lab)
        one = Lineage(bench, experiment)

        def differs(**changes: Any) -> set[str]:
            other = Lineage(bench, with_fields(experiment, {path.replace("__", "."): value for path, value in changes.items()}))
            return {stage.name for stage in (*all_stages(experiment), GATE) if one.key(stage) != other.key(stage)}

        chosen = {"selection", "finetune", "evaluation"}
        assert differs(selection__budget=10) == chosen
        assert differs(evaluation__num_beams=2) == {"evaluation"}
        assert differs(finetune__epochs=2) == {"finetune", "evaluation"}
        assert differs(attribution__damping=0.5) == {"gradients", "columns", "map", *chosen}, "another set comes out"
        assert differs(selection__gate="learned") == {"gate", *chosen}
        assert differs(data__max_chars=1999) == {"corpus"}, "its parts are the same"


def test_the_stages_of_each_selector(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        _, experiment = bench_of(lab)
    gated = with_fields(experiment, {"selection.gate": "learned"})
    names = {method: [stage.name for stage in shared_stages(with_fields(gated, {"selection.method": method}))]
             for method in ("gdig", "random", "pool")}
    before = ["corpus", "base", "tokens", "warmup"]
    assert names == {"gdig": [*before, "curvature", "gradients", "columns", "losses", "gate"],
                     "random": [*before, "losses", "gate"], "pool": before}


def test_parts_of_the_corpus_are_known_by_their_content(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_of(lab)
        before = Lineage(bench, experiment)
        keys = {stage: before.key(stage) for stage in (CORPUS, TOKENS, WARMUP, GRADIENTS, COLUMNS)}
        pool, seeds = before.input_key(POOL), before.input_key(SEEDS)
        path = lab.folder / "data" / "seeds.jsonl"
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
        after = Lineage(bench, experiment)
        assert (after.input_key(POOL) == pool) and (after.input_key(SEEDS) != seeds)
        changed = {stage.name for stage, key in keys.items() if after.key(stage) != key}
    assert changed == {"corpus", "gradients", "columns"}


def test_the_same_set_shares_its_finetuning(warm_lab: Callable[..., Any]) -> None:
    """Whatever selected it."""
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_of(lab)
        everything = {"selection.budget": 300, "selection.threshold": 0.0, "selection.n_clusters": 1}
        one, two = (Lineage(bench, with_fields(experiment, {**everything, **more}))
                    for more in ({}, {"selection.method": "random"}))
        assert one.key(selection_stage(one.experiment)) != two.key(selection_stage(two.experiment))
        assert select_pairs(one).digest == select_pairs(two).digest
        assert one.key(EVALUATION["dev"]) == two.key(EVALUATION["dev"])
