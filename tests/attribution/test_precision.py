"""A model in bfloat16, with factors and benefits in float32, ranks as the same model in float32."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from mtselect.attribution.influence import fit_and_score
from mtselect.attribution.record import Record
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
        pool = tiny.run(lm, layers, tiny.examples(N, start=start), Record())
        seeds = tiny.run(lm, layers, tiny.examples(Q, seed=1, start=start), Record())
        benefits = np.zeros((N, Q), np.float32)
        curvature = fit_and_score(pool, seeds, Q, 0.1, benefits=benefits,
                                  norms={name: np.zeros(N, np.float32) for name in layers})
        assert {layer.eigenvalues.dtype for layer in curvature.values()} == {torch.float32}
        found.append(benefits)
    for q in range(Q):
        agreement = spearmanr(found[0][:, q], found[1][:, q]).statistic
        assert agreement > AGREEMENT, f"{architecture}, seed {q}: {agreement:.4f}"
