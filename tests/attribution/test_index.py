"""The sketch index: the same bytes however often its writers die and however many they are; scores equal the dense formula."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mtselect.attribution.gradients import Captured
from mtselect.attribution.index import IndexWriter, Layout, Shard, SketchIndex, reserve
from mtselect.attribution.sketch import Sketcher, random_projections
from mtselect.errors import NonFiniteError, StorageError

LAYOUT = Layout(n_rows=50, width=6, shard_rows=8, content="a test")  # seven shards, the last of two rows
# float32 products of 6 numbers, in another order.
ROUNDING = 1e-6
DEADLINE = 60  # seconds; a wait that never ends fails by it


def all_rows(layout: Layout = LAYOUT) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """What the whole index is to hold."""
    random = np.random.default_rng(0)
    sketches = random.normal(size=(layout.n_rows, layout.width))
    norms = random.uniform(0.5, 2, layout.n_rows).astype(np.float32)
    return (sketches / np.linalg.norm(sketches, axis=1, keepdims=True)).astype(np.float16), norms


def fill(shard: Shard) -> None:
    sketches, norms = all_rows()
    shard.sketches[:], shard.norms[:] = sketches[shard.rows.start : shard.rows.stop], norms[shard.rows.start : shard.rows.stop]


def write(folder: Path) -> list[int]:
    """The index, or what is missing; gives the first rows of the shards it filled."""
    filled = []
    for shard in IndexWriter(folder, LAYOUT).shards():
        fill(shard)
        filled.append(shard.rows.start)
    return filled


def contents(folder: Path) -> dict[str, bytes]:
    """Path -> bytes, without seconds."""
    return {str(path.relative_to(folder)): re.sub(rb'"seconds": [\d.]+', b"", path.read_bytes())
            for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".txt"}


@pytest.fixture
def undisturbed(tmp_path: Path) -> Path:
    folder = tmp_path / "undisturbed"
    assert write(folder) == list(range(0, 50, 8))
    return folder


def start(target: Callable[..., Any], *arguments: Any) -> Any:
    """A process; forked, as its imports would take longer than the test."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def die_in_third(folder: Path) -> None:
    for shard in IndexWriter(folder, LAYOUT).shards():
        fill(shard)
        if shard.rows.start == 16:
            os.kill(os.getpid(), signal.SIGKILL)


def test_reads_what_was_written(undisturbed: Path) -> None:
    index = SketchIndex(undisturbed)
    sketches, norms = all_rows()
    assert (len(index), index.shape) == (50, (50, 6))
    assert index.column("norms").tobytes() == norms.tobytes()
    for rows in (np.arange(50), np.array([3, 7, 8, 49]), np.array([40, 2, 2, 11]), np.array([], dtype=int)):
        assert index[rows].tobytes() == sketches[rows].tobytes()


