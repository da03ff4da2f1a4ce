"""Which runs a study's best trial is compared with, and what the comparisons say, in sentences: who is surely better than it,
who is level, whom it beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtselect.search.trials import TrialRow
from mtselect.significance import PairedResult
from mtselect.tracking.recorded import RecordedRun

# Baselines that any set is compared with, whatever its size.
LEVELS = ("untuned", "few-shot", "pool", "pool-epochs", "pool-cost")
# What it means that a rival of this kind is better.
_MEANING = {
    "untuned": "the finetuning does harm here",
    "few-shot": "some seeds in the prompt are worth more than finetuning here",
    "pool": "with as many steps, the whole pool wins here",
    "pool-epochs": "trained for its own epochs, the whole pool wins here",
    "pool-cost": "with as many more steps as the choosing took seconds for, the whole pool wins here",
    "random": "as many pairs drawn from all win here",
    "filter-random": "as many pairs drawn from what the gate lets through win over the ranking here",
}


def is_rival(run: TrialRow | RecordedRun, best: TrialRow | RecordedRun) -> bool:
    """Whether a run, if it is a baseline, is for sets of any size, or for those of the best trial's; the whole pool with as
    many steps."""
    method, size = run.params["method"], best.metrics["select/pairs"]
    if method == "pool" and run.metrics.get("finetune/steps") != best.metrics.get("finetune/steps"):
        return False
    return method in LEVELS or run.metrics.get("select/pairs") == size or str(run.params.get("budget")) == f"{size:.0f}"


def verdict(rows: Sequence[TrialRow], comparisons: Mapping[str, PairedResult]) -> list[str]:
    """A sentence for each rival that is surely better than the best trial, one for those that are not told apart from it, one
    for those that it surely beats. Sure is what seeds and sentences do not explain: the 95% interval leaves 0 out.

    Args:
        rows: the rivals, among others.
        comparisons: rival's name -> the best trial against it (`study_record.compare_rivals`); there may be none.
    """
    kinds = {row.name: str(row.params["method"]) for row in rows}
    said = []
    for name, one in comparisons.items():
        if one.high < 0:
            meaning = f": {_MEANING[kinds[name]]}" if kinds[name] in _MEANING else ""
            by = f"{-one.difference:.1f} [{-one.high:.1f}, {-one.low:.1f}]"
            said.append(f"{name} is better than the best trial by {by}{meaning}.")
    level = [name for name, one in comparisons.items() if one.low <= 0 <= one.high]
    beaten = [name for name, one in comparisons.items() if one.low > 0]
    if level:
        said.append(f"The best trial is not told apart from {_listed(level)}.")
    if beaten:
        whom = _listed(beaten) if said else f"all {len(beaten)} rivals" if len(beaten) > 1 else f"its rival {beaten[0]}"
        said.append(f"The best trial is surely better than {whom}.")
    return said


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
