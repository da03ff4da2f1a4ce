"""The gradients stage: the same bytes however often it is stopped and however many write it; seeds dense or of low rank."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from mtselect.attribution.index import SketchIndex
from mtselect.config import load, with_fields
from mtselect.errors import ConfigError, NonFiniteError
from mtselect.progress import SilentProgress
from mtselect.stages import candidates, gradients, models
from mtselect.stages.corpus import POOL
from mtselect.stages.gradients import GRADIENTS
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.selection import select_pairs
from mtselect.store import Store
from mtselect.training.device import Memory

BEFORE = ("corpus", "base", "tokens", "warmup", "curvature")
SHARDS = 5
DEADLINE = 120


def write(lab: Any, **changes: Any) -> Path:
    """The gradients entry of a lab in the current directory."""
    sweep = load("sweep.yaml", [])
    bench = Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress())
    return Lineage(bench, with_fields(sweep.experiment, changes)).path(GRADIENTS)


def contents(folder: Path) -> dict[str, bytes]:
    """Path -> bytes of all that an entry holds, without seconds."""
    return {str(path.relative_to(folder)): re.sub(rb'"seconds": [\d.]+', b"", path.read_bytes())
            for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".txt"}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "SHARD_ROWS", 40)


@pytest.fixture(scope="module")
def undisturbed(warm_lab: Callable[..., Any]) -> Iterator[Path]:
    lab = warm_lab(stages=BEFORE)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(lab.folder):
        patch.setattr(candidates, "SHARD_ROWS", 40)
        yield write(lab)


def test_a_trial_reads_no_benefits_and_its_pictures_no_curvature(warm_lab: Callable[..., Any],
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """At 10M pairs and 256 seeds benefits are 10 GB; of the curvature a picture needs 200 numbers a layer."""
    lab, read = warm_lab(), []
    original = SketchIndex._map

    def note(self: SketchIndex, number: int, name: str) -> Any:
        read.append(name)
        return original(self, number, name)

    monkeypatch.setattr(SketchIndex, "_map", note)
    for path in lab.store.glob("curvature/*/layers/*.safetensors"):
        path.write_bytes(b"")
    assert lab.run("sweep", "sweep.yaml", "--study.n_trials", "1", "--study.baselines", "[]") == 0
    assert {"sketches", "mean", "share", "norm"} <= set(read)
    assert "benefits" not in read


@contextlib.contextmanager
def stopped_in(*shards: int) -> Iterator[None]:
    """Ctrl-C in the pass over one of these shards."""
    original = gradients.run_gradient_pass

    def run(*arguments: Any, rows: range | None = None, **options: Any) -> None:
        original(*arguments, rows=rows, **options)
        if rows is not None and rows.start // 40 in shards:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "run_gradient_pass", run)
        yield


def test_shards_hold_what_one_pass_gives(undisturbed: Path, warm_lab: Callable[..., Any],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "SHARD_ROWS", 10_000)
    lab = warm_lab(stages=BEFORE)
    with contextlib.chdir(lab.folder):
        whole = SketchIndex(write(lab))
    index = SketchIndex(undisturbed)
    assert len(list(undisturbed.glob("0*"))) == SHARDS
    assert len(index) == len(whole) > 4 * 40
    for values, expected in ((index.column(name), whole.column(name)) for name in ("mean", "share", "norm")):
        assert values == pytest.approx(expected, rel=1e-4, abs=1e-5 * float(np.abs(expected).max()))
    benefits = index.column("benefits").astype(np.float64)
    mean, share = index.column("mean"), index.column("share")
    assert mean.tolist() == pytest.approx(benefits.mean(1).tolist(), rel=1e-12)
    assert share.tolist() == (benefits > 0).mean(1).tolist()


def test_stopped_it_goes_on_with_the_first_missing_shard(undisturbed: Path, warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab(stages=BEFORE)
    with contextlib.chdir(lab.folder):
        with stopped_in(2), pytest.raises(KeyboardInterrupt):
            write(lab)
        (entry,) = (path.parent for path in lab.store.glob("gradients/*/layout.json"))
        assert sorted(path.name for path in entry.glob("0*0")) == ["000000000000-000000000040", "000000000040-000000000080"]
        with stopped_in(0, 1):
            assert contents(write(lab)) == contents(undisturbed)


def test_one_process_writes_while_another_waits_and_goes_on_when_it_is_killed(undisturbed: Path,
                                                                             warm_lab: Callable[..., Any]) -> None:
    lab, context = warm_lab(stages=BEFORE), multiprocessing.get_context("fork")
    first_writes, second_begins = context.Event(), context.Event()
    counts, waited = context.Array("i", 2), context.Value("i", 0)

    def work(number: int) -> None:
        torch.set_num_threads(1)  # threads of the parent do not survive a fork
        original = gradients.run_gradient_pass

        def run(*arguments: Any, rows: range | None = None, **options: Any) -> None:
            if rows is not None and number == 0 and counts[0] == 2:
                first_writes.set()
                second_begins.wait(DEADLINE)
                time.sleep(1)
                waited.value = counts[1] == 0
                os.kill(os.getpid(), signal.SIGKILL)
            original(*arguments, rows=rows, **options)
            counts[number] += rows is not None

        gradients.run_gradient_pass = run
        if number == 1:
            second_begins.set()
        with contextlib.chdir(lab.folder):
            write(lab)

    first, second = (context.Process(target=work, args=(number,)) for number in range(2))
    first.start()
    assert first_writes.wait(DEADLINE)
    second.start()
    for process in (first, second):
        process.join(DEADLINE)
    assert [first.exitcode, second.exitcode] == [-signal.SIGKILL, 0]
    assert waited.value and list(counts) == [2, SHARDS - 2]
    (entry,) = (path.parent for path in lab.store.glob("gradients/*/manifest.json"))
    assert contents(entry) == contents(undisturbed)


def test_a_bad_candidate_is_named_by_its_own_number(warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = warm_lab(stages=BEFORE)
    original = gradients.PoolScorer._score

    def score(self: Any, name: str, a: torch.Tensor, g: torch.Tensor, lengths: list[int]) -> Any:
        benefits, norms = original(self, name, a, g, lengths)
        return benefits + (float("nan") if self._first == 80 else 0), norms

    monkeypatch.setattr(gradients.PoolScorer, "_score", score)
    with contextlib.chdir(lab.folder), pytest.raises(NonFiniteError, match=r"gradient of candidate (8\d|9\d|1[01]\d) is NaN"):
        write(lab)


def test_seeds_of_low_rank_keep_the_mean_and_nearly_the_rest(undisturbed: Path, warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab(stages=BEFORE)
    with contextlib.chdir(lab.folder):
        full = SketchIndex(write(lab, **{"attribution.seed_rank": 1000}))  # nothing is cut off
        low = SketchIndex(write(lab, **{"attribution.seed_rank": 4}))
    exact = SketchIndex(undisturbed)
    benefits = exact.column("benefits")
    scale, scale_of_means = float(np.abs(benefits).max()), float(np.abs(benefits.mean(1)).max())
    assert full.column("benefits") == pytest.approx(benefits, abs=2e-4 * scale)
    assert low.column("benefits") != pytest.approx(benefits, abs=1e-3 * scale)
    assert low.column("mean") == pytest.approx(exact.column("mean"), abs=2e-4 * scale_of_means)
    assert low.column("norm") == pytest.approx(exact.column("norm"), rel=1e-4)
    assert spearmanr(low.column("benefits").ravel(), benefits.ravel()).statistic > 0.9
    assert low[np.arange(len(low))].tobytes() == exact[np.arange(len(exact))].tobytes()


@pytest.mark.parametrize("rank", [None, 4])
def test_bfloat16_statistics_keep_the_order(rank: int | None, warm_lab: Callable[..., Any]) -> None:
    """The curvature's as well, which is another entry."""
    lab = warm_lab(stages=BEFORE)
    with contextlib.chdir(lab.folder):
        exact, narrow = (SketchIndex(write(lab, **{"attribution.seed_rank": rank, "attribution.statistics": statistics}))
                         for statistics in ("float32", "bfloat16"))
    assert len(lab.manifests("curvature")) == 2
    one, two = exact.column("benefits"), narrow.column("benefits")
    assert (one != two).mean() > 0.9
    assert spearmanr(one.ravel(), two.ravel()).statistic > 0.999
    assert spearmanr(exact.column("mean"), narrow.column("mean")).statistic > 0.999
    assert narrow.column("norm") == pytest.approx(exact.column("norm"), rel=1e-4)