def test_resumed_after_a_kill_it_equals_an_undisturbed_one(tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "killed"
    killed = start(die_in_third, folder)
    killed.join(DEADLINE)
    assert killed.exitcode == -signal.SIGKILL
    whole = contents(folder / "000000000000-000000000008")
    assert len(list(folder.glob("000000000016-000000000024.part-*"))) == 1
    with pytest.raises(StorageError, match=r"killed/manifest.json is missing: .* is not finished: run the command that writes"):
        SketchIndex(folder)
    assert [rows.start for rows in IndexWriter(folder, LAYOUT).missing()] == write(folder) == [16, 24, 32, 40, 48]
    assert contents(folder / "000000000000-000000000008") == whole
    assert contents(folder) == contents(undisturbed)
    assert write(folder) == []


def test_a_torn_shard_is_written_again(tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "torn"
    write(folder)
    torn = folder / "000000000008-000000000016"
    (torn / "sketches.npy").write_bytes((torn / "sketches.npy").read_bytes()[:100])
    (torn / "stray").touch()
    torn.rename(f"{torn}.part-elsewhere-1")
    assert write(folder) == [8]
    assert contents(folder) == contents(undisturbed)


def test_a_loop_that_is_left_leaves_its_shard_missing(tmp_path: Path, undisturbed: Path) -> None:
    for shard in IndexWriter(tmp_path / "left", LAYOUT).shards():
        fill(shard)
        if shard.rows.start == 8:
            break
    assert write(tmp_path / "left") == [8, 16, 24, 32, 40, 48]
    assert contents(tmp_path / "left") == contents(undisturbed)


def test_parts_are_written_apart_and_make_one_index(tmp_path: Path, undisturbed: Path) -> None:
    """Each writer fills its own; whoever fills the last shard of all writes the manifest."""
    folder, filled = tmp_path / "parts", []
    for k in (2, 0, 1):
        assert not (folder / "manifest.json").exists()
        for shard in IndexWriter(folder, LAYOUT, part=(k, 3)).shards():
            fill(shard)
            filled.append(shard.rows.start // 8)
        assert IndexWriter(folder, LAYOUT, part=(k, 3)).missing() == []
    assert filled == [2, 5, 0, 3, 6, 1, 4]
    assert contents(folder) == contents(undisturbed)


def write_together(folder: Path, both: Barrier) -> None:
    for i, shard in enumerate(IndexWriter(folder, LAYOUT).shards()):
        fill(shard)
        if i == 0:
            both.wait(DEADLINE)  # each has one shard in hand


def test_of_two_processes_that_write_the_same_shards_each_leaves_the_others(tmp_path: Path, undisturbed: Path) -> None:
    folder, both = tmp_path / "together", multiprocessing.get_context("fork").Barrier(2)
    processes = [start(write_together, folder, both) for _ in range(2)]
    for process in processes:
        process.join(DEADLINE)
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(folder) == contents(undisturbed)


def hold_one_until_told(folder: Path, held: Any, go_on: Any) -> None:
    for shard in IndexWriter(folder, LAYOUT).shards():
        held.set()
        go_on.wait(DEADLINE)
        fill(shard)


def test_what_comes_too_late_is_dropped(tmp_path: Path, undisturbed: Path) -> None:
    """A process that was given up, its work done again, and that goes on when the index is whole."""
    folder, context = tmp_path / "late", multiprocessing.get_context("fork")
    held, go_on = context.Event(), context.Event()
    process = start(hold_one_until_told, folder, held, go_on)
    assert held.wait(DEADLINE)
    assert write(folder) == list(range(0, 50, 8))
    assert contents(folder) == contents(undisturbed)
    manifest = (folder / "manifest.json").read_bytes()
    go_on.set()
    process.join(DEADLINE)
    assert process.exitcode == 0
    assert contents(folder) == contents(undisturbed)
    assert (folder / "manifest.json").read_bytes() == manifest


def test_a_gradient_pass_shard_by_shard_equals_one_over_all(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    tokens = [(torch.randn(3, 5, generator=rng), torch.randn(3, 4, generator=rng)) for _ in range(10)]
    projections = random_projections({"layer": (4, 5)}, 2, rng)

    def run(rows: range, consumer: Sketcher) -> None:
        for place, row in enumerate(rows):
            consumer.update(Captured(rows=torch.tensor([place]), lengths=[3], layers={"layer": tokens[row]}))

    for shard in IndexWriter(tmp_path, Layout(n_rows=10, width=projections.width, shard_rows=4, content="")).shards():
        run(shard.rows, Sketcher(projections, sketches=shard.sketches, sketch_norms=shard.norms))
    sketches, norms = np.zeros((10, projections.width), np.float16), np.zeros(10, np.float32)
    run(range(10), Sketcher(projections, sketches=sketches, sketch_norms=norms))
    index = SketchIndex(tmp_path)
    assert index[np.arange(10)].tobytes() == sketches.tobytes()
    assert index.column("norms").tobytes() == norms.tobytes()


def test_further_columns_and_what_the_manifest_says_besides(tmp_path: Path) -> None:
    layout = Layout(n_rows=10, width=2, shard_rows=4, content="", columns={"benefits": 3})
    values = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    for shard in IndexWriter(tmp_path, layout, {"stage": "gradients"}).shards():
        assert not shard.columns["benefits"].any()
        shard.columns["benefits"][:] = values[shard.rows.start : shard.rows.stop]
        shard.norms[:] = 1
    index = SketchIndex(tmp_path)
    assert index.column("benefits").tobytes() == values.tobytes()
    assert index.column("benefits", lambda part: part.max(1)).tolist() == values.max(1).tolist()
    assert json.loads((tmp_path / "manifest.json").read_text())["stage"] == "gradients"
    (tmp_path / "000000000004-000000000008" / "benefits.npy").unlink()
    with pytest.raises(StorageError, match=r"000000000004-000000000008/benefits.npy is missing or damaged"):
        index.column("benefits")


def test_a_norm_that_is_not_finite_names_its_candidate(tmp_path: Path) -> None:
    def write_bad() -> None:
        for shard in IndexWriter(tmp_path, LAYOUT).shards():
            fill(shard)
            if 21 in shard.rows:
                shard.norms[shard.rows.index(21)] = np.nan

    with pytest.raises(NonFiniteError, match=r"the gradient of candidate 21 is NaN or infinite: lower warmup"):
        write_bad()
    assert write(tmp_path) == [16, 24, 32, 40, 48]


def test_a_shard_not_filled_in_is_not_taken_for_whole(tmp_path: Path) -> None:
    shards = IndexWriter(tmp_path, LAYOUT).shards()
    shard = next(shards)
    empty = shard.norms[5].copy()
    fill(shard)
    shard.norms[5] = empty
    with pytest.raises(AssertionError, match="row 5 was not filled in"):
        next(shards)


def test_an_index_of_values_alone(tmp_path: Path) -> None:
    """Width 0: no sketch and no norm on disk; values are told from empty ones all the same."""
    layout = Layout(n_rows=10, width=0, shard_rows=4, content="losses", values=["loss"])
    for shard in IndexWriter(tmp_path, layout).shards():
        shard.values["loss"][:] = np.arange(10.0)[shard.rows.start : shard.rows.stop]
    assert SketchIndex(tmp_path).column("loss").tolist() == list(range(10))
    assert [len(block) for block in SketchIndex(tmp_path).shards("loss")] == [4, 4, 2]
    assert not list(tmp_path.rglob("sketches.npy")) and not list(tmp_path.rglob("norms.npy"))
    shards = IndexWriter(tmp_path / "other", layout).shards()
    next(shards).values["loss"][:3] = 0
    with pytest.raises(AssertionError, match="row 3 was not filled in"):
        next(shards)


def test_a_full_disk_is_an_error_before_anything_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"shard .*000000000000-000000000008 of the sketch index cannot be written: .*"
                                           r"No space left on device: free space, then run the same command"):
        write(tmp_path)
    monkeypatch.undo()
    assert write(tmp_path)[0] == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"the sketch index .*file/index cannot be written: .*: free space, or set runtime"):
        IndexWriter(tmp_path / "file" / "index", LAYOUT)


def one_line(error: StorageError) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize(("name", "value"), [("n_rows", 51), ("width", 7), ("shard_rows", 9), ("content", "another")])
def test_another_index_is_not_gone_on_with(undisturbed: Path, name: str, value: Any) -> None:
    from dataclasses import replace

    with pytest.raises(StorageError, match=r"layout.json is of another sketch index: .* remove .*, or give another") as caught:
        IndexWriter(undisturbed, replace(LAYOUT, **{name: value}))
    assert f"{name} is {getattr(LAYOUT, name)!r}, this run wants {value!r}" in one_line(caught.value)


def test_what_is_no_index_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"manifest.json is missing: .* is no sketch index: name the folder of one, or run"):
        SketchIndex(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"stage": "gradients"}))
    with pytest.raises(StorageError, match=r"manifest.json is no manifest of a sketch index, it lacks 'n_rows': name the"):
        SketchIndex(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StorageError, match=r"manifest.json cannot be read: .*: remove .* and run the same command"):
        SketchIndex(tmp_path)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 10)


