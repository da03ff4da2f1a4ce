"""Benefits from low-rank seeds: for layers whose dense seeds [Q, O, I] do not fit.

A seed's preconditioned gradient M_q = (H + lambda)^-1 G(q) [O, I] is kept as U_q V_q of rank r, and of what is cut off only the
mean over seeds, R [O, I]. A candidate's gradient G = sum_t g_t a_t^T is never formed:

    benefit(z, q) ~ <G, U_q V_q + R> = sum_t <g_t U_q, a_t V_q^T> + g_t R a_t^T

T Q r (I + O) + T O I products, for T O I + Q O I of dense seeds; Q r (I + O) + O I numbers a layer, for Q O I. Because of R the
mean benefit over seeds is exact whatever the rank. It has to be: what is cut off is small in each seed but has a part that
seeds share, and without it the mean ranks clean candidates worse long before single seeds differ (benchmarks/README.md).

Which U V: the error of a benefit is <G, M - U V>, and its mean square over candidates, in the eigenbasis (tildes), is
sum L (M~ - U~ V~)^2. With L ~ s a^T, the outer product of its marginals, that is a plain Frobenius norm once rows are scaled by
sqrt(s) and columns by sqrt(a), so the best U V is a truncated SVD in that scale. Without it the SVD spends its rank on
directions in which candidates have no gradient. Ranks are nested, as nearly as the range finder finds them (`_leading`): the
first columns of U and rows of V are a lower rank's.
Sources: weighted low-rank approximation, Srebro and Jaakkola 2003; low-rank seeds, Grosse et al. 2023 (arXiv 2308.03296).

Shapes as in gradients.py: B examples with M tokens, I inputs, O outputs; Q seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mtselect.attribution.gradients import (
    SEED_BUFFER_BYTES,
    Captured,
    GradientBuffer,
    cast,
    example_sums,
    gradient_norms,
    product,
    wide,
)
from mtselect.attribution.influence import Scorer, seed_chunks
from mtselect.attribution.kfac import LayerCurvature, rotated_tokens

# Marginals of L below this part of their mean count as it: float32 divides by its root without loss.
_SMALLEST = 1e-8
# Of the range finder: directions beyond the rank, and power iterations. With them what is cut off is larger than by an SVD by
# less than 1 % (tests/attribution/test_factored.py).
_OVERSAMPLED, _POWERS = 16, 2


@dataclass(frozen=True, kw_only=True)
class Factors:
    """The seeds at one layer: left U [Q, O, r], right V [Q, r, I], and the mean of M over seeds [O, I]."""

    left: Float[Tensor, "seeds outputs rank"]
    right: Float[Tensor, "seeds rank inputs"]
    mean: Float[Tensor, "outputs inputs"]

    def remainder(self) -> Float[Tensor, "outputs inputs"]:
        """R [O, I]: what is cut off, in the mean over seeds."""
        return self.mean - torch.einsum("qor,qri->oi", self.left, self.right) / len(self.left)


class FactoredSeeds:
    """Collects the seeds' gradients, preconditioned and truncated, over a gradient pass (a GradientConsumer).

    Args:
        n_seeds: Q.
        curvature: of each tracked layer.
        damping: relative to each layer's mean eigenvalue.
        rank: r; where a layer has fewer inputs or outputs, those.
    """

    def __init__(self, n_seeds: int, curvature: Mapping[str, LayerCurvature], damping: float, rank: int) -> None:
        self._n_seeds, self._curvature = n_seeds, curvature
        self._damping, self._rank = damping, rank
        self._buffer = GradientBuffer(SEED_BUFFER_BYTES)
        self.factors: dict[str, Factors] = {}

    def update(self, captured: Captured) -> None:
        """Fill in a batch: factors[name], in the basis of the layer.

        Raises:
            NonFiniteError: a seed's gradient is NaN or infinite; names its row.
        """
        for name, layer, a, g in rotated_tokens(captured, self._curvature):
            damped = layer.damped(self._damping)
            total = torch.zeros_like(damped)
            for rows, solved in seed_chunks(self._buffer, captured, name, a, g, damped):
                total += solved.sum(0)
                left, right = truncate(solved, layer, self._rank)
                if name not in self.factors:
                    self.factors[name] = Factors(left=left.new_zeros(self._n_seeds, *left.shape[1:]),
                                                 right=right.new_zeros(self._n_seeds, *right.shape[1:]),
                                                 mean=torch.zeros_like(total))
                self.factors[name].left[rows] = layer.basis_s @ left
                self.factors[name].right[rows] = right @ layer.basis_a.mT
            self.factors[name].mean.add_(layer.rotate_back(total / self._n_seeds))


class FactoredScorer(Scorer):
    """Scores with seeds of low rank; no gradient is formed.

    Args:
        factors: the seeds at each layer.
        benefits, norms, first: as for `Scorer`.
        statistics: what is multiplied in; sums are in float32.
    """

    def __init__(self, factors: Mapping[str, Factors], *, benefits: NDArray[np.float32],
                 norms: Mapping[str, NDArray[np.float32]], first: int = 0, statistics: torch.dtype = torch.float32) -> None:
        super().__init__(benefits=benefits, norms=norms, first=first)
        # [O, Q r] and [I, Q r], so that all seeds are one product
        self._sides = {name: (cast(seeds.left, statistics).transpose(0, 1).flatten(1),
                              cast(seeds.right, statistics).permute(2, 0, 1).flatten(1)) for name, seeds in factors.items()}
        self._remainders = {name: cast(seeds.remainder(), statistics) for name, seeds in factors.items()}

    def _score(self, name: str, a: Tensor, g: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor | None]:
        left, right = self._sides[name]
        narrow_a, narrow_g = cast(a, left.dtype), cast(g, left.dtype)
        terms = product(narrow_g, left).mul_(product(narrow_a, right))
        shared = product(narrow_g, self._remainders[name]).mul_(wide(a)).sum(1, keepdim=True)
        tokens = terms.view(len(terms), self._benefits.shape[1], -1).sum(2) + shared
        return example_sums(tokens, lengths), gradient_norms(a, g, lengths) if name in self._norms else None


def truncate(matrices: Float[Tensor, "examples outputs inputs"], layer: LayerCurvature, rank: int
             ) -> tuple[Float[Tensor, "examples outputs cut"], Float[Tensor, "examples cut inputs"]]:
    """U [B, O, r] and V [B, r, I] whose product is near M [B, O, I], all in the eigenbasis; near as the module says."""
    rows, columns = _scale(layer.eigenvalues.mean(1)).unsqueeze(1), _scale(layer.eigenvalues.mean(0))
    left, values, right = _leading(rows * matrices * columns, rank)
    return left[..., :rank] * values[..., None, :rank] / rows, right[..., :rank, :] / columns


def _leading(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors U, values and V of matrices [B, O, I], at least the first `rank`.

    Where these are few, by a randomised range finder with power iterations, of all matrices at once: a twelfth of the time of
    their SVD at [2048, 640] and rank 16. The same random directions for each, so that nothing depends on the batch.
    Source: Halko, Martinsson and Tropp 2011 (arXiv 0909.4061), algorithms 4.4 and 5.1.
    """
    width = rank + _OVERSAMPLED
    if 2 * width >= min(matrices.shape[-2:]):
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        return left, values, right
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(matrices, width, niter=_POWERS)
    return left, values, right.mT


def _scale(marginals: Tensor) -> Tensor:
    """Square roots, relative to the mean; a direction that no gradient has, or no layer at all, divides as well as another."""
    relative = marginals / marginals.mean().clamp_min(torch.finfo(marginals.dtype).tiny)
    return relative.clamp_min(_SMALLEST).sqrt()
