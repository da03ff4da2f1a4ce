"""Curvature and benefits of encoder-decoders, whose layers see the source's tokens or the target's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mtselect.attribution.influence import PoolScorer, SeedGradients
from mtselect.attribution.kfac import Covariances, EigenvalueRefit
from mtselect.attribution.record import Record, fit
from mtselect.attribution.sketch import Sketcher, random_projections
from mtselect.training.language_model import tracked_layers

N, Q, DAMPING = 12, 5, 0.1
# float64 through another order of sums and through eigenvectors.
ROUNDING = 1e-8


@pytest.fixture(scope="module")
def setting(tiny: SimpleNamespace, pattern: str) -> SimpleNamespace:
    lm = tiny.model("marian", dtype=torch.float64)
    return SimpleNamespace(lm=lm, layers=tracked_layers(lm.model, pattern), pool=tiny.examples(N, start=tiny.start),
                           seeds=tiny.examples(Q, seed=1, start=tiny.start))


def test_factors_are_means_over_the_tokens_a_layer_sees(setting: SimpleNamespace, tiny: SimpleNamespace, relative: Any) -> None:
    """K-FAC's trace is T tr(S) tr(A), with T the mean number of source tokens or of target tokens."""
    tokens: dict[str, list[Any]] = {name: [] for name in setting.layers}

    class Keep:
        def update(self, captured: Any) -> None:
            for name, pair in captured.layers.items():
                tokens[name].append(pair)

    tiny.run(setting.lm, setting.layers, setting.pool, Keep(), batch_size=1)
    curvature = tiny.run(setting.lm, setting.layers, setting.pool, Covariances(), batch_size=5).eigenbasis()
    source, target = (sum(len(getattr(example, side)) for example in setting.pool) for side in ("prompt", "target"))
    assert source != target
    for name, pairs in tokens.items():
        a, g = (torch.cat(side) for side in zip(*pairs, strict=True))
        of_source = ".encoder." in name or name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
        assert len(a) == (source if of_source else target)
        expected = len(a) / N * (g**2).sum() / len(a) * (a**2).sum() / len(a)
        assert relative(curvature[name].eigenvalues.sum(), expected) < ROUNDING, name


def test_benefits_are_the_same_from_a_record_as_from_passes_and_in_any_batch(setting: SimpleNamespace, tiny: SimpleNamespace,
                                                                             relative: Any) -> None:
    found = []
    for batch_size in (1, 5):
        def run(examples: Any, consumer: Any, batch_size: int = batch_size) -> Any:
            return tiny.run(setting.lm, setting.layers, examples, consumer, batch_size=batch_size)

        refit = run(setting.pool, EigenvalueRefit(run(setting.pool, Covariances()).eigenbasis()))
        seeds = run(setting.seeds, SeedGradients(Q, refit.curvature(), DAMPING))
        benefits = [np.zeros((N, Q), np.float32) for _ in range(2)]
        norms = {name: np.zeros(N, np.float32) for name in setting.layers}
        run(setting.pool, PoolScorer(seeds.preconditioned, benefits=benefits[0], norms=norms))
        recorded = run(setting.seeds, SeedGradients(Q, dict(fit(run(setting.pool, Record()))), DAMPING))
        run(setting.pool, PoolScorer(recorded.preconditioned, benefits=benefits[1], norms=norms))
        found += benefits
    for other in found[1:]:
        assert relative(other, found[0]) < 1e-5  # benefits are float32


def test_sketches_do_not_depend_on_the_batch(tiny: SimpleNamespace, pattern: str, relative: Any) -> None:
    lm, examples = tiny.model("marian"), tiny.examples(N, start=tiny.start)
    layers = tracked_layers(lm.model, pattern)
    projections = random_projections({name: layer.weight.shape for name, layer in layers.items()}, 3,
                                     torch.Generator().manual_seed(0))
    found = []
    for batch_size in (1, 5):
        sketches, norms = np.zeros((N, projections.width), np.float16), np.zeros(N, np.float32)
        tiny.run(lm, layers, examples, Sketcher(projections, sketches=sketches, sketch_norms=norms), batch_size)
        found.append((sketches, norms))
    assert relative(found[1][0], found[0][0]) < 1e-3  # float16
    assert relative(found[1][1], found[0][1]) < 1e-4
