"""What a study proposes depends on its trials and on the slot alone, whichever process asks."""

from __future__ import annotations

import optuna
import pytest

from mtselect.config import parse
from mtselect.search.samplers import make_sampler, suggest

SEARCH = """
search:
  selection.gate_keeps: {{low: 0.5, high: 0.99}}
  selection.n_clusters: {{low: 1, high: 8}}
  selection.rank: {{choices: [z, benefit]}}
study: {{n_trials: 9, sampler: {kind}}}
"""


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("kind", ["tpe", "gp", "random", "nsga2"])
def test_proposals_do_not_depend_on_the_sampler_that_a_study_had_before(kind: str) -> None:
    """The worker sets a trial's sampler when it knows the slot, which is after Optuna has begun the trial: one process has the
    trial's before then, another its own default."""
    sweep = parse(SEARCH.format(kind=kind), [], checked=False)

    def proposals(of_another_process: bool) -> list[dict[str, object]]:
        study, found = optuna.create_study(direction="maximize"), []
        for place in range(9):
            if of_another_process:
                study.sampler = optuna.samplers.TPESampler(seed=place, multivariate=True, group=True)
            trial = study.ask()
            study.sampler = make_sampler(sweep, place)
            found.append(suggest(trial, sweep))
            study.tell(trial, trial.params["selection.gate_keeps"] - abs(trial.params["selection.n_clusters"] - 5))
        return found

    undisturbed = proposals(False)
    assert undisturbed == proposals(True)
    assert len({str(values) for values in undisturbed}) > 5
