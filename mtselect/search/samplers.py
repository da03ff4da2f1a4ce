"""What proposes a trial and what stops it early."""

from __future__ import annotations

import optuna

from mtselect.config import Sweep, field_type, range_type
from mtselect.store import derive_seed


def make_sampler(sweep: Sweep, place: int) -> optuna.samplers.BaseSampler:
    """For the trial of a slot: a fresh one, whose state is the study's trials and the slot's seed."""
    seed = derive_seed(sweep.study.seed, f"trial {place}")
    n_startup = max(4, min(10, sweep.study.n_trials // 4))
    kind = sweep.study.sampler
    if kind == "tpe":  # group: the baselines have no parameter, which must not empty the joint space
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup, multivariate=True, group=True)
    if kind == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=n_startup)
    return optuna.samplers.NSGAIISampler(seed=seed) if kind == "nsga2" else optuna.samplers.RandomSampler(seed=seed)


def suggest(trial: optuna.Trial, sweep: Sweep) -> dict[str, object]:
    """Ask Optuna for every searched field, as the field's own type."""
    values: dict[str, object] = {}
    for path, space in sweep.search.items():
        if space.choices is not None:
            kind = field_type(path)
            values[path] = trial.suggest_categorical(path, [float(one) if kind is float else one for one in space.choices])
            continue
        assert space.low is not None and space.high is not None
        if range_type(path, space) is int:
            values[path] = trial.suggest_int(path, int(space.low), int(space.high), step=int(space.step or 1), log=space.log)
        else:
            values[path] = trial.suggest_float(path, space.low, space.high, step=space.step, log=space.log)
    return values


def make_pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    kind = sweep.study.pruner
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    return optuna.pruners.SuccessiveHalvingPruner() if kind == "successive_halving" else optuna.pruners.NopPruner()
