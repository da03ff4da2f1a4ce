"""Sketches against the dense product; the laws of random projections; the same bytes in a second process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from mtselect.attribution.gradients import Captured, example_gradients
from mtselect.attribution.sketch import Sketcher, random_projections

# float32 products of at most 6 x 5 x 7 numbers.
ROUNDING = 1e-5
# float16 sketches of unit length.
HALF = 2e-3
# Five standard deviations of a mean over DRAWS draws; each draw's is measured.
DRAWS, SIGMAS = 4000, 5.0
SHAPES = {"b": (6, 5), "a": (4, 7)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def captured(seed: int) -> Captured:
    """Three examples of 6, 4 and 8 tokens."""
    rng = generator(seed)
    layers = {name: (torch.randn(18, n_in, generator=rng), torch.randn(18, n_out, generator=rng))
              for name, (n_out, n_in) in SHAPES.items()}
    return Captured(rows=torch.arange(3), lengths=[6, 4, 8], layers=layers)


def test_equal_the_dense_product_side_by_side(relative: Any) -> None:
    projections, batch = random_projections(SHAPES, 2, generator()), captured(1)
    sketches = projections.sketch(batch)
    assert sketches.shape == (3, projections.width) == (3, 2 * 2**2)
    for row in range(3):
        blocks = []
        for name, (p_in, p_out) in projections.sides.items():
            a, g = (x.split(batch.lengths)[row] for x in batch.layers[name])
            blocks.append((p_out.T @ (g.T @ a) @ p_in).flatten())
        ratio = relative(sketches[row], torch.cat(blocks))
        assert ratio < ROUNDING, f"relative error {ratio:.1e}"


def test_projections_have_the_identity_as_mean() -> None:
    """E[P P^T] = 1 on both sides."""
    rng = generator()
    drawn = [random_projections({"w": SHAPES["b"]}, 3, rng).sides["w"] for _ in range(DRAWS)]
    for side in (0, 1):
        products = torch.stack([pair[side] @ pair[side].T for pair in drawn])
        error = (products.mean(0) - torch.eye(products.shape[1])).abs()
        sigmas = float((error / (products.std(0) / DRAWS**0.5)).max())
        assert sigmas < SIGMAS, f"side {side}: {sigmas:.1f} standard deviations from the identity"


def test_inner_products_are_unbiased() -> None:
    """E<sketch(x), sketch(y)> = <G(x), G(y)>, over both layers."""
    rng, batch = generator(), captured(2)
    expected = sum(float((gradients[0] * gradients[1]).sum())
                   for gradients in (example_gradients(a, g, batch.lengths) for a, g in batch.layers.values()))
    estimates = torch.empty(DRAWS)
    for i in range(DRAWS):
        sketches = random_projections(SHAPES, 3, rng).sketch(batch)
        estimates[i] = sketches[0] @ sketches[1]
    sigmas = float((estimates.mean() - expected).abs() / (estimates.std() / DRAWS**0.5))
    assert sigmas < SIGMAS, f"{sigmas:.1f} standard deviations from {expected:.2f}: mean {estimates.mean():.2f}"


def test_drawn_in_the_order_of_the_names_whatever_the_order_given() -> None:
    one = random_projections(SHAPES, 2, generator())
    two = random_projections(dict(reversed(SHAPES.items())), 2, generator())
    assert list(one.sides) == list(two.sides) == ["a", "b"]
    assert all(torch.equal(x, y) for name in SHAPES for x, y in zip(one.sides[name], two.sides[name], strict=True))


DIGESTS = """
import hashlib, sys, torch
from mtselect.attribution.sketch import random_projections
for seed in (7, 8):
    sides = random_projections({"b": (6, 5), "a": (4, 7)}, 2, torch.Generator().manual_seed(seed)).sides
    print(hashlib.sha256(b"".join(x.numpy().tobytes() for pair in sides.values() for x in pair)).hexdigest())
"""


def test_a_second_process_draws_the_same_bytes() -> None:
    sides = random_projections(SHAPES, 2, generator(7)).sides
    here = hashlib.sha256(b"".join(x.numpy().tobytes() for pair in sides.values() for x in pair)).hexdigest()
    there, other = subprocess.run([sys.executable, "-c", DIGESTS], capture_output=True, text=True,
                                  check=True).stdout.split()
    assert here == there != other


def test_an_index_keeps_them_in_half_precision(relative: Any) -> None:
    """As float16 of unit length, and the norms beside."""
    projections, batch = random_projections(SHAPES, 5, generator()), captured(1)
    sketches, norms = np.zeros((3, projections.width), np.float16), np.zeros(3, np.float32)
    Sketcher(projections, sketches=sketches, sketch_norms=norms).update(batch)
    assert np.linalg.norm(sketches.astype(np.float32), axis=1) == pytest.approx(1, abs=HALF)
    stored = torch.from_numpy(sketches).float() * torch.from_numpy(norms).unsqueeze(1)
    assert relative(stored, projections.sketch(batch)) < HALF
