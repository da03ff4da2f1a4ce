"""The gates against their definitions, on pairs of which it is known what is wrong."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score

from mtselect.errors import ConfigError
from mtselect.selection.corrupt import KINDS, corruptions
from mtselect.selection.features import NAMES, features
from mtselect.selection.gate import MIN_SEEDS, Gated, bound, by_adequacy, by_loss, learn

ENGLISH = {"haus": "house", "baum": "tree", "hund": "dog", "weg": "way", "licht": "light", "wasser": "water", "stein": "stone",
           "wolke": "cloud", "kind": "child", "lied": "song", "fenster": "window", "garten": "garden"}
WORDS = list(ENGLISH)


def right_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Word for word translations with a number now and then."""
    rng = random.Random(seed)
    found = []
    for i in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randint(4, 9))]
        number = f" {rng.randint(10, 99)}" if i % 3 == 0 else ""
        found.append((f"{' '.join(words)}{number}.", f"{' '.join(ENGLISH[word] for word in words)}{number}."))
    return found


def losses(texts: list[tuple[str, str]]) -> dict[str, NDArray[np.float64]]:
    """What a word-for-word translator loses: 5 nats a word that its source does not call for, 2 a word in another place, 0.1
    else, and 2 for a wrong length."""
    def lost(source: str, target: str) -> float:
        wanted = [ENGLISH.get(word, word) for word in source.rstrip(".").split()]
        words = target.rstrip(".").split()
        right = [i < len(wanted) and wanted[i] == word for i, word in enumerate(words)]
        each = [0.1 if fits else 2.0 if word in wanted else 5.0 for fits, word in zip(right, words, strict=True)]
        return sum(each) + 0.1 + 2.0 * (len(wanted) != len(words))

    others = [source for source, _ in texts[1:] + texts[:1]]
    return {"loss": np.array([lost(source, target) for source, target in texts]),
            "other": np.array([lost(other, target) for other, (_, target) in zip(others, texts, strict=True)]),
            "tokens": np.array([float(len(target.split()) + 1) for _, target in texts])}


def seen(texts: list[tuple[str, str]]) -> NDArray[np.float64]:
    return features(texts, **losses(texts))


def learned(seeds: list[tuple[str, str]], pool: list[tuple[str, str]], kinds: set[str] | None = None,
            blocks: int = 1) -> Gated:
    wrong = {kind: (np.array([row for row, _ in some]), seen([text for _, text in some]))
             for kind, some in corruptions(seeds, 0).items() if kinds is None or kind in kinds}
    return learn(seen(seeds), wrong, iter(np.array_split(seen(pool), blocks)), 0)


# --- corruptions -----------------------------------------------------------------------------------


def test_each_kind_is_what_it_says() -> None:
    pairs = right_pairs(40, 0)
    made = corruptions(pairs, 3)
    assert made == corruptions(pairs, 3) != corruptions(pairs, 4)
    assert set(made) == set(KINDS)
    targets = {target for _, target in pairs}
    for kind, some in made.items():
        for row, (source, wrong) in some:
            target = pairs[row][1]
            assert source == pairs[row][0] and wrong != target
            what_it_says = {
                "misaligned": wrong in targets, "copied": wrong == source, "truncated": target.startswith(wrong),
                "shuffled": sorted(wrong.split()) == sorted(target.split()), "wrong number": len(wrong) == len(target),
                "merged": wrong.startswith(target), "repeated": set(wrong.split()) == set(target.split()),
                "half translated": bool(set(wrong.split()) & set(source.split()))}
            assert what_it_says[kind], (kind, target, wrong)


def test_what_cannot_be_corrupted_is_left_out() -> None:
    made = corruptions([("eins", "one")] * 3, 0)
    assert "wrong number" not in made and "misaligned" not in made
    assert {kind for kind, some in made.items() for _, (_, wrong) in some if not wrong.strip()} == set()


# --- features --------------------------------------------------------------------------------------


def test_features_by_hand() -> None:
    found = features([("Ein 12 Haus.", "A 13 house")], np.array([4.0]), np.array([10.0]), np.array([4.0]))[0]
    named = dict(zip(NAMES, found, strict=True))
    assert named["loss"] == pytest.approx(np.log(1.001))
    assert named["pmi"] == pytest.approx(1.5)
    assert named["tokens"] == pytest.approx(np.log(4))
    assert named["chars"] == pytest.approx(np.log(11 / 13))
    assert (named["words"], named["digits"], named["repeats"], named["ending"]) == (0, 2, 0, 1)
    assert named["overlap"] == 0
    assert features([("same", "same")], np.ones(1), np.ones(1), np.ones(1))[0][NAMES.index("overlap")] == 1


def test_texts_without_letters_do_no_harm() -> None:
    assert np.isfinite(features([("", ""), ("1", ")"), ("你好", "…")], np.ones(3), np.ones(3), np.ones(3))).all()


