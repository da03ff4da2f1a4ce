"""Sketches against the dense product, and benefits from them against the dense sum; the laws of random projections; the same
bytes in a second process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtselect.attribution.gradients import Captured, example_gradients
from mtselect.attribution.influence import SeedGradients
from mtselect.attribution.kfac import Covariances, Curvature, EigenvalueRefit, LayerCurvature
from mtselect.attribution.sketch import Projections, Sketcher, eigen_projections, random_projections

# float32 products of at most 6 x 5 x 7 numbers.
ROUNDING = 1e-5
# Those, preconditioned and summed over layers with cancellation.
BENEFITS = 1e-4
# float16 sketches of unit length, summed over at most 58 numbers.
HALF = 2e-3
DAMPING = 0.1
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


def fitted(seed: int = 3) -> Curvature:
    """EK-FAC of three examples."""
    covariances = Covariances()
    covariances.update(captured(seed))
    refit = EigenvalueRefit(covariances.eigenbasis())
    refit.update(captured(seed))
    return refit.curvature()


def preconditioned(curvature: Curvature, seeds: Captured) -> dict[str, Tensor]:
    consumer = SeedGradients(len(seeds.lengths), curvature, DAMPING)
    consumer.update(seeds)
    return consumer.preconditioned


def gradient(batch: Captured, name: str, row: int) -> Tensor:
    """G [O, I] of one example, a token at a time, in float64."""
    a, g = (x.split(batch.lengths)[row].double() for x in batch.layers[name])
    return torch.stack([torch.outer(g_t, a_t) for g_t, a_t in zip(g, a, strict=True)]).sum(0)


def in_eigenbasis(batch: Captured, layer: LayerCurvature, name: str, row: int) -> Tensor:
    return layer.basis_s.double().T @ gradient(batch, name, row) @ layer.basis_a.double()


def oracle(curvature: Curvature, candidates: Captured, seeds: Captured,
           entries: set[tuple[str, int, int]] | None = None) -> Tensor:
    """Benefits [3, 3], a sum over the entries (layer, o, i) of the eigenbases; null: all."""
    benefits = torch.zeros(3, 3, dtype=torch.float64)
    for name, layer in curvature.items():
        values = layer.eigenvalues.double()
        for z in range(3):
            for q in range(3):
                terms = (in_eigenbasis(candidates, layer, name, z) * in_eigenbasis(seeds, layer, name, q)
                         / (values + DAMPING * values.mean()))
                n_out, n_in = values.shape
                benefits[z, q] += sum(float(terms[o, i]) for o in range(n_out) for i in range(n_in)
                                      if entries is None or (name, o, i) in entries)
    return benefits


def grid(curvature: Curvature, rank: int) -> set[tuple[str, int, int]]:
    """The entries in the rows and columns with the largest marginals of (L / (L + lambda))^2, by loops."""
    entries = set()
    for name, layer in curvature.items():
        shift = DAMPING * float(layer.eigenvalues.mean())
        shares = [[(value / (value + shift)) ** 2 for value in row] for row in layer.eigenvalues.tolist()]
        rows = sorted(range(len(shares)), key=lambda o: -sum(shares[o]))[:rank]
        columns = sorted(range(len(shares[0])), key=lambda i: -sum(row[i] for row in shares))[:rank]
        entries |= {(name, o, i) for o in rows for i in columns}
    return entries


@pytest.mark.parametrize("rank", [7, 50])
def test_eigen_sketches_of_full_rank_are_the_exact_benefits(relative: Any, rank: int) -> None:
    curvature, candidates, seeds = fitted(), captured(1), captured(2)
    projections = eigen_projections(curvature, rank, DAMPING)
    assert projections.width == 6 * 5 + 4 * 7
    benefits = projections.sketch(candidates) @ projections.seeds(preconditioned(curvature, seeds)).T
    ratio = relative(benefits, oracle(curvature, candidates, seeds))
    assert ratio < BENEFITS, f"relative error {ratio:.1e}"


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_eigen_sketches_are_the_part_of_the_benefits_in_the_top_directions(relative: Any, rank: int) -> None:
    curvature, candidates, seeds = fitted(), captured(1), captured(2)
    projections = eigen_projections(curvature, rank, DAMPING)
    assert projections.width == 2 * rank**2
    benefits = projections.sketch(candidates) @ projections.seeds(preconditioned(curvature, seeds)).T
    ratio = relative(benefits, oracle(curvature, candidates, seeds, grid(curvature, rank)))
    assert ratio < BENEFITS, f"relative error {ratio:.1e}"


def test_an_eigen_sketch_of_a_seed_is_that_of_its_gradient(relative: Any) -> None:
    curvature, seeds = fitted(), captured(2)
    projections = eigen_projections(curvature, 3, DAMPING)
    ratio = relative(projections.seeds(preconditioned(curvature, seeds)), projections.sketch(seeds))
    assert ratio < BENEFITS, f"relative error {ratio:.1e}"


def test_a_layer_without_any_gradient_does_no_harm() -> None:
    curvature, candidates, seeds = fitted(), captured(1), captured(2)
    dead = LayerCurvature(basis_a=torch.eye(7), basis_s=torch.eye(4), eigenvalues=torch.zeros(4, 7))
    for batch in (candidates, seeds):
        batch.layers["a"][1].zero_()
    curvature["a"] = dead
    for rank in (2, 6):
        projections = eigen_projections(curvature, rank, DAMPING)
        benefits = projections.sketch(candidates) @ projections.seeds(preconditioned(curvature, seeds)).T
        assert torch.isfinite(benefits).all()


def test_random_sketches_are_unbiased_for_benefits() -> None:
    """E<sketch(z), seed(q)> = the benefit, for every pair."""
    curvature, candidates, seeds, rng = fitted(), captured(1), captured(2), generator()
    expected, solved = oracle(curvature, candidates, seeds).float(), preconditioned(fitted(), seeds)
    estimates = torch.empty(DRAWS, 3, 3)
    for i in range(DRAWS):
        projections = random_projections(SHAPES, 3, rng)
        estimates[i] = projections.sketch(candidates) @ projections.seeds(solved).T
    sigmas = float(((estimates.mean(0) - expected).abs() / (estimates.std(0) / DRAWS**0.5)).max())
    assert sigmas < SIGMAS, f"{sigmas:.1f} standard deviations from the benefits"


@pytest.mark.parametrize("kind", ["random", "eigen"])
def test_benefits_from_the_index_are_those_of_the_sketches(relative: Any, kind: str) -> None:
    """Through float16 of unit length and the norms."""
    curvature, candidates, seeds = fitted(), captured(1), captured(2)
    projections: Projections = (random_projections(SHAPES, 5, generator()) if kind == "random"
                                else eigen_projections(curvature, 5, DAMPING))
    sketches, norms = np.zeros((3, projections.width), np.float16), np.zeros(3, np.float32)
    Sketcher(projections, sketches=sketches, sketch_norms=norms).update(candidates)
    directions = projections.seeds(preconditioned(curvature, seeds))
    stored = torch.from_numpy(sketches).float() @ directions.T * torch.from_numpy(norms).unsqueeze(1)
    ratio = relative(stored, projections.sketch(candidates) @ directions.T)
    assert ratio < HALF, f"relative error {ratio:.1e}"
