"""The stage store: each thing computed once, entries whole or absent, faults of the disk said in words."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtselect.config import AttributionConfig, Experiment, SelectionConfig, with_fields
from mtselect.errors import ConfigError, StorageError
from mtselect.store import Recipe, Store, derive_seed, hash_json, read_lines, write_lines, write_whole

RECIPE = Recipe(stage="stage", version=1, section={"b": 2, "a": [1, "ü"]}, upstream=["k1", "k2"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class Compute:
    """Counts its calls, writes one file."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls, self.error = 0, error

    def __call__(self, out: Path) -> None:
        self.calls += 1
        (out / "value.txt").write_text("done", encoding="utf-8")
        if self.error is not None:
            raise self.error


def leftovers(store: Store) -> list[str]:
    return [path.name for path in (store.root / "stage").iterdir() if ".part-" in path.name]


def test_computed_once(store: Store) -> None:
    compute = Compute()
    one, two = store.fetch(RECIPE, compute), store.fetch(RECIPE, compute)
    assert compute.calls == 1
    assert (one.computed, two.computed) == (True, False)
    assert one.path == two.path == store.root / "stage" / RECIPE.key
    assert one.key == two.key == RECIPE.key
    assert (one.path / "value.txt").read_text(encoding="utf-8") == "done"
    assert not leftovers(store)


@pytest.mark.parametrize("change", [{"version": 2}, {"section": {"a": [1, "ü"], "b": 3}}, {"upstream": ["k1", "k3"]},
                                    {"upstream": ["k2", "k1"]}, {"upstream": ["k1"]}, {"stage": "other"}])
def test_whatever_decides_the_output_changes_the_key(change: dict[str, Any], store: Store) -> None:
    other, compute = replace(RECIPE, **change), Compute()
    assert other.key != RECIPE.key
    store.fetch(RECIPE, compute)
    store.fetch(other, compute)
    assert compute.calls == 2


def test_the_key_is_of_the_content_alone() -> None:
    """Not of the order in a mapping, nor of whether a section is a dataclass or its fields. Golden: a change of
    the key computes every stored stage anew."""
    assert replace(RECIPE, section={"a": [1, "ü"], "b": 2}).key == RECIPE.key == "06969fa73f278f07f533"
    section = SelectionConfig()
    assert replace(RECIPE, section=section).key == replace(RECIPE, section=dict(vars(section))).key
    assert replace(RECIPE, section={"s": section}).key == replace(RECIPE, section={"s": dict(vars(section))}).key
    assert replace(RECIPE, section=AttributionConfig()).key != replace(RECIPE, section=AttributionConfig(damping=0.2)).key


def test_hash_of_values_that_json_cannot_hold_raises() -> None:
    with pytest.raises(TypeError):
        hash_json({"path": Path("x")})


def test_seeds_depend_on_seed_and_name() -> None:
    seeds = {derive_seed(seed, name) for seed in range(50) for name in ("warmup", "sketch")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(0, "sketch") == 394560468


def test_manifest_says_what_was_computed(store: Store) -> None:
    before = time.time()
    path = store.fetch(RECIPE, lambda out: time.sleep(0.02)).path
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    assert {name: manifest.pop(name) for name in RECIPE.content()} == RECIPE.content()
    assert before <= manifest.pop("started") <= time.time()
    assert 0.02 <= manifest.pop("seconds") <= time.time() - before + 0.001  # rounded to a thousandth
    assert manifest == {}


def test_seconds_of_a_stage_that_another_one_asks_for_count_once(store: Store) -> None:
    """Else a plan that adds them up counts the training of a model again in its evaluation."""
    def recipe(stage: str) -> Recipe:
        return Recipe(stage=stage, version=1, section={}, upstream=[])

    def inner(out: Path) -> None:
        time.sleep(0.05)

    def outer(out: Path) -> None:
        for stage in ("first", "second", "first"):
            store.fetch(recipe(stage), inner)
        time.sleep(0.02)

    start = time.monotonic()
    store.fetch(recipe("outer"), outer)
    spent = time.monotonic() - start
    seconds = {path.parent.parent.name: json.loads(path.read_text(encoding="utf-8"))["seconds"]
               for path in store.root.glob("*/*/manifest.json")}
    assert seconds.keys() == {"first", "second", "outer"}
    assert sum(seconds.values()) <= spent + 0.003  # each is rounded to a thousandth
    assert seconds["outer"] >= 0.02


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), ConfigError("wrong")])
def test_a_crash_leaves_no_entry_and_the_next_call_works(error: BaseException, store: Store) -> None:
    with pytest.raises(type(error)):
        store.fetch(RECIPE, Compute(error))
    assert not (store.root / "stage" / RECIPE.key).exists()
    assert not leftovers(store)
    assert store.fetch(RECIPE, Compute()).computed


def test_what_a_killed_process_left_is_swept(store: Store) -> None:
    left = store.root / "stage" / f"{RECIPE.key}.part-elsewhere-123"
    other = store.root / "stage" / "0123456789.part-elsewhere-123"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x", encoding="utf-8")
    entry = store.fetch(RECIPE, Compute())
    assert not left.exists()
    assert not (entry.path / "half").exists()
    assert other.exists(), "of another key: its owner may be at work"


