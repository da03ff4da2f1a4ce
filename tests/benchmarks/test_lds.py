"""The linear datamodelling score of the benchmark against slow loops and cases with a known answer."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import spearmanr


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """benchmarks/lds.py, which is in no package."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import lds
    finally:
        sys.path.pop(0)
    module: ModuleType = lds
    return module


def test_slow_loop(bench: ModuleType) -> None:
    """Sums over each subset's members and scipy's correlation, seed by seed; ties among the losses too."""
    rng = np.random.default_rng(0)
    benefits, losses = rng.normal(size=(30, 4)), rng.integers(0, 5, (12, 4)).astype(float)
    subsets = bench.draw_subsets(12, 30)
    for q, score in enumerate(bench.lds(benefits, subsets, losses)):
        predicted = [sum(benefits[i, q] for i in range(30) if subset[i]) for subset in subsets]
        assert score == pytest.approx(spearmanr(predicted, [-loss for loss in losses[:, q]])[0], abs=1e-12)


def test_known_answers(bench: ModuleType) -> None:
    """Losses that fall by the benefits score 1, the negative benefits -1, a constant benefit 0: subsets are of one size."""
    rng = np.random.default_rng(1)
    benefits, subsets = rng.normal(size=(40, 3)), bench.draw_subsets(20, 40)
    assert (subsets.sum(1) == 20).all() and len(np.unique(subsets, axis=0)) == 20
    losses = 5 - subsets @ benefits
    assert bench.lds(benefits, subsets, losses) == pytest.approx([1, 1, 1])
    assert bench.lds(benefits, subsets, losses ** 3) == pytest.approx([1, 1, 1])
    assert bench.lds(-benefits, subsets, losses) == pytest.approx([-1, -1, -1])
    assert bench.lds(np.ones((40, 3)), subsets, losses) == pytest.approx([0, 0, 0])


def test_ceiling_is_what_a_perfect_prediction_scores(bench: ModuleType) -> None:
    """Truth plus noise of the same variance, two repeats: they agree to 1/2, the truth correlates with their mean to
    sqrt(2/3); Spearman's correlation of Gaussians is within 0.02 of Pearson's there."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(4000, 1))
    losses = truth + rng.normal(size=(2, 4000, 1))
    agreement, bound = bench.ceiling(losses)
    assert agreement[0] == pytest.approx(0.5, abs=0.05)
    assert bound[0] == pytest.approx(bench.spearman(truth, losses.mean(0))[0], abs=0.05)
    same = np.stack([truth, truth])
    assert bench.ceiling(same)[1] == pytest.approx([1])


def test_bootstrap_resamples_all_alike(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dot product has no lead over itself in any draw, a perfect prediction the same lead as its score allows."""
    monkeypatch.setattr(bench, "RESAMPLES", 20)
    rng = np.random.default_rng(4)
    truth, subsets = rng.normal(size=(40, 3)), bench.draw_subsets(20, 40)
    scores = {bench.DOT: rng.normal(size=(40, 3)), "truth": truth}
    drawn = bench.bootstrap(scores, subsets, 5 - subsets @ truth)
    assert (drawn[bench.DOT][1] == 0).all()
    assert drawn["truth"][0] == pytest.approx(np.ones(20))
    assert drawn["truth"][1] == pytest.approx(1 - drawn[bench.DOT][0])
    lines = list(bench.table(scores, subsets, 5 - subsets @ truth, np.arange(40) < 20))
    assert len(lines) == 4 and all(line.count("|") == 6 for line in lines)
