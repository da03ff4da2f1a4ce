"""Shapes in attribution's signatures are checked wherever the tests call it (jaxtyping, see pyproject.toml)."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from mtselect.attribution.gradients import example_gradients
from mtselect.attribution.kfac import LayerCurvature


def test_tokens_that_do_not_match_are_refused() -> None:
    a, g = torch.zeros(5, 3), torch.zeros(5, 2)
    assert example_gradients(a, g, [2, 3]).shape == (2, 2, 3)
    with pytest.raises(jaxtyping.TypeCheckError, match="tokens outputs"):
        example_gradients(a, g[:4], [2, 3])
    with pytest.raises(jaxtyping.TypeCheckError, match="outputs inputs"):
        LayerCurvature(basis_a=torch.eye(3), basis_s=torch.eye(2), eigenvalues=torch.ones(3, 2))
