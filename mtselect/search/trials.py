"""A study's trials as they stand: who runs one, which place it has, what came of it.

Every search trial has a slot, 0 to n_trials - 1, which decides its name and its sampler's seed, so that an interrupted study
proposes what an undisturbed one would have and workers that start together propose different trials. A trial that is tried
again keeps its slot. No lock is needed between workers: of two trials for the same thing the one with the lower number runs,
the other is put aside. Baselines end as PRUNED trials: they carry a score but no parameter, samplers leave them out, and
Optuna's best trial is never a baseline.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
import psutil

from mtselect.metrics.base import sign
from mtselect.tracking.base import Kind

Study = optuna.Study
SIGNING_SECONDS = 10  # a trial's worker writes its name within milliseconds of the start; one without is dead after this


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One line of the final tables, as kept in the Optuna trial.

    Args:
        name: of the run.
        run_id: MLflow's.
        kind: `trial`, `baseline`, or `again`: the best trial with fresh finetuning seeds.
        params: as MLflow has them.
        metrics: likewise; of several finetuning seeds, means.
        minutes: it took.
    """

    name: str
    run_id: str
    kind: Kind
    params: dict[str, object]
    metrics: dict[str, float]
    minutes: float

    @property
    def pairs(self) -> int:
        """Size of the selected set."""
        return int(self.metrics["select/pairs"])


def slot(trial: optuna.trial.FrozenTrial, trials: Sequence[optuna.trial.FrozenTrial]) -> int:
    """Place of a search trial among the first tries; a trial that was tried again has its predecessor's."""
    inherited = trial.user_attrs.get("slot")
    return sum(one.number < trial.number for one in first_tries(trials)) if inherited is None else int(inherited)


def first_tries(trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Search trials, each once: no baseline, nothing tried again, nothing put aside."""
    return [trial for trial in trials if not {"baseline", "retries", "surplus"} & trial.user_attrs.keys()]


def is_surplus(trial: optuna.trial.FrozenTrial, trials: Sequence[optuna.trial.FrozenTrial], n_trials: int) -> bool:
    """Whether other workers have already begun enough trials, this baseline, or the same trial again."""
    earlier = [one.user_attrs for one in trials if one.number < trial.number and "surplus" not in one.user_attrs]
    retries, baseline = trial.user_attrs.get("retries"), trial.user_attrs.get("baseline")
    if retries is not None:
        return any(one.get("retries") == retries for one in earlier)
    if baseline is not None:
        return any(one.get("baseline") == baseline for one in earlier)
    return slot(trial, trials) >= n_trials


def study_rows(study: optuna.Study, objective: str) -> list[TrialRow]:
    """All finished trials and baselines, best first; each baseline once. Last are those that the objective does not know, as
    the noise of a set without pairs."""
    rows: dict[str, TrialRow] = {}
    for trial in study.get_trials(deepcopy=False):
        if "row" in trial.user_attrs:
            row = TrialRow(**trial.user_attrs["row"])
            rows.setdefault(row.name, row)
    better = sign(objective)
    return sorted(rows.values(), key=lambda row: (objective not in row.metrics, -better * row.metrics.get(objective, 0.0)))


def worker_name() -> str:
    """Host, process and its start time; a process id alone comes back after a restart."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def is_alive(trial: optuna.trial.FrozenTrial, unsigned: dict[int, float]) -> bool:
    """Whether a running trial's worker still runs; one on another host is taken to (its database's heartbeat tells).

    Args:
        trial: that is running.
        unsigned: number -> when this process first saw the trial without its worker's name. Optuna's own times are local ones
            of the worker's host, without a zone.
    """
    worker = trial.user_attrs.get("worker")
    if worker is None:
        return time.monotonic() - unsigned.setdefault(trial.number, time.monotonic()) < SIGNING_SECONDS
    host, pid, created = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return bool(f"{process.create_time():.2f}" == created and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
