"""Rule x gate x budget: noise of the chosen set and dev score over finetuning seeds, as a Markdown table.

    python benchmarks/rules.py sweeps/quickstart.yaml [--seeds 3] [--budgets 0.2 0.33] [--rules z loss random]
        [--gates none learned:0.95] [--FIELD VALUE ...]

A rule is a selector, or a `selection.rank` of gdig. Every cell is a trial of the sweep file's experiment, through the same
stages and store: what a sweep computed is not computed again, and a run that was stopped goes on. Only dev is read. What is
drawn at random draws from what passes the gate. Seconds are those of the stages that a rule needs and finetuning does not.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mtselect.cli import make_bench
from mtselect.config import Experiment, load
from mtselect.executors.local import Local
from mtselect.resolve import resolve, trial_experiment
from mtselect.stages.trial import at_seeds, mean_scores, run_seeds, selecting_seconds

RANKS = ("z", "z_and_loss", "benefit", "benefit_per_norm")
RULES = [*RANKS, "loss", "random"]
GATES = ["none", "seed_loss:0.75", "seed_loss:0.9", "learned:0.8", "learned:0.95"]


def cells(experiment: Experiment, rules: list[str], gates: list[str], budgets: list[float], steps: int | None
          ) -> dict[tuple[str, str, float], Experiment]:
    """(rule, gate, budget) -> the experiment."""
    found = {}
    for gate, rule, budget in itertools.product(gates, rules, budgets):
        name, _, keeps = gate.partition(":")
        values: dict[str, Any] = {"selection.budget": budget, "selection.gate": None if name == "none" else name,
                                  "selection.gate_keeps": float(keeps or 1), "selection.threshold": 0.0,
                                  "selection.n_clusters": 1, "finetune.steps": steps}
        values |= {"selection.rank": rule} if rule in RANKS else {"selection.method": rule}
        found[rule, gate.replace(":", " "), budget] = trial_experiment(experiment, values)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.2, 0.33])
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--gates", nargs="+", default=GATES)
    parser.add_argument("--metric", default="chrf")
    arguments, overrides = parser.parse_known_args()
    sweep = load(arguments.sweep, overrides)
    bench = make_bench(sweep.runtime, Console())
    experiment = resolve(sweep.experiment, sweep.runtime, sweep.search)
    grid = cells(experiment, arguments.rules, arguments.gates, arguments.budgets, experiment.finetune.steps)
    seeds = range(1, arguments.seeds + 1)
    Local(bench).ahead([one for cell in grid.values() for one in at_seeds(cell, seeds)])
    print(f"| rule | gate | budget | pairs | noise | {arguments.metric} | seeds | seconds |\n|---|---|---|---|---|---|---|---|")
    for (rule, gate, budget), cell in grid.items():
        results = run_seeds(bench, cell, seeds)
        score = next(one for one in mean_scores(results[0].lineage, [result.evaluation for result in results])
                     if one.name == arguments.metric)
        each = [next(one.value for one in result.evaluation.scores if one.name == arguments.metric) for result in results]
        noise = np.mean([result.noise_share for result in results if result.noise_share is not None] or [np.nan])
        print(f"| {rule} | {gate} | {budget:g} | {len(results[0].selection.pairs):,} | {noise:.1%} | **{score.value:.1f}** "
              f"[{score.low:.1f}, {score.high:.1f}] | {', '.join(f'{one:.1f}' for one in each)} | "
              f"{selecting_seconds(results[0].lineage):.0f} |", flush=True)


if __name__ == "__main__":
    main()
