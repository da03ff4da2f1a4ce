"""Sentence pairs on disk, and the corpus they make up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mtselect.data.tables import Table


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One usable sentence pair.

    Args:
        id: 16 hex digits, BLAKE2b of source, tab and target: the same pair has the same id everywhere.
        src: source sentence, one line.
        tgt: target sentence, one line.
    """

    id: str
    src: str
    tgt: str


class PairTable(Table[Pair]):
    """Pairs on disk, as `build_corpus` wrote them."""

    def _made(self, fields: Mapping[str, Any]) -> Pair:
        return Pair(**fields)

    def among(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """[N]: whether each row's id is one of these."""
        return self._here(pc.is_in(self._table.column("id"), pa.array(ids, pa.string())).to_numpy())

    def with_source(self, src: str) -> NDArray[np.bool_]:
        """[N]: whether each row's source sentence is this one."""
        return self._here(pc.equal(self._table.column("src"), src).to_numpy())

    @property
    def digest(self) -> str:
        """SHA-256 of the ids in their order, which stand for the texts; first 20 hex digits."""
        ids = self._table.column("id")
        hashed = hashlib.sha256()
        for chunk in (ids if self.is_whole else ids.take(pa.array(self.places))).chunks:
            hashed.update("".join(chunk.to_pylist()).encode())
        return hashed.hexdigest()[:20]


class LabelTable(Table[str]):
    """Noise labels on disk, "" for clean."""

    def _made(self, fields: Mapping[str, Any]) -> str:
        return str(fields["label"])

    @property
    def noisy(self) -> NDArray[np.bool_]:
        """[N]: whether each row has one."""
        return self._here(pc.not_equal(self._table.column("label"), "").to_numpy())


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What `build_corpus` wrote.

    Args:
        pool: candidates, without duplicates, seeds and leaked rows.
        seeds: trusted pairs, without duplicates and leaked rows.
        dev: pairs that decide between trials.
        test: pairs that are scored once.
        labels: the noise label of each row of the pool, "" for clean; None without `data.label_column`.
        summary: counts, such as `pool/read`; their names are those of `build_corpus`.
    """

    pool: PairTable
    seeds: PairTable
    dev: PairTable
    test: PairTable
    labels: LabelTable | None
    summary: dict[str, int]

    @property
    def noisy(self) -> NDArray[np.bool_] | None:
        """[N]: whether each row of the pool has a noise label; None without labels."""
        return None if self.labels is None else self.labels.noisy


def pair_id(src: str, tgt: str) -> str:
    """16 hex digits: BLAKE2b with 8 bytes over source, tab and target; neither side can hold a tab."""
    return hashlib.blake2b(f"{src}\t{tgt}".encode(), digest_size=8).hexdigest()
