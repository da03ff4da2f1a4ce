"""Rank x gate x budget: noise of the chosen set and dev score over finetuning seeds, as a Markdown table.

    python benchmarks/rules.py sweeps/quickstart.yaml [--seeds 3] [--budgets 0.2 0.33] [--FIELD VALUE ...]

Every cell is a trial of the sweep file's experiment, through the same stages and the same store: what a sweep computed is not
computed again, and a run that was stopped goes on. Only dev is read. `random` draws from what passes the gate.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mtselect.cli import make_bench
from mtselect.config import Experiment, load, with_fields
from mtselect.resolve import resolve
from mtselect.search.ahead import evaluate_ahead
from mtselect.stages.trial import at_seeds, mean_scores, run_seeds

RANKS = ("z", "benefit", "benefit_per_norm", "loss", "random")
GATES: tuple[tuple[str | None, float], ...] = ((None, 1.0), ("seed_loss", 0.75), ("seed_loss", 0.9), ("learned", 0.8),
                                               ("learned", 0.95))


def cells(experiment: Experiment, budgets: list[float], steps: int | None) -> dict[tuple[str, str, float], Experiment]:
    """(rank, gate, budget) -> the experiment."""
    found = {}
    for (gate, keeps), rank, budget in itertools.product(GATES, RANKS, budgets):
        values: dict[str, Any] = {"selection.budget": budget, "selection.gate": gate, "selection.gate_keeps": keeps,
                                  "selection.threshold": 0.0, "selection.n_clusters": 1, "finetune.steps": steps}
        values |= {"selection.method": rank} if rank in ("loss", "random") else {"selection.rank": rank}
        found[rank, "none" if gate is None else f"{gate} {keeps:g}", budget] = with_fields(experiment, values)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.2, 0.33])
    parser.add_argument("--metric", default="chrf")
    arguments, overrides = parser.parse_known_args()
    sweep = load(arguments.sweep, overrides, "python benchmarks/rules.py")
    bench = make_bench(sweep.runtime, Console())
    experiment = resolve(sweep.experiment, sweep.runtime, sweep.search)
    grid = cells(experiment, arguments.budgets, experiment.finetune.steps)
    seeds = range(1, arguments.seeds + 1)
    evaluate_ahead(bench, [one for cell in grid.values() for one in at_seeds(cell, seeds)])
    print(f"| rank | gate | budget | pairs | noise | {arguments.metric} | seeds |\n|---|---|---|---|---|---|---|")
    for (rank, gate, budget), cell in grid.items():
        results = run_seeds(bench, cell, seeds)
        score = next(one for one in mean_scores(results[0].lineage, [result.evaluation for result in results])
                     if one.name == arguments.metric)
        each = [next(one.value for one in result.evaluation.scores if one.name == arguments.metric) for result in results]
        noise = np.mean([result.noise_share for result in results if result.noise_share is not None] or [np.nan])
        print(f"| {rank} | {gate} | {budget:g} | {len(results[0].selection.pairs):,} | {noise:.1%} | **{score.value:.1f}** "
              f"[{score.low:.1f}, {score.high:.1f}] | {', '.join(f'{one:.1f}' for one in each)} |", flush=True)


if __name__ == "__main__":
    main()
