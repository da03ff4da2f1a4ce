"""Benefits [N, Q] of N candidates for Q seeds.

The influence of weighting pair z up on the loss of seed q is

    I(z, q) = -grad L(q)^T (H + lambda)^-1 grad L(z)

the predicted change of the seed's loss: negative helps. Everywhere a person sees it we report

    benefit(z, q) = -I(z, q)

so that larger is better. This is the one place where the sign is turned. H is block-diagonal over the
tracked layers (EK-FAC or K-FAC; the identity makes it a plain dot product). The seeds are preconditioned once,
[Q, O, I] per layer, and each candidate's gradient meets them while it is in memory; no [N, O, I] is kept.
Source: Koh and Liang 2017 (arXiv 1703.04730); Grosse et al. 2023 (arXiv 2308.03296).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from mtselect.attribution.gradients import SEED_BUFFER_BYTES, Captured, GradientBuffer, cast, gradient_norms, is_padded, product
from mtselect.attribution.kfac import LayerCurvature, rotated_tokens
from mtselect.errors import NonFiniteError


class SeedGradients:
    """Collects the seeds' gradients, preconditioned, over a gradient pass (a GradientConsumer).

    Args:
        n_seeds: Q.
        curvature: of each layer; empty for the identity.
        damping: relative to each layer's mean eigenvalue.
        statistics: what they are kept in, and scored with; they are computed in float32.
    """

    def __init__(self, n_seeds: int, curvature: Mapping[str, LayerCurvature], damping: float,
                 statistics: torch.dtype = torch.float32) -> None:
        self._n_seeds, self._statistics = n_seeds, statistics
        self._curvature = curvature
        self._damping = damping
        self._buffer = GradientBuffer(SEED_BUFFER_BYTES)
        self.preconditioned: dict[str, Tensor] = {}

    def update(self, captured: Captured) -> None:
        """Fill in a batch of seeds: preconditioned[name][rows] = (H + lambda)^-1 G, flattened to [B, O * I].

        Raises:
            NonFiniteError: a seed's gradient is NaN or infinite; names its row.
        """
        if not self._curvature:
            for name, (a, g) in captured.layers.items():
                for rows, gradients in seed_chunks(self._buffer, captured, name, a, g):
                    self._put(name, rows, gradients)
            return
        for name, layer, a, g in rotated_tokens(captured, self._curvature):
            damped = layer.damped(self._damping)
            for rows, solved in seed_chunks(self._buffer, captured, name, a, g, damped):
                self._put(name, rows, layer.rotate_back(solved))

    def _put(self, name: str, rows: Tensor, gradients: Tensor) -> None:
        flat = gradients.flatten(1)
        if name not in self.preconditioned:
            self.preconditioned[name] = cast(flat[:0], self._statistics).new_zeros(self._n_seeds, flat.shape[1])
        self.preconditioned[name][rows] = flat.to(self.preconditioned[name].dtype)


def seed_chunks(buffer: GradientBuffer, captured: Captured, name: str, a: Tensor, g: Tensor, damped: Tensor | None = None
                ) -> Iterator[tuple[Tensor, Tensor]]:
    """A few seeds of a batch at a time: their rows [C] and G [C, O, I] at a layer, in the basis of its tokens a and g.

    Args:
        buffer: where G is formed; each overwrites the one before.
        captured: the batch.
        name: the layer.
        a, g: its tokens [M, I] and [M, O].
        damped: [O, I], what G is divided by.

    Raises:
        NonFiniteError: a seed's gradient is NaN or infinite; names its row.
    """
    done = 0
    for gradients in buffer.chunks(a, g, captured.lengths_of(name)):
        if damped is not None:
            gradients.div_(damped)
        rows = captured.rows[done : done + len(gradients)]
        check_finite_rows(gradients.flatten(1), rows, "seed")
        yield rows, gradients
        done += len(gradients)


class Scorer:
    """Scores candidates over a gradient pass (a GradientConsumer); a subclass says what a layer adds.

    Args:
        benefits: [N, Q] float32, zeros; each layer adds its share.
        norms: name -> [N] float32, filled in with the Frobenius norm of G; layers without one go unmeasured.
        first: the candidate at which the arrays begin.
    """

    def __init__(self, *, benefits: Float32[np.ndarray, "candidates seeds"],
                 norms: Mapping[str, Float32[np.ndarray, " candidates"]], first: int = 0) -> None:
        self._benefits, self._norms, self._first = benefits, norms, first

    def update(self, captured: Captured) -> None:
        """Add a batch of candidates.

        Raises:
            NonFiniteError: a benefit is NaN or infinite; names the candidate's row.
        """
        benefits: Tensor | float = 0.0
        measured: dict[str, Tensor] = {}
        for name, (a, g) in captured.layers.items():
            added, norms = self._score(name, a, g, captured.lengths_of(name))
            benefits = benefits + added
            if norms is not None:
                measured[name] = norms
        assert isinstance(benefits, Tensor)
        width, rows = benefits.shape[1], captured.rows.cpu()
        here = torch.column_stack([benefits, *measured.values()]).cpu()  # one wait for the device, whatever the layers
        check_finite_rows(here[:, :width], rows, "candidate")
        index = rows.numpy() - self._first
        self._benefits[index] += here[:, :width].numpy()
        for i, name in enumerate(measured, width):
            self._norms[name][index] = here[:, i].numpy()

    def _score(self, name: str, a: Tensor, g: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor | None]:
        """Benefits [B, Q] of one layer from its tokens a [M, I] and g [M, O], and norms [B] if they are asked for."""
        raise NotImplementedError


class PoolScorer(Scorer):
    """Scores with dense seeds: a candidate's gradient is formed and meets them while it is in memory.

    Args:
        preconditioned: the seeds, name -> [Q, O * I], in the basis of the tokens that come and the dtype of products.
        benefits, norms, first: as for `Scorer`.
    """

    def __init__(self, preconditioned: Mapping[str, Float[Tensor, "seeds _"]], *,
                 benefits: Float32[np.ndarray, "candidates seeds"],
                 norms: Mapping[str, Float32[np.ndarray, " candidates"]], first: int = 0) -> None:
        super().__init__(benefits=benefits, norms=norms, first=first)
        self._seeds = preconditioned
        self._narrow = torch.bfloat16 in {seeds.dtype for seeds in preconditioned.values()}
        self._buffer = GradientBuffer(statistics=torch.bfloat16 if self._narrow else torch.float32)

    def _score(self, name: str, a: Tensor, g: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor | None]:
        parts, norms = [], []
        for gradients in self._buffer.chunks(a, g, lengths):
            flat = gradients.flatten(1)
            parts.append(product(flat, self._seeds[name].mT))
            if name in self._norms and not self._narrow:
                norms.append(torch.linalg.vector_norm(flat, dim=1) if is_padded(flat.device)
                             else torch.stack([row.dot(row) for row in flat]).sqrt())
        if name in self._norms and self._narrow:
            norms.append(gradient_norms(a, g, lengths))
        return torch.cat(parts), torch.cat(norms) if norms else None


def check_finite_rows(values: Float[Tensor, "examples ..."], rows: Int[Tensor, " examples"], kind: str) -> None:
    """Raise NonFiniteError naming the first row [B] whose values [B, ...] hold NaN or infinity."""
    finite = torch.isfinite(values.sum(1))
    if not finite.all():
        raise NonFiniteError(f"the gradient of {kind} {int(rows[~finite][0])} is NaN or infinite: lower "
                             "warmup.learning_rate, or set model.dtype to float32")
