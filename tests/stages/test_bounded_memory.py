"""Curvature and seeds in the memory that was chosen: the results of an unbounded pass, and no more memory than was said."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from mtselect.attribution.index import SketchIndex
from mtselect.attribution.kfac import Covariances
from mtselect.attribution.memory import fitting_bytes
from mtselect.config import load, with_fields
from mtselect.progress import SilentProgress
from mtselect.stages import curvature
from mtselect.stages.curvature import CURVATURE, StoredCurvature
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.models import load_scored
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import Store

# Float32 products and sums of another order.
ROUNDING = 1e-4
GIB = 2**30


@pytest.mark.parametrize("kind", ["ekfac", "kfac"])
@pytest.mark.parametrize("record_gb", [16.0, 0.0], ids=["recorded", "in passes"])
def test_groups_of_layers_give_the_curvature_of_all_at_once(kind: str, record_gb: float, warm_lab: Callable[..., Any],
                                                            monkeypatch: pytest.MonkeyPatch, relative: Any) -> None:
    lab, sizes = warm_lab(stages=("corpus", "base", "tokens", "warmup")), []
    original = Covariances.eigenbasis

    def note(self: Covariances) -> Any:
        found = original(self)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(Covariances, "eigenbasis", note)
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", [])
        experiment = with_fields(sweep.experiment, {"attribution.curvature": kind})
        runtime = replace(sweep.runtime, record_gb=record_gb)

        def fitted(memory_gb: float | None, store: str) -> tuple[StoredCurvature, list[int]]:
            shutil.copytree(lab.store, lab.folder / store)
            bench = Bench(store=Store(lab.folder / store), runtime=replace(runtime, memory_gb=memory_gb),
                          progress=SilentProgress())
            sizes.clear()
            return StoredCurvature(Lineage(bench, experiment).path(CURVATURE)), list(sizes)

        whole, once = fitted(None, "unbounded")
        shapes = {name: tuple(layer.eigenvalues.shape) for name, layer in whole.items()}
        lineage = Lineage(Bench(store=Store(lab.store), runtime=runtime, progress=SilentProgress()), experiment)
        model = load_scored(experiment, runtime, WARM_MODEL.read(lineage)).model
        # for the largest layer, and for the smaller ones some at a time
        room = sum(one.nbytes for one in model.parameters()) + 1.1 * max(fitting_bytes({name: shapes[name]}) for name in shapes)
        parts, many = fitted(1e-9 * room / 0.85, "bounded")
    assert sum(once) == sum(many) == len(whole) == len(parts) == 7
    assert len(many) > len(once)
    assert once == [7] or (kind == "ekfac" and record_gb)  # a record goes by layers that share an input
    for name, layer in whole.items():
        v = torch.randn(shapes[name], generator=torch.Generator().manual_seed(0))
        ratio = relative(parts[name].solve(v, 0.1), layer.solve(v, 0.1))
        assert ratio < ROUNDING, f"{name}: relative error {ratio:.1e}"


def test_the_identity_holds_no_layer(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab(stages=("corpus", "base", "tokens", "warmup"))
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", [])
        experiment = with_fields(sweep.experiment, {"attribution.curvature": "identity"})
        stored = StoredCurvature(Lineage(Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress()),
                                         experiment).path(CURVATURE))
    assert not stored and list(stored) == []


def test_tokens_stay_in_memory_only_where_the_layers_leave_room(warm_lab: Callable[..., Any],
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    lab, given = warm_lab(stages=("corpus", "base", "tokens", "warmup")), []
    original = curvature.Record

    def note(memory_bytes: int, folder: Path) -> Any:
        given.append(memory_bytes)
        return original(memory_bytes, folder)

    monkeypatch.setattr(curvature, "Record", note)
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", [])
        for memory_gb in (None, 1e-6):
            runtime = replace(sweep.runtime, memory_gb=memory_gb)
            lineage = Lineage(Bench(store=Store(lab.store), runtime=runtime, progress=SilentProgress()), sweep.experiment)
            lineage.path(CURVATURE)
            lineage.discard(CURVATURE)
    assert given == [512 * 2**20, 0]


def gemma(lab: Any, n_layers: int) -> None:
    """A random model of Gemma 3 270M's shapes but for its depth and vocabulary, and a sweep file over a few rows."""
    (base,) = lab.store.glob("base/*/tokenizer.json")
    shutil.copytree(base.parent, lab.folder / "gemma",
                    ignore=shutil.ignore_patterns("*.safetensors", "config.json", "manifest.json"))
    config = Gemma3TextConfig(vocab_size=400, hidden_size=640, intermediate_size=2048, num_hidden_layers=n_layers,
                              num_attention_heads=4, num_key_value_heads=1, head_dim=256, sliding_window=512,
                              query_pre_attn_scalar=256, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).save_pretrained(lab.folder / "gemma")
    rows = (lab.folder / "data/pool.jsonl").read_text("utf-8").splitlines(keepends=True)
    for part, some in (("pool", rows[:16]), ("seeds", rows[16:48])):
        (lab.folder / f"data/{part}.jsonl").write_text("".join(some), encoding="utf-8")
    lab.write(experiment__model={"name": "gemma", "prompt": "{src}\n", "max_tokens": 160, "dtype": "float32"},
              experiment__warmup={}, experiment__attribution={"curvature_rows": 6, "sketch_rank": 0, "seed_rank": 8,
                                                       "statistics": "float32"},
              experiment__selection={"budget": 8, "gate": None}, runtime__batch_size=8, search={})


def select(lab: Any, *arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m mtselect.select` in a process whose addresses are limited; glibc would reserve 64 MiB of them a thread."""
    def bound() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return subprocess.run([sys.executable, "-m", "mtselect.select", "sweep.yaml", "--out", "out.jsonl", *arguments],
                          cwd=lab.folder, capture_output=True, text=True, preexec_fn=bound, check=False,
                          env={**os.environ, "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"})


def test_gemmas_shapes_in_three_gibibytes(warm_lab: Callable[..., Any], relative: Any) -> None:
    """The process, its imports and the model included. Dense seeds, 2.2 GB, do not fit."""
    lab = warm_lab(stages=("corpus", "base"))
    gemma(lab, n_layers=3)
    bounded = ("--runtime.memory_gb", "0.6", "--runtime.record_gb", "0", "--runtime.workdir", "bounded")
    for arguments, limit in (((), None), (bounded, 3 * GIB)):
        done = select(lab, *arguments, limit=limit)
        assert done.returncode == 0, done.stderr
    assert re.search(r"curvature +24 of 24", done.stderr + done.stdout), "six rows twice: there were not two groups of layers"
    one, two = (SketchIndex(next((lab.folder / workdir).glob("store/gradients/*"))) for workdir in ("mlruns", "bounded"))
    for column in ("benefits", "mean", "norm"):
        ratio = relative(two.column(column), one.column(column))
        assert ratio < ROUNDING, f"{column}: relative error {ratio:.1e}"
    dense = select(lab, *bounded, "--experiment.attribution.seed_rank", "null", "--runtime.memory_gb", "null", limit=3 * GIB)
    assert dense.returncode != 0 and "memory" in dense.stderr, dense.stderr
