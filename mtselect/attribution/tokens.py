"""Which target tokens make a pair help or harm: its mean benefit, split over them.

The loss of a pair is a sum over its target tokens t (the prompt has none), so its gradient is one too, and the benefit for the
mean seed M = mean_q (H + lambda)^-1 G(q) splits exactly:

    benefit(z) = sum_layers <G(z), M> = sum_t benefit(z, t)        benefit(z, t) = sum_layers <d loss_t / d W, M>

benefit(z, t) is how fast loss_t grows when the weights move along M, a directional derivative: one forward pass in forward mode
gives it for all tokens of a batch, and no gradient is formed. It is what training on that one token would do for the seeds.
Others split by the position whose activations a gradient passes through; then prompt positions carry a part.
Source of the forward-mode rule: Baydin et al. 2018 (arXiv 1502.05767), section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtselect.attribution.gradients import Captured, wide
from mtselect.attribution.kfac import LayerCurvature
from mtselect.errors import ModelError, NonFiniteError


class MeanSeed:
    """Sums the seeds' gradients over a gradient pass (a GradientConsumer): [O, I] per layer, whatever their number."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._n_seeds = 0

    def update(self, captured: Captured) -> None:
        """Add a batch."""
        for name, (a, g) in captured.layers.items():
            self._sums[name] = wide(g).mT @ wide(a) + self._sums.get(name, 0)
        self._n_seeds += len(captured.lengths)

    def preconditioned(self, curvature: Mapping[str, LayerCurvature], damping: float) -> dict[str, Tensor]:
        """M [O, I] per layer: the mean gradient, times (H + lambda)^-1 where there is a curvature.

        Raises:
            NonFiniteError: a seed's gradient is NaN or infinite; names the layer, as seeds cannot be told apart in a sum.
        """
        for name, total in self._sums.items():
            if not torch.isfinite(total).all():
                raise NonFiniteError(f"the seeds' gradient at layer {name!r} is NaN or infinite: lower warmup.learning_rate, "
                                     "or set model.dtype to float32")
        means = {name: total / self._n_seeds for name, total in self._sums.items()}
        return {name: curvature[name].to(str(mean.device)).solve(mean, damping) if curvature else mean
                for name, mean in means.items()}


def along(losses: Callable[[], Tensor], layers: Mapping[str, nn.Module], direction: Mapping[str, Tensor]) -> Tensor:
    """Derivatives of losses [K] when the layers' weights move along M; of token losses, the tokens' benefits [K].

    Args:
        losses: runs the frozen model; from logits to losses too.
        layers: tracked layers by name.
        direction: M [O, I] per layer, on the model's device.

    Raises:
        ModelError: the model holds an operation that has no forward mode, as BLOOM's activation.
    """
    try:
        # The fused kernels of attention have no forward mode.
        with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), ExitStack() as hooks:
            for name, layer in layers.items():
                hooks.enter_context(layer.register_forward_hook(_moved(direction[name])))
            tangent: Tensor | None = forward_ad.unpack_dual(losses()).tangent  # type: ignore[no-untyped-call]
    except NotImplementedError as error:
        raise ModelError("benefits of single tokens need derivatives in forward mode, and this model has an operation without: "
                         f"score with a Llama, Qwen, Gemma, Mistral, GPT-2, Marian or T5 model ({error})") from error
    assert tangent is not None
    return tangent


def _moved(direction: Tensor) -> Any:
    """A hook that adds a M^T to the tangent of a layer's output: what moving its weight along M does to it."""
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        a = forward_ad.unpack_dual(inputs[0]).primal  # type: ignore[no-untyped-call]
        value, tangent = forward_ad.unpack_dual(output)  # type: ignore[no-untyped-call]
        moved = (a.to(direction.dtype) @ direction.mT).to(value.dtype) + (0 if tangent is None else tangent)
        return forward_ad.make_dual(value, moved)  # type: ignore[no-untyped-call, no-any-return]

    return hook
