"""Several orders as one: the sum of a candidate's places in each, Borda's count (Dwork et al., WWW 2001)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def place_sums(orders: Sequence[tuple[float, NDArray[np.floating]]], passed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What candidates are ordered by, larger first, [N]: places among those that passed; the others have 0.

    Args:
        orders: weight of each, and its values [N], of which the largest is best; equal ones share the mean of their places.
        passed: who has a place, [N].
    """
    sums = np.zeros(len(passed))
    for weight, values in orders:
        sums[passed] += weight * (rankdata(values[passed]) - 1)
    return sums
