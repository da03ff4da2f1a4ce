"""Rivals of influence, each beside the slow and obvious way."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mtselect.config import SelectionConfig
from mtselect.errors import NonFiniteError
from mtselect.selection.resample import Columns
from mtselect.selection.turns import in_turns
from mtselect.selectors.base import SELECTORS, Adequacy, Candidates, States

N, Q, D = 60, 7, 5
RNG = np.random.default_rng(11)
PASSED = np.arange(N) % 5 != 0
VALUES = RNG.normal(size=N).round(1)  # with ties
SEEDED = RNG.normal(size=N).round(1)
TOKENS = RNG.integers(1, 30, N).astype(np.int32)
MATRIX = RNG.normal(size=(N, Q)).astype(np.float32)
NORM = RNG.uniform(0.5, 2, N)
NORM[3] = 0.0


def unit(rows: int) -> NDArray[np.float32]:
    vectors = RNG.normal(size=(rows, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


STATES = States(pool=unit(N), seeds=unit(Q))
ADEQUACY = Adequacy(cosine=VALUES, overlap=RNG.uniform(0, 1, N))
COLUMNS = Columns(mean=MATRIX.mean(1), z=MATRIX.mean(1), share=(MATRIX > 0).mean(1), raw_share=(MATRIX > 0).mean(1), norm=NORM)
SHOWN = Candidates(passed=PASSED, pmi=VALUES, losses=VALUES, drops=-VALUES, seeded_losses=-SEEDED, tokens=TOKENS,
                   adequacy=ADEQUACY, states=STATES, benefits=COLUMNS, benefit_matrix=MATRIX)


def chosen(name: str, n_pairs: int, **options: object) -> list[int]:
    config = SelectionConfig(method=name, options=options or None)
    return SELECTORS.load(name)().select(SHOWN, n_pairs, config, 0).rows.tolist()


def best(values: NDArray[np.float64], allowed: NDArray[np.bool_], n_pairs: int) -> list[int]:
    rows = [int(row) for row in np.flatnonzero(allowed)]
    return sorted(sorted(rows, key=lambda row: (-values[row], row))[:n_pairs])


def turn_by_turn(scores: NDArray[np.floating], n_rows: int) -> list[int]:
    """Each seed in turn looks through all that is left."""
    left, taken = list(range(len(scores))), []
    for turn in range(min(n_rows, len(scores))):
        row = max(left, key=lambda row: (scores[row, turn % scores.shape[1]], -row))
        left.remove(row)
        taken.append(row)
    return taken


@pytest.mark.parametrize(("name", "values"), [("pmi", VALUES), ("loss_drop", -VALUES), ("seeded_loss", SEEDED),
                                              ("length", TOKENS.astype(np.float64))])
@pytest.mark.parametrize("n_pairs", [0, 1, 9, 48, 70])
def test_the_highest_values(name: str, values: NDArray[np.float64], n_pairs: int) -> None:
    assert chosen(name, n_pairs) == best(values, PASSED, n_pairs)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("n_pairs", [0, 7, 48, 70])
def test_borda_adds_places(weight: float, n_pairs: int) -> None:
    rows = [int(row) for row in np.flatnonzero(PASSED)]

    def place(values: NDArray[np.floating], row: int) -> float:
        """How many it beats, and half of those it equals."""
        beaten = sum(values[other] < values[row] for other in rows)
        return float(beaten) + (sum(values[other] == values[row] for other in rows) - 1) / 2

    z = COLUMNS.z.astype(np.float64)
    sums = np.array([(1 - weight) * place(z, row) + weight * place(-VALUES, row) if row in rows else 0 for row in range(N)])
    found = SELECTORS.load("borda")().select(SHOWN, n_pairs, SelectionConfig(method="borda", options={"loss": weight}), 0)
    assert found.rows.tolist() == best(sums, PASSED, n_pairs)
    assert (found.columns["z"] == z[found.rows]).all() and (found.columns["loss"] == VALUES[found.rows]).all()


@pytest.mark.parametrize("n_pairs", [0, 7, 48, 70])
def test_gdig_ranks_by_z_and_by_loss_after_the_seeds(n_pairs: int) -> None:
    """As `borda` does by another loss."""
    config = SelectionConfig(rank="z_and_loss")
    found = SELECTORS.load("gdig")().select(SHOWN, n_pairs, config, 0)
    likewise = replace(SHOWN, losses=SHOWN.seeded_losses)
    want = SELECTORS.load("borda")().select(likewise, n_pairs, SelectionConfig(method="borda"), 0)
    assert found.rows.tolist() == want.rows.tolist()
    assert list(found.ranked_by) == ["z", "seeded_loss"]
    broken = np.where(np.arange(N) == 1, np.nan, SEEDED)
    with pytest.raises(NonFiniteError, match="ranks"):
        SELECTORS.load("gdig")().select(replace(SHOWN, seeded_losses=broken), 7, config, 0)


def test_dot_takes_the_largest_mean_product() -> None:
    assert chosen("dot", 9) == best(MATRIX.mean(1, dtype=np.float64), PASSED, 9)


@pytest.mark.parametrize("overlap", [0.3, 0.6, 1.1])
def test_adequacy_leaves_copies_out(overlap: float) -> None:
    assert chosen("adequacy", 12, copy_overlap=overlap) == best(VALUES, PASSED & (ADEQUACY.overlap < overlap), 12)
    assert chosen("adequacy", 12) == chosen("adequacy", 12, copy_overlap=0.6)


@pytest.mark.parametrize("n_rows", [0, 1, Q - 1, Q, 3 * Q + 2, N - 1, N, N + 5])
def test_seeds_take_turns(n_rows: int) -> None:
    for scores in (MATRIX, MATRIX.round(0)):
        assert in_turns(scores, n_rows).tolist() == turn_by_turn(scores, n_rows)


def test_turns_hold_some_twenty_bytes_a_candidate_and_seed() -> None:
    """docs/scale.md says so: of each seed where it is in its order, and no Python number a row."""
    scores = np.random.default_rng(0).random((40_000, 10), dtype=np.float32)
    tracemalloc.start()
    in_turns(scores, len(scores))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 22 * scores.size


@pytest.mark.parametrize("n_pairs", [1, 10, 30])
def test_rds_and_less_take_what_is_nearest_to_each_seed(n_pairs: int) -> None:
    rows = np.flatnonzero(PASSED)
    similar = np.array([[float(one @ other) for other in STATES.seeds] for one in STATES.pool[rows]], np.float32)
    assert chosen("rds", n_pairs) == sorted(rows[turn_by_turn(similar, n_pairs)].tolist())
    cosine = np.array([[MATRIX[row, seed] / NORM[row] if NORM[row] else -np.inf for seed in range(Q)] for row in rows])
    assert chosen("less", n_pairs) == sorted(rows[turn_by_turn(cosine, n_pairs)].tolist())


@pytest.mark.parametrize("n_pairs", [0, 7, 48, 70])
def test_states_and_loss_adds_places(n_pairs: int) -> None:
    rows = [int(row) for row in np.flatnonzero(PASSED)]
    turns = [rows[one] for one in turn_by_turn(STATES.pool[rows] @ STATES.seeds.T, len(rows))]
    sums = np.zeros(N)
    for row in rows:
        equal = sum(SEEDED[other] == SEEDED[row] for other in rows) - 1
        sums[row] = len(rows) - 1 - turns.index(row) + sum(SEEDED[other] < SEEDED[row] for other in rows) + equal / 2
    assert chosen("states_and_loss", n_pairs) == best(sums, PASSED, n_pairs)


def test_less_fixes_the_plain_product() -> None:
    assert SELECTORS.load("less").fixes == SELECTORS.load("dot").fixes == {"attribution.curvature": "identity"}


@pytest.mark.parametrize("n_pairs", [1, 6, 48, 70])
def test_each_centre_is_farthest_from_those_before(n_pairs: int) -> None:
    found = chosen("kcentre", n_pairs)
    assert len(found) == min(n_pairs, PASSED.sum()) and PASSED[found].all()
    rows = [int(row) for row in np.flatnonzero(PASSED)]
    starts = [[row] for row in rows]
    for taken in starts:  # from each possible first pair; one of them was drawn
        while len(taken) < len(found):
            left = [row for row in rows if row not in taken]
            taken.append(min(left, key=lambda row: (max(float(STATES.pool[row] @ STATES.pool[one]) for one in taken), row)))
    assert found in [sorted(taken) for taken in starts]


def test_paper_wants_every_seed_and_draws_evenly() -> None:
    helped = RNG.choice([0.0, 1.0], size=N, p=[0.4, 0.6])
    columns = Columns(mean=helped, z=helped, share=np.zeros(N), raw_share=helped, norm=np.ones(N))
    sketches = np.repeat(np.eye(4, dtype=np.float16), N // 4, axis=0)
    shown = Candidates(passed=np.ones(N, bool), benefits=columns, sketches=sketches)
    config = SelectionConfig(method="paper", options={"clusters": 4})
    found = SELECTORS.load("paper")().select(shown, 12, config, 0)
    assert helped[found.rows].all() and found.n_passed == helped.sum()
    assert np.bincount(found.rows // (N // 4)).tolist() == [3, 3, 3, 3]
    assert SELECTORS.load("paper")().select(shown, N, config, 0).rows.tolist() == np.flatnonzero(helped).tolist()
