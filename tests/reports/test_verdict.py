"""The sentences under the table of rivals."""

from __future__ import annotations

import pytest

from mtselect.reports.verdict import verdict
from mtselect.search.trials import TrialRow
from mtselect.significance import PairedResult

BETTER = "The best trial is surely better than "


def said(*rivals: tuple[str, str, float, float, float]) -> list[str]:
    """Of (name, kind, how much better the trial is, its interval)."""
    rows = [TrialRow(name=name, run_id=name, kind="baseline", params={"method": kind}, metrics={}, minutes=1)
            for name, kind, *_ in rivals]
    compared = {name: PairedResult(name="chrf", system=20.0, baseline=20.0 - difference, difference=difference, low=low,
                                   high=high, p_value=0.5, n_bootstrap=1000, n_seeds=3, signature="s")
                for name, _, difference, low, high in rivals}
    return verdict(rows, compared)


POOL = ("pool", "pool", 7.0, 4.3, 9.5)
RANDOM = ("random-20", "random", 8.5, 5.5, 11.5)
LEVEL = ("filter-random-20", "filter-random", 0.2, -2.1, 2.3)
COST = ("pool-cost", "pool-cost", -2.6, -3.6, -1.8)


@pytest.mark.parametrize(("rivals", "expected"), [
    ([], []),
    ([POOL, RANDOM], [BETTER + "all 2 rivals."]),
    ([POOL], [BETTER + "its rival pool."]),
    ([LEVEL, POOL, RANDOM], ["The best trial is not told apart from filter-random-20.", BETTER + "pool and random-20."]),
    ([COST, LEVEL, POOL], ["pool-cost is better than the best trial by 2.6 [1.8, 3.6]: with as many more steps as the choosing "
                           "took seconds for, the whole pool wins here.",
                           "The best trial is not told apart from filter-random-20.", BETTER + "pool."]),
    ([("length-20", "length", -1.0, -2.0, -0.5)], ["length-20 is better than the best trial by 1.0 [0.5, 2.0]."]),
    ([("a", "pool", 0.5, 0.0, 1.0), ("b", "pool", -0.5, -1.0, 0.0)], ["The best trial is not told apart from a and b."]),
])
def test_who_is_better_level_and_beaten(rivals: list[tuple[str, str, float, float, float]], expected: list[str]) -> None:
    assert said(*rivals) == expected