class FakeSafetensorError(Exception):
    """safetensors' error for a full disk is no OSError."""


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError("1000 requested and 10 written"),  # NumPy's, without a number
    FakeSafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
])
def test_a_full_disk_is_said_with_what_to_do(error: Exception, store: Store) -> None:
    with pytest.raises(StorageError, match=rf"stage 'stage' cannot be stored under {store.root}: .*: free space or set "
                                           r"runtime\.workdir to another disk, then run the same command"):
        store.fetch(RECIPE, Compute(error))
    assert not leftovers(store)


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match=r"cannot be stored under .*: free space or set runtime.workdir"):
        Store(tmp_path / "file").fetch(RECIPE, Compute())


def test_a_nested_fault_is_told_once(store: Store) -> None:
    """A stage that fetches another inside: the inner stage's message reaches the user, not one about the outer."""
    inner = replace(RECIPE, stage="inner")
    with pytest.raises(StorageError) as caught:
        store.fetch(RECIPE, lambda out: store.fetch(inner, Compute(OSError(errno.ENOSPC, "No space left on device"))) and None)
    assert str(caught.value).startswith("stage 'inner' cannot be stored")
    assert str(caught.value).count("cannot be stored") == 1


def test_discard_removes_and_the_next_fetch_computes(store: Store) -> None:
    store.discard(RECIPE)
    compute = Compute()
    path = store.fetch(RECIPE, compute).path
    store.discard(RECIPE)
    assert not path.exists()
    assert not leftovers(store)
    assert store.fetch(RECIPE, compute).computed
    assert compute.calls == 2


def test_a_discard_that_is_killed_leaves_no_entry_that_seems_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path, remove = store.fetch(RECIPE, Compute()).path, shutil.rmtree

    def killed(folder: Any, **how: Any) -> None:
        (Path(folder) / "value.txt").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        store.discard(RECIPE)
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert not path.exists()
    assert store.fetch(RECIPE, Compute()).computed
    assert not leftovers(store)


RACE = """
import sys, time
from pathlib import Path
from mtselect.store import Recipe, Store
root = Path(sys.argv[1])
def compute(out):
    with (root / "calls").open("a") as file:
        file.write("x")
    time.sleep(0.5)
    (out / "value").write_text("done")
(root / f"ready-{sys.argv[2]}").touch()
while len(list(root.glob("ready-*"))) < 3:
    time.sleep(0.01)
entry = Store(root / "store").fetch(Recipe(stage="s", version=1, section=1, upstream=[]), compute)
print(entry.computed, (entry.path / "value").read_text())
"""


def test_two_hosts_write_one_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their process ids may be equal, as in two containers."""
    monkeypatch.setattr("os.getpid", lambda: 7)

    def write(path: Path) -> None:
        path.write_text("the first", encoding="utf-8")
        monkeypatch.setattr("socket.gethostname", lambda: "other")
        write_whole(tmp_path / "file.txt", lambda path: path.write_text("the second", encoding="utf-8"))

    monkeypatch.setattr("socket.gethostname", lambda: "one")
    write_whole(tmp_path / "file.txt", write)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {"file.txt": "the first"}


def test_what_a_link_or_a_pipe_leads_to_is_written(tmp_path: Path) -> None:
    """As root it would else be put in the place of /dev/stdout."""
    (tmp_path / "link.txt").symlink_to("file.txt")
    write_whole(tmp_path / "link.txt", lambda path: path.write_text("here", encoding="utf-8"))
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "file.txt").read_text(encoding="utf-8") == "here"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", lambda path: path.write_text("through", encoding="utf-8"))
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("half", encoding="utf-8")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "file.txt", write)
    assert not list(tmp_path.iterdir())


def test_processes_that_fetch_the_same_key_compute_once(tmp_path: Path) -> None:
    runs = [subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), str(i)], stdout=subprocess.PIPE, text=True)
            for i in range(3)]
    said = sorted(run.communicate(timeout=60)[0].strip() for run in runs)
    assert said == ["False done", "False done", "True done"]
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "x"


def test_a_lock_of_a_dead_process_does_not_block(store: Store) -> None:
    """The system frees it with the process; the file that stays behind means nothing."""
    path = store.root / "stage" / f"{RECIPE.key}.lock"
    path.parent.mkdir(parents=True)
    path.write_text(str(os.getpid()), encoding="utf-8")
    assert store.fetch(RECIPE, Compute()).computed


def test_experiments_that_differ_in_a_searched_field_share_what_does_not_read_it() -> None:
    one = Experiment()
    two = with_fields(one, {"selection.budget": 500})
    assert hash_json(one) != hash_json(two)
    assert hash_json(one.attribution) == hash_json(two.attribution)


def test_lines_are_written_without_all_of_them_in_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    write_lines(tmp_path / "rows.jsonl", ({"text": f"{i} " + "ж" * 1000} for i in range(5000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 < (tmp_path / "rows.jsonl").stat().st_size
    assert len(read_lines(tmp_path / "rows.jsonl")) == 5000
