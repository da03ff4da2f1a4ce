"""K-FAC and EK-FAC curvature of tracked linear layers, and the damped inverse.

For a layer W [O, I], over the tokens (padding excluded) of the pool:

    A = E_token[a a^T]  [I, I]      S = E_token[g g^T]  [O, O]

The Fisher matrix of an example's summed loss, F = E_z[vec G(z) vec G(z)^T], is approximated by its action on
a matrix V [O, I]:

    K-FAC    F(V) = T S V A                          T: mean number of tokens of an example
    EK-FAC   F(V) = Q_S (L * (Q_S^T V Q_A)) Q_A^T    L = E_z[(Q_S^T G(z) Q_A)^2]  [O, I], elementwise

with the eigenvectors A = Q_A diag(.) Q_A^T, S = Q_S diag(.) Q_S^T. In K-FAC's form L = T s a^T, the outer
product of the factors' eigenvalues. Sources: Martens and Grosse 2015 (arXiv 1503.05671), George et al. 2018
(arXiv 1806.03884), Grosse et al. 2023 (arXiv 2308.03296).

Which tokens enter A and S: all but padding, the prompt's too. A prompt token's g is the gradient that reaches
it through attention, and it is part of G(z); leaving it out would make S disagree with G.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mtselect.attribution.gradients import Captured, example_gradients, wide
from mtselect.errors import NonFiniteError


@dataclass(frozen=True, kw_only=True)
class LayerCurvature:
    """Eigenbasis and eigenvalues of one layer: basis_a [I, I], basis_s [O, O] (columns), eigenvalues [O, I]."""

    basis_a: Tensor
    basis_s: Tensor
    eigenvalues: Tensor

    def rotate(self, matrix: Tensor) -> Tensor:
        """Q_S^T V Q_A for V [..., O, I]."""
        return self.basis_s.mT @ matrix @ self.basis_a

    def rotate_back(self, matrix: Tensor) -> Tensor:
        """Q_S V Q_A^T for V [..., O, I]."""
        return self.basis_s @ matrix @ self.basis_a.mT

    def to(self, device: str | torch.device) -> LayerCurvature:
        """The same on another device."""
        return LayerCurvature(basis_a=self.basis_a.to(device), basis_s=self.basis_s.to(device),
                              eigenvalues=self.eigenvalues.to(device))

    def solve(self, matrix: Tensor, damping: float) -> Tensor:
        """(F + damping * mean(L))^-1 applied to V [..., O, I]; a layer without any gradient (F = 0) gives V / tiny."""
        shift = (damping * self.eigenvalues.mean()).clamp_min(torch.finfo(self.eigenvalues.dtype).tiny)
        return self.rotate_back(self.rotate(matrix) / (self.eigenvalues + shift))


Curvature = dict[str, LayerCurvature]


class Covariances:
    """Accumulates A and S of each layer over a gradient pass (a GradientConsumer)."""

    def __init__(self) -> None:
        self._a: dict[str, Tensor] = {}
        self._s: dict[str, Tensor] = {}
        self._dtype = torch.float32
        self.n_tokens = 0
        self.n_examples = 0

    def update(self, rows: Tensor, captured: Captured, mask: Tensor) -> None:
        """Add a batch; float32 products are summed in float64."""
        for name, (a, g) in captured.items():
            self._dtype = wide(a).dtype
            _add_gram(self._a, name, a[mask])
            _add_gram(self._s, name, g[mask])
        self.n_tokens += int(mask.sum())
        self.n_examples += len(rows)

    def eigenbasis(self) -> Curvature:
        """The K-FAC curvature: eigenvectors of A and S, eigenvalues T s a^T.

        Raises:
            NonFiniteError: a factor holds NaN or infinity; names the layer.
        """
        tokens_per_example = self.n_tokens / self.n_examples
        curvature = {}
        for name in self._a:
            a_values, a_vectors = _eigh(self._a[name] / self.n_tokens, name)
            s_values, s_vectors = _eigh(self._s[name] / self.n_tokens, name)
            eigenvalues = tokens_per_example * torch.outer(s_values, a_values)
            curvature[name] = LayerCurvature(basis_a=a_vectors.to(self._dtype), basis_s=s_vectors.to(self._dtype),
                                             eigenvalues=eigenvalues.to(self._dtype))
        return curvature


class EigenvalueRefit:
    """Accumulates EK-FAC's eigenvalues in a fixed eigenbasis over a gradient pass (a GradientConsumer)."""

    def __init__(self, curvature: Curvature) -> None:
        self._curvature = curvature
        self._sums: dict[str, Tensor] = {}
        self._n_examples = 0

    def update(self, rows: Tensor, captured: Captured, mask: Tensor) -> None:
        """Add a batch: the tokens are rotated, then contracted, then squared."""
        for name, (a, g) in captured.items():
            layer = self._curvature[name]
            squares = example_gradients(wide(a) @ layer.basis_a, wide(g) @ layer.basis_s).square().sum(0).double()
            self._sums[name] = self._sums[name] + squares if name in self._sums else squares
        self._n_examples += len(rows)

    def curvature(self) -> Curvature:
        """The EK-FAC curvature."""
        return {name: LayerCurvature(basis_a=layer.basis_a, basis_s=layer.basis_s,
                                     eigenvalues=(self._sums[name] / self._n_examples).to(layer.eigenvalues.dtype))
                for name, layer in self._curvature.items()}


def to_tensors(curvature: Curvature) -> dict[str, Tensor]:
    """Flat names for a safetensors file."""
    return {f"{name}|{part}": getattr(layer, part).contiguous()
            for name, layer in curvature.items() for part in ("basis_a", "basis_s", "eigenvalues")}


def from_tensors(tensors: Mapping[str, Tensor]) -> Curvature:
    """The inverse of `to_tensors`."""
    names = sorted({key.split("|")[0] for key in tensors})
    return {name: LayerCurvature(basis_a=tensors[f"{name}|basis_a"], basis_s=tensors[f"{name}|basis_s"],
                                 eigenvalues=tensors[f"{name}|eigenvalues"]) for name in names}


def _add_gram(sums: dict[str, Tensor], name: str, tokens: Tensor) -> None:
    tokens = wide(tokens)
    gram = (tokens.mT @ tokens).double()
    sums[name] = sums[name].add_(gram) if name in sums else gram


def _eigh(matrix: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if not torch.isfinite(matrix).all():
        raise NonFiniteError(f"a curvature factor of layer {name!r} holds NaN or infinity: "
                             "lower warmup.learning_rate, or set model.dtype to float32")
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp_min(0), vectors
