"""The study of a sweep: made or gone on with, and what its trials share."""

from __future__ import annotations

import itertools
import warnings

import optuna

from mtselect.config import Experiment, Sweep
from mtselect.resolve import trial_experiment
from mtselect.search.question import directions, question, refuse_other
from mtselect.search.samplers import make_pruner
from mtselect.search.storage import remember, storage, unusable
from mtselect.selectors.base import SELECTORS
from mtselect.stages.lineage import Stage, depends_on
from mtselect.stages.trial import at_seeds, shared_stages


def open_study(sweep: Sweep) -> optuna.Study:
    """The Optuna study, made or resumed by name.

    Raises:
        StorageError: the storage cannot be opened.
        ConfigError: the study was begun with another question, so its trials would not compare.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would print a failed trial's traceback
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        remember(sweep)
        study = optuna.create_study(study_name=sweep.study.name, storage=storage(sweep), load_if_exists=True,
                                    directions=directions(sweep), pruner=make_pruner(sweep))
    except Exception as error:
        raise unusable(sweep, error) from error
    begun = study.user_attrs.get("sweep")
    if begun is None:
        study.set_user_attr("sweep", question(sweep))
    else:  # perhaps by another worker, a moment ago
        refuse_other(sweep, begun)
    return study


def experiments_of(base: Experiment, trial: optuna.trial.BaseTrial) -> list[Experiment]:
    """What a trial or a baseline of a study is, at each of its finetuning seeds."""
    experiment = trial_experiment(base, trial.user_attrs.get("fields", trial.params))
    return at_seeds(experiment, trial.user_attrs.get("seeds", [experiment.finetune.seed]))


def shared_by_trials(sweep: Sweep) -> list[Stage]:
    """The stages that every trial asks for with the same settings: neither they nor those before them read what is searched, or
    what a selector among those searched fixes. A sweep that searches the selector computes before its trials only what all of
    them need."""
    searched = {path: sweep.search[path].choices or []
                for path in ("selection.method", "selection.gate", "selection.rank") if path in sweep.search}
    varied = {*sweep.search, *(path for name in searched.get("selection.method", []) for path in SELECTORS.load(name).fixes)}
    trials = [trial_experiment(sweep.experiment, dict(zip(searched, values, strict=True)))
              for values in itertools.product(*searched.values())]
    first, *others = (shared_stages(trial) for trial in trials)
    return [stage for stage in first if all(stage in other for other in others)
            and not any(depends_on(stage, trials[0], path) for path in varied)]