def other_shape(file: Path) -> None:
    np.save(file, np.zeros((8, 5), np.float16))


@pytest.mark.parametrize(("damage", "what"), [(cut, ""), (Path.unlink, "No such file"), (other_shape, r"its shape is \(8, 5\)"),
                                              (lambda file: file.write_bytes(b""), "")])
def test_a_damaged_shard_is_named_and_written_again(undisturbed: Path, damage: Callable[[Path], Any], what: str) -> None:
    before = contents(undisturbed)
    file = undisturbed / "000000000024-000000000032" / "sketches.npy"
    damage(file)
    index = SketchIndex(undisturbed)
    message = rf"{file} is missing or damaged \(.*{what}.*\): remove {file.parent} and run"
    with pytest.raises(StorageError, match=message) as caught:
        index[np.arange(50)]
    assert one_line(caught.value)
    shutil.rmtree(file.parent)
    assert write(undisturbed) == [24]
    assert contents(undisturbed) == before


def test_reserved_disk_is_no_hole(tmp_path: Path) -> None:
    """A hole that cannot be filled is SIGBUS in the middle of a pass."""
    array = reserve(tmp_path / "benefits.npy", (1000, 1000), np.float32)
    used = (tmp_path / "benefits.npy").stat()
    assert array.shape == (1000, 1000)
    assert used.st_blocks * 512 >= used.st_size > 4_000_000  # st_blocks counts 512 bytes; a sparse file would have next to none
