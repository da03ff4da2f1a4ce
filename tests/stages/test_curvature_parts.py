"""The curvature stage: the same bytes in however many parts its layers are fitted, and however often it is stopped."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtselect.config import load, with_fields
from mtselect.progress import SilentProgress
from mtselect.stages import curvature
from mtselect.stages.curvature import CURVATURE
from mtselect.stages.lineage import Bench, Lineage
from mtselect.store import Store

BEFORE = ("corpus", "base", "tokens", "warmup")
MODES = {"recorded": ("ekfac", 16.0), "in passes": ("ekfac", 0.0), "kfac": ("kfac", 16.0)}


def contents(entry: Path) -> dict[str, bytes]:
    """Path -> bytes of all that an entry holds, without seconds."""
    return {str(path.relative_to(entry)): re.sub(rb'"seconds": [\d.]+', b"", path.read_bytes())
            for path in sorted(entry.rglob("*")) if path.is_file() and path.suffix != ".txt"}


@pytest.fixture
def lineage(warm_lab: Callable[..., Any]) -> Iterator[Callable[..., Lineage]]:
    """Of a store of its own, by its name: of a mode, and of a part."""
    lab = warm_lab(stages=BEFORE)
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", [])

        def make(store: str, mode: str = "recorded", part: tuple[int, int] = (0, 1)) -> Lineage:
            kind, record_gb = MODES[mode]
            if not (lab.folder / store).exists():
                shutil.copytree(lab.store, lab.folder / store)
            bench = Bench(store=Store(lab.folder / store), runtime=replace(sweep.runtime, record_gb=record_gb),
                          progress=SilentProgress(), part=part)
            return Lineage(bench, with_fields(sweep.experiment, {"attribution.curvature": kind}))

        yield make


@pytest.mark.parametrize("mode", MODES)
def test_parts_give_the_bytes_of_the_whole(lineage: Callable[..., Lineage], mode: str) -> None:
    """Seven layers in three parts, two of them apart from a layer that reads the same input."""
    whole = lineage("whole", mode).path(CURVATURE)
    parts = [lineage("parts", mode, (k, 3)) for k in (1, 2, 0)]
    for one in parts:
        entry = one.bench.store.where(one.recipe(CURVATURE))
        assert not (entry / "manifest.json").exists()
        assert one.path(CURVATURE) == entry
    assert len(contents(whole)) == 7 + 2
    assert contents(entry) == contents(whole)


def test_stopped_it_goes_on_with_the_first_missing_layer(lineage: Callable[..., Lineage],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = lineage("whole").path(CURVATURE), lineage("stopped")
    original, fitted = curvature.fit, list[str]()

    def fit(*arguments: Any) -> Iterator[Any]:
        for name, layer in original(*arguments):
            fitted.append(name)
            yield name, layer
            if len(fitted) == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(curvature, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        stopped.path(CURVATURE)
    layers = stopped.bench.store.where(stopped.recipe(CURVATURE)) / "layers"
    (layers / "elsewhere-1.model.safetensors").write_bytes(b"half")  # of a process that was killed
    entry = stopped.path(CURVATURE)
    assert fitted == list(json.loads((whole / "spectra.json").read_text()))
    assert contents(entry) == contents(whole)
    seconds = sum(float(path.read_text()) for path in layers.glob("*.txt"))
    assert json.loads((entry / "manifest.json").read_text())["seconds"] == pytest.approx(seconds, abs=1e-3)


def test_there_are_as_many_parts_as_there_is_room_for_and_layers(lineage: Callable[..., Lineage]) -> None:
    assert CURVATURE.parts is not None
    one = lineage("whole")
    assert [CURVATURE.parts(one, room) for room in (1, 4, 64)] == [1, 4, 7]
    one.experiment = with_fields(one.experiment, {"attribution.curvature": "identity"})
    assert CURVATURE.parts(one, 64) == 1
