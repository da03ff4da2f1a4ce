"""One process of a study: proposes, runs and records trials, and after them their rivals (`rivals`)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import optuna
from rich.markup import escape

from mtselect import cli
from mtselect.config import Experiment, Sweep
from mtselect.errors import ClusterError, NonFiniteError, StorageError, UserError
from mtselect.executors.base import Executor
from mtselect.metrics.base import sign
from mtselect.progress import LINE_SECONDS, Advance, OnEpoch
from mtselect.recording import record_corpus, record_gradients, record_trial, trial_metrics, trial_params
from mtselect.remote import causes, redact
from mtselect.reports.tables import final_table, proof_table, scores_text, study_note
from mtselect.reports.verdict import verdict
from mtselect.resolve import trial_experiment
from mtselect.search.rivals import Rival, rivals_of
from mtselect.search.samplers import make_sampler, suggest
from mtselect.search.storage import dashboard_arguments
from mtselect.search.study import experiments_of, shared_by_trials
from mtselect.search.trials import TrialRow, first_tries, is_alive, is_surplus, slot, study_rows, worker_name
from mtselect.stages.evaluation import prepare_metrics
from mtselect.stages.gradients import GRADIENTS
from mtselect.stages.lineage import Lineage
from mtselect.stages.selection import selection_stage
from mtselect.stages.trial import mean_scores, run_trial, shared_stages
from mtselect.study_record import compare_rivals, record_study
from mtselect.tracking.base import Kind, Tracker

if TYPE_CHECKING:
    from rich.console import Console

_POLL_SECONDS = 0.5  # how often a worker with nothing left to do looks whether the others are done


class Worker:
    """One process of a study: proposes trials, has them run, and records them."""

    def __init__(self, sweep: Sweep, executor: Executor, tracker: Tracker, study: optuna.Study, parent: str,
                 console: Console) -> None:
        self.sweep, self.bench, self.executor, self.tracker = sweep, executor.bench, executor, tracker
        self.study, self.parent, self.console = study, parent, console
        self._unsigned: dict[int, float] = {}
        self._recorded: set[str] = set()  # keys of gradients

    def prepare(self) -> None:
        """Compute what the trials share, having checked that MLflow and Optuna tell of the same trials."""
        self._check_records()
        prepare_metrics(self.bench, self.sweep.experiment)
        lineage = Lineage(self.bench, trial_experiment(self.sweep.experiment, {}))
        stages = shared_by_trials(self.sweep)
        with self.bench.progress.task("shared stages", len(stages)) as advance:
            for stage in stages:
                self.executor.prepare(lineage, stage)
                advance(1)
        record_corpus(self.tracker, self.parent, lineage)
        if GRADIENTS in stages:
            self._record_gradients(lineage)

    def _record_gradients(self, lineage: Lineage) -> None:
        """Once for each gradients entry; who recorded it is not asked again."""
        if (key := lineage.key(GRADIENTS)) not in self._recorded:
            record_gradients(self.tracker, self.parent, lineage, self.sweep.tracking)
            self._recorded.add(key)

    def search(self) -> None:
        """Run trials until the study has its number, none waits, and the other workers' trials are done too; those whose
        worker dies meanwhile are taken over."""
        told = float("-inf")
        while True:
            self.retry_dead_trials()
            trials = self.study.get_trials(deepcopy=False)
            if left := self._left(trials):
                with self.bench.progress.task("trials", left) as advance:
                    self.executor.side_by_side(partial(self._run_one_after_another, advance))
            elif running := [trial for trial in trials if trial.state.name == "RUNNING"]:
                if time.monotonic() - told >= LINE_SECONDS:
                    workers = sorted({trial.user_attrs.get("worker", "?") for trial in running})
                    self.console.print(f"waiting for the last trials of {', '.join(workers)}", style="dim")
                    told = time.monotonic()
                time.sleep(_POLL_SECONDS)
                optuna.storages.fail_stale_trials(self.study)  # of workers on other hosts
            else:
                return

    def _run_one_after_another(self, advance: Advance) -> None:
        while self._left(self.study.get_trials(deepcopy=False)):
            try:
                self.study.optimize(self._objective, n_trials=1, catch=(NonFiniteError,))
            except UnboundLocalError as error:  # what Optuna makes of a storage that is gone when it closes the trial
                raise next((one for one in causes(error) if isinstance(one, StorageError)), error) from error
            advance(1)
            self.retry_dead_trials()

    def _left(self, trials: Sequence[optuna.trial.FrozenTrial]) -> int:
        """Trials that nobody has begun."""
        waiting = sum(trial.state.name == "WAITING" for trial in trials)
        return waiting + max(0, self.sweep.study.n_trials - len(first_tries(trials)))

    def run_baselines(self) -> None:
        """Queue the best trial's rivals that are missing, and it again, and run them."""
        known = {trial.user_attrs["baseline"]: trial.user_attrs["fields"] for trial in self.study.get_trials(deepcopy=False)
                 if "baseline" in trial.user_attrs}
        seeds = list(range(1, self.sweep.study.finetune_seeds + 1))
        for rival in self._wanted_baselines():
            name, steps = rival.name, rival.fields.get("finetune.steps")
            if rival.kind == "pool" and name in known and known[name]["finetune.steps"] != steps:
                name = f"{name} steps={steps}"  # that of another best trial, whose set is of another size
            if name not in known:
                known[name] = rival.fields
                self.study.enqueue_trial({}, user_attrs={"baseline": name, "fields": rival.fields, "rival": rival.kind,
                                                         "seeds": seeds})
        self.executor.ahead([one for trial in self.study.get_trials(deepcopy=False)
                             if trial.state.name == "WAITING" and "baseline" in trial.user_attrs
                             for one in experiments_of(self.sweep.experiment, trial)])
        self.search()

    def retry_dead_trials(self) -> None:
        """Queue again, with the same parameters, what ended without a result: its worker was killed or interrupted, or
        ran into something that can be mended, such as a full disk."""
        trials = self.study.get_trials(deepcopy=False)
        superseded = {trial.user_attrs.get("retries") for trial in trials}
        for trial in trials:
            dead = trial.state.name == "RUNNING" and not is_alive(trial, self._unsigned)
            if not dead and (trial.state.name != "FAIL" or "failed" in trial.user_attrs or trial.number in superseded):
                continue
            if dead:
                with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):  # another worker was faster
                    self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            kept = {key: value for key, value in trial.user_attrs.items() if key in ("baseline", "fields", "rival", "seeds")}
            if "baseline" not in kept:
                kept["slot"] = slot(trial, trials)
            self.study.enqueue_trial(trial.params, user_attrs={**kept, "retries": trial.number})
            self.tracker.close_trial(self.parent, trial.number)

    def report(self, rows: list[TrialRow]) -> None:
        """The final tables on the console and on the study's run, and what to do next."""
        trials, proof = [row for row in rows if row.kind == "trial"], [row for row in rows if row.kind != "trial"]
        experiments = {trial.user_attrs["row"]["run_id"]: experiments_of(self.sweep.experiment, trial)
                       for trial in self.study.get_trials(deepcopy=False) if "row" in trial.user_attrs}
        comparisons = compare_rivals(self.bench, self.sweep, proof, experiments)
        self.console.print(final_table(trials, self.sweep))
        self.console.print(proof_table(proof, comparisons, self.sweep))
        for sentence in verdict(proof, comparisons):
            self.console.print(sentence, markup=False, soft_wrap=True)
        links = self.tracker.links(self.parent, self.sweep.study.objectives[0])
        if not links:
            self._say_where(trials, experiments)
            self._say_dashboard(trials)
            return
        promote = f"{cli.program('python')} -m mtselect.promote {self.sweep.study.name}"
        if self.sweep.tracking.uri:
            promote += f" --tracking.uri {redact(self.sweep.tracking.uri)}"
        record_study(self.tracker, self.parent, self.bench, self.sweep, self.study, rows, experiments, comparisons)
        start = f"[bold]{cli.program(links['command'])}[/]  then open\n           " if links["command"] else ""
        self.console.print(f"compare    {start}{links['trials']}", soft_wrap=True)
        self.console.print(f"charts     {links['charts']}", soft_wrap=True)
        self.console.print(f"look       {links['study']}", soft_wrap=True)
        self._say_dashboard(trials)
        self.console.print(f"promote    [bold]{promote}[/]")
        self.tracker.log(self.parent, note=study_note(trials, proof, comparisons, self.sweep, links, promote))

    def _say_where(self, trials: list[TrialRow], experiments: Mapping[str, list[Experiment]]) -> None:
        """Without a record: the best trial's set is a file."""
        for row in trials[:1]:
            experiment = experiments[row.run_id][0]
            path = Lineage(self.bench, experiment).path(selection_stage(experiment)) / "selected.jsonl"
            self.console.print(f"selected   {path} ({row.name}, {row.pairs:,} pairs)", soft_wrap=True)
        self.console.print("promote    needs a record: the same command with --tracking.kind mlflow and another --study.name "
                           "computes no stage again", soft_wrap=True)

    def _say_dashboard(self, trials: list[TrialRow]) -> None:
        """How Optuna's own pages are opened, which have nothing to draw of a single trial."""
        if len(trials) > 1:
            get = "" if find_spec("optuna_dashboard") else f"{cli.program('pip')} install optuna-dashboard && "
            opened = f"{get}{cli.program('optuna-dashboard')} {dashboard_arguments(self.sweep)}"
            self.console.print(f"optuna     [bold]{escape(opened)}[/]", soft_wrap=True)

    def _objective(self, trial: optuna.Trial) -> list[float]:
        trial.set_user_attr("worker", worker_name())
        trials = self.study.get_trials(deepcopy=False)
        if is_surplus(trials[trial.number], trials, self.sweep.study.n_trials):
            trial.set_user_attr("surplus", True)
            raise optuna.TrialPruned
        baseline, place = trial.user_attrs.get("baseline"), slot(trials[trial.number], trials)
        self.study.sampler = make_sampler(self.sweep, place)  # Optuna asks it for the first time when a value is suggested
        values = trial.user_attrs["fields"] if baseline else suggest(trial, self.sweep)
        try:
            experiments = experiments_of(self.sweep.experiment, trial)
        except UserError as error:  # two searched fields do not go together: it would fail again
            trial.set_user_attr("failed", str(error))
            raise
        name = baseline or f"t{place:03d}"
        rival = trial.user_attrs.get("rival")
        kind: Kind = "trial" if not baseline else "again" if rival == "again" else "baseline"
        searched = {path: value for path, value in values.items() if path in self.sweep.search}
        params = trial_params(experiments[0], searched, rival if kind == "baseline" else None)
        run_id = self.tracker.start_trial(self.parent, name, kind, params, trial.number)
        trial.set_user_attr("run_id", run_id)
        self.console.print(f"[bold]{name}[/] {'  '.join(f'{key}={value}' for key, value in params.items())}")
        start = time.monotonic()
        try:
            on_epoch = None if baseline else self._pruning(trial)
            results = [self.executor.run_trial(one, on_epoch) for one in experiments]
            scores = mean_scores(results[0].lineage, [result.evaluation for result in results])
            record_trial(self.tracker, run_id, results, scores, self.sweep.tracking)
            if GRADIENTS in shared_stages(experiments[0]):
                self._record_gradients(results[0].lineage)
            minutes = (time.monotonic() - start) / 60
            self.tracker.log(run_id, metrics={"trial/minutes": minutes})
            self.tracker.end(run_id, "FINISHED")
        except (optuna.TrialPruned, KeyboardInterrupt, SystemExit):
            self.tracker.abandon(run_id, "KILLED")
            raise
        except BaseException as error:
            self.tracker.abandon(run_id, "FAILED", note=f"Failed: {error}")
            if isinstance(error, UserError) and not isinstance(error, (StorageError, ClusterError)):  # it would fail again
                trial.set_user_attr("failed", str(error))
                self.console.print(f"  trial failed: {error}", style="red")
            raise
        metrics = trial_metrics(results, scores)
        row = TrialRow(name=name, run_id=run_id, kind=kind, params=params, metrics=metrics, minutes=minutes)
        trial.set_user_attr("row", dataclasses.asdict(row))
        self.console.print(f"  {name}  {scores_text(results, scores)}", style="green")
        unknown = [one for one in self.sweep.study.objectives if one not in metrics]
        if unknown and not baseline:
            self.console.print(f"  {name} selected nothing, so that it has no {', '.join(unknown)}: it is put aside")
        if unknown or baseline:
            raise optuna.TrialPruned
        return [metrics[one] for one in self.sweep.study.objectives]

    def _pruning(self, trial: optuna.Trial) -> OnEpoch | None:
        """Report each epoch's dev loss and stop the trial if the pruner says so."""
        if self.sweep.study.pruner == "none":
            return None
        falling = -sign(self.sweep.study.objectives[0])

        def on_epoch(epoch: int, dev_loss: float) -> None:
            with contextlib.suppress(StorageError):  # waited for long enough: what was trained is worth keeping
                trial.report(falling * dev_loss, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        return on_epoch

    def _check_records(self) -> None:
        rows = {row.run_id for row in study_rows(self.study, self.sweep.study.objectives[0])}
        begun = {trial.user_attrs.get("run_id") for trial in self.study.get_trials(deepcopy=False)}
        recorded = self.tracker.finished(self.parent)
        if recorded is None:
            return
        name, uri = self.sweep.study.name, self.tracker.uri
        if rows and not rows & recorded:
            raise StorageError(f"MLflow at {uri} has none of the {len(rows)} trials of study {name!r}: set tracking.uri to "
                               "where they were recorded, or choose another study.name (no finished stage is computed again)")
        if recorded and not begun & recorded:
            raise StorageError(f"MLflow at {uri} has {len(recorded)} trials of study {name!r} that Optuna's storage does not "
                               "know: set study.storage and runtime.workdir to where it began, or choose another study.name")

    def _wanted_baselines(self) -> Iterator[Rival]:
        """Of each best trial, and it again."""
        best = self.study.best_trials
        if not best and "untuned" in self.sweep.study.baselines:
            yield Rival(name="untuned", kind="untuned", fields={"selection.method": "untuned"})
        for trial in best[:1] if len(self.sweep.study.objectives) == 1 else best:  # equal ones are often the same set
            experiment = trial_experiment(self.sweep.experiment, trial.params)
            yield from rivals_of(run_trial(self.bench, experiment), trial.params, trial.user_attrs["row"]["name"],
                                 list(self.sweep.study.baselines))
