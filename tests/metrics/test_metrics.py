"""Scores against literal values, the paired test against a slow oracle, seeds against sacreBLEU's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from mtselect.config import EvaluationConfig
from mtselect.errors import ConfigError, DataError
from mtselect.metrics.base import METRICS as KNOWN
from mtselect.metrics.base import Metrics, PlainMetric, Scoring
from mtselect.metrics.bleu import bleu_tokenizer
from mtselect.metrics.comet import Comet
from mtselect.plugins import part_names
from mtselect.progress import SilentProgress
from mtselect.significance import PairedResult, Score, compare_over_seeds
from mtselect.significance import score as score_statistics

REFERENCES = ["The small dog sees the old house.", "A woman reads a book in the garden.",
              "The children play with a red ball.", "My brother buys bread, because he is hungry."]
HYPOTHESES = ["The small dog sees the old house.", "The woman reads a book in a garden.",
              "Children are playing with the ball.", "My brother bread buys because hungry."]

# Values are quotients of small integers, so only the last digits may differ between platforms.
EXACT = 1e-9
# sacreBLEU resamples in float32 (relative 6e-8 per operation on values up to 100).
FLOAT32 = 1e-3
ORACLE_RESAMPLES = 500
# The oracle has its own draws: two Monte-Carlo estimates of one p, each with a standard error of at most
# sqrt(0.25 / B); five standard errors of their difference.
MONTE_CARLO = 5 * math.sqrt(2 * 0.25 / ORACLE_RESAMPLES)
# A 2.5% quantile of 500 normal draws has a standard error of 0.12 standard deviations, 3% of the interval; five
# standard errors of the difference of two.
QUANTILE_SHARE = 0.21

METRICS = [name for name in part_names("mtselect.metrics") if name != "comet"]  # that needs an environment of its own
UP = {name: KNOWN.load(name).higher_is_better for name in METRICS}


def asked(bootstrap: int = 200, tgt_lang: str = "English") -> Scoring:
    return Scoring(settings=EvaluationConfig(bootstrap=bootstrap), tgt_lang=tgt_lang, progress=SilentProgress())


def score(metric: str, sources: list[str], hypotheses: list[str], references: list[str], *, bootstrap: int, seed: int,
          tgt_lang: str) -> Score:
    found, scoring = Metrics()[metric], asked(bootstrap, tgt_lang)
    return score_statistics(metric, found, [found.statistics(sources, hypotheses, references, scoring)], scoring, seed)


def english(metric: str, hypotheses: list[str], references: list[str], bootstrap: int = 200,
            seed: int = 7) -> Score:
    return score(metric, references, hypotheses, references, bootstrap=bootstrap, seed=seed, tgt_lang="English")


def corpus(n: int, *error_rates: float, seed: int) -> list[list[str]]:
    """Random references, and for each rate hypotheses in which that share of the words is wrong."""
    generator = np.random.default_rng(seed)
    words = generator.integers(0, 50, size=(n, 9))
    wrong = [words + 50 * (generator.random((n, 9)) < rate) for rate in error_rates]
    return [[" ".join(f"w{word}" for word in row) for row in text] for text in (words, *wrong)]


def test_golden_bleu() -> None:
    result = english("bleu", HYPOTHESES, REFERENCES)
    assert result.name == "bleu"
    assert result.value == pytest.approx(44.310151292605724, abs=EXACT)
    assert (result.low, result.high) == pytest.approx((6.867661233506044, 78.79094859069444), abs=EXACT)
    assert result.signature == "nrefs:1|bs:200|seed:7|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def test_golden_chrf() -> None:
    result = english("chrf", HYPOTHESES, REFERENCES)
    assert result.name == "chrf"
    assert result.value == pytest.approx(70.18587976265869, abs=EXACT)
    assert (result.low, result.high) == pytest.approx((51.7224502646533, 88.83969922796693), abs=EXACT)
    assert result.signature == "nrefs:1|bs:200|seed:7|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"


def test_bleu_by_hand() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples, equal length.
    by_hand = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert english("bleu", ["a b c d x f"], ["a b c d e f"]).value == pytest.approx(by_hand, abs=EXACT)


@pytest.mark.parametrize("metric", METRICS)
def test_identical_is_best_and_disjoint_is_worst(metric: str) -> None:
    same, other = english(metric, REFERENCES, REFERENCES), english(metric, ["zzz qqq xxx vvv kkk"], ["a b c d e"])
    best, worst = (100, 0) if UP[metric] else (0, 100)
    assert (same.low, same.value, same.high) == pytest.approx((best, best, best), abs=EXACT)
    assert (other.low, other.value, other.high) == (worst, worst, worst)


@pytest.mark.parametrize(("metric", "scorer"), [("bleu", BLEU()), ("chrf", CHRF())])
def test_value_and_resamples_are_sacrebleus_own(metric: str, scorer: BLEU | CHRF,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "31")
    references, hypotheses = corpus(60, 0.3, seed=0)
    plain = scorer.corpus_score(hypotheses, [references], n_bootstrap=300)
    ours = english(metric, hypotheses, references, bootstrap=300, seed=31)
    assert ours.value == plain.score
    assert ours.signature == str(scorer.get_signature())
    assert (ours.high - ours.low) / 2 == pytest.approx(plain._ci, abs=FLOAT32)


@pytest.mark.parametrize("metric", METRICS)
def test_interval_holds_the_value_and_repeats(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    references, hypotheses = corpus(60, 0.3, seed=1)
    first = english(metric, hypotheses, references)
    assert first.low < first.value < first.high
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    np.random.seed(5)
    assert english(metric, hypotheses, references) == first
    after = np.random.random()
    np.random.seed(5)
    assert np.random.random() == after  # the global generator was not used
    assert english(metric, hypotheses, references, seed=8).low != first.low


def compared(metric: str, system: list[list[str]], baseline: list[list[str]], references: list[str], *,
             bootstrap: int = 200, seed: int = 0) -> PairedResult:
    found, scoring = Metrics()[metric], asked(bootstrap)
    ours, theirs = ([found.statistics(references, run, references, scoring) for run in runs] for runs in (system, baseline))
    return compare_over_seeds(metric, found, ours, theirs, scoring, seed)


@pytest.mark.parametrize("metric", METRICS)
def test_identical_systems_do_not_differ(metric: str) -> None:
    result = compared(metric, [HYPOTHESES], [HYPOTHESES], REFERENCES)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("metric", METRICS)
def test_a_clearly_better_system_is_significant_both_ways_round(metric: str) -> None:
    references, better, worse = corpus(100, 0.1, 0.4, seed=2)
    up, down = (compared(metric, [one], [other], references) for one, other in ((better, worse), (worse, better)))
    assert up.p_value == down.p_value == 2 / 201
    assert 0 < up.low < up.difference < up.high
    assert (down.low, down.difference, down.high) == (-up.high, -up.difference, -up.low)
    assert (up.system, up.baseline) == (down.baseline, down.system)
    assert (up.system - up.baseline if UP[metric] else up.baseline - up.system) == up.difference
    assert up.system == english(metric, better, references).value
    assert up.signature == english(metric, better, references, bootstrap=200, seed=0).signature + "|seeds:1"
    assert (up.name, up.n_bootstrap, up.n_seeds) == (metric, 200, 1)


def slow_differences(scorer: BLEU | CHRF, system: list[str], baseline: list[str], references: list[str],
                     n_resamples: int) -> NDArray[np.float64]:
    """The oracle: draw sentences, score both corpora from their text."""
    generator = np.random.default_rng(1234)
    differences = []
    for _ in range(n_resamples):
        rows = generator.integers(0, len(references), len(references))
        drawn = [references[row] for row in rows]
        first, second = (scorer.corpus_score([texts[row] for row in rows], [drawn]).score
                         for texts in (system, baseline))
        differences.append(first - second)
    return np.array(differences)


@pytest.mark.parametrize(("metric", "scorer"), [("bleu", BLEU()), ("chrf", CHRF())])
def test_paired_test_equals_a_loop_over_texts(metric: str, scorer: BLEU | CHRF) -> None:
    references, system, baseline = corpus(12, 0.3, 0.34, seed=3)
    ours = compared(metric, [system], [baseline], references, bootstrap=ORACLE_RESAMPLES)
    differences = slow_differences(scorer, system, baseline, references, ORACLE_RESAMPLES)
    p = 2 * min((differences <= 0).mean(), (differences >= 0).mean())
    assert 0.2 < ours.p_value < 0.95
    assert ours.p_value == pytest.approx(p, abs=2 * MONTE_CARLO)
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=QUANTILE_SHARE * (high - low))


def slow_seed_differences(runs: tuple[list[list[str]], list[list[str]]], references: list[str],
                          n_resamples: int) -> NDArray[np.float64]:
    """The oracle of several seeds: draw sentences, then each system's seeds, and score every drawn corpus from its text. The
    deviation of a drawn seed from the mean of all is widened by sqrt(S / (S - 1))."""
    generator = np.random.default_rng(99)
    differences = []
    for _ in range(n_resamples):
        rows = generator.integers(0, len(references), len(references))
        drawn = [references[row] for row in rows]
        means = []
        for some in runs:
            scores = [CHRF().corpus_score([texts[row] for row in rows], [drawn]).score for texts in some]
            mean = sum(scores) / len(scores)
            picked = [scores[generator.integers(len(scores))] for _ in scores]
            means.append(mean + sum(one - mean for one in picked) / len(picked) * (len(scores) / (len(scores) - 1)) ** 0.5)
        differences.append(means[0] - means[1])
    return np.array(differences)


def test_seeds_and_sentences_are_drawn_as_in_a_loop_over_texts() -> None:
    references, *texts = corpus(12, 0.2, 0.3, 0.4, 0.3, 0.35, seed=5)
    system, baseline = texts[:3], texts[3:]
    ours = compared("chrf", system, baseline, references, bootstrap=ORACLE_RESAMPLES)
    differences = slow_seed_differences((system, baseline), references, ORACLE_RESAMPLES)
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=QUANTILE_SHARE * (high - low))
    assert ours.p_value == pytest.approx(2 * min((differences <= 0).mean(), (differences >= 0).mean()), abs=2 * MONTE_CARLO)
    assert ours.n_seeds == 2
    chrf = Metrics()["chrf"]
    runs = [chrf.statistics(references, run, references, asked()) for run in system]
    alone = score_statistics("chrf", chrf, runs, asked(), 0)
    assert alone.value == ours.system == pytest.approx(np.mean([english("chrf", one, references).value for one in system]))


def test_an_interval_over_seeds_is_wider() -> None:
    """Three seeds that differ among themselves as the two systems do: one alone looks significant, all together do not."""
    references, good, bad = corpus(200, 0.2, 0.3, seed=6)
    one = compared("chrf", [good], [bad], references)
    assert one.p_value < 0.05
    three = compared("chrf", [good, bad, bad], [bad, good, bad], references)
    assert three.p_value > 0.3
    assert three.high - three.low > one.high - one.low


@pytest.mark.parametrize("n_bootstrap", [100, 199, 1000])
def test_p_and_interval_never_disagree(n_bootstrap: int) -> None:
    """Over systems from level to clearly apart: p < 0.05 if and only if 0 is outside."""
    seen = set()
    for step in range(12):
        references, one, other = corpus(60, 0.3, 0.3 + 0.01 * step, seed=step)
        found = compared("chrf", [one], [other], references, bootstrap=n_bootstrap)
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0), found
        seen.add(found.p_value < 0.05)
    assert seen == {True, False}


def sacrebleu_p(system: list[str], baseline: list[str], references: list[str]) -> float:
    test = PairedTest([("baseline", baseline), ("system", system)], {"chrF2": CHRF()}, [references], "bs", 1000)
    return float(test()[1]["chrF2"][1].p_value)  # type: ignore[union-attr, arg-type]


def test_p_is_two_sided_where_sacrebleus_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "3")
    references, better, worse = corpus(60, 0.28, 0.34, seed=4)
    theirs = sacrebleu_p(better, worse, references)
    ours = compared("chrf", [better], [worse], references, bootstrap=1000, seed=3).p_value
    assert 0.005 < theirs < 0.05
    assert theirs < ours < 3 * theirs  # percentiles of the same differences, where sacreBLEU shifts them
    assert sacrebleu_p(better, better, references) == 1 / 1001  # why its p is not used


def test_sentence_scores_are_each_sentence_alone() -> None:
    metric = Metrics()["chrf"]
    chrf = [metric.score(one, asked()) for one in metric.statistics(REFERENCES, HYPOTHESES, REFERENCES, asked())]
    assert chrf == pytest.approx([100, 75.7502728082438, 43.84180253379011, 64.64584840554043], abs=EXACT)
    assert chrf[1] == english("chrf", HYPOTHESES[1:2], REFERENCES[1:2]).value


def test_an_empty_hypothesis_is_worst() -> None:
    for metric in METRICS:
        assert english(metric, [""], ["a b c d"]).value == (0 if UP[metric] else 100)


@pytest.mark.parametrize(("tgt_lang", "tokenizer"), [
    ("Chinese", "zh"), ("zh", "zh"), ("zh-CN", "zh"), ("Simplified Chinese", "zh"), ("zho_Hans", "zh"),
    ("Japanese", "ja-mecab"), ("ja", "ja-mecab"), ("Korean", "ko-mecab"), ("ko_KR", "ko-mecab"),
    ("English", "13a"), ("de", "13a"), ("Javanese", "13a"), ("", "13a")])
def test_the_target_language_decides_the_tokenizer(tgt_lang: str, tokenizer: str) -> None:
    assert bleu_tokenizer(tgt_lang) == tokenizer


def test_chinese_is_scored_by_character() -> None:
    hypotheses, references = ["我喜欢看书。"], ["我喜欢读书。"]
    result = score("bleu", references, hypotheses, references, bootstrap=100, seed=0, tgt_lang="Chinese")
    # 5 of 6 characters, 3 of 5 pairs, 1 of 4 triples, 0 of 3 quadruples smoothed to 1/2.
    assert result.value == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25, abs=EXACT)
    assert result.signature == "nrefs:1|bs:100|seed:0|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0"


@pytest.mark.parametrize(("tgt_lang", "module", "package"), [
    ("Japanese", "tokenizer_ja_mecab", "ja"), ("Korean", "tokenizer_ko_mecab", "ko")])
def test_a_missing_tokenizer_says_which_package(tgt_lang: str, module: str, package: str,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"sacrebleu.tokenizers.{module}.MeCab", None)
    with pytest.raises(ConfigError, match=rf"data.tgt_lang '{tgt_lang}' must have the tokenizer '{package}-mecab', "
                                          rf"which is not installed: pip install 'sacrebleu\[{package}\]', or take"):
        score("bleu", ["x"], ["x"], ["x"], bootstrap=100, seed=0, tgt_lang=tgt_lang)
    assert score("chrf", ["x"], ["x"], ["x"], bootstrap=100, seed=0, tgt_lang=tgt_lang).value == 100


def test_numbers_of_sentences_that_differ_are_refused() -> None:
    def expect(name: str) -> pytest.RaisesExc[DataError]:
        return pytest.raises(DataError, match=rf"^{name} must be as many as references \(4\), got 3: pass one per")

    with expect("hypotheses"):
        english("bleu", HYPOTHESES[:3], REFERENCES)
    with expect("sources"):
        score("chrf", REFERENCES[:3], HYPOTHESES, REFERENCES, bootstrap=100, seed=0, tgt_lang="English")
    with expect("hypotheses"):
        compared("bleu", [HYPOTHESES], [HYPOTHESES[:3]], REFERENCES)
    with pytest.raises(DataError, match=r"systems must have translated the same sentences, got \[4, 3\]"):
        compare_over_seeds("x", Mean(), [np.ones((4, 2))], [np.ones((3, 2))], asked(), 0)


def test_no_sentences_are_refused() -> None:
    with pytest.raises(DataError, match=r"references must hold at least one sentence, got 0: check data.dev and"):
        english("bleu", [], [])


class Mean(PlainMetric):
    """What COMET does with its scores."""

    title = "mean"
    score = Comet.score

    def signature(self, scoring: Scoring) -> str:
        return "model:x"

    def statistics(self, *_: Any) -> NDArray[np.float64]:
        raise AssertionError


def test_means_of_sentence_scores() -> None:
    """COMET's corpus score: 100 times the mean; resampled like the others."""
    rng = np.random.default_rng(0)
    values, others = rng.uniform(size=50).tolist(), rng.uniform(size=50).tolist()
    mine, theirs = (np.column_stack([some, np.ones(50)]) for some in (values, others))
    found = score_statistics("comet", Mean(), [mine], asked(), 3)
    draws = np.random.default_rng(3).choice(50, size=(200, 50), replace=True)
    resampled = sorted(100 * np.mean([values[i] for i in draw]) for draw in draws)
    assert found.value == pytest.approx(100 * sum(values) / 50)
    assert (found.low, found.high) == pytest.approx((resampled[5], resampled[194]))
    assert found.signature == "model:x|bs:200|seed:3"
    paired = compare_over_seeds("comet", Mean(), [mine], [theirs], asked(), 3)
    differences = np.array([100 * np.mean([values[i] - others[i] for i in draw]) for draw in draws])
    assert paired.difference == pytest.approx(100 * np.mean(np.subtract(values, others)))
    assert paired.p_value == pytest.approx(2 * (1 + min((differences <= 0).sum(), (differences >= 0).sum())) / 201)


def test_a_metric_that_lacks_a_method_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(PlainMetric):
        title = "half"

        def signature(self, scoring: Scoring) -> str:
            return "half"

    monkeypatch.setattr(KNOWN, "load", lambda name: Half)
    with pytest.raises(ConfigError, match=r"metrics .half. is no whole metric .*score, statistics.*: mend or remove"):
        Metrics()["half"]
