"""On a GPU examples are padded: what a CPU computes one by one, in as many kernels whatever the batch.

No GPU is asked: the padded form runs on the CPU here, and torch's dispatcher counts what a GPU would be sent.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mtselect.attribution import factored, gradients, influence
from mtselect.attribution.factored import FactoredScorer, FactoredSeeds
from mtselect.attribution.gradients import Captured
from mtselect.attribution.influence import PoolScorer, SeedGradients
from mtselect.attribution.kfac import Covariances, EigenvalueRefit
from mtselect.attribution.record import Record, fit
from mtselect.attribution.sketch import Sketcher, random_projections
from mtselect.training.language_model import tracked_layers

# Float32 sums in another order.
ROUNDING = 1e-4
N, Q = 16, 5
# What gives another view of a tensor, or reads its size, starts no kernel.
VIEWS = ("view", "reshape", "slice", "select", "t.", "transpose", "permute", "expand", "unsqueeze", "squeeze", "detach",
         "alias", "split", "_unsafe_view", "empty", "new_empty", "lift_fresh", "is_", "unbind")


class Kernels(TorchDispatchMode):
    """Counts operators that compute."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if not name.startswith(VIEWS):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Chooses the form of a GPU or of a CPU."""
    def choose(on: bool) -> None:
        for module in (gradients, influence):
            monkeypatch.setattr(module, "is_padded", lambda device: on)
    return choose


class Passes:
    """A small Llama's layers, their curvature and seeds, and consumers that look at candidates."""

    def __init__(self, tiny: SimpleNamespace, pattern: str) -> None:
        self.tiny, self.lm = tiny, tiny.trained
        self.layers = tracked_layers(self.lm.model, pattern)
        self.curvature = dict(fit(tiny.run(self.lm, self.layers, tiny.examples(60, 7), Record())))
        self.covered = tiny.run(self.lm, self.layers, tiny.examples(60, 7), Covariances()).eigenbasis()
        seeds = tiny.examples(Q, seed=1)
        self.dense = tiny.run(self.lm, self.layers, seeds, SeedGradients(Q, self.curvature, 0.1)).preconditioned
        self.low = tiny.run(self.lm, self.layers, seeds, FactoredSeeds(Q, self.curvature, 0.1, 4)).factors
        shapes = {name: gradients.layer_shape(layer) for name, layer in self.layers.items()}
        self.projections = random_projections(shapes, 4, torch.Generator().manual_seed(0))

    def consumer(self, kind: str) -> tuple[Any, Callable[[], Any]]:
        """One, and what it leaves."""
        norms = {name: np.zeros(N, np.float32) for name in self.layers}
        benefits, sketches = np.zeros((N, Q), np.float32), np.zeros((N, self.projections.width), np.float16)
        if kind == "refit":
            refit = EigenvalueRefit(self.covered)
            return refit, lambda: torch.cat([layer.eigenvalues.flatten() for layer in refit.curvature().values()])
        if kind == "seeds":
            seeds = SeedGradients(N, self.curvature, 0.1)
            return seeds, lambda: torch.cat(list(seeds.preconditioned.values()), 1)
        if kind == "sketch":
            return Sketcher(self.projections, sketches=sketches, sketch_norms=norms[next(iter(norms))]), lambda: sketches
        scorer = PoolScorer(self.dense, benefits=benefits, norms=norms) if kind == "dense" else FactoredScorer(
            self.low, benefits=benefits, norms=norms)
        return scorer, lambda: np.column_stack([benefits, *norms.values()])

    def run(self, kind: str, batch_size: int = N) -> Any:
        """What a consumer leaves of a pass over N candidates."""
        consumer, left = self.consumer(kind)
        self.tiny.run(self.lm, self.layers, self.tiny.examples(N, 3), consumer, batch_size=batch_size)
        return left()

    def batch(self, n: int) -> Captured:
        """Of n candidates."""
        kept: list[Captured] = []
        self.tiny.run(self.lm, self.layers, self.tiny.examples(n, 3), SimpleNamespace(update=kept.append), batch_size=n)
        return kept[0]

    def kernels(self, kind: str, n: int) -> list[str]:
        """Those of one batch, the model's apart."""
        batch, (consumer, _) = self.batch(n), self.consumer(kind)
        consumer.update(batch)  # the first makes buffers
        with Kernels() as counted:
            consumer.update(batch)
        return counted.names


KINDS = ["refit", "seeds", "dense", "low rank", "sketch"]


@pytest.fixture(scope="module")
def passes(tiny: SimpleNamespace, pattern: str) -> Passes:
    return Passes(tiny, pattern)


@pytest.mark.parametrize("kind", KINDS)
def test_padded_or_one_by_one_gives_the_same(kind: str, passes: Passes, padded: Callable[[bool], None], relative: Any) -> None:
    padded(False)
    plain = passes.run(kind)
    padded(True)
    for batch_size in (N, 3):
        assert relative(passes.run(kind, batch_size), plain) < (2e-3 if kind == "sketch" else ROUNDING)  # kept in float16


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_costs_as_many_kernels_whatever_the_batch(kind: str, passes: Passes, padded: Callable[[bool], None]) -> None:
    padded(True)
    few, many = passes.kernels(kind, 3), passes.kernels(kind, 12)
    assert len(few) == len(many), [(name, few.count(name), many.count(name)) for name in {*few, *many}]


def test_one_by_one_they_grow(passes: Passes, padded: Callable[[bool], None]) -> None:
    """The count can tell."""
    padded(False)
    assert len(passes.kernels("dense", 12)) > 2 * len(passes.kernels("dense", 3))


@pytest.mark.parametrize("kind", ["dense", "low rank"])
def test_a_batch_is_waited_for_once(kind: str, passes: Passes, padded: Callable[[bool], None],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Benefits and the norms of all layers come to the host together, beside the rows."""
    padded(True)
    batch, (consumer, _), waits = passes.batch(12), passes.consumer(kind), []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: waits.append(self.shape) or original(self))
    consumer.update(batch)
    assert sorted(waits) == [(12,), (12, Q + len(passes.layers))]


def test_sums_are_those_of_each_example(padded: Callable[[bool], None]) -> None:
    values, lengths = torch.arange(12.0).view(6, 2), [1, 3, 2]
    for on in (False, True):
        padded(on)
        assert factored.example_sums(values, lengths).tolist() == [[0, 1], [12, 15], [18, 20]]
