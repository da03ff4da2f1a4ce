"""What a trial has to pass before its set is promoted. Gates are functions of plain data; `candidate.py` asks them in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtselect.config import DataConfig
from mtselect.data.normalise import normalise
from mtselect.data.pairs import Pair, pair_id
from mtselect.metrics.base import sign
from mtselect.store import hash_ids

if TYPE_CHECKING:
    from mtselect.significance import PairedResult, Score
    from mtselect.stages.selection import SelectedPair

P_VALUE = 0.05
# A dev score computed again on the same machine is the same to the last digit; another processor rounds otherwise.
SAME_SCORE = 0.5
TEXTS: dict[str, type] = {"id": str, "src": str, "tgt": str}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One gate's answer: its name, whether it was passed, and what was seen, with what to do if not."""

    name: str
    passed: bool
    detail: str


def replay(pairs: Sequence[SelectedPair], recorded_digest: str, score: Callable[[], Sequence[Score]],
           recorded: Mapping[str, float], recomputed: str) -> Gate:
    """Computed again from `experiment.yaml`, the same ids come out and the same dev scores.

    Args:
        pairs: selected again.
        recorded_digest: of the ids the trial selected.
        score: gives the dev scores of the model finetuned again (unless its weights were kept); called only for the same ids.
        recorded: the trial's metrics.
        recomputed: what was computed again, and what was taken from the store.
    """
    if hash_ids(pair.id for pair in pairs) != recorded_digest:
        return Gate(name="replay", passed=False, detail="selects other pairs when computed again: its data or machine changed; "
                    "run the sweep again under another study.name")
    for one in score():
        before = recorded[f"eval/{one.name}"]
        if abs(one.value - before) > SAME_SCORE:
            return Gate(name="replay", passed=False, detail=f"scores {one.name} {one.value:.2f} on dev when computed "
                        f"again, recorded was {before:.2f}: results are not reproducible here; run the sweep again")
    return Gate(name="replay", passed=True, detail=f"the same {len(pairs):,} ids and dev scores from experiment.yaml; "
                f"{recomputed}")


def schema(pairs: Sequence[SelectedPair], budget: int, beside: Mapping[str, type]) -> Gate:
    """Every row has the columns of its selector, its id is the hash of its text, no id comes twice, and the budget is
    kept."""
    columns = {**TEXTS, **beside}
    for number, pair in enumerate(pairs, 1):
        row = pair.row()
        wrong = [name for name, kind in columns.items() if not isinstance(row.get(name), kind)]
        if wrong:
            return Gate(name="schema", passed=False, detail=f"row {number} has {wrong[0]} {row.get(wrong[0])!r}, which is no "
                        f"{columns[wrong[0]].__name__}: run the sweep again under another study.name")
        if pair.id != pair_id(pair.src, pair.tgt):
            return Gate(name="schema", passed=False, detail=f"row {number} has id {pair.id}, which is not the hash of its "
                        "text: the set was changed after its selection; run the sweep again")
    if len({pair.id for pair in pairs}) != len(pairs) or not 0 < len(pairs) <= budget:
        return Gate(name="schema", passed=False, detail=f"{len(pairs):,} rows, {len({pair.id for pair in pairs}):,} different, "
                    f"where 1 to {budget:,} different ones are allowed: run the sweep again")
    return Gate(name="schema", passed=True, detail=f"{len(pairs):,} rows with {', '.join(columns)}; "
                f"hash of the ids {hash_ids(pair.id for pair in pairs)}")


def contamination(pairs: Sequence[SelectedPair], held_out: Mapping[str, Sequence[Pair]]) -> Gate:
    """No selected source sentence is one of dev or test, as the corpus stage sees it too (`data.normalise`).

    Args:
        pairs: selected.
        held_out: name of a split -> its pairs.
    """
    known = {normalise(pair.src): split for split, rows in held_out.items() for pair in rows}
    found = [(pair, known[normalise(pair.src)]) for pair in pairs if normalise(pair.src) in known]
    if found:
        pair, split = found[0]
        return Gate(name="contamination", passed=False, detail=f"{len(found)} selected sources are in dev or test, such "
                    f"as {pair.id} {pair.src[:60]!r} ({split}): take them out of the pool")
    return Gate(name="contamination", passed=True, detail="no selected source is in " + " or ".join(
        f"{split} ({len(rows):,})" for split, rows in held_out.items()))


def provenance(data: DataConfig, n_seeds: int) -> Gate:
    """The card can say where the set comes from and under which licence it may be used."""
    missing = [f"data.{name}" for name in ("licence", "pool", "seeds", "src_lang", "tgt_lang") if not getattr(data, name)]
    if missing or not n_seeds:
        what = f"{' and '.join(missing)} not set" if missing else "no seeds"
        return Gate(name="provenance", passed=False, detail=f"{what}: give the pool's licence as its SPDX identifier, with "
                    "`--licence cc-by-4.0` here or as data.licence in the sweep")
    return Gate(name="provenance", passed=True, detail=f"{n_seeds:,} seeds of {data.seeds}; licence {data.licence}")


def beats_rivals(comparisons: Mapping[str, PairedResult], metric: str, halves: Collection[str]) -> Gate:
    """On test, significantly better than everything that is asked for (bootstrap over seeds and sentences, two-sided).

    Half of the method itself (random pairs behind the same gate) a set has to equal: it may be level, which is said, but not
    significantly worse.

    Args:
        comparisons: rival -> the set against it: those of its size, the whole pool at equal steps, and the untuned model.
        metric: that decides.
        halves: the rivals that are half of the method.
    """
    lost = []
    for name, result in comparisons.items():
        against = f"{name} ({result.system:.2f} against {result.baseline:.2f}, p = {result.p_value:.3f}"
        significant = result.p_value < P_VALUE
        if name in halves:
            if significant and result.difference < 0:
                lost.append(f"{metric} on test is significantly worse than {against})")
        elif result.difference <= 0 or not significant:
            lost.append(f"{metric} on test is not significantly better than {against}, needed p < {P_VALUE})")
    won = ", ".join(f"{result.difference:+.2f} against {name} (p = {result.p_value:.3f})"
                    for name, result in comparisons.items())
    return Gate(name="beats its rivals", passed=not lost, detail="; ".join(lost) or f"{metric} on test {won}")


def above_champion(metric: str, value: float, test_digest: str, champion: Mapping[str, Any] | None) -> Gate:
    """Its test score is better than the reigning champion's, on the same test set.

    Args:
        metric: that decides.
        value: of the new one.
        test_digest: hash of its test set.
        champion: tags of the reigning version; null if there is none.
    """
    name = "above champion"
    if champion is None:
        return Gate(name=name, passed=True, detail="there is no champion yet")
    before = champion.get(f"mtselect.test.{metric}")
    if before is None or champion.get("mtselect.test_digest") != test_digest:
        return Gate(name=name, passed=False, detail="the champion was scored on another test set or with another metric, so "
                    "that the two cannot be compared: --force makes this one the champion")
    better = sign(f"eval/{metric}") * (value - float(before)) > 0
    return Gate(name=name, passed=better,
                detail=f"{metric} on test {value:.2f}, the champion's is {float(before):.2f}")
