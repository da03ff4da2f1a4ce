"""Two-sided sketches of per-example gradients.

A layer's gradient G [O, I] = g^T a is projected on both sides before it is formed:

    sketch(z) = (g P_out)^T (a P_in) = P_out^T G P_in      [r, r]

at a cost of T (I r + O r + r^2), never T I O. The entries of P_in [I, r] and P_out [O, r] are independent
Gaussians with variance 1/r, so E[P P^T] = identity and inner products of sketches are unbiased:
E<sketch(x), sketch(y)> = <G(x), G(y)>. The layers' sketches stand side by side: R = layers * r^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mtselect.attribution.gradients import Captured, example_gradients, wide


@dataclass(frozen=True, kw_only=True)
class Projections:
    """Per layer (P_in [I, r], P_out [O, r]); the layers' order is the order of the sketch's blocks."""

    sides: dict[str, tuple[Tensor, Tensor]]
    rank: int

    @property
    def width(self) -> int:
        """R, numbers in one sketch."""
        return len(self.sides) * self.rank**2

    def sketch(self, captured: Captured) -> Tensor:
        """Sketches [B, R] of a batch, float32."""
        blocks = []
        for name, (p_in, p_out) in self.sides.items():
            a, g = captured[name]
            p_in, p_out = p_in.to(a.device), p_out.to(g.device)
            blocks.append(example_gradients(wide(a) @ p_in, wide(g) @ p_out).flatten(1))
        return torch.cat(blocks, dim=1)


def random_projections(shapes: Mapping[str, tuple[int, int]], rank: int, generator: torch.Generator) -> Projections:
    """Seeded Gaussian projections for layers name -> (O, I), drawn in the order of the names."""
    sides = {}
    for name in sorted(shapes):
        n_out, n_in = shapes[name]
        sides[name] = (torch.randn(n_in, rank, generator=generator) / rank**0.5,
                       torch.randn(n_out, rank, generator=generator) / rank**0.5)
    return Projections(sides=sides, rank=rank)