# --- gates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps", [0.05, 0.5, 0.75, 0.9, 1.0])
def test_the_bound_lets_that_share_of_the_seeds_through(keeps: float) -> None:
    scores = np.random.default_rng(0).normal(size=37)
    let = (scores >= bound(scores, keeps)).mean()
    assert keeps <= let < keeps + 2 / 37
    assert bound(scores, 1.0) == scores.min()


def test_loss_gate_is_a_quantile_of_the_seeds() -> None:
    seeds, pool = np.arange(1.0, 101.0), np.array([0.5, 74.0, 75.0, 76.0, 500.0])
    gated = by_loss(pool, seeds)
    assert (gated.pool >= bound(gated.seeds, 0.75)).tolist() == [True, True, True, False, False]


def noisy_pool() -> tuple[list[tuple[str, str]], NDArray[np.str_]]:
    pairs = right_pairs(160, 1)
    made = corruptions(pairs[:80], 9)
    kinds = [kind for kind, some in made.items() for _ in some]
    return [*pairs[80:], *(text for some in made.values() for _, text in some)], np.array([""] * 80 + kinds)


def test_adequacy_gate_is_a_quantile_of_the_seeds_without_copies() -> None:
    rng = np.random.default_rng(5)
    pool, seeds = (np.column_stack([rng.uniform(-0.2, 1, n), rng.uniform(0, 1, n)]) for n in (200, 40))
    seeds[:, 1] *= 0.5
    gated = by_adequacy(pool, seeds)
    passed = gated.pool >= bound(gated.seeds, 0.9)
    least = sorted(seeds[:, 0])[4]  # 36 of 40 reach it
    assert passed.tolist() == [cosine >= least and overlap < 0.6 for cosine, overlap in pool]
    assert [gated.kinds[look] for look in gated.looks] == [
        "a copy of their source" if overlap >= 0.6 else "further from their source than the seeds" for _, overlap in pool]


def test_learned_gate_tells_right_from_wrong() -> None:
    seeds = right_pairs(60, 2)
    pool, kinds = noisy_pool()
    gated = learned(seeds, pool)
    clean = kinds == ""
    passed = gated.pool >= bound(gated.seeds, 0.95)
    assert roc_auc_score(clean, gated.pool) > 0.97
    assert passed[clean].mean() > 0.85 and passed[~clean].mean() < 0.2
    dropped = ~passed & ~clean
    named = np.array(gated.kinds)[gated.looks[dropped]]
    assert (named == kinds[dropped]).mean() > 0.6  # "merged" may look "misaligned"


def test_a_kind_it_was_not_shown() -> None:
    """Half of the kinds are enough to reject most of the others: the seeds say what right looks like."""
    pool, kinds = noisy_pool()
    shown = {"misaligned", "copied", "truncated", "shuffled"}
    gated = learned(right_pairs(60, 2), pool, shown)
    passed = gated.pool >= bound(gated.seeds, 0.95)
    unseen = ~np.isin(kinds, [*shown, ""])
    assert passed[unseen].mean() < 0.6 < passed[kinds == ""].mean()


def test_learned_gate_equals_a_loop_over_folds() -> None:
    """The oracle: a seed's own score is of trees that saw neither it nor its corruptions."""
    seeds, pool = right_pairs(20, 4), right_pairs(30, 5)
    made = corruptions(seeds, 0)
    ours = learned(seeds, pool, blocks=3)
    inputs = [seen(seeds), *(seen([text for _, text in some]) for some in made.values())]
    rows = [np.arange(20), *(np.array([row for row, _ in some]) for some in made.values())]
    settings = {"n_estimators": 300, "min_samples_leaf": 2, "class_weight": "balanced", "random_state": 0}

    def fitted(left_out: set[int]) -> ExtraTreesClassifier:
        kept = [~np.isin(some, list(left_out)) for some in rows]
        x = np.concatenate([values[keep] for values, keep in zip(inputs, kept, strict=True)])
        y = np.concatenate([np.full(keep.sum(), i) for i, keep in enumerate(kept)])
        return ExtraTreesClassifier(**settings).fit(x, y)

    from sklearn.model_selection import GroupKFold

    everything, made_of = np.concatenate(inputs), np.concatenate(rows)
    for _, held_out in GroupKFold(5).split(everything, groups=made_of):
        group = set(made_of[held_out].tolist())
        mine = sorted(row for row in group)
        assert ours.seeds[mine] == pytest.approx(fitted(group).predict_proba(inputs[0][mine])[:, 0])
    whole = fitted(set()).predict_proba(seen(pool))
    assert ours.pool == pytest.approx(whole[:, 0])
    assert ours.looks.tolist() == whole[:, 1:].argmax(1).tolist()


def test_the_same_again() -> None:
    seeds, pool = right_pairs(20, 4), right_pairs(30, 5)
    one, other = learned(seeds, pool), learned(seeds, pool)
    assert (one.pool == other.pool).all() and (one.seeds == other.seeds).all()


def test_too_few_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match=rf"learned needs at least {MIN_SEEDS} seeds, got 3: add trusted pairs, or set"):
        learned(right_pairs(3, 0), right_pairs(3, 1))
