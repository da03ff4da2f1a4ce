"""Bytes from shapes against the bytes of the tensors themselves, and the rank that fits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mtselect.attribution.factored import FactoredScorer, FactoredSeeds
from mtselect.attribution.gradients import layer_shape
from mtselect.attribution.influence import SeedGradients
from mtselect.attribution.kfac import Covariances, Curvature, EigenvalueRefit
from mtselect.attribution.memory import (
    PLANNED_BATCH,
    curvature_bytes,
    fitting_bytes,
    fitting_rank,
    layer_groups,
    seed_bytes,
    seed_pass_bytes,
)
from mtselect.training.language_model import tracked_layers

SEEDS, DAMPING = 6, 0.1
SHAPES = {"wide": (4864, 896), "narrow": (128, 896)}


@pytest.fixture(scope="module")
def fitted(tiny: SimpleNamespace, pattern: str) -> SimpleNamespace:
    lm = tiny.model("llama")
    layers = tracked_layers(lm.model, pattern)
    covariances = tiny.run(lm, layers, tiny.examples(20, 3), Covariances())
    curvature = tiny.run(lm, layers, tiny.examples(20, 3), EigenvalueRefit(covariances.eigenbasis())).curvature()
    return SimpleNamespace(lm=lm, layers=layers, curvature=curvature,
                           shapes={name: layer_shape(layer) for name, layer in layers.items()})


def held(curvature: Curvature) -> int:
    return sum(part.nbytes for layer in curvature.values() for part in vars(layer).values())


def test_curvature(fitted: SimpleNamespace) -> None:
    assert curvature_bytes(fitted.shapes) == held(fitted.curvature)


def test_as_many_layers_at_a_time_as_fit_and_one_at_least() -> None:
    shapes = dict.fromkeys("abcde", (8, 6)) | {"f": (40, 6)}
    assert layer_groups(shapes, 10**9) == [list("abcdef")]
    three = fitting_bytes({name: shapes[name] for name in "abc"})
    assert layer_groups(shapes, three) == [["a", "b", "c"], ["d", "e"], ["f"]]
    assert layer_groups(shapes, three - 1) == [["a", "b"], ["c", "d"], ["e"], ["f"]]
    assert layer_groups(shapes, 0) == [[name] for name in shapes]


@pytest.mark.parametrize("statistics", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [None, 1, 3, 100])
def test_seeds(rank: int | None, statistics: torch.dtype, fitted: SimpleNamespace, tiny: SimpleNamespace) -> None:
    consumer = (SeedGradients(SEEDS, fitted.curvature, DAMPING, statistics) if rank is None else
                FactoredSeeds(SEEDS, fitted.curvature, DAMPING, rank))
    tiny.run(fitted.lm, fitted.layers, tiny.examples(SEEDS, 2), consumer)
    if isinstance(consumer, SeedGradients):
        there = sum(seeds.nbytes for seeds in consumer.preconditioned.values())
    else:
        import numpy as np

        scorer = FactoredScorer(consumer.factors, benefits=np.zeros((1, SEEDS), np.float32), norms={}, statistics=statistics)
        there = sum(part.nbytes for factors in consumer.factors.values() for part in vars(factors).values())
        there += sum(side.nbytes for sides in scorer._sides.values() for side in sides)
        there += sum(remainder.nbytes for remainder in scorer._remainders.values())
    assert seed_bytes(SEEDS, fitted.shapes, rank, statistics) == there


def test_the_rank_that_fits_is_the_largest_power_of_two_that_does() -> None:
    def needed(rank: int | None) -> int:
        return seed_pass_bytes(100, SHAPES, rank, PLANNED_BATCH, curved=True, statistics=torch.float32)

    assert fitting_rank(100, SHAPES, needed(None), torch.float32) is None
    assert fitting_rank(100, SHAPES, needed(None) - 1, torch.float32) == 256
    for rank in (64, 16, 1):
        assert fitting_rank(100, SHAPES, needed(rank), torch.float32) == rank
        assert fitting_rank(100, SHAPES, needed(2 * rank) - 1, torch.float32) == rank
    assert fitting_rank(100, SHAPES, needed(1) - 1, torch.float32) == 0
