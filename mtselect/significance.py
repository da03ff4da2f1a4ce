"""Scores with their intervals, and tests of one system against another, from statistics of sentences.

Bootstrap resampling sums the statistics of sentences drawn with replacement and scores each sum:

    score*_b = f(Σ_{i in draw b} s_i),  s_i [S] statistics of sentence i,  b = 1..B

The draws are those of sacreBLEU itself (`default_rng(seed).choice(n, (B, n))`), but the seed is an argument: sacreBLEU reads
it from the environment (SACREBLEU_SEED), and its paired test takes 0 for "unseeded". Hence `sacrebleu --confidence` under that
seed resamples the same sentences as the signature here says. Scores are unrounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtselect.errors import DataError
from mtselect.metrics.base import Metric, Scoring


@dataclass(frozen=True, kw_only=True)
class Score:
    """A corpus score.

    Args:
        name: of the metric.
        value: score of the whole corpus, 0 to 100.
        low: lower end of the 95% interval, a percentile of the bootstrap scores.
        high: its upper end.
        signature: the metric's, with the number of resamples (bs) and their seed.
    """

    name: str
    value: float
    low: float
    high: float
    signature: str


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """A system against a baseline on the same sentences.

    Args:
        name: of the metric.
        system: the system's corpus score.
        baseline: the baseline's corpus score.
        difference: how much better the system is: system - baseline, or the reverse where lower is better.
        low: lower end of the 95% interval of the difference.
        high: its upper end.
        p_value: two-sided, of the hypothesis that the two do not differ; see `compare_over_seeds`.
        n_bootstrap: resamples.
        n_seeds: finetunings behind the system that has fewer.
        signature: the metric's, with the number of resamples (bs) and their seed.
    """

    name: str
    system: float
    baseline: float
    difference: float
    low: float
    high: float
    p_value: float
    n_bootstrap: int
    n_seeds: int
    signature: str


def score(name: str, metric: Metric, runs: Sequence[NDArray[np.float64]], scoring: Scoring, seed: int) -> Score:
    """Mean corpus score of a system at its finetuning seeds, with its 95% interval over seeds and sentences.

    Args:
        name: of the metric.
        metric: that made the statistics.
        runs: of each seed the statistics of each sentence, [S][n, ...].
        scoring: its settings say how many resamples.
        seed: of the resamples.
    """
    scores, values = scored_runs(metric, runs, scoring, seed)
    low, high = _interval(redrawn_mean(scores, np.random.default_rng([seed, 0])))
    signature = _signature(metric, scoring, seed) + (f"|seeds:{len(runs)}" if len(runs) > 1 else "")
    return Score(name=name, value=float(values.mean()), low=low, high=high, signature=signature)


def compare_over_seeds(name: str, metric: Metric, system: Sequence[NDArray[np.float64]],
                       baseline: Sequence[NDArray[np.float64]], scoring: Scoring, seed: int) -> PairedResult:
    """Two systems, each finetuned with some seeds, by a hierarchical bootstrap (Davison and Hinkley 1997, section 3.8).

    A draw b takes sentences with replacement, the same for both, and for each system as many of its seeds, with replacement:

        d*_b = mean_s f(system_s, sentences_b) - mean_s f(baseline_s, sentences_b),  with the other sign where lower is better

    Drawing S seeds with replacement spreads (S - 1) / S of what S seeds spread, too little where S is 3: their deviations from
    the mean are widened by sqrt(S / (S - 1)). One seed has none, and the test is over sentences alone. Interval and p are of
    the same draws, so that p < 0.05 exactly where the interval leaves 0 out:

        p = min(1, 2 (1 + min(#{d*_b <= 0}, #{d*_b >= 0})) / (B + 1))

    Args:
        name: of the metric.
        metric: that made the statistics.
        system: statistics of each of its seeds, [S][n, ...].
        baseline: of each of its own, [S'][n, ...].
        scoring: its settings say how many resamples.
        seed: of the draws.

    Raises:
        DataError: there are no sentences, or the numbers of sentences differ.
    """
    if len({len(run) for run in (*system, *baseline)}) > 1:
        raise DataError(f"systems must have translated the same sentences, got {[len(run) for run in (*system, *baseline)]}")
    ours, values = scored_runs(metric, system, scoring, seed)
    theirs, others = scored_runs(metric, baseline, scoring, seed)
    better = 1 if metric.higher_is_better else -1
    differences = better * (redrawn_mean(ours, np.random.default_rng([seed, 0]))
                            - redrawn_mean(theirs, np.random.default_rng([seed, 1])))
    low, high = difference_interval(differences)
    return PairedResult(name=name, system=float(values.mean()), baseline=float(others.mean()),
                        difference=better * float(values.mean() - others.mean()) + 0.0, low=low + 0.0, high=high + 0.0,
                        p_value=two_sided_p(differences), n_bootstrap=scoring.settings.bootstrap,
                        n_seeds=min(len(system), len(baseline)),
                        signature=f"{_signature(metric, scoring, seed)}|seeds:{len(system)}")


def scored_runs(metric: Metric, runs: Sequence[NDArray[np.float64]], scoring: Scoring, seed: int
                 ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the resamples [S, B] and of the whole split [S], from statistics [S][n, ...]; the draws depend on n, B and the
    seed only."""
    n = len(runs[0])
    assert all(len(run) == n for run in runs), [len(run) for run in runs]
    if not n:
        raise DataError("there must be at least one sentence to score, got 0: check data.dev and evaluation.dev_rows")
    draws = np.random.default_rng(seed).choice(n, size=(scoring.settings.bootstrap, n), replace=True)
    resampled = np.array([[metric.score(run[draw].sum(0), scoring) for draw in draws] for run in runs])
    return resampled, np.array([metric.score(run.sum(0), scoring) for run in runs])


def redrawn_mean(scores: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Mean of seeds (or whatever the rows are) drawn with replacement in each resample, [B] from [S, B], their deviations
    widened as `compare_over_seeds` says."""
    n_seeds, bootstrap = scores.shape
    mean: NDArray[np.float64] = scores.mean(0)
    if n_seeds == 1:
        return mean
    wider = (scores - mean) * math.sqrt(n_seeds / (n_seeds - 1))
    drawn = generator.integers(n_seeds, size=(n_seeds, bootstrap))
    found: NDArray[np.float64] = mean + np.take_along_axis(wider, drawn, 0).mean(0)
    return found


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95%: as sacreBLEU does, a fortieth is cut off at either end."""
    ordered = np.sort(values)
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def difference_interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95%, cut where `two_sided_p` passes 0.05 rather than one value further in."""
    ordered = np.sort(differences)
    cut = math.ceil(0.025 * (len(ordered) + 1)) - 2
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def two_sided_p(differences: NDArray[np.float64]) -> float:
    """Of the hypothesis that the mean of what the differences [B] were drawn of is 0 (`compare_over_seeds`)."""
    side = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (1 + side) / (1 + len(differences)))


def _signature(metric: Metric, scoring: Scoring, seed: int) -> str:
    """The metric's with the resamples; after the number of references, where sacreBLEU has them."""
    first, bar, others = metric.signature(scoring).partition("|")
    resamples = f"bs:{scoring.settings.bootstrap}|seed:{seed}"
    return f"{first}|{resamples}{bar}{others}" if first.startswith("nrefs:") else f"{first}{bar}{others}|{resamples}"
