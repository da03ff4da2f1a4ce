"""Near-duplicates, beside every pair compared with every other."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mtselect.errors import ConfigError
from mtselect.selection import duplicates
from mtselect.selection.duplicates import groups, minima, n_grams, representatives, require_minhash

RNG = np.random.default_rng(5)
WORDS = ["".join(RNG.choice(list("abcdefghijklmnop"), 5)) for _ in range(300)]


def sentence(n: int) -> str:
    return " ".join(RNG.choice(WORDS, n))


def texts() -> list[tuple[str, str]]:
    """Thirty pairs; ten of them three times more, with a word or two changed."""
    found = [(sentence(12), sentence(12)) for _ in range(30)]
    for source, target in found[:10]:
        for changes in (1, 2, 2):
            words = target.split()
            for place in RNG.choice(12, changes, replace=False):
                words[place] = str(RNG.choice(WORDS))
            found.append((source, " ".join(words)))
    return [found[i] for i in RNG.permutation(len(found))]


def similarity(one: tuple[str, str], other: tuple[str, str]) -> float:
    left, right = set(n_grams(*one)), set(n_grams(*other))
    return len(left & right) / len(left | right)


def linked(n: int, links: list[tuple[int, int]]) -> list[int]:
    """First row of each one's group, by following links from every row."""
    found = []
    for row in range(n):
        seen, todo = {row}, [row]
        while todo:
            here = todo.pop()
            for one, other in links:
                for near, far in ((one, other), (other, one)):
                    if near == here and far not in seen:
                        seen.add(far)
                        todo.append(far)
        found.append(min(seen))
    return found


def test_groups_are_those_of_the_exact_similarity() -> None:
    """Where none is near the bound: the estimate of 128 minima strays by 0.04."""
    some = texts()
    exact = [similarity(some[i], some[j]) for i, j in combinations(range(len(some)), 2)]
    bound = 0.55
    assert not [one for one in exact if abs(one - bound) < 0.06]
    links = [pair for pair, one in zip(combinations(range(len(some)), 2), exact, strict=True) if one >= bound]
    found = groups(minima(some, 3), bound)
    assert found.tolist() == linked(len(some), links)
    assert 0 < len(some) - len(set(found.tolist())) <= 30


def test_the_estimate_is_the_jaccard_similarity() -> None:
    some = texts()
    found = minima(some, 3)
    pairs = [(i, j) for i, j in combinations(range(len(some)), 2)][::7]
    estimates = np.array([(found[:, i] == found[:, j]).mean() for i, j in pairs])
    exact = np.array([similarity(some[i], some[j]) for i, j in pairs])
    assert np.abs(estimates - exact).max() < 0.2 and np.abs(estimates - exact).mean() < 0.04
    assert (minima(some, 3) == found).all() and (minima(some, 4) != found).any()


def test_a_chain_is_one_group_whatever_the_order() -> None:
    """Each row is like the next and not like the one after: all hang together."""
    n = 9
    found = np.zeros((n, duplicates.N_MINIMA), np.uint32)
    for row in range(n):
        found[row] = 1000 * (row + 1) + np.arange(duplicates.N_MINIMA)
        if row:
            found[row, :64] = found[row - 1, 64:] if row % 2 else found[row - 1, :64]
    found[1::2, 64:] = found[1::2, 64:]
    order = RNG.permutation(n)
    links = [(i, j) for i, j in combinations(range(n), 2) if (found[order][i] == found[order][j]).mean() >= 0.4]
    bands = found[order].reshape(n, duplicates.N_BANDS, -1).transpose(1, 0, 2)
    assert groups(bands, 0.4).tolist() == linked(n, links)


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows(n: int) -> None:
    assert groups(minima([("a", "b")] * n, 0), 0.7).tolist() == list(range(n))
    assert groups(minima([("", "")] * 3, 0), 0.7).tolist() == [0, 0, 0]


def test_of_a_group_the_best_that_passed_stays() -> None:
    group = np.array([0, 1, 0, 1, 4, 0])
    passed = np.array([False, True, True, True, True, True])
    assert representatives(group, passed, None).tolist() == [False, True, True, False, True, False]
    quality = np.array([9.0, 0.1, 0.2, 0.1, 0.0, 0.3])
    assert representatives(group, passed, quality).tolist() == [False, True, False, False, True, True]
    assert not representatives(group, np.zeros(6, bool), quality).any()


def test_a_package_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require_minhash()
    monkeypatch.setattr(duplicates, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"selection.near_duplicates needs the package rensa, .*mtselect\[near-duplicates\]"):
        require_minhash()
