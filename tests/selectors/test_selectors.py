"""Selectors that look at little or nothing, and what every selector says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mtselect.config import SelectionConfig
from mtselect.errors import ConfigError
from mtselect.plugins import part_names
from mtselect.selectors.base import SELECTORS, Candidates

CONFIG = SelectionConfig()
NAMES = part_names("mtselect.selectors")
GOLDEN_RANDOM = [15, 246, 354, 595, 642, 902]


def random_rows(n_rows: int, n_pairs: int, seed: int) -> NDArray[np.int64]:
    return SELECTORS.load("random")().select(Candidates(passed=np.ones(n_rows, bool)), n_pairs, CONFIG, seed).rows


def test_golden_random_draws() -> None:
    assert random_rows(1000, 6, seed=0).tolist() == GOLDEN_RANDOM


def test_random_rows_are_distinct_ascending_and_follow_the_seed() -> None:
    rows = random_rows(100, 30, seed=1)
    assert len(rows) == 30
    assert (np.diff(rows) > 0).all()
    assert (rows[0] >= 0, rows[-1] < 100) == (True, True)
    assert np.array_equal(rows, random_rows(100, 30, seed=1))
    assert not np.array_equal(rows, random_rows(100, 30, seed=2))


def test_random_rows_reach_every_row_equally() -> None:
    n_draws, share = 2000, 0.3
    counts = np.bincount(np.concatenate([random_rows(10, 3, seed) for seed in range(n_draws)]), minlength=10)
    assert counts / n_draws == pytest.approx([share] * 10, abs=5 * np.sqrt(share * (1 - share) / n_draws))


def test_a_random_budget_of_all_rows_is_all_rows() -> None:
    assert random_rows(7, 7, seed=0).tolist() == list(range(7))


def test_a_random_budget_above_the_rows_takes_all() -> None:
    assert random_rows(10, 11, seed=0).tolist() == list(range(10))


def test_lowest_losses() -> None:
    losses = np.random.default_rng(2).normal(size=50)
    losses[[3, 9]] = losses.min() - 1

    def lowest(losses: NDArray[np.float64], n_pairs: int) -> NDArray[np.int64]:
        shown = Candidates(passed=np.ones(len(losses), bool), losses=losses)
        return SELECTORS.load("loss")().select(shown, n_pairs, CONFIG, 0).rows

    assert lowest(losses, 20).tolist() == sorted(sorted(range(50), key=lambda row: losses[row])[:20])
    assert lowest(losses, 1).tolist() == [3]
    assert lowest(losses, 60).tolist() == list(range(50))


@pytest.mark.parametrize(("centre", "n_pairs"), [(0.5, 10), (0.5, 1), (0.2, 10), (0.0, 10), (1.0, 10), (0.9, 35), (0.5, 60)])
def test_a_band_of_losses(centre: float, n_pairs: int) -> None:
    """Beside the obvious way: of all windows of neighbouring ranks the one whose middle is nearest to the centre."""
    losses = np.random.default_rng(3).normal(size=60)
    passed = np.arange(60) % 4 != 0
    config = SelectionConfig(method="loss_band", options={"centre": centre})
    found = SELECTORS.load("loss_band")().select(Candidates(passed=passed, losses=losses), n_pairs, config, 0)
    ranked = sorted(np.flatnonzero(passed), key=lambda row: losses[row])
    windows = [ranked[first : first + n_pairs] for first in range(max(1, len(ranked) - n_pairs + 1))]
    middles = [abs(first + len(window) / 2 - centre * len(ranked)) for first, window in enumerate(windows)]
    nearest = [sorted(window) for window, off in zip(windows, middles, strict=True) if off == min(middles)]
    assert found.rows.tolist() in nearest
    assert found.n_passed == 45


@pytest.mark.parametrize("name", ["random", "loss", "loss_band"])
def test_what_the_gate_drops_is_not_taken(name: str) -> None:
    passed = np.arange(40) % 3 == 0
    found = SELECTORS.load(name)().select(Candidates(passed=passed, losses=np.zeros(40)), 9, CONFIG, 0)
    assert len(found.rows) == 9 and passed[found.rows].all()
    assert found.n_passed == passed.sum()


def test_all_and_nothing() -> None:
    shown = Candidates(passed=np.zeros(5, bool))
    assert SELECTORS.load("pool")().select(shown, 2, CONFIG, 0).rows.tolist() == [0, 1, 2, 3, 4]
    assert SELECTORS.load("untuned")().select(shown, 2, CONFIG, 0).rows.tolist() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_selector_says_what_it_reads(name: str) -> None:
    selector = SELECTORS.load(name)
    known = SelectionConfig.__dataclass_fields__.keys()
    assert set(selector.shown) <= set(selector.fields) <= set(known)
    assert {column.kind for column in selector.columns.values()} <= {float, int}
    assert not {"id", "src", "tgt", "gate"} & selector.columns.keys()
    assert not (selector.drawn and not selector.sized)


def test_an_unknown_selector_names_all() -> None:
    with pytest.raises(ConfigError, match=f"selection.method must be of {', '.join(NAMES)}, got 'none'"):
        SelectionConfig(method="none")
    with pytest.raises(ConfigError, match=r"selection.method must be of adequacy, .*, got 'none'"):
        SELECTORS.load("none")
