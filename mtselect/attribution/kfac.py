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

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mtselect.attribution.gradients import Captured, add_squares, cast, product, wide
from mtselect.errors import NonFiniteError

# Covariances wider than _SMALLEST are summed in _BLOCKS block rows: 5/8 of the products for 4.
_BLOCKS, _SMALLEST = 4, 512


@dataclass(frozen=True, kw_only=True)
class LayerCurvature:
    """Eigenbasis and eigenvalues of one layer: basis_a [I, I], basis_s [O, O] (columns), eigenvalues [O, I]."""

    basis_a: Float[Tensor, "inputs inputs"]
    basis_s: Float[Tensor, "outputs outputs"]
    eigenvalues: Float[Tensor, "outputs inputs"]

    def rotate(self, matrix: Float[Tensor, "*any outputs inputs"]) -> Float[Tensor, "*any outputs inputs"]:
        """Q_S^T V Q_A for V [..., O, I]."""
        return self.basis_s.mT @ matrix @ self.basis_a

    def rotate_back(self, matrix: Float[Tensor, "*any outputs inputs"]) -> Float[Tensor, "*any outputs inputs"]:
        """Q_S V Q_A^T for V [..., O, I]."""
        return self.basis_s @ matrix @ self.basis_a.mT

    def to(self, device: str | torch.device) -> LayerCurvature:
        """The same on another device."""
        return LayerCurvature(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def damped(self, damping: float) -> Float[Tensor, "outputs inputs"]:
        """L + damping * mean(L), [O, I]; a layer without any gradient (L = 0) gets tiny."""
        shift = (damping * self.eigenvalues.mean()).clamp_min(torch.finfo(self.eigenvalues.dtype).tiny)
        return self.eigenvalues + shift

    def solve(self, matrix: Float[Tensor, "*any outputs inputs"], damping: float) -> Float[Tensor, "*any outputs inputs"]:
        """(F + damping * mean(L))^-1 applied to V [..., O, I]."""
        return self.rotate_back(self.rotate(matrix) / self.damped(damping))


Curvature = dict[str, LayerCurvature]


def rotated_tokens(captured: Captured, curvature: Mapping[str, LayerCurvature], statistics: torch.dtype = torch.float32
                   ) -> Iterator[tuple[str, LayerCurvature, Tensor, Tensor]]:
    """Layer by layer its name, its curvature on the tokens' device, and the tokens in its eigenbasis, a Q_A and g Q_S.

    Their G is Q_S^T G Q_A: T (I^2 + O^2) for what costs O I (O + I) when the dense G is turned. An input that layers share is
    turned once where they hold the same basis too. Of a curvature that is read from disk one layer is there at a time.
    """
    for names in captured.groups():
        basis: Tensor | None = None
        for name in names:
            a, g = captured.layers[name]
            layer = curvature[name].to(g.device)
            if basis is not layer.basis_a:
                basis = layer.basis_a
                turned = cast(a, statistics) @ cast(basis, statistics)
            yield name, layer, turned, cast(g, statistics) @ cast(layer.basis_s, statistics)


class Covariances:
    """Accumulates A and S of each layer over a gradient pass (a GradientConsumer); layers that share an input share A.

    Args:
        statistics: what is multiplied in; sums are in float32.
    """

    def __init__(self, statistics: torch.dtype = torch.float32) -> None:
        self._statistics = statistics
        self._a: dict[str, Tensor] = {}
        self._s: dict[str, Tensor] = {}
        self._groups: list[list[str]] = []  # what is of their input stands under the first one's name
        self._n_tokens: dict[str, int] = {}
        self._n_examples = 0

    def update(self, captured: Captured) -> None:
        """Add a batch."""
        self._groups = captured.groups()
        for names in self._groups:
            a, first = captured.layers[names[0]][0], names[0]
            _add_gram(self._a, first, cast(a, self._statistics))
            self._n_tokens[first] = self._n_tokens.get(first, 0) + len(a)
            for name in names:
                _add_gram(self._s, name, cast(captured.layers[name][1], self._statistics))
        self._n_examples += len(captured.lengths)

    def eigenbasis(self) -> Curvature:
        """The K-FAC curvature: eigenvectors of A and S, eigenvalues T s a^T. Once: the sums are freed on the way.

        Raises:
            NonFiniteError: a factor holds NaN or infinity, or cannot be decomposed; names the layer.
        """
        curvature = {}
        for names in self._groups:
            n_tokens = self._n_tokens[names[0]]
            a_values, a_vectors = _eigh(self._a.pop(names[0]), names[0], n_tokens)
            for name in names:
                s_values, s_vectors = _eigh(self._s.pop(name), name, n_tokens)
                eigenvalues = n_tokens / self._n_examples * torch.outer(s_values, a_values)
                curvature[name] = LayerCurvature(basis_a=a_vectors, basis_s=s_vectors, eigenvalues=eigenvalues)
        return curvature


class EigenvalueRefit:
    """Accumulates EK-FAC's eigenvalues in a fixed eigenbasis over a gradient pass (a GradientConsumer).

    Args:
        curvature: K-FAC's.
        statistics: what is multiplied in; sums are in float32.
    """

    def __init__(self, curvature: Mapping[str, LayerCurvature], statistics: torch.dtype = torch.float32) -> None:
        self._curvature, self._statistics = curvature, statistics
        self._sums = {name: torch.zeros_like(layer.eigenvalues) for name, layer in curvature.items()}
        self._n_examples = 0

    def update(self, captured: Captured) -> None:
        """Add a batch: the tokens are rotated, then contracted, then squared."""
        for name, _, a, g in rotated_tokens(captured, self._curvature, self._statistics):
            add_squares(self._sums[name], a, g, captured.lengths_of(name), self._statistics)
        self._n_examples += len(captured.lengths)

    def curvature(self) -> Curvature:
        """The EK-FAC curvature. Once: the sums are freed on the way."""
        return {name: replace(layer, eigenvalues=self._sums.pop(name) / self._n_examples)
                for name, layer in self._curvature.items()}


def spectrum(eigenvalues: Float[Tensor, "outputs inputs"], points: int = 200) -> dict[str, list[int] | list[float]]:
    """Eigenvalues, largest first, at some ranks from 1 to the last one, evenly spaced on a log scale: `ranks` and `values`."""
    ordered = eigenvalues.flatten().sort(descending=True).values
    ranks = sorted({round(len(ordered) ** (i / (points - 1))) for i in range(points)})
    return {"ranks": ranks, "values": ordered[torch.tensor(ranks) - 1].double().tolist()}


def _add_gram(sums: dict[str, Tensor], name: str, tokens: Tensor) -> None:
    """sums[name] += x^T x for x [M, D]: only the blocks on and above the diagonal, the rest by symmetry at the end."""
    width = tokens.shape[1]
    if name not in sums:
        sums[name] = wide(tokens[:0]).new_zeros(width, width)
    step = -(-width // _BLOCKS) if width >= _SMALLEST else width
    for begin in range(0, width, step):
        block, rows, columns = sums[name][begin : begin + step, begin:], tokens[:, begin : begin + step].mT, tokens[:, begin:]
        if tokens.dtype == block.dtype:
            block.addmm_(rows, columns)
        else:
            block += product(rows, columns)


def _eigh(total: Tensor, name: str, n_tokens: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a mean Gram matrix given by its upper triangle."""
    matrix = total.triu() / n_tokens
    if not torch.isfinite(matrix).all():
        raise NonFiniteError(f"a curvature factor of layer {name!r} holds NaN or infinity: "
                             "lower warmup.learning_rate, or set model.dtype to float32")
    for dtype in dict.fromkeys((matrix.dtype, torch.float64)):  # float32 may not converge where eigenvalues are clustered
        with contextlib.suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            values, vectors = torch.linalg.eigh(matrix.to(dtype), UPLO="U")
            if torch.isfinite(values).all() and torch.isfinite(vectors).all():
                return values.clamp_min(0).to(total.dtype), vectors.to(total.dtype).contiguous()
    raise NonFiniteError(f"a curvature factor of layer {name!r} has no eigenvectors, in float64 neither: lower "
                         "warmup.learning_rate, or set model.dtype to float32")
