"""Two-sided sketches of per-example gradients, and of seeds, so that their inner products are benefits.

A layer's gradient G [O, I] = g^T a is projected on both sides before it is formed:

    sketch(z) = w * (g P_out)^T (a P_in) = w * (P_out^T G P_in)           [r, r], w elementwise

at a cost of T (I r + O r + r^2), never T I O. A preconditioned seed M = (H + lambda)^-1 G(q) gets 1/w instead,

    seed(q) = (P_out^T M P_in) / w        benefit(z, q) ~ <sketch(z), seed(q)>

so w only balances the two. The layers' numbers stand side by side, R in all. Two kinds of directions:

    random   P_in [I, r] and P_out [O, r] of independent Gaussians with variance 1/r, w = 1. E[P P^T] = identity, so inner
             products are unbiased: E<sketch(z), seed(q)> = <G(z), M>, and of two candidates <G(x), G(y)>.
    eigen    the top r EK-FAC eigenvectors of each side, Q_A [I, r] and Q_S [O, r], w = (L + lambda)^-1/2. There the inverse is
             diagonal, so <sketch(z), seed(q)> is the part of the benefit that lies in these r^2 entries of the eigenbasis,
             without noise; the rest is left out. A seed's sketch is then that of its own plain gradient.

Sources: random two-sided projection, Choe et al. 2024 (arXiv 2405.13954); EK-FAC, George et al. 2018 (arXiv 1806.03884).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtselect.attribution.gradients import Captured, example_gradients, wide
from mtselect.attribution.kfac import Curvature


@dataclass(frozen=True, kw_only=True)
class Projections:
    """What makes a sketch.

    Args:
        sides: per layer (P_in [I, r], P_out [O, r]); the layers' order is the order of the sketch's blocks. Where a layer has
            fewer inputs or outputs than r, those.
        weights: per layer w, of a block's shape. Null: all 1.
    """

    sides: dict[str, tuple[Tensor, Tensor]]
    weights: dict[str, Tensor] | None = None

    @property
    def width(self) -> int:
        """R, numbers in one sketch."""
        return sum(p_in.shape[1] * p_out.shape[1] for p_in, p_out in self.sides.values())

    def sketch(self, captured: Captured) -> Tensor:
        """Sketches [B, R] of a batch, float32."""
        blocks = []
        for name, (p_in, p_out) in self.sides.items():
            a, g = captured.layers[name]
            block = example_gradients(wide(a) @ p_in.to(a.device), wide(g) @ p_out.to(g.device), captured.lengths_of(name))
            blocks.append((block * self._weights(name, block)).flatten(1))
        return torch.cat(blocks, dim=1)

    def seeds(self, preconditioned: Mapping[str, Tensor]) -> Tensor:
        """Sketches [Q, R] of the seeds, so that the benefits are candidates' sketches [N, R] (their norms multiplied back in)
        times these.

        Args:
            preconditioned: name -> (H + lambda)^-1 G, [Q, O * I], as `SeedGradients` collects them.
        """
        blocks = []
        for name, (p_in, p_out) in self.sides.items():
            p_in, p_out = (side.to(preconditioned[name].device) for side in (p_in, p_out))
            seeds = preconditioned[name].view(-1, len(p_out), len(p_in))
            block = p_out.mT @ seeds @ p_in
            blocks.append((block / self._weights(name, block)).flatten(1))
        return torch.cat(blocks, dim=1)

    def _weights(self, name: str, block: Tensor) -> Tensor | float:
        return 1.0 if self.weights is None else self.weights[name].to(block.device)


class Sketcher:
    """Writes the sketch index over a gradient pass (a GradientConsumer).

    Args:
        projections: of the sketch.
        sketches: [N, R] float16, filled in with sketches of unit length.
        sketch_norms: [N] float32, filled in with the lengths divided out.
        first: the candidate at which the arrays begin.
    """

    def __init__(self, projections: Projections, *, sketches: NDArray[np.float16], sketch_norms: NDArray[np.float32],
                 first: int = 0) -> None:
        self._projections, self._first = projections, first
        self._sketches, self._sketch_norms = sketches, sketch_norms

    def update(self, captured: Captured) -> None:
        """Fill in a batch."""
        index = captured.rows.cpu().numpy() - self._first
        sketches = self._projections.sketch(captured)
        length = sketches.norm(dim=1)
        self._sketches[index] = (sketches / length.clamp_min(1e-30).unsqueeze(1)).cpu().numpy()
        self._sketch_norms[index] = length.cpu().numpy()


def random_projections(shapes: Mapping[str, tuple[int, int]], rank: int, generator: torch.Generator) -> Projections:
    """Seeded Gaussian projections for layers name -> (O, I), rank by rank numbers each, drawn in the order of the names."""
    sides = {}
    for name in sorted(shapes):
        n_out, n_in = shapes[name]
        sides[name] = (torch.randn(n_in, rank, generator=generator) / rank**0.5,
                       torch.randn(n_out, rank, generator=generator) / rank**0.5)
    return Projections(sides=sides)


def eigen_projections(curvature: Curvature, rank: int, damping: float) -> Projections:
    """The `rank` eigenvectors of either side with the largest marginals of (L / (L + lambda))^2.

    L / (L + lambda), lambda = damping * mean(L) of the layer, is the mean square of an entry of the whitened gradient, so its
    square is that entry's share in the variance of benefits. Measured against other choices in benchmarks/sketch.py.

    Args:
        curvature: per layer; K-FAC serves as well as EK-FAC.
        rank: r; all there are where a layer has fewer inputs or outputs.
        damping: as for the seeds.
    """
    sides, weights = {}, {}
    for name, layer in sorted(curvature.items()):
        damped = layer.damped(damping)
        shares = (layer.eigenvalues / damped).square()
        outputs, inputs = (shares.sum(axis).topk(min(rank, shares.shape[1 - axis])).indices for axis in (1, 0))
        sides[name] = (layer.basis_a[:, inputs], layer.basis_s[:, outputs])
        weights[name] = damped.rsqrt()[outputs][:, inputs]
    return Projections(sides=sides, weights=weights)