def test_seeds_that_do_not_fit_say_what_to_set(warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "device_memory", lambda device: Memory(total=10**12, free=1_500_000))
    lab = warm_lab(stages=BEFORE)
    with contextlib.chdir(lab.folder):
        with pytest.raises(ConfigError, match=r"seeds at 7 layers take 0.0 GB, .* of the 0.0 GB that CPU, .* has beside the"):
            write(lab)
        write(lab, **{"attribution.seed_rank": 2})


def test_selection_from_shards_is_the_pools(undisturbed: Path, warm_lab: Callable[..., Any]) -> None:
    """Rows of the index lead back to the pairs they came from."""
    lab = warm_lab(stages=BEFORE)
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", [])
        bench = Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress())
        lineage = Lineage(bench, with_fields(sweep.experiment, {"selection.budget": 30, "selection.n_clusters": 3,
                                                                "selection.threshold": 0.3}))
        chosen, pool = select_pairs(lineage), POOL.read(lineage)
    index = SketchIndex(undisturbed)
    mean, benefits = index.column("mean"), index.column("benefits").astype(np.float64)
    share = (benefits > benefits.mean(0)).mean(1)
    z = ((benefits - benefits.mean(0)) / benefits.std(0)).mean(1)
    place = {pool[row].id: i for i, row in enumerate(np.load(undisturbed / "rows.npy"))}
    for pair in chosen.pairs:
        assert pair.scores["benefit"] == pytest.approx(mean[place[pair.id]], rel=1e-6)
        assert pair.scores["benefit_share"] == pytest.approx(share[place[pair.id]], rel=1e-6)
        assert pair.scores["z"] == pytest.approx(z[place[pair.id]], rel=1e-6)
