"""Which candidates look like the seeds: a filter calibrated on the trusted pairs, before influence ranks what passes.

    seed_loss   score = -loss per token
    adequacy    score = cosine of the sentence embeddings of both sides, -1 for a copy
    learned     score = probability of being a seed, by a classifier that was shown the seeds and their own corruptions
                (`corrupt`) as features (`features`); a seed's own score is of a classifier that saw neither it nor what was
                made of it

A candidate passes if its score is at least the bound that `keeps` of the seeds reach. Neither sees a noise label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import GroupKFold

from mtselect.errors import ConfigError
from mtselect.selection.features import COPY_OVERLAP

MIN_SEEDS = 10
USUAL_SEEDS = 100  # docs/seeds.md
_FOLDS = 5
# Random trees rather than boosted ones or a logistic regression: steadier with a hundred seeds, measured in sweeps/LOG.md.
_TREES = {"n_estimators": 300, "min_samples_leaf": 2, "class_weight": "balanced", "n_jobs": 1}


@dataclass(frozen=True, kw_only=True, eq=False)
class Gated:
    """Scores of a gate; larger is better.

    Args:
        pool: of the candidates, [N].
        seeds: of the seeds, [Q].
        looks: number in `kinds` of what each candidate looks like if it is no seed, [N].
        kinds: names of what there is to look like.
    """

    pool: NDArray[np.float64]
    seeds: NDArray[np.float64]
    looks: NDArray[np.uint8]
    kinds: tuple[str, ...]

    def lets_through(self, keeps: float) -> NDArray[np.bool_]:
        """Whether each candidate [N] passes, if a share `keeps` of the seeds has to."""
        passed: NDArray[np.bool_] = self.pool >= bound(self.seeds, keeps)
        return passed

    def dropped(self, keeps: float) -> dict[str, NDArray[np.int64]]:
        """The other candidates, lowest score first, by what they look like, of which there are most first."""
        order = np.argsort(self.pool, kind="stable")
        order = order[~self.lets_through(keeps)[order]]
        found = {kind: order[self.looks[order] == number] for number, kind in enumerate(self.kinds)}
        return {kind: rows for kind, rows in sorted(found.items(), key=lambda item: -len(item[1])) if len(rows)}


def bound(seeds: NDArray[np.float64], keeps: float) -> float:
    """The largest score that at least a share `keeps` of the seeds [Q] reach."""
    reached = max(1, math.ceil(keeps * len(seeds) - 1e-9))  # 0.95 of 20 is 19, whatever floats make of it
    return float(np.sort(seeds)[len(seeds) - reached])


def by_loss(pool: NDArray[np.float64], seeds: NDArray[np.float64]) -> Gated:
    """The gate `seed_loss`, from losses per token of candidates [N] and seeds [Q]."""
    return Gated(pool=-pool, seeds=-seeds, looks=np.zeros(len(pool), np.uint8), kinds=("a higher loss than the seeds",))


def by_adequacy(pool: NDArray[np.float64], seeds: NDArray[np.float64]) -> Gated:
    """The gate `adequacy`, from cosine and overlap of the two sides of candidates [N, 2] and seeds [Q, 2]."""
    scores = [np.where(overlap >= COPY_OVERLAP, -1.0, cosine) for cosine, overlap in (pool.T, seeds.T)]
    return Gated(pool=scores[0], seeds=scores[1], looks=(pool[:, 1] >= COPY_OVERLAP).astype(np.uint8),
                 kinds=("further from their source than the seeds", "a copy of their source"))


def learn(seeds: NDArray[np.float64], wrong: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]],
          pool: Iterator[NDArray[np.float64]], seed: int) -> Gated:
    """The gate `learned`.

    Args:
        seeds: features [Q, F].
        wrong: kind of corruption -> the seeds it was made of [n], and features [n, F].
        pool: features of the candidates, block by block.
        seed: of the classifiers.

    Raises:
        ConfigError: there are fewer than ten seeds.
    """
    if len(seeds) < MIN_SEEDS:
        raise ConfigError(f"selection.gate: learned needs at least {MIN_SEEDS} seeds, got {len(seeds)}: add trusted pairs, or "
                          "set selection.gate to seed_loss or null")
    kinds = tuple(wrong)
    inputs = np.concatenate([seeds, *(found for _, found in wrong.values())])
    made_of = np.concatenate([np.arange(len(seeds)), *(rows for rows, _ in wrong.values())])
    kind = np.repeat(np.arange(len(wrong) + 1), [len(seeds), *(len(rows) for rows, _ in wrong.values())])
    own = np.empty(len(seeds))
    for shown, held_out in GroupKFold(_FOLDS).split(inputs, kind, made_of):
        unseen = held_out[held_out < len(seeds)]
        own[unseen] = _fit(inputs[shown], kind[shown], seed).predict_proba(inputs[unseen])[:, 0]
    classifier = _fit(inputs, kind, seed)
    blocks = [classifier.predict_proba(block) for block in pool]
    scores = np.concatenate([block[:, 0] for block in blocks])
    looks = np.concatenate([block[:, 1:].argmax(1) for block in blocks])
    return Gated(pool=scores, seeds=own, looks=looks.astype(np.uint8), kinds=kinds)


def _fit(inputs: NDArray[np.float64], kind: NDArray[np.int64], seed: int) -> ExtraTreesClassifier:
    return ExtraTreesClassifier(random_state=seed % 2**32, **_TREES).fit(inputs, kind)
