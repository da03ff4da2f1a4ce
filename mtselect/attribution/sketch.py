"""Two-sided random sketches of per-example gradients, for clusters.

A layer's gradient G [O, I] = g^T a is projected on both sides before it is formed:

    sketch(z) = (g P_out)^T (a P_in) = P_out^T G P_in           [r, r]

at a cost of T (I r + O r + r^2), never T I O. The layers' numbers stand side by side, R in all. P_in [I, r] and P_out [O, r]
are independent Gaussians with variance 1/r, so that E[P P^T] is the identity and inner products are unbiased: of two candidates
E<sketch(x), sketch(y)> = <G(x), G(y)>.

Source: random two-sided projection, Choe et al. 2024 (arXiv 2405.13954).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32
from torch import Tensor

from mtselect.attribution.gradients import Captured, example_gradients, wide


@dataclass(frozen=True, kw_only=True)
class Projections:
    """What makes a sketch.

    Args:
        sides: per layer (P_in [I, r], P_out [O, r]); the layers' order is the order of the sketch's blocks.
    """

    sides: dict[str, tuple[Tensor, Tensor]]

    @property
    def width(self) -> int:
        """R, numbers in one sketch."""
        return sum(p_in.shape[1] * p_out.shape[1] for p_in, p_out in self.sides.values())

    def to(self, device: torch.device) -> Projections:
        """The same on another device."""
        return Projections(sides={name: (p_in.to(device), p_out.to(device)) for name, (p_in, p_out) in self.sides.items()})

    def sketch(self, captured: Captured) -> Float32[Tensor, "examples width"]:
        """Sketches [B, R] of a batch, float32."""
        blocks = []
        for name, (p_in, p_out) in self.sides.items():
            a, g = captured.layers[name]
            blocks.append(example_gradients(wide(a) @ p_in, wide(g) @ p_out, captured.lengths_of(name)).flatten(1))
        return torch.cat(blocks, dim=1)


class Sketcher:
    """Writes the sketch index over a gradient pass (a GradientConsumer).

    Args:
        projections: of the sketch.
        sketches: [N, R] float16, filled in with sketches of unit length.
        sketch_norms: [N] float32, filled in with the lengths divided out.
        first: the candidate at which the arrays begin.
    """

    def __init__(self, projections: Projections, *, sketches: Float16[np.ndarray, "candidates width"],
                 sketch_norms: Float32[np.ndarray, " candidates"], first: int = 0) -> None:
        self._projections, self._first = projections, first
        self._here: Projections | None = None
        self._sketches, self._sketch_norms = sketches, sketch_norms

    def update(self, captured: Captured) -> None:
        """Fill in a batch."""
        index = captured.rows.cpu().numpy() - self._first
        if self._here is None:  # once a pass: tokens say where
            self._here = self._projections.to(next(iter(captured.layers.values()))[0].device)
        sketches = self._here.sketch(captured)
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
