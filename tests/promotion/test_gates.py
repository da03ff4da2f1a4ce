"""Promotion's gates: each passes what is right, and each is tripped by what it is there for."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mtselect.config import DataConfig
from mtselect.data.pairs import Pair, pair_id
from mtselect.promotion import gates
from mtselect.significance import PairedResult, Score
from mtselect.stages.selection import SelectedPair
from mtselect.store import hash_json

TEXTS = [("Ein Haus.", "A house."), ("Der Fluss", "The river"), ("Was?", "What?")]
PAIRS = [SelectedPair(id=pair_id(src, tgt), src=src, tgt=tgt, scores={"z": 0.4, "benefit": 0.5, "cluster": 0})
         for src, tgt in TEXTS]
BESIDE: dict[str, type] = {"z": float, "benefit": float, "cluster": int}
DIGEST = hash_json(sorted(pair.id for pair in PAIRS))
SCORE = Score(name="chrf", value=40.0, low=38.0, high=42.0, signature="nrefs:1")


def held_out(source: str) -> dict[str, list[Pair]]:
    return {"dev": [Pair(id="0", src="Anderes", tgt="Else")], "test": [Pair(id="1", src=source, tgt="x")]}


def result(difference: float, p_value: float) -> PairedResult:
    return PairedResult(name="chrf", system=40.0, baseline=40.0 - difference, difference=difference, low=0.0, high=0.0,
                        p_value=p_value, n_bootstrap=1000, n_seeds=3, signature="nrefs:1")


def test_replay() -> None:
    passed = gates.replay(PAIRS[::-1], DIGEST, lambda: [SCORE], {"eval/chrf": 40.4}, "computed again: all")
    assert passed.passed and passed.detail == "the same 3 ids and dev scores from experiment.yaml; computed again: all"
    other = gates.replay(PAIRS[:2], DIGEST, lambda: pytest.fail("scores nothing"), {"eval/chrf": 40.0}, "")
    assert not other.passed and other.detail.startswith("selects other pairs when computed again")
    drifted = gates.replay(PAIRS, DIGEST, lambda: [SCORE], {"eval/chrf": 40.6}, "")
    assert not drifted.passed and "scores chrf 40.00 on dev when computed again, recorded was 40.60" in drifted.detail


@pytest.mark.parametrize(("pairs", "message"), [
    ([replace(PAIRS[0], scores={"z": 0.4}), *PAIRS[1:]], "row 1 has benefit None, which is no float"),
    ([PAIRS[0], replace(PAIRS[1], tgt="The lake")], "row 2 has id .*, which is not the hash of its text"),
    ([*PAIRS, PAIRS[0]], "4 rows, 3 different, where 1 to 4 different ones are allowed"),
    ([], "0 rows, 0 different"),
])
def test_schema(pairs: list[SelectedPair], message: str) -> None:
    passed = gates.schema(PAIRS, 3, BESIDE)
    assert passed.passed and DIGEST in passed.detail
    tripped = gates.schema(pairs, 4, BESIDE)
    assert not tripped.passed and re.search(message, tripped.detail)


def test_a_set_without_gradients_needs_no_benefits() -> None:
    bare = [replace(pair, scores={}) for pair in PAIRS]
    assert gates.schema(bare, 3, {}).passed
    assert not gates.schema(bare, 3, BESIDE).passed


def test_a_set_above_its_budget_is_no_set() -> None:
    assert not gates.schema(PAIRS, 2, BESIDE).passed


@pytest.mark.parametrize("source", ["Ein Haus.", "ein haus", "  EIN  HAUS!! ", "E\u0069n Haus", "\uff25in Haus"])
def test_contamination(source: str) -> None:
    tripped = gates.contamination(PAIRS, held_out(source))
    assert not tripped.passed
    assert re.match(r"1 selected sources are in dev or test, such as \w+ 'Ein Haus\.' \(test\)",
                    tripped.detail)
    assert gates.contamination(PAIRS, held_out("Ein Hausboot.")).passed
    assert gates.contamination(PAIRS, held_out("?!")).passed, "signs alone equal only themselves"


@pytest.mark.parametrize(("change", "n_seeds", "message"), [
    ({"licence": None}, 5, "data.licence not set: give the pool's licence as its SPDX identifier, with `--licence cc-by-4.0`"),
    ({"seeds": ""}, 5, "data.seeds not set"),
    ({"licence": "", "tgt_lang": ""}, 5, "data.licence and data.tgt_lang not set"),
    ({}, 0, "no seeds"),
])
def test_provenance(change: dict[str, str], n_seeds: int, message: str) -> None:
    data = DataConfig(licence="cc0-1.0")
    assert gates.provenance(data, 5).passed
    tripped = gates.provenance(replace(data, **change), n_seeds)  # type: ignore[arg-type]
    assert not tripped.passed and message in tripped.detail


BETTER, WORSE, CHANCE, EDGE = result(3.0, 0.001), result(-3.0, 0.001), result(0.1, 0.4), result(3.0, 0.05)


@pytest.mark.parametrize(("comparisons", "against"), [
    ({"random-20-0": BETTER, "random-20-1": BETTER}, []),
    ({"random-20-0": BETTER, "random-20-1": WORSE}, ["random-20-1"]),
    ({"random-20-0": CHANCE, "random-20-1": BETTER}, ["random-20-0"]),
    ({"random-20-0": EDGE}, ["random-20-0"]),
    ({"random-20-0": BETTER, "filter-random-20": CHANCE}, []),
    ({"random-20-0": CHANCE, "random-20-1": WORSE}, ["random-20-0", "random-20-1"]),
])
def test_every_rival_has_to_be_beaten(comparisons: dict[str, PairedResult], against: list[str]) -> None:
    gate = gates.beats_rivals(comparisons, "chrf", ["filter-random-20"])
    assert gate.passed == (not against)
    assert re.findall(r"not significantly better than (\S+) \(40\.00", gate.detail) == against


@pytest.mark.parametrize(("champion", "passed", "message"), [
    (None, True, "there is no champion yet"),
    ({"mtselect.test.chrf": "39.9000", "mtselect.test_digest": "d"}, True, "chrf on test 40.00, the champion's is 39.90"),
    ({"mtselect.test.chrf": "40.0000", "mtselect.test_digest": "d"}, False, "chrf on test 40.00, the champion's is 40.00"),
    ({"mtselect.test.chrf": "41.0000", "mtselect.test_digest": "d"}, False, "the champion's is 41.00"),
    ({"mtselect.test.chrf": "39.0000", "mtselect.test_digest": "e"}, False, "another test set or with another metric"),
    ({"mtselect.test.bleu": "39.0000", "mtselect.test_digest": "d"}, False, "another test set or with another metric"),
])
def test_the_champion_moves_only_upward(champion: dict[str, str] | None, passed: bool, message: str) -> None:
    gate = gates.above_champion("chrf", 40.0, "d", champion)
    assert gate.passed == passed
    assert message in gate.detail


@pytest.mark.parametrize(("before", "passed"), [("39.9000", False), ("40.0000", False), ("40.1000", True)])
def test_less_is_better_for_some_metrics(before: str, passed: bool) -> None:
    champion = {"mtselect.test.ter": before, "mtselect.test_digest": "d"}
    assert gates.above_champion("ter", 40.0, "d", champion).passed == passed


def test_random_pairs_behind_the_gate_may_be_level_but_not_better() -> None:
    level, worse = (gates.beats_rivals({"filter-random-20": one}, "chrf", ["filter-random-20"]) for one in (CHANCE, WORSE))
    assert level.passed and "+0.10 against filter-random-20 (p = 0.400)" in level.detail
    assert not worse.passed
    assert worse.detail == "chrf on test is significantly worse than filter-random-20 (40.00 against 43.00, p = 0.001)"
