"""A model in bfloat16, with factors and benefits in float32, ranks as the same model in float32."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from mtselect.attribution.influence import PoolScorer, SeedGradients
from mtselect.attribution.record import Record, fit
from mtselect.training.language_model import tracked_layers

N, Q = 40, 8
# Spearman's correlation over the candidates. Measured, the least of 8 seeds: 0.998 in both; bfloat16 has 8 bits, and the
# errors of tokens and layers average out.
AGREEMENT = 0.99


@pytest.mark.parametrize("architecture", ["llama", "marian"])
def test_bfloat16_ranks_as_float32_does(architecture: str, tiny: SimpleNamespace, pattern: str) -> None:
    start = tiny.start if architecture == "marian" else None
    found: list[Any] = []
    for dtype in (torch.float32, torch.bfloat16):
        lm = tiny.model(architecture, dtype=dtype)
        layers = tracked_layers(lm.model, pattern)
        pool, benefits = tiny.examples(N, start=start), np.zeros((N, Q), np.float32)
        curvature = dict(fit(tiny.run(lm, layers, pool, Record())))
        seeds = tiny.run(lm, layers, tiny.examples(Q, seed=1, start=start), SeedGradients(Q, curvature, 0.1))
        tiny.run(lm, layers, pool, PoolScorer(seeds.preconditioned, benefits=benefits, norms={}))
        assert {layer.eigenvalues.dtype for layer in curvature.values()} == {torch.float32}
        found.append(benefits)
    for q in range(Q):
        agreement = spearmanr(found[0][:, q], found[1][:, q]).statistic
        assert agreement > AGREEMENT, f"{architecture}, seed {q}: {agreement:.4f}"
