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

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtselect.attribution.gradients import Captured, example_gradients
from mtselect.attribution.kfac import Curvature
from mtselect.attribution.sketch import Projections
from mtselect.errors import NonFiniteError


class SeedGradients:
    """Collects the seeds' gradients, preconditioned, over a gradient pass (a GradientConsumer).

    Args:
        n_seeds: Q.
        curvature: of each layer; empty for the identity.
        damping: relative to each layer's mean eigenvalue.
    """

    def __init__(self, n_seeds: int, curvature: Curvature, damping: float) -> None:
        self._n_seeds = n_seeds
        self._curvature = curvature
        self._damping = damping
        self.preconditioned: dict[str, Tensor] = {}

    def update(self, rows: Tensor, captured: Captured, mask: Tensor) -> None:
        """Fill in a batch of seeds: preconditioned[name][rows] = (H + lambda)^-1 G, flattened to [B, O * I].

        Raises:
            NonFiniteError: a seed's gradient is NaN or infinite; names its row.
        """
        for name, (a, g) in captured.items():
            gradients = example_gradients(a, g)
            if self._curvature:
                gradients = self._curvature[name].to(gradients.device).solve(gradients, self._damping)
            _check_finite(gradients.flatten(1), rows, "seed")
            if name not in self.preconditioned:
                size = gradients[0].numel()
                self.preconditioned[name] = gradients.new_zeros(self._n_seeds, size)
            self.preconditioned[name][rows] = gradients.flatten(1)


class PoolScorer:
    """Scores and sketches candidates over a gradient pass (a GradientConsumer).

    Args:
        preconditioned: the seeds, name -> [Q, O * I].
        projections: of the sketch.
        benefits: [N, Q] float32, filled in.
        norms: [N, layers] float32, filled in with the Frobenius norm of G per layer.
        sketches: [N, R] float16, filled in with sketches of unit length.
        sketch_norms: [N] float32, filled in with the lengths divided out.
    """

    def __init__(self, preconditioned: Mapping[str, Tensor], projections: Projections, *,
                 benefits: NDArray[np.float32], norms: NDArray[np.float32],
                 sketches: NDArray[np.float16], sketch_norms: NDArray[np.float32]) -> None:
        self._seeds = preconditioned
        self._projections = projections
        self._benefits, self._norms = benefits, norms
        self._sketches, self._sketch_norms = sketches, sketch_norms

    def update(self, rows: Tensor, captured: Captured, mask: Tensor) -> None:
        """Fill in a batch of candidates.

        Raises:
            NonFiniteError: a benefit is NaN or infinite; names the candidate's row.
        """
        index = rows.cpu().numpy()
        benefits, norms = self._score(captured)
        _check_finite(benefits, rows, "candidate")
        sketches = self._projections.sketch(captured)
        length = sketches.norm(dim=1)
        self._benefits[index], self._norms[index] = _numpy(benefits), _numpy(norms)
        self._sketches[index] = _numpy(sketches / length.clamp_min(1e-30).unsqueeze(1))
        self._sketch_norms[index] = _numpy(length)

    def _score(self, captured: Captured) -> tuple[Tensor, Tensor]:
        """benefits [B, Q] and norms [B, layers]."""
        benefits: Tensor | float = 0.0
        norms = []
        for name, (a, g) in captured.items():
            gradients = example_gradients(a, g).flatten(1)
            benefits = benefits + gradients @ self._seeds[name].mT
            norms.append(gradients.norm(dim=1))
        assert isinstance(benefits, Tensor)
        return benefits, torch.stack(norms, dim=1)


def _check_finite(values: Tensor, rows: Tensor, kind: str) -> None:
    finite = torch.isfinite(values).all(1)
    if not finite.all():
        raise NonFiniteError(f"the gradient of {kind} {int(rows[~finite][0])} is NaN or infinite: lower "
                             "warmup.learning_rate, or set model.dtype to float32")


def _numpy(x: Tensor) -> NDArray[np.float32]:
    return x.detach().cpu().numpy()
