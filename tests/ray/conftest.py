"""A Ray cluster of three nodes on this machine, of one core each, and pieces of work that stop where a test wants them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtselect.metrics._comet.install import MARKER, REQUIREMENTS, python

ROOT = Path(__file__).parents[2]
# Before Ray is imported: nothing is sent anywhere, and what others use of the memory is no reason to kill our processes.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_memory_monitor_refresh_ms="0")
STORE_BYTES = 80 * 2**20  # of a node; results stay in files
SHARD_ROWS = 40  # five shards of the tiny pool's candidates


# In place of the Python of COMET's environment: says its version, or notes that it began and scores by lengths. Where there
# is a file `kill`, it ends the process that asks it for scores, once.
COMET = """#!{python}
import json, os, pathlib, sys
if "-c" in sys.argv:
    sys.exit(print("0.0.0"))
folder = pathlib.Path({folder!r})
(folder / f"{{os.getpid()}}.began").write_text(str(os.getppid()))
for line in sys.stdin:
    asked = json.loads(line)
    if asked["model"] == "tiny/broken":
        print(json.dumps({{"error": "'tiny/broken' is gated"}}), flush=True)
        continue
    if asked["sources"] and (folder / "kill").exists():
        (folder / "kill").unlink()
        os.kill(os.getppid(), 9)
    pairs = zip(asked["hypotheses"], asked["references"] or [])
    scores = [len(one) / (1 + len(one) + len(other)) for one, other in pairs]
    print(json.dumps({{"scores": scores, "requires_references": True}}), flush=True)
"""


@pytest.fixture(scope="module")
def comet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment of COMET that has no COMET: a folder with a file NUMBER.began of each of its processes."""
    folder = tmp_path_factory.mktemp("comet")
    python(folder).parent.mkdir()
    python(folder).write_text(COMET.format(python=sys.executable, folder=str(folder)), encoding="utf-8")
    python(folder).chmod(0o755)
    shutil.copyfile(REQUIREMENTS, folder / MARKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTSELECT_COMET_ENV", str(folder))
        yield folder


@pytest.fixture(scope="module")
def cluster(comet: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The cluster: a head, to which the driver connects, and two nodes that may be killed."""
    from ray.cluster_utils import Cluster

    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(tmp_path_factory.mktemp("nodes")):
        patch.setenv("PYTHONPATH", path)
        found = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node_options()})
        try:
            for _ in range(2):
                found.add_node(**node_options())
            yield found
        finally:
            found.shutdown()


def node_options(**environment: str) -> dict[str, Any]:
    """Of a node of one core."""
    return {"num_cpus": 1, "object_store_memory": STORE_BYTES, "env_vars": environment} if environment else {
        "num_cpus": 1, "object_store_memory": STORE_BYTES}


@pytest.fixture
def node_with(cluster: Any, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Adds a node whose mtselect is another text, until the test ends."""
    added = []

    def add(source: str) -> None:
        folder = tmp_path / f"node{len(added)}" / "mtselect"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source, encoding="utf-8")
        added.append(cluster.add_node(**node_options(PYTHONPATH=str(folder.parent))))

    yield add
    for node in added:
        cluster.remove_node(node)


def tampered(folder: Path) -> Callable[..., Any]:
    """`executors.ray.work` with small shards. Where `folder` has a file `NAME.stop`, the first piece on a node other than the
    driver's that is in a bar of this name stops there for good, and writes its node's id to `NAME.stopped`."""
    def work(*given: Any) -> Any:
        import contextlib
        import time

        import ray

        from mtselect.executors import ray as executor
        from mtselect.executors.board import SentProgress
        from mtselect.stages import candidates

        here = ray.get_runtime_context().get_node_id()
        candidates.SHARD_ROWS = 40
        original = SentProgress.__dict__["task"]

        @contextlib.contextmanager
        def task(self: Any, name: str, total: int) -> Any:
            with original(self, name, total) as advance:
                yield lambda n: (advance(n), stop(name))

        def stop(name: str) -> None:
            for path in folder.glob("*.stop"):
                if name.startswith(path.stem) and here != (folder / "driver").read_text():
                    with contextlib.suppress(FileNotFoundError):  # another was first
                        path.rename(path.with_suffix(".stopping"))
                        path.with_suffix(".stopped").write_text(here)
                        time.sleep(600)

        SentProgress.task = task
        try:
            return executor.work(*given)
        finally:
            SentProgress.task = original

    return work


@pytest.fixture
def when_in(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Called with an action and names of bars: a piece stops in each, one after the other, and the action is given its node.
    Returns the names that were acted on, as they come."""
    import ray

    from mtselect.executors import ray as executor
    from mtselect.stages import candidates

    acted: list[str] = []
    ended = threading.Event()
    original = executor.Ray.__init__

    def init(self: Any, *arguments: Any) -> None:
        here = ray.get_runtime_context().get_node_id()
        assert here == cluster.head_node.node_id
        (tmp_path / "driver").write_text(here)
        original(self, *arguments)

    monkeypatch.setattr(executor.Ray, "__init__", init)
    monkeypatch.setattr(executor, "work", tampered(tmp_path))
    monkeypatch.setattr(candidates, "SHARD_ROWS", SHARD_ROWS)

    def watch(action: Callable[[Any], None], names: tuple[str, ...]) -> None:
        for name in names:
            stopped = tmp_path / f"{name}.stopped"
            while not (stopped.exists() and stopped.read_text()):
                if ended.wait(0.05):
                    return
            time.sleep(0.2)
            (node,) = [one for one in cluster.worker_nodes if one.node_id == stopped.read_text()]
            action(node)
            acted.append(name)

    thread: threading.Thread | None = None

    def begin(action: Callable[[Any], None], *names: str) -> list[str]:
        nonlocal thread
        for name in names:
            (tmp_path / f"{name}.stop").touch()
        thread = threading.Thread(target=watch, args=(action, names))
        thread.start()
        return acted

    yield begin
    ended.set()
    if thread is not None:
        thread.join()
