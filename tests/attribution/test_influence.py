"""Benefits from the real gradient passes against float64 brute force; their sign; leave-one-out refits."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtselect.attribution.gradients import Both, Captured, layer_shape
from mtselect.attribution.influence import PoolScorer, SeedGradients
from mtselect.attribution.kfac import Covariances, Curvature, EigenvalueRefit
from mtselect.attribution.sketch import Sketcher, random_projections
from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.training.language_model import LanguageModel, tracked_layers

# float32 against float64 through a forward, a backward, an eigendecomposition and an inverse; measured 1e-6.
BRUTE_FORCE = 1e-4
# The same sums in float32 in another order.
ROUNDING = 1e-4
# float16 sketches of unit length: 2**-11, relative to the largest entry.
HALF = 1e-3
# Leave-one-out is first order: an error of the leverage, about inputs / examples = 6 / 600; measured slope 1.016.
SLOPE, CORRELATION = 0.05, 0.999
DAMPING = 0.1


def empty_arrays(n: int, q: int, n_layers: int, width: int) -> dict[str, NDArray[Any]]:
    """Benefits add up from zero; the others begin with NaN, so that a row no batch fills is seen."""
    return {"benefits": np.zeros((n, q), np.float32), "norms": np.full((n, n_layers), np.nan, np.float32),
            "sketches": np.full((n, width), np.nan, np.float16), "sketch_norms": np.full(n, np.nan, np.float32)}


def score(tiny: SimpleNamespace, lm: LanguageModel, layers: Any, pool: list[Example], seeds: list[Example],
          curvature: Curvature, size: int = 8) -> dict[str, NDArray[Any]]:
    """Seeds, then candidates, as the pipeline does it."""
    projections = random_projections({name: layer_shape(layer) for name, layer in layers.items()}, 2,
                                     torch.Generator().manual_seed(0))
    prepared = tiny.run(lm, layers, seeds, SeedGradients(len(seeds), curvature, DAMPING), size).preconditioned
    arrays = empty_arrays(len(pool), len(seeds), len(layers), projections.width)
    tiny.run(lm, layers, pool, Both(*consumers(prepared, projections, layers, arrays)), size)
    return arrays


def consumers(seeds: Any, projections: Any, layers: Any, arrays: dict[str, NDArray[Any]]) -> tuple[PoolScorer, Sketcher]:
    norms = {name: arrays["norms"][:, i] for i, name in enumerate(layers)}
    return (PoolScorer(seeds, benefits=arrays["benefits"], norms=norms),
            Sketcher(projections, sketches=arrays["sketches"], sketch_norms=arrays["sketch_norms"]))


def fit(tiny: SimpleNamespace, lm: LanguageModel, layers: Any, sample: list[Example], kind: str, size: int = 8,
        uniforms: Any = None) -> Curvature:
    if kind == "identity":
        return {}
    kfac: Curvature = tiny.run(lm, layers, sample, Covariances(), size, uniforms).eigenbasis()
    if kind == "kfac":
        return kfac
    return tiny.run(lm, layers, sample, EigenvalueRefit(kfac), size, uniforms).curvature()  # type: ignore[no-any-return]


class Brute:
    """Everything anew in float64, one example at a time, without padding: the oracle."""

    def __init__(self, lm: LanguageModel, layers: Any) -> None:
        self.model = deepcopy(lm.model).double().requires_grad_(True)
        modules = dict(self.model.named_modules())
        self.layers = {name: modules[name] for name in layers}

    def tokens(self, example: Example, uniforms: Any = None) -> dict[str, tuple[Tensor, Tensor]]:
        """(a [T, I], g [T, O]) per layer, of the references or of targets drawn by the uniforms."""
        kept: dict[str, tuple[Tensor, Tensor]] = {}
        handles = [layer.register_forward_hook(lambda _, x, y, name=name: kept.__setitem__(name, (x[0][0], y)))
                   for name, layer in self.layers.items()]
        logits = self.model(torch.tensor([example.prompt + example.target])).logits[0, len(example.prompt) - 1 : -1]
        for handle in handles:
            handle.remove()
        log_p = logits.log_softmax(-1)
        targets = example.target
        if uniforms is not None:
            cumulative = log_p.detach().exp().cumsum(-1).numpy()
            targets = [int(np.searchsorted(c, u)) for c, u in zip(cumulative, uniforms, strict=False)]
        loss = -sum(log_p[i, token] for i, token in enumerate(targets))
        gradients = torch.autograd.grad(loss, [y for _, y in kept.values()])
        return {name: (kept[name][0].detach(), g[0]) for name, g in zip(kept, gradients, strict=True)}

    def gradients(self, examples: list[Example], uniforms: Any = None) -> dict[str, Tensor]:
        """G [N, O, I] per layer."""
        each = [self.tokens(example, None if uniforms is None else uniforms[row])
                for row, example in enumerate(examples)]
        return {name: torch.stack([one[name][1].T @ one[name][0] for one in each]) for name in self.layers}

    def benefits(self, pool: list[Example], seeds: list[Example], sample: list[Example], kind: str,
                 uniforms: Any = None) -> Tensor:
        """[N, Q], with a dense (H + lambda) [O * I, O * I] per layer."""
        total = torch.zeros(len(pool), len(seeds), dtype=torch.float64)
        g_pool, g_seeds, g_sample = self.gradients(pool), self.gradients(seeds), self.gradients(sample, uniforms)
        tokens = [self.tokens(example, None if uniforms is None else uniforms[row])
                  for row, example in enumerate(sample)]
        for name in self.layers:
            a, g = (torch.cat([one[name][side] for one in tokens]) for side in (0, 1))
            s, cov = g.T @ g / len(g), a.T @ a / len(a)
            assert torch.linalg.matrix_rank(s) == len(s)
            assert torch.linalg.matrix_rank(cov) == len(cov)
            if kind == "identity":
                damped = torch.eye(len(s) * len(cov), dtype=torch.float64)
            elif kind == "kfac":
                curvature = torch.kron(s, cov) * len(g) / len(sample)
                damped = curvature + DAMPING * curvature.diagonal().mean() * torch.eye(len(curvature))
            else:
                basis = torch.kron(torch.linalg.eigh(s)[1], torch.linalg.eigh(cov)[1])
                refit = (g_sample[name].flatten(1) @ basis).square().mean(0)
                damped = basis @ torch.diag(refit + DAMPING * refit.mean()) @ basis.T
            total += g_pool[name].flatten(1) @ torch.linalg.solve(damped, g_seeds[name].flatten(1).T)
        return total


@pytest.mark.parametrize(("kind", "fisher"), [("ekfac", "sampled"), ("ekfac", "observed"), ("kfac", "sampled"),
                                          ("identity", "observed")])
def test_equal_brute_force_in_float64(kind: str, fisher: str, tiny: SimpleNamespace, pattern: str,
                                      relative: Any) -> None:
    lm, pool, seeds, sample = tiny.trained, tiny.examples(10, 1), tiny.examples(4, 2), tiny.examples(90, 3)
    layers = tracked_layers(lm.model, r"layers\.1\.(self_attn\.[vo]|mlp\.(up|down))")
    assert len(layers) == 4
    uniforms = np.random.default_rng(0).random((90, 8)) if fisher == "sampled" else None
    arrays = score(tiny, lm, layers, pool, seeds, fit(tiny, lm, layers, sample, kind, uniforms=uniforms))
    expected = Brute(lm, layers).benefits(pool, seeds, sample, kind, uniforms)
    ratio = relative(arrays["benefits"], expected)
    assert ratio < BRUTE_FORCE, f"{kind}, {fisher}: relative error {ratio:.1e}"


def test_norms_and_sketches_beside_the_benefits(tiny: SimpleNamespace, pattern: str, relative: Any) -> None:
    lm, pool = tiny.trained, tiny.examples(6, 1)
    layers = tracked_layers(lm.model, pattern)
    arrays = score(tiny, lm, layers, pool, tiny.examples(3, 2), {})
    gradients = Brute(lm, layers).gradients(pool)
    ratio = relative(arrays["norms"], torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()], 1))
    assert ratio < BRUTE_FORCE, f"norms: relative error {ratio:.1e}"
    sides = random_projections({name: layer_shape(layer) for name, layer in layers.items()}, 2,
                               torch.Generator().manual_seed(0)).sides
    blocks = [p_out.double().T @ gradients[name] @ p_in.double() for name, (p_in, p_out) in sides.items()]
    sketches = torch.cat([block.flatten(1) for block in blocks], 1)
    ratio = relative(arrays["sketch_norms"], sketches.norm(dim=1))
    assert ratio < BRUTE_FORCE, f"sketch norms: relative error {ratio:.1e}"
    ratio = relative(arrays["sketches"], sketches / sketches.norm(dim=1, keepdim=True))
    assert ratio < HALF, f"sketches: relative error {ratio:.1e}"


@pytest.mark.parametrize("size", [1, 5, 12])
def test_do_not_depend_on_batches_padding_or_the_pools_order(size: int, tiny: SimpleNamespace, pattern: str,
                                                             relative: Any) -> None:
    lm, pool, seeds, sample = tiny.trained, tiny.examples(12, 1), tiny.examples(5, 2), tiny.examples(40, 3)
    layers = tracked_layers(lm.model, pattern)
    order = np.random.default_rng(0).permutation(12)
    one = score(tiny, lm, layers, pool, seeds, fit(tiny, lm, layers, sample, "ekfac", 8), 3)
    two = score(tiny, lm, layers, [pool[i] for i in order], seeds, fit(tiny, lm, layers, sample, "ekfac", size), size)
    for name in one:
        allowed = HALF if name == "sketches" else ROUNDING
        ratio = relative(two[name], one[name][order])
        assert ratio < allowed, f"{name}: relative error {ratio:.1e}"


@pytest.mark.parametrize("kind", ["ekfac", "kfac", "identity"])
def test_a_candidate_that_is_a_seed_benefits_it(kind: str, tiny: SimpleNamespace, pattern: str) -> None:
    lm, pairs = tiny.trained, tiny.examples(6, 1)
    layers = tracked_layers(lm.model, pattern)
    benefits = score(tiny, lm, layers, pairs, pairs, fit(tiny, lm, layers, tiny.examples(40, 3), kind))["benefits"]
    assert (benefits.diagonal() > 0).all()
    assert (benefits < 0).any(), "some pair must also do harm, or the sign says nothing"


def test_a_step_on_a_candidate_lowers_the_loss_of_the_seeds_it_benefits(tiny: SimpleNamespace, pattern: str) -> None:
    """The sign, end to end: one small gradient step on z changes L(q) by -step * benefit (identity curvature)."""
    lm, pool, seeds = tiny.trained, tiny.examples(4, 1), tiny.examples(3, 2)
    layers = tracked_layers(lm.model, pattern)
    benefits = score(tiny, lm, layers, pool, seeds, {})["benefits"]
    brute, step = Brute(lm, layers), 1e-5

    def losses() -> Tensor:
        with torch.no_grad():
            logits = [brute.model(torch.tensor([q.prompt + q.target])).logits[0, len(q.prompt) - 1 : -1] for q in seeds]
        return torch.stack([torch.nn.functional.cross_entropy(x, torch.tensor(q.target), reduction="sum")
                            for x, q in zip(logits, seeds, strict=True)])

    for row, candidate in enumerate(pool):
        before, moved = losses(), {name: g[0] for name, g in brute.gradients([candidate]).items()}
        for sign in (-1, 1):
            for name, layer in brute.layers.items():
                layer.weight.data += sign * step * moved[name]
            if sign == -1:
                drop = (before - losses()) / step
        worst = float(np.abs(drop.numpy() - benefits[row]).max() / np.abs(benefits[row]).max())
        assert worst < 0.01, f"candidate {row}: the loss fell by {drop.tolist()}, predicted {benefits[row].tolist()}"


def ridge(x: Tensor, y: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """argmin_W of sum_n w_n |W x_n - y_n|^2 / 2 / N + penalty / 2 |W|^2, as [O, I]."""
    gram = (x * weights[:, None]).T @ x / len(x) + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(gram, (x * weights[:, None]).T @ y / len(x)).T


def test_agree_with_leave_one_out_refits_of_ridge_regression() -> None:
    """Exact where K-FAC is: L(q) without z minus L(q) with z = benefit(z, q) / N, to first order."""
    n, n_seeds, n_in, n_out = 600, 8, 6, 3
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(n_in, n_in, generator=rng, dtype=torch.float64)
    x, x_seed = (torch.randn(k, n_in, generator=rng, dtype=torch.float64) @ mix for k in (n, n_seeds))
    truth = torch.randn(n_out, n_in, generator=rng, dtype=torch.float64)
    y, y_seed = (z @ truth.T + torch.randn(len(z), n_out, generator=rng, dtype=torch.float64) for z in (x, x_seed))

    def layer(inputs: Tensor, gradients: Tensor) -> Captured:
        return Captured(rows=torch.arange(len(inputs)), lengths=[1] * len(inputs), layers={"w": (inputs, gradients)})

    covariances = Covariances()  # g over a basis of outputs: S = 1, so K-FAC is the Hessian
    covariances.update(layer(x, n_out**0.5 * torch.eye(n_out, dtype=x.dtype).repeat(n // n_out, 1)))
    curvature = covariances.eigenbasis()
    penalty = DAMPING * float(curvature["w"].eigenvalues.mean())
    fitted = ridge(x, y, torch.ones(n, dtype=x.dtype), penalty)

    seeds = SeedGradients(n_seeds, curvature, DAMPING)
    seeds.update(layer(x_seed, x_seed @ fitted.T - y_seed))
    arrays = empty_arrays(n, n_seeds, 1, 1)
    candidates = layer(x.float(), (x @ fitted.T - y).float())
    prepared = {name: rows.float() for name, rows in seeds.preconditioned.items()}
    PoolScorer(prepared, benefits=arrays["benefits"], norms={"w": arrays["norms"][:, 0]}).update(candidates)

    def seed_losses(w: Tensor) -> Tensor:
        return (x_seed @ w.T - y_seed).square().sum(1) / 2

    refits = torch.empty(n, n_seeds, dtype=x.dtype)
    for z in range(n):
        weights = torch.ones(n, dtype=x.dtype)
        weights[z] = 0
        refits[z] = seed_losses(ridge(x, y, weights, penalty)) - seed_losses(fitted)
    predicted, actual = arrays["benefits"].flatten() / n, refits.flatten().numpy()
    slope = float(predicted @ actual / (predicted @ predicted))
    correlation = float(np.corrcoef(predicted, actual)[0, 1])
    assert abs(slope - 1) < SLOPE, f"slope {slope:.4f}"
    assert correlation > CORRELATION, f"Pearson {correlation:.5f}"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_names_the_candidates_row(value: float) -> None:
    a, g = torch.ones(12, 3), torch.ones(12, 2)
    g[6, 0] = value  # the second example's third token
    scorer = PoolScorer({"w": torch.ones(2, 6)}, benefits=np.zeros((3, 2), np.float32), norms={"w": np.zeros(3, np.float32)})
    with pytest.raises(NonFiniteError, match=r"candidate 2 is NaN or infinite: lower warmup.learning_rate"):
        scorer.update(Captured(rows=torch.tensor([0, 2, 1]), lengths=[4, 4, 4], layers={"w": (a, g)}))


def test_a_seeds_gradient_that_is_not_finite_names_the_seeds_row() -> None:
    """Not the first candidate, which is innocent."""
    a, g = torch.ones(8, 3), torch.ones(8, 2)
    a[4, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"gradient of seed 5 is NaN or infinite: lower warmup.learning_rate"):
        SeedGradients(6, {}, DAMPING).update(Captured(rows=torch.tensor([3, 5]), lengths=[4, 4], layers={"w": (a, g)}))
