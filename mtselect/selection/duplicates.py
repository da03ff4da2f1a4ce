"""Near-duplicates: pairs whose texts share most of their character n-grams, grouped by MinHash and locality-sensitive hashing.

The Jaccard similarity of two pairs' sets of n-grams is the share of hash functions under which both have the same minimum
(Broder, 1997). Only pairs that agree in a whole band of these minima are looked at, so that no pool is compared with itself. A
group is what such pairs connect.

Shapes: N pairs, P minima of each in B bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mtselect.errors import ConfigError

N_MINIMA, N_BANDS = 128, 32  # pairs of similarity s are looked at with probability 1 - (1 - s^4)^32: 0.9998 at 0.7
N_GRAM = 4


def n_grams(source: str, target: str) -> list[str]:
    """Character n-grams of both sides, each with what it is of."""
    return [f"{side}{text[i : i + N_GRAM]}" for side, text in zip("<>", (source, target), strict=True)
            for i in range(max(1, len(text) - N_GRAM + 1))]


def require_minhash() -> None:
    """Raises ConfigError if the package that computes the minima is not installed."""
    if find_spec("rensa") is None:
        raise ConfigError("selection.near_duplicates needs the package rensa, which is not installed: pip install "
                          "'mtselect[near-duplicates]', or set it to null")


def minima(texts: Sequence[tuple[str, str]], seed: int) -> NDArray[np.uint32]:
    """Of each pair, band by band, [B, n, P / B]."""
    from rensa import RMinHash

    if not texts:
        return np.empty((N_BANDS, 0, N_MINIMA // N_BANDS), np.uint32)
    rows = RMinHash.digest_matrix_from_token_sets([n_grams(*text) for text in texts], N_MINIMA, seed % 2**32).to_rows()
    return np.array(rows, np.uint32).reshape(len(texts), N_BANDS, -1).transpose(1, 0, 2)


def groups(found: NDArray[np.uint32], similarity: float) -> NDArray[np.int64]:
    """The first row of each row's group, [N], from minima [B, N, P / B]; a row like no other is its own.

    Args:
        found: minima; a band at a time is read.
        similarity: least estimated Jaccard similarity of two rows that are linked.
    """
    n_rows, n_minima = found.shape[1], found.shape[0] * found.shape[2]
    group = np.arange(n_rows)
    for band in found:
        keys = np.ascontiguousarray(band).view(np.dtype((np.void, band.shape[1] * band.itemsize))).ravel()
        _, head, bucket = np.unique(keys, return_index=True, return_inverse=True)  # of equal bands the first row heads them
        heads = head[bucket]
        rows = np.flatnonzero(group != group[heads])
        heads = heads[rows]
        n_equal = sum(((one[rows] == one[heads]).sum(1) for one in found), np.zeros(len(rows), np.int64))
        alike = n_equal >= similarity * n_minima
        links = (group[rows[alike]], group[heads[alike]])
        linked = coo_array((np.ones(len(links[0]), bool), links), (n_rows, n_rows))
        group = connected_components(linked, directed=False)[1][group]
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    return first[group]


def representatives(group: NDArray[np.int64], passed: NDArray[np.bool_], quality: NDArray[np.floating] | None
                    ) -> NDArray[np.bool_]:
    """Of each group's rows that passed one, [N]: the one of highest quality, or the first.

    Args:
        group: `groups`.
        passed: whether each row may be taken.
        quality: larger is better; null where nothing is known. Of equal ones the earlier.
    """
    rows = np.flatnonzero(passed)
    order = rows if quality is None else rows[np.argsort(-quality[rows], kind="stable")]
    _, place = np.unique(group[order], return_index=True)
    kept = np.zeros(len(group), bool)
    kept[order[place]] = True
    return kept
