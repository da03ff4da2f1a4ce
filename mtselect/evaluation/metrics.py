"""BLEU and chrF with sacreBLEU, and means of sentence scores (COMET): a score is never without its signature and its interval.

A corpus score is a function of statistics summed over sentences (n-gram counts), so bootstrap resampling sums
the statistics of sentences drawn with replacement and scores each sum:

    score*_b = f(Σ_{i in draw b} s_i),  s_i [S] statistics of sentence i,  b = 1..B

The draws are those of sacreBLEU itself (`default_rng(seed).choice(n, (B, n))`), but the seed is an argument:
sacreBLEU reads it from the environment (SACREBLEU_SEED), and its paired test takes 0 for "unseeded". Hence
`sacrebleu --confidence` under that seed resamples the same sentences as the signature here says.

A metric whose corpus score is the mean of its sentence scores (COMET) is the same with s_i that score. All scores are on
sacreBLEU's scale from 0 to 100, unrounded; COMET's 0 to 1 is multiplied by 100.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from mtselect.errors import ConfigError, DataError

MetricName = Literal["bleu", "chrf", "comet"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A corpus score.

    Args:
        name: of the metric.
        value: score of the whole corpus, 0 to 100.
        low: lower end of the 95% interval, a percentile of the bootstrap scores.
        high: its upper end.
        signature: sacreBLEU's, with the number of resamples (bs) and their seed.
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
        difference: system - baseline; positive means that the system is better.
        low: lower end of the 95% interval of the difference.
        high: its upper end.
        p_value: two-sided, of the hypothesis that the two do not differ; see `compare_over_seeds`.
        n_bootstrap: resamples.
        n_seeds: finetunings behind the system that has fewer.
        signature: sacreBLEU's, with the number of resamples (bs) and their seed.
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


def score(metric: MetricName, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str], *,
          bootstrap: int, seed: int, tgt_lang: str) -> Score:
    """Corpus score with its 95% bootstrap interval.

    Args:
        metric: `bleu` or `chrf`.
        sources: source sentences; BLEU and chrF only check that there are as many.
        hypotheses: translations, detokenised.
        references: one per hypothesis.
        bootstrap: resamples.
        seed: of the resamples.
        tgt_lang: name or code of the target language; decides BLEU's tokeniser.

    Raises:
        DataError: there are no sentences, or the numbers of sentences differ.
        ConfigError: BLEU's tokeniser for the target language is not installed.
    """
    _check_lengths(references, sources=sources, hypotheses=hypotheses)
    scorer = _scorer(metric, tgt_lang)
    statistics = _statistics(scorer, hypotheses, references)
    return _score(metric, partial(_corpus_score, scorer), statistics, bootstrap, seed, _signature(scorer, bootstrap, seed))


def mean_score(name: str, values: Sequence[float], *, bootstrap: int, seed: int, signature: str) -> Score:
    """Mean of sentence scores [n] from 0 to 1, times 100, with its 95% bootstrap interval.

    Args:
        name: of the metric.
        values: score of each sentence.
        bootstrap: resamples.
        seed: of the resamples.
        signature: what computed the scores; the resamples are added.
    """
    return _score(name, _percent, _column(values), bootstrap, seed, f"{signature}|bs:{bootstrap}|seed:{seed}")


def mean_over_seeds(metric: MetricName, runs: Sequence[Sequence[Any]], references: Sequence[str], *, bootstrap: int, seed: int,
                    tgt_lang: str, signature: str = "") -> Score:
    """Mean corpus score of a system that was finetuned with several seeds, with its 95% interval over seeds and sentences.

    Args:
        metric: `bleu`, `chrf`, or `comet`, whose sentence scores take the place of hypotheses.
        runs: hypotheses of each seed, [S][n].
        references: one per sentence.
        bootstrap: resamples.
        seed: of the resamples.
        tgt_lang: name or code of the target language; decides BLEU's tokeniser.
        signature: of COMET's scores.
    """
    scores, values, made = _scored_runs(metric, runs, references, bootstrap, seed, tgt_lang, signature)
    low, high = _interval(_over_seeds(scores, np.random.default_rng([seed, 0])))
    return Score(name=metric, value=float(values.mean()), low=low, high=high, signature=made)


def compare_over_seeds(metric: MetricName, system: Sequence[Sequence[Any]], baseline: Sequence[Sequence[Any]],
                       references: Sequence[str], *, bootstrap: int, seed: int, tgt_lang: str,
                       signature: str = "") -> PairedResult:
    """Two systems, each finetuned with some seeds, by a hierarchical bootstrap (Davison and Hinkley 1997, section 3.8).

    A draw b takes sentences with replacement, the same for both, and for each system as many of its seeds, with replacement:

        d*_b = mean_s f(system_s, sentences_b) - mean_s f(baseline_s, sentences_b)

    Drawing S seeds with replacement spreads (S - 1) / S of what S seeds spread, too little where S is 3: their deviations from
    the mean are widened by sqrt(S / (S - 1)). One seed has none, and the test is over sentences alone. Interval and p are of
    the same draws, so that p < 0.05 exactly where the interval leaves 0 out:

        p = min(1, 2 (1 + min(#{d*_b <= 0}, #{d*_b >= 0})) / (B + 1))

    Args:
        metric: as in `mean_over_seeds`.
        system: hypotheses of each of its seeds, [S][n].
        baseline: of each of its own, [S'][n].
        references: one per sentence.
        bootstrap: B.
        seed: of the draws.
        tgt_lang: name or code of the target language.
        signature: of COMET's scores.

    Raises:
        DataError: there are no sentences, or the numbers of sentences differ.
        ConfigError: BLEU's tokeniser for the target language is not installed.
    """
    ours, values, made = _scored_runs(metric, system, references, bootstrap, seed, tgt_lang, signature)
    theirs, others, _ = _scored_runs(metric, baseline, references, bootstrap, seed, tgt_lang, signature)
    differences = _over_seeds(ours, np.random.default_rng([seed, 0])) - _over_seeds(theirs, np.random.default_rng([seed, 1]))
    low, high = _difference_interval(differences)
    return PairedResult(name=metric, system=float(values.mean()), baseline=float(others.mean()),
                        difference=float(values.mean() - others.mean()), low=low, high=high, p_value=_p_value(differences),
                        n_bootstrap=bootstrap, n_seeds=min(len(system), len(baseline)), signature=made)


def _scored_runs(metric: MetricName, runs: Sequence[Sequence[Any]], references: Sequence[str], bootstrap: int, seed: int,
                 tgt_lang: str, signature: str) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Scores of the resamples [S, B] and of the whole split [S], and the signature."""
    for run in runs:
        _check_lengths(references, hypotheses=run)
    corpus_score: Callable[[NDArray[Any]], float]
    statistics: list[NDArray[Any]]
    if metric == "comet":
        corpus_score, statistics = _percent, [_column(run) for run in runs]
        made = f"{signature}|bs:{bootstrap}|seed:{seed}"
    else:
        scorer = _scorer(metric, tgt_lang)
        corpus_score, statistics = partial(_corpus_score, scorer), [_statistics(scorer, run, references) for run in runs]
        made = _signature(scorer, bootstrap, seed)
    resampled = np.stack([_resampled(corpus_score, one, bootstrap, seed) for one in statistics])
    return resampled, np.array([corpus_score(one) for one in statistics]), f"{made}|seeds:{len(runs)}"


def _over_seeds(scores: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Mean of seeds drawn with replacement in each resample, [B] from [S, B]."""
    n_seeds, bootstrap = scores.shape
    mean: NDArray[np.float64] = scores.mean(0)
    if n_seeds == 1:
        return mean
    wider = (scores - mean) * math.sqrt(n_seeds / (n_seeds - 1))
    drawn = generator.integers(n_seeds, size=(n_seeds, bootstrap))
    found: NDArray[np.float64] = mean + np.take_along_axis(wider, drawn, 0).mean(0)
    return found


def sentence_scores(metric: MetricName, hypotheses: Sequence[str], references: Sequence[str], *,
                    tgt_lang: str) -> list[float]:
    """Score of each sentence alone, to pick examples; never average them, that is not the corpus score.

    BLEU leaves out n-gram orders that are longer than the sentence (effective order).

    Raises:
        DataError: there are no sentences, or the numbers of sentences differ.
        ConfigError: BLEU's tokeniser for the target language is not installed.
    """
    _check_lengths(references, hypotheses=hypotheses)
    scorer = _scorer(metric, tgt_lang, effective_order=True)
    return [float(scorer.sentence_score(hypothesis, [reference]).score)
            for hypothesis, reference in zip(hypotheses, references, strict=True)]


def bleu_tokenizer(tgt_lang: str) -> str:
    """sacreBLEU's tokeniser for a language given by name or code: `zh`, `ja-mecab`, `ko-mecab`, else `13a`."""
    words = set(re.split(r"[^a-z]+", tgt_lang.lower()))
    if words & {"chinese", "mandarin", "cantonese", "zh", "zho", "chi", "cmn", "yue"}:
        return "zh"
    if words & {"japanese", "ja", "jpn"}:
        return "ja-mecab"
    return "ko-mecab" if words & {"korean", "ko", "kor"} else "13a"


def _scorer(metric: MetricName, tgt_lang: str, effective_order: bool = False) -> BLEU | CHRF:
    if metric == "chrf":
        return CHRF()
    assert metric == "bleu", metric  # the config lets no other through
    tokenizer = bleu_tokenizer(tgt_lang)
    try:
        return BLEU(tokenize=tokenizer, effective_order=effective_order)
    except RuntimeError as error:  # sacreBLEU's way to say that MeCab is missing
        package = f"sacrebleu[{tokenizer[:2]}]"
        raise ConfigError(f"BLEU for data.tgt_lang {tgt_lang!r} must have the tokenizer {tokenizer!r}, which is not "
                          f"installed: pip install '{package}', or take bleu out of evaluation.metrics") from error


def _statistics(scorer: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """Sufficient statistics of each sentence, `[n, S]`; sacreBLEU has no public name for them."""
    return np.array(scorer._extract_corpus_statistics(hypotheses, [references]), dtype=np.int64)


def _corpus_score(scorer: BLEU | CHRF, statistics: NDArray[np.int64]) -> float:
    totals: list[Any] = statistics.sum(axis=0).tolist()
    return float(scorer._compute_score_from_stats(totals).score)


def _column(values: Sequence[float]) -> NDArray[np.float64]:
    """Sentence scores as statistics [n, 1]."""
    return np.array(values, dtype=np.float64)[:, None]


def _percent(statistics: NDArray[Any]) -> float:
    return 100 * float(statistics.mean())


def _score(name: str, corpus_score: Callable[[NDArray[Any]], float], statistics: NDArray[Any], bootstrap: int, seed: int,
           signature: str) -> Score:
    low, high = _interval(_resampled(corpus_score, statistics, bootstrap, seed))
    return Score(name=name, value=corpus_score(statistics), low=low, high=high, signature=signature)


def _resampled(corpus_score: Callable[[NDArray[Any]], float], statistics: NDArray[Any], bootstrap: int,
               seed: int) -> NDArray[np.float64]:
    """Corpus scores of the resamples, `[B]`; the draws depend on n, B and the seed only."""
    n = len(statistics)
    draws = np.random.default_rng(seed).choice(n, size=(bootstrap, n), replace=True)
    return np.array([corpus_score(statistics[draw]) for draw in draws])


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95%: as sacreBLEU does, a fortieth is cut off at either end."""
    ordered = np.sort(values)
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def _difference_interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95%, cut where `_p_value` passes 0.05 rather than one value further in."""
    ordered = np.sort(differences)
    cut = math.ceil(0.025 * (len(ordered) + 1)) - 2
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def _p_value(differences: NDArray[np.float64]) -> float:
    side = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (1 + side) / (1 + len(differences)))


def _signature(scorer: BLEU | CHRF, bootstrap: int, seed: int) -> str:
    signature = scorer.get_signature()
    signature.update("bs", bootstrap)
    signature.update("seed", seed)
    return str(signature)


def _check_lengths(references: Sequence[str], **texts: Sequence[str]) -> None:
    if not references:
        raise DataError("references must hold at least one sentence, got 0: check data.dev and evaluation.dev_rows")
    for name, sentences in texts.items():
        if len(sentences) != len(references):
            raise DataError(f"{name} must be as many as references ({len(references)}), got {len(sentences)}: "
                            "pass one per reference, in the same order")
