"""`runtime.executor: ray`: what a cluster gives is what one process gives, whatever dies; and what is wrong with a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtselect.config import EvaluationConfig, RuntimeConfig, load, with_fields
from mtselect.errors import ClusterError, ConfigError, UserError
from mtselect.executors.cluster import find_room
from mtselect.executors.scorer import FarMetrics
from mtselect.metrics.base import Metrics, Scoring
from mtselect.progress import SilentProgress
from mtselect.resolve import trial_experiment
from mtselect.stages import candidates
from mtselect.stages.lineage import Bench
from mtselect.store import Store, read_lines

pytest.importorskip("ray", reason="needs `pip install mtselect[ray]`")
from tests.conftest import Lab, free_port
from tests.ray.conftest import node_options

# A sampler whose proposals do not depend on which trials have ended.
EIGHT = ["--study.n_trials", "8", "--study.sampler", "random"]


def on(cluster: Any) -> list[str]:
    """Arguments."""
    return ["--runtime.executor", "ray", "--runtime.address", cluster.address]


def contents(store: Path, stage: str) -> dict[str, bytes]:
    """Path -> bytes of all that is stored of a stage, without seconds."""
    return {str(path.relative_to(store)): re.sub(rb'"(seconds|started)": [\d.]+', b"", path.read_bytes())
            for path in sorted((store / stage).rglob("*")) if path.is_file() and path.suffix not in (".txt", ".lock")}


def table(text: str) -> list[str]:
    """The lines of the final tables."""
    found = [line.strip() for line in text.splitlines()
             if re.match(r" *(t\d{3}(-again)?|random-\d+|pool|untuned) +\d+\.\d \[", line)]
    assert len(found) == 8 + 4, text
    return found


def scores(lab: Lab) -> dict[str, dict[str, float]]:
    """Run -> what was selected, trained and scored, without seconds."""
    return {name: {metric: value for metric, value in run.data.metrics.items()
                   if re.match("eval/|select/|finetune/(steps|seeds|loss|dev_loss)", metric) and "second" not in metric}
            for name, run in lab.children().items()}


def test_a_sweep_gives_what_local_gives_though_two_of_three_nodes_die(
        cluster: Any, when_in: Callable[..., list[str]], make_lab: Callable[..., Lab], capfd: pytest.CaptureFixture[str]
) -> None:
    alone, lab = make_lab(), make_lab()
    assert alone.run("sweep", "sweep.yaml", *EIGHT) == 0
    expected = table(capfd.readouterr().out)
    killed = when_in(lambda node: cluster.remove_node(node, allow_graceful=False), "pool gradients", "finetune")
    assert lab.run("sweep", "sweep.yaml", *EIGHT, *on(cluster)) == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    assert killed == ["pool gradients", "finetune"]
    assert len(cluster.worker_nodes) == 0
    assert table(said) == expected
    assert lab.selected() == alone.selected()
    assert scores(lab) == scores(alone)
    assert len(list(lab.store.glob("gradients/*/0*"))) == 5
    for stage in ("corpus", "tokens", "curvature", "gradients", "columns", "selection"):
        assert contents(lab.store, stage) == contents(alone.store, stage), stage
    assert Counter(run.data.tags["mtselect.kind"] for run in lab.runs()) == {"study": 1, "trial": 8, "baseline": 3, "again": 1}
    assert {run.info.status for run in lab.runs()} == {"FINISHED"}
    assert re.search(r"pool gradients +40 of 40", said)
    assert re.search(r"curvature, 3 at a time +3 of 3", said)
    assert re.search(r"gradients, 3 at a time +5 of 5", said)


def test_interrupted_it_leaves_no_run_open_and_goes_on(
        cluster: Any, when_in: Callable[..., list[str]], warm_lab: Callable[..., Lab], swept: Lab,
        capfd: pytest.CaptureFixture[str]) -> None:
    """SIGTERM, while one trial hangs."""
    node, lab = cluster.add_node(**node_options()), warm_lab()
    interrupted = when_in(lambda _: os.kill(os.getpid(), signal.SIGTERM), "finetune")
    command = ["sweep.yaml", *on(cluster), "--study.baselines", "[]"]
    assert lab.run("sweep", *command) == 130
    assert interrupted == ["finetune"]
    assert "stopped. Finished stages and trials are kept" in capfd.readouterr().err
    assert {run.info.status for run in lab.runs()} <= {"KILLED", "FINISHED"}
    assert lab.run("sweep", *command) == 0
    cluster.remove_node(node)
    assert lab.selected() == {name: ids for name, ids in swept.selected().items() if re.fullmatch(r"t\d+", name)}
    assert not [run for run in lab.runs() if run.info.status == "RUNNING"]


WITH_COMET = ["--experiment.evaluation.metrics", "[chrf, comet]", "--experiment.evaluation.comet_model"]


@pytest.mark.parametrize(("gpus", "killed"), [(0, False), (1, True)])
def test_comet_is_loaded_once_for_all_trials_and_not_by_the_command(cluster: Any, comet: Path, warm_lab: Callable[..., Lab],
                                                                   gpus: int, killed: bool) -> None:
    """Where there is a GPU, which this machine only claims to have, beside a piece of work on it. Once more where the process
    that keeps it dies."""
    node, lab = cluster.add_node(**node_options(), num_gpus=gpus), warm_lab()
    for before in comet.glob("*.began"):
        before.unlink()
    if killed:
        (comet / "kill").touch()
    try:
        assert lab.run("sweep", "sweep.yaml", *on(cluster), "--study.n_trials", "3", "--study.sampler", "random",
                       "--study.baselines", "[]", *WITH_COMET, "tiny/comet") == 0
    finally:
        cluster.remove_node(node)
    assert not (comet / "kill").exists()
    began = [int(path.read_text()) for path in comet.glob("*.began")]
    assert len(began) == 1 + killed
    assert os.getpid() not in began
    entries = list(lab.store.glob("evaluation/*/scores.json"))
    assert len(entries) >= 3
    for path in entries:
        rows = read_lines(path.with_name("hypotheses.jsonl"))
        expected = [len(row["hyp"]) / (1 + len(row["hyp"]) + len(row["ref"])) for row in rows]
        (found,) = (one["value"] for one in json.loads(path.read_text()) if one["name"] == "comet")
        assert found == pytest.approx(100 * np.mean(expected))


def test_a_model_that_comet_cannot_load_is_said_before_any_work(cluster: Any, make_lab: Callable[..., Lab],
                                                               capfd: pytest.CaptureFixture[str]) -> None:
    lab = make_lab(database=False)
    assert lab.run("sweep", "sweep.yaml", *on(cluster), *WITH_COMET, "tiny/broken") == 2
    assert "error: COMET: 'tiny/broken' is gated" in capfd.readouterr().err
    assert not lab.manifests()


def test_a_process_of_comet_that_is_lost_again_and_again_is_told() -> None:
    from ray.exceptions import RayActorError

    def lost(*_: Any) -> None:
        raise RayActorError

    metrics = FarMetrics(lambda: SimpleNamespace(ask=SimpleNamespace(remote=lost)))
    scoring = Scoring(settings=EvaluationConfig(), tgt_lang="de", progress=SilentProgress())
    with pytest.raises(ClusterError, match=r"the process that computes comet was lost 6 times, .*: look at Ray's logs"):
        metrics["comet"].statistics(["a"], ["b"], ["c"], scoring)
    assert type(metrics["chrf"]) is type(Metrics()["chrf"])


def test_what_a_trial_raises_ends_the_others_and_what_kills_its_process_is_told(
        cluster: Any, warm_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    from mtselect.executors import ray as executors
    from mtselect.executors.cluster import connected

    def die(bench: Bench, on_epoch: object) -> None:
        import os

        os._exit(1)

    monkeypatch.setattr(executors, "_RETRIES", 0)
    monkeypatch.setattr("ray.cancel", lambda *_: None)  # as if it came too late: Ray promises no more
    lab = warm_lab(database=False)
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", on(cluster))
        bench = Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress())
        experiment = with_fields(trial_experiment(sweep.experiment, {}), {"finetune.epochs": 3, "selection.budget": 20})
        epochs: list[int] = []

        def on_epoch(epoch: int, loss: float) -> None:
            assert np.isfinite(loss)
            epochs.append(epoch)
            if len(epochs) == 2:
                raise UserError("enough")

        with connected(sweep.runtime) as rooms:
            executor = executors.Ray(bench, *rooms)
            with pytest.raises(UserError, match="enough"):
                executor.side_by_side(lambda: executor.run_trial(experiment, on_epoch) and None)
            assert not list(lab.store.glob("evaluation/*/manifest.json"))
            assert len(epochs) == 2
            result = executor.run_trial(experiment, lambda epoch, loss: epochs.append(epoch))
            (error,) = executor._do([die], rooms[0])
    assert len(result.selection.pairs) == 20
    assert epochs[2:] == [epochs[2], epochs[2] + 1, epochs[2] + 2]
    assert re.match(r"a piece of work was lost 1 times with its process or its node, .*: look at Ray's logs there", str(error))


def test_a_trial_on_two_devices_is_a_task_of_a_node_that_has_them(cluster: Any, warm_lab: Callable[..., Lab], swept: Lab
                                                                  ) -> None:
    """There is room for one at a time; what it trains is what one device trains, and under the same key."""
    node, lab = cluster.add_node(**{**node_options(), "num_cpus": 2}), warm_lab()
    try:
        assert lab.run("sweep", "sweep.yaml", *on(cluster), "--runtime.devices_per_trial", "2", "--study.n_trials", "1",
                       "--study.baselines", "[]") == 0
    finally:
        cluster.remove_node(node)
    assert lab.selected() == {"t000": swept.selected()["t000"]}
    one, two = (scores(some)["t000"] for some in (swept, lab))
    for name in ("finetune/loss", "finetune/dev_loss"):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name
    trained = {path.parent.name for path in lab.store.glob("finetune/*/curve.jsonl")}
    assert trained and trained <= {path.parent.name for path in swept.store.glob("finetune/*/curve.jsonl")}


@pytest.mark.parametrize(("nodes", "runtime", "found"), [
    ([(16, 8)], {}, (1, 2, 8)),
    ([(16, 8), (64, 4), (8, 0)], {}, (1, 2, 12)),
    ([(16, 8), (2, 4)], {"threads": 4}, (1, 4, 4)),
    ([(16, 8)], {"accelerator": "cpu"}, (0, 1, 16)),
    ([(3, 0), (4, 0), (1, 0)], {"threads": 2}, (0, 2, 3)),
    ([(16, 8)], {"devices_per_trial": 4}, (4, 8, 2)),
    ([(16, 8), (64, 4), (8, 0)], {"devices_per_trial": 3}, (3, 6, 3)),
    ([(16, 8)], {"devices_per_trial": 4, "threads": 2}, (4, 2, 2)),
    ([(3, 0), (4, 0), (1, 0)], {"devices_per_trial": 2}, (0, 2, 3)),
    ([(3, 0), (4, 0), (1, 0)], {"devices_per_trial": 2, "threads": 3}, (0, 3, 2)),
])
def test_a_piece_takes_a_gpu_with_its_share_of_cores_or_cores_alone(nodes: Any, runtime: Any, found: Any) -> None:
    config = RuntimeConfig(**runtime)
    room = find_room(config, [{"CPU": cores, "GPU": gpus} for cores, gpus in nodes], config.devices_per_trial)
    assert (room.gpus, room.cores, room.pieces) == found


def test_without_a_gpu_that_was_asked_for_there_is_no_room() -> None:
    with pytest.raises(ClusterError, match=r"takes 1 GPUs and 1 cores \(Ray, 1 node with 0 GPUs and 4 cores\): lower runtime"):
        find_room(RuntimeConfig(accelerator="gpu"), [{"CPU": 4}])


@pytest.mark.parametrize(("nodes", "message"), [
    ([{"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 1}],
     r"at most 2, the GPUs of the largest node \(Ray, 2 nodes with 3 GPUs and 20 cores\), got 6: lower it"),
    ([{"CPU": 4}, {"CPU": 2}],
     r"at most 4, the cores of the largest node \(Ray, 2 nodes with 0 GPUs and 6 cores\), got 6: lower it"),
])
def test_more_devices_than_a_node_has_are_refused(nodes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^runtime.devices_per_trial must be {message}$"):
        find_room(RuntimeConfig(devices_per_trial=6), nodes, 6)


def test_one_machine_needs_no_address(warm_lab: Callable[..., Lab], swept: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    lab = warm_lab()
    assert lab.run("sweep", "sweep.yaml", "--runtime.executor", "ray", "--study.n_trials", "1", "--study.baselines", "[]") == 0
    assert lab.selected() == {"t000": swept.selected()["t000"]}


def test_nodes_without_the_package_or_with_another_are_a_line_each(
        cluster: Any, node_with: Callable[[str], None], warm_lab: Callable[..., Lab], capfd: pytest.CaptureFixture[str]
) -> None:
    node_with("raise ModuleNotFoundError('no module named mtselect')")
    node_with("__version__ = '0.0.1'")
    lab = warm_lab(database=False)
    assert lab.run("check", "sweep.yaml", *on(cluster)) == 2
    lines = sorted(capfd.readouterr().err.splitlines())
    assert len(lines) == 2, lines
    assert re.fullmatch(r"error: node \S+ has mtselect 0.0.1, this machine \S+: install the same there", lines[0])
    assert re.fullmatch(r"error: node \S+ has no mtselect, this machine \S+: install the same there", lines[1])
    assert lab.run("sweep", "sweep.yaml", *on(cluster)) == 2


def test_a_folder_that_is_not_shared_is_a_line_for_each_node(cluster: Any, warm_lab: Callable[..., Lab],
                                                              capfd: pytest.CaptureFixture[str]) -> None:
    """A path that means another folder in every process."""
    lab = warm_lab(database=False)
    assert lab.run("check", "sweep.yaml", *on(cluster), "--runtime.workdir", "/proc/self/cwd/mlruns") == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 + len(cluster.worker_nodes)
    said = r"error: node \S+ does not share runtime.workdir '/proc/self/cwd/mlruns' with this machine \(.*No such file"
    assert all(re.match(said, line) for line in lines), lines


def test_a_node_that_is_fine_leaves_nothing_behind(cluster: Any, warm_lab: Callable[..., Lab],
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(database=False)
    assert lab.run("check", "sweep.yaml", *on(cluster)) == 0
    nodes = 1 + len(cluster.worker_nodes)
    said = rf"work +Ray, {nodes} nodes? with 0 GPUs and {nodes} cores: {nodes} pieces at a time"
    assert re.search(said, capfd.readouterr().out)
    assert not list((lab.folder / "mlruns").glob(".node*"))
    assert lab.run("check", "sweep.yaml", *on(cluster), "--runtime.threads", "2") == 2
    assert "no node has room for a piece of work, which takes 0 GPUs and 2 cores" in capfd.readouterr().err


def test_a_head_that_is_away_is_one_line(warm_lab: Callable[..., Lab], capfd: pytest.CaptureFixture[str]) -> None:
    lab, port = warm_lab(database=False), free_port()
    for command in ("check", "sweep"):
        assert lab.run(command, "sweep.yaml", "--runtime.executor", "ray", "--runtime.address", f"127.0.0.1:{port}") == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert re.match(rf"error: the Ray cluster at 127.0.0.1:{port} cannot be used \(.*refused\): start its head with", line)


def test_without_ray_it_says_what_to_install(warm_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch,
                                             capfd: pytest.CaptureFixture[str]) -> None:
    from mtselect.executors import cluster

    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    lab = warm_lab(database=False)
    assert lab.run("check", "sweep.yaml", "--runtime.executor", "ray") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: runtime.executor is 'ray', and Ray is not installed: pip install 'mtselect[ray]'")


def test_shards_are_counted(swept: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtselect.stages.lineage import Lineage

    with contextlib.chdir(swept.folder):
        sweep = load("sweep.yaml", [])
        bench = Bench(store=Store(swept.store), runtime=sweep.runtime, progress=SilentProgress())
        assert candidates.pass_parts(Lineage(bench, sweep.experiment), 8) == 1
        monkeypatch.setattr(candidates, "SHARD_ROWS", 40)
        assert [candidates.pass_parts(Lineage(bench, sweep.experiment), room) for room in (1, 8)] == [4, 5]
