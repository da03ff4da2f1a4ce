"""Mean z-scores and shares against a whole matrix in float64, whatever the blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from mtselect.selection.standardise import standardise

# Sums in another order, in float64.
ROUNDING = 1e-9


def benefits(seed: int = 0) -> NDArray[np.float32]:
    """Columns of very different scale and centre, as benefits for different seeds are."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(101, 7)) * 10.0 ** rng.integers(-4, 4, 7) + rng.normal(size=7)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 17, 101])
def test_equals_the_whole_matrix(size: int) -> None:
    values = benefits()

    def blocks() -> Iterator[NDArray[np.float32]]:
        return (values[i : i + size] for i in range(0, len(values), size))

    z, share = standardise(blocks)
    exact = values.astype(np.float64)
    scores = (exact - exact.mean(0)) / exact.std(0)
    assert z == pytest.approx(scores.mean(1), abs=ROUNDING)
    assert share == pytest.approx((exact > exact.mean(0)).mean(1))


def test_no_seed_decides_alone() -> None:
    """A column far larger than all others decides the mean benefit, and one vote of seven here."""
    values = benefits(1)
    loud = values * np.array([2.0**40, *[1] * 6], np.float32)
    assert standardise(lambda: iter([loud]))[0] == pytest.approx(standardise(lambda: iter([values]))[0], abs=ROUNDING)
    assert np.corrcoef(loud.mean(1), loud[:, 0])[0, 1] > 0.999


def test_a_seed_that_tells_nothing_adds_nothing() -> None:
    values = benefits(2)
    flat = np.concatenate([values, np.full((len(values), 1), 3.0, np.float32)], 1)
    z, share = standardise(lambda: iter([flat]))
    assert z == pytest.approx(standardise(lambda: iter([values]))[0] * 7 / 8, abs=ROUNDING)
    assert np.isfinite(share).all()


def test_shift_that_all_pairs_share_is_taken_out() -> None:
    """On a base that no pair was trained on nearly every pair benefits every seed: the raw share is 1 for all."""
    values = np.random.default_rng(0).normal(size=(101, 7)).astype(np.float32)
    shifted = values + np.float32(100)
    assert (shifted > 0).all()
    assert standardise(lambda: iter([shifted]))[1] == pytest.approx(standardise(lambda: iter([values]))[1], abs=0.01)
