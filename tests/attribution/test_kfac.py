"""K-FAC and EK-FAC against dense matrices: the exact Gauss-Newton, the brute-force eigenvalues, the dense inverse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtselect.attribution.gradients import Captured, example_gradients
from mtselect.attribution.kfac import Covariances, Curvature, EigenvalueRefit
from mtselect.errors import NonFiniteError
from mtselect.training.gradient_module import sample_tokens
from mtselect.training.language_model import tracked_layers

# float64 throughout; matrices of at most 20 x 20.
EXACT = 1e-10
# float32 gradients, summed over batches of other shapes.
ROUNDING = 1e-4
# Frequencies of 20,000 draws: five standard deviations of the widest, sqrt(0.25 / 20,000).
FREQUENCY = 5 * (0.25 / 20_000) ** 0.5

O, I = 3, 5  # noqa: E741 - the paper's letters


Padded = dict[str, tuple[Tensor, Tensor]]


def captured(n: int, tokens: int = 4, seed: int = 0) -> Padded:
    """Correlated random a [n, T, I] and g [n, T, O] of one layer, float64."""
    generator = torch.Generator().manual_seed(seed)
    a, g = (torch.randn(n, tokens, size, generator=generator, dtype=torch.float64) for size in (I, O))
    return {"w": (a * torch.arange(1, I + 1) + 1, g * torch.arange(1, O + 1) - a[..., :O])}


def feed(consumer: Any, batch: Padded, mask: Tensor | None = None, size: int | None = None) -> Any:
    """The batch in pieces of `size`."""
    a, g = batch["w"]
    mask = torch.ones(a.shape[:2], dtype=torch.bool) if mask is None else mask
    rows = torch.arange(len(a))
    for part in rows.split(size or len(a)):
        here = mask[part]
        consumer.update(Captured(rows=part, lengths=here.sum(1).tolist(), layers={"w": (a[part][here], g[part][here])}))
    return consumer


def dense(layer: Any, n_out: int = O, n_in: int = I) -> Tensor:
    """The operator F as a matrix [O * I, O * I] on vec(V) (row-major), from its action on basis matrices."""
    basis = torch.eye(n_out * n_in, dtype=layer.eigenvalues.dtype).view(-1, n_out, n_in)
    return layer.rotate_back(layer.rotate(basis) * layer.eigenvalues).flatten(1).T


def fitted(batch: Padded, **how: Any) -> tuple[Curvature, Curvature]:
    kfac = feed(Covariances(), batch, **how).eigenbasis()
    return kfac, feed(EigenvalueRefit(kfac), batch, **how).curvature()


def test_kfac_is_the_exact_gauss_newton_of_a_linear_layer_with_squared_loss(relative: Any) -> None:
    """L = |W x - y|^2 / 2, one token per example: H = E[I (x) x x^T], and g over a basis of outputs makes S = I."""
    n = 4 * O
    a, _ = captured(n, tokens=1)["w"]
    g = (O**0.5 * torch.eye(O, dtype=torch.float64)).repeat(n // O, 1).unsqueeze(1)
    kfac = feed(Covariances(), {"w": (a, g)}).eigenbasis()["w"]

    def loss(flat: Tensor) -> Tensor:
        return ((flat.view(O, I) @ a[:, 0].T) ** 2).sum() / 2 / n

    hessian = torch.autograd.functional.hessian(loss, torch.zeros(O * I, dtype=torch.float64))
    ratio = relative(dense(kfac), hessian)
    assert ratio < EXACT, f"relative error {ratio:.1e}"


def test_kfac_acts_as_tokens_times_s_v_a(relative: Any) -> None:
    """F(V) = T S V A, with S and A over all tokens."""
    a, g = captured(30)["w"]
    second = [torch.einsum("bti,btj->ij", x, x) / (30 * 4) for x in (g, a)]
    matrix = torch.randn(O, I, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    actual = dense(fitted({"w": (a, g)})[0]["w"]) @ matrix.flatten()
    ratio = relative(actual.view(O, I), 4 * second[0] @ matrix @ second[1])
    assert ratio < EXACT, f"relative error {ratio:.1e}"


def test_ekfac_eigenvalues_are_the_mean_squares_in_the_eigenbasis(relative: Any) -> None:
    """L = E_z[(Q_S^T G Q_A)^2], one example at a time."""
    a, g = captured(30)["w"]
    ekfac = fitted({"w": (a, g)})[1]["w"]
    expected = torch.zeros(O, I, dtype=torch.float64)
    for z in range(30):
        gradient = sum(torch.outer(g[z, t], a[z, t]) for t in range(4))
        expected += (ekfac.basis_s.T @ gradient @ ekfac.basis_a) ** 2 / 30
    ratio = relative(ekfac.eigenvalues, expected)
    assert ratio < EXACT, f"relative error {ratio:.1e}"


def test_ekfac_is_nearer_the_fisher_than_kfac() -> None:
    """In the same basis its eigenvalues are the best diagonal in the Frobenius norm (George et al. 2018, lemma 1)."""
    batch = captured(30)
    a, g = batch["w"]
    flat = example_gradients(a.flatten(0, 1), g.flatten(0, 1), [4] * 30).flatten(1)
    fisher = flat.T @ flat / len(flat)
    kfac, ekfac = ((dense(one["w"]) - fisher).norm() for one in fitted(batch))
    assert ekfac < 0.9 * kfac, f"distance {ekfac:.3g} (EK-FAC) against {kfac:.3g} (K-FAC)"


@pytest.mark.parametrize("kind", [0, 1], ids=["kfac", "ekfac"])
def test_solve_inverts_the_damped_operator(kind: int, relative: Any) -> None:
    layer = fitted(captured(30))[kind]["w"]
    v = torch.randn(2, O, I, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    damped = dense(layer) + 0.1 * layer.eigenvalues.mean() * torch.eye(O * I, dtype=torch.float64)
    expected = torch.linalg.solve(damped, v.flatten(1).T).T.view_as(v)
    ratio = relative(layer.solve(v, 0.1), expected)
    assert ratio < EXACT, f"relative error {ratio:.1e}"


def test_a_layer_without_gradient_adds_nothing() -> None:
    """A projection that starts at zero stops every gradient before it: F = 0 and G = 0 must not give NaN."""
    a, g = captured(6)["w"]
    layer = fitted({"w": (a, 0 * g)})[1]["w"]
    assert (layer.solve(torch.zeros(O, I, dtype=torch.float64), 0.1) == 0).all()


@pytest.mark.parametrize("change", ["batches of 7", "reversed", "padded"])
def test_batches_order_and_padding_change_nothing(change: str, relative: Any) -> None:
    a, g = captured(30)["w"]
    mask = torch.ones(30, 4, dtype=torch.bool)
    plain = fitted({"w": (a, g)})
    if change == "reversed":
        a, g = a.flip(0), g.flip(0)
    if change == "padded":  # (a, g) come zeroed at padding, the mask says how many tokens there are
        a, g = (torch.nn.functional.pad(x, (0, 0, 2, 3)) for x in (a, g))
        mask = torch.nn.functional.pad(mask, (2, 3))
    other = fitted({"w": (a, g)}, mask=mask, size=7 if change == "batches of 7" else None)
    for one, two in zip(plain, other, strict=True):
        ratio = relative(dense(two["w"]), dense(one["w"]))
        assert ratio < EXACT, f"{change}: relative error {ratio:.1e}"


def test_of_a_model_do_not_depend_on_the_batch_size(tiny: SimpleNamespace, pattern: str, relative: Any) -> None:
    """Sampled targets included: the numbers that draw them belong to the rows."""
    lm, examples = tiny.model("llama"), tiny.examples(60)
    layers = tracked_layers(lm.model, pattern)
    uniforms = np.random.default_rng(0).random((60, 8))

    def fit(size: int) -> Curvature:
        covariances = tiny.run(lm, layers, examples, Covariances(), size, uniforms).eigenbasis()
        return tiny.run(lm, layers, examples, EigenvalueRefit(covariances), size, uniforms).curvature()  # type: ignore[no-any-return]

    one, two = fit(3), fit(20)
    assert list(one) == list(layers)
    for name in one:
        v = torch.randn(one[name].eigenvalues.shape, generator=torch.Generator().manual_seed(3))
        ratio = relative(two[name].solve(v, 0.1), one[name].solve(v, 0.1))
        assert ratio < ROUNDING, f"{name}: relative error {ratio:.1e}"


def test_sampled_targets_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.5, -2.0, 0.7, -9.0])
    uniforms = torch.rand(4, 5000, generator=torch.Generator().manual_seed(0))
    ids = sample_tokens(logits.expand(4, 5000, 5), uniforms)
    frequencies = ids.flatten().bincount(minlength=5) / 20_000
    error = float((frequencies - logits.softmax(0)).abs().max())
    assert error < FREQUENCY, f"largest difference {error:.4f}, {error / FREQUENCY:.1f} of what is allowed"


def test_sampled_targets_stay_in_the_vocabulary_at_the_edges() -> None:
    logits = torch.randn(1, 3, 1000, generator=torch.Generator().manual_seed(0))
    ids = sample_tokens(logits, torch.tensor([[0.0, 1 - 2**-24, 1.0]]))
    assert ids[0, 0] == 0
    assert (ids < 1000).all()


def test_sampled_targets_do_not_depend_on_the_batch(tiny: SimpleNamespace, pattern: str, relative: Any) -> None:
    """And are drawn for real: the gradients differ from those of the references, and equal a loop over drawn targets."""
    lm, examples = tiny.model("llama"), tiny.examples(9)
    layers = tracked_layers(lm.model, pattern)
    uniforms = np.random.default_rng(0).random((9, 8))
    collected = [tiny.run(lm, layers, examples, tiny.Collector(), size, uniforms).gradients for size in (1, 4)]
    name = next(iter(layers))
    for row, example in enumerate(examples):
        logits = lm.model(torch.tensor([example.prompt + example.target])).logits[0, len(example.prompt) - 1 : -1]
        cumulative = logits.detach().double().softmax(-1).cumsum(-1).numpy()
        drawn = [int(np.searchsorted(c, u)) for c, u in zip(cumulative, uniforms[row], strict=False)]
        expected = tiny.loop(lm, layers, example, drawn)[name]
        for one in collected:
            ratio = relative(one[row][name], expected)
            assert ratio < ROUNDING, f"row {row}: relative error {ratio:.1e}"
    observed = tiny.run(lm, layers, examples, tiny.Collector()).gradients
    assert any(relative(observed[row][name], collected[0][row][name]) > 0.1 for row in range(9))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_factor_that_is_not_finite_names_the_layer(value: float) -> None:
    a, g = captured(5)["w"]
    a[2, 1, 0] = value
    with pytest.raises(NonFiniteError, match=r"factor of layer 'w' holds NaN or infinity: lower warmup.learning_rate"):
        feed(Covariances(), {"w": (a, g)}).eigenbasis()


def failing(patch: pytest.MonkeyPatch, how: str, dtypes: set[torch.dtype]) -> None:
    """LAPACK that does not converge, or says that it has and gives NaN, in some dtypes."""
    original = torch.linalg.eigh

    def eigh(matrix: Tensor, **options: Any) -> Any:
        if matrix.dtype not in dtypes:
            return original(matrix, **options)
        if how == "raises":
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return original(matrix, **options)[0], torch.full_like(matrix, torch.nan)

    patch.setattr(torch.linalg, "eigh", eigh)


@pytest.mark.parametrize("how", ["raises", "gives NaN"])
def test_where_float32_finds_no_eigenvectors_float64_does(how: str, relative: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = {"w": tuple(x.float() for x in captured(30)["w"])}
    expected = feed(Covariances(), batch).eigenbasis()["w"]
    failing(monkeypatch, how, {torch.float32})
    layer = feed(Covariances(), batch).eigenbasis()["w"]
    assert {part.dtype for part in vars(layer).values()} == {torch.float32}
    ratio = relative(dense(layer), dense(expected))
    assert ratio < ROUNDING, f"relative error {ratio:.1e}"
    failing(monkeypatch, how, {torch.float32, torch.float64})
    with pytest.raises(NonFiniteError, match=r"factor of layer 'w' has no eigenvectors, in float64 neither: lower warmup"):
        feed(Covariances(), batch).eigenbasis()


def test_a_rank_deficient_factor_has_no_negative_eigenvalue() -> None:
    a, g = captured(1, tokens=1)["w"]
    assert (fitted({"w": (a, g)})[0]["w"].eigenvalues >= 0).all()
