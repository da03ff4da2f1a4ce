"""python -m mtselect.sweep [SWEEP.yaml] [--FIELD VALUE ...]

Prepares what all trials share (corpus, warm-up, curvature, gradients), lets Optuna search, runs the baselines in the same
study, and prints the trials, best first, with the next commands. The same command goes on where a stopped one ended;
several workers may run it at once on one storage. This is the only module that imports optuna.

After the search the best trial and its rivals (`rivals`) are finetuned with fresh seeds, in the same study.

Every search trial has a slot, 0 to n_trials - 1, which decides its name and its sampler's seed, so that an interrupted study
proposes what an undisturbed one would have and workers that start together propose different trials. A trial that is taken
up again keeps its slot. No lock is needed between workers: of two trials for the same thing the one with the lower number
runs, the other is put aside. Baselines end as PRUNED trials: they carry a score but no parameter, samplers leave them out,
and Optuna's best trial is never a baseline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtselect import cli
from mtselect.config import Experiment, Sweep, field_type, range_type, with_fields
from mtselect.errors import ConfigError, NonFiniteError, StorageError, UserError
from mtselect.metrics.base import METRICS
from mtselect.progress import LINE_SECONDS
from mtselect.remote import causes, redact
from mtselect.store import derive_seed

if TYPE_CHECKING:
    import optuna
    from rich.console import Console
    from rich.table import Table

    from mtselect.rivals import Rival
    from mtselect.significance import PairedResult, Score
    from mtselect.stages.lineage import Bench, Lineage, Stage
    from mtselect.stages.trial import TrialResult
    from mtselect.tracking.base import Kind, Tracker

COMMAND = "python -m mtselect.sweep"

_SIGNING_SECONDS = 10  # a trial's worker writes its name within milliseconds of the start; one without is dead after this
_POLL_SECONDS = 0.5  # how often a worker with nothing left to do looks whether the others are done


@dataclass(frozen=True, kw_only=True)
class Row:
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
    kind: str
    params: dict[str, Any]
    metrics: dict[str, float]
    minutes: float

    @property
    def pairs(self) -> int:
        """Size of the selected set."""
        return int(self.metrics["select/pairs"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("-h", "--help") for argument in arguments):
        print("--dry-run: print the stages that are there, the trials left, and roughly the minutes and the disk they take\n")
        cli.print_help(COMMAND)
        return 0
    if "--dry-run" in arguments:
        arguments.remove("--dry-run")
        return cli.run(lambda console: show_plan(cli.read_arguments(arguments, COMMAND, checked=False), console),
                       again="Nothing was done.")
    return cli.run(lambda console: run_sweep(cli.read_arguments(arguments, COMMAND, checked=False), console),
                   again="Finished stages and trials are kept: the same command goes on from here.")


def run_sweep(sweep: Sweep, console: Console) -> list[Row]:
    """Run or continue a sweep to its end and return its rows, best first.

    Raises:
        Faults: what can be known to be wrong before any work (`preflight`).
    """
    console.print(f"[bold]mtselect[/] sweep [bold]{sweep.study.name}[/]: {sweep.study.n_trials} trials "
                  f"for {', '.join(sweep.study.objectives)}")
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.preflight import preflight
    from mtselect.tracking.choose import open_tracker

    found = preflight(bench, sweep)
    found.show(console)
    found.raise_faults()
    sweep = found.sweep
    tracker = open_tracker(sweep.tracking, sweep.study.name, Path(sweep.runtime.workdir))
    study = open_study(sweep)
    parent = tracker.study_run(sweep)
    worker = Worker(sweep, bench, tracker, study, parent, console)
    try:
        worker.prepare()
        worker.search()
        worker.run_baselines()
    except BaseException:
        tracker.abandon(parent, "KILLED")
        raise
    rows = study_rows(study, sweep.study.objectives[0])
    worker.report(rows)
    tracker.end(parent, "FINISHED")
    return rows


def show_plan(sweep: Sweep, console: Console) -> None:
    """Print what `run_sweep` would do; computes and writes nothing.

    Raises:
        Faults: it would stop before it does anything.
    """
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.plan import print_plan
    from mtselect.preflight import preflight

    found = preflight(bench, sweep)
    found.show(console)
    found.raise_faults()
    print_plan(found.steps, f"{sweep.study.name}: {found.finished()[0]} of {sweep.study.n_trials} trials done", sweep.runtime,
               console)


class Worker:
    """One process of a study: proposes, runs and records trials."""

    def __init__(self, sweep: Sweep, bench: Bench, tracker: Tracker, study: optuna.Study, parent: str,
                 console: Console) -> None:
        self.sweep, self.bench, self.tracker = sweep, bench, tracker
        self.study, self.parent, self.console = study, parent, console
        self._unsigned: dict[int, float] = {}
        self._recorded: set[str] = set()  # keys of gradients

    def prepare(self) -> None:
        """Compute what the trials share, having checked that MLflow and Optuna tell of the same trials."""
        from mtselect.recording import record_corpus
        from mtselect.stages.evaluation import prepare_metrics
        from mtselect.stages.gradients import GRADIENTS
        from mtselect.stages.lineage import Lineage

        self._check_records()
        prepare_metrics(self.bench, self.sweep.experiment)
        lineage = Lineage(self.bench, self.sweep.experiment)
        stages = shared_by_trials(self.sweep)
        with self.bench.progress.task("shared stages", len(stages)) as advance:
            for stage in stages:
                lineage.entry(stage)
                advance(1)
        record_corpus(self.tracker, self.parent, lineage)
        if GRADIENTS in stages:
            self._record_gradients(lineage)

    def _record_gradients(self, lineage: Lineage) -> None:
        """Once for each gradients entry of the study."""
        from mtselect.recording import record_gradients
        from mtselect.stages.gradients import GRADIENTS

        key = lineage.key(GRADIENTS)
        if key not in self._recorded:
            record_gradients(self.tracker, self.parent, lineage, self.sweep.tracking)
            self._recorded.add(key)

    def search(self) -> None:
        """Run trials until the study has its number, none waits, and the other workers' trials are done too; those whose
        worker dies meanwhile are taken over."""
        import optuna

        told = float("-inf")
        while True:
            self.take_up()
            trials = self.study.get_trials(deepcopy=False)
            if left := self._left(trials):
                self._run_trials(left)
            elif running := [trial for trial in trials if trial.state.name == "RUNNING"]:
                if time.monotonic() - told >= LINE_SECONDS:
                    workers = sorted({trial.user_attrs.get("worker", "?") for trial in running})
                    self.console.print(f"waiting for the last trials of {', '.join(workers)}", style="dim")
                    told = time.monotonic()
                time.sleep(_POLL_SECONDS)
                optuna.storages.fail_stale_trials(self.study)  # of workers on other hosts
            else:
                return

    def _run_trials(self, left: int) -> None:
        with self.bench.progress.task("trials", left) as advance:
            while self._left(self.study.get_trials(deepcopy=False)):
                self.study.sampler = slot_sampler(self.sweep)
                try:
                    self.study.optimize(self._objective, n_trials=1, catch=(NonFiniteError,))
                except UnboundLocalError as error:  # what Optuna makes of a storage that is gone when it closes the trial
                    raise next((one for one in causes(error) if isinstance(one, StorageError)), error) from error
                advance(1)
                self.take_up()

    def _left(self, trials: Sequence[optuna.trial.FrozenTrial]) -> int:
        """Trials that nobody has begun."""
        waiting = sum(trial.state.name == "WAITING" for trial in trials)
        return waiting + max(0, self.sweep.study.n_trials - len(_first_tries(trials)))

    def run_baselines(self) -> None:
        """Queue the best trial's rivals that are missing, and it again, and run them."""
        from mtselect.ahead import evaluate_ahead
        from mtselect.resolve import trial_experiment
        from mtselect.stages.trial import at_seeds

        known = {trial.user_attrs.get("baseline") for trial in self.study.get_trials(deepcopy=False)}
        seeds = list(range(1, self.sweep.study.finetune_seeds + 1))
        for name, rival in self._wanted_baselines().items():
            if name not in known:
                self.study.enqueue_trial({}, user_attrs={"baseline": name, "fields": rival.fields, "rival": rival.kind,
                                                         "seeds": seeds})
        waiting = [trial.user_attrs["fields"] for trial in self.study.get_trials(deepcopy=False)
                   if trial.state.name == "WAITING" and "baseline" in trial.user_attrs]
        evaluate_ahead(self.bench, [one for fields in waiting
                                    for one in at_seeds(trial_experiment(self.sweep.experiment, fields), seeds)])
        self.search()

    def take_up(self) -> None:
        """Queue again, with the same parameters, what ended without a result: its worker was killed or interrupted, or
        ran into something that can be mended, such as a full disk."""
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        superseded = {trial.user_attrs.get("retries") for trial in trials}
        for trial in trials:
            dead = trial.state.name == "RUNNING" and not _alive(trial, self._unsigned)
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

    def report(self, rows: list[Row]) -> None:
        """The final tables on the console and on the study's run, and what to do next."""
        from mtselect.recording import compare_rivals, record_study

        trials, proof = [row for row in rows if row.kind == "trial"], [row for row in rows if row.kind != "trial"]
        experiments = self._experiments()
        comparisons = compare_rivals(self.bench, self.sweep, proof, experiments)
        self.console.print(final_table(trials, self.sweep))
        self.console.print(proof_table(proof, comparisons, self.sweep))
        links = self.tracker.links(self.sweep.study.objectives[0])
        if not links:
            self._say_where(trials, experiments)
            return
        promote = f"{cli.program('python')} -m mtselect.promote {self.sweep.study.name}"
        if self.sweep.tracking.uri:
            promote += f" --tracking.uri {redact(self.sweep.tracking.uri)}"
        record_study(self.tracker, self.parent, self.bench, self.sweep, self.study, rows, experiments, comparisons)
        start = f"[bold]{cli.program(links['command'])}[/]  then open\n           " if links["command"] else ""
        self.console.print(f"compare    {start}{links['trials']}", soft_wrap=True)
        self.console.print(f"charts     {links['charts']}", soft_wrap=True)
        self.console.print(f"look       {self.tracker.run_link(self.parent)}", soft_wrap=True)
        self.console.print(f"promote    [bold]{promote}[/]")
        self.tracker.log(self.parent, note=_study_note(trials, proof, comparisons, self.sweep, links, promote))

    def _say_where(self, trials: list[Row], experiments: Mapping[str, list[Experiment]]) -> None:
        """Without a record: the best trial's set is a file."""
        from mtselect.stages.lineage import Lineage
        from mtselect.stages.selection import selection_stage

        for row in trials[:1]:
            experiment = experiments[row.run_id][0]
            path = Lineage(self.bench, experiment).path(selection_stage(experiment)) / "selected.jsonl"
            self.console.print(f"selected   {path} ({row.name}, {row.pairs:,} pairs)", soft_wrap=True)
        self.console.print("promote    needs a record: the same command with --tracking.kind mlflow and another --study.name "
                           "computes no stage again", soft_wrap=True)

    def _experiments(self) -> dict[str, list[Experiment]]:
        """Run id -> experiment of every finished trial and baseline, at each of its finetuning seeds."""
        from mtselect.resolve import trial_experiment
        from mtselect.stages.trial import at_seeds

        found = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "row" in trial.user_attrs:
                values = trial.user_attrs["fields"] if "baseline" in trial.user_attrs else trial.params
                experiment = trial_experiment(self.sweep.experiment, values)
                seeds = trial.user_attrs.get("seeds", [experiment.finetune.seed])
                found[trial.user_attrs["row"]["run_id"]] = at_seeds(experiment, seeds)
        return found

    def _objective(self, trial: optuna.Trial) -> list[float]:
        import optuna

        from mtselect.recording import record_trial, trial_metrics, trial_params
        from mtselect.resolve import trial_experiment
        from mtselect.stages.gradients import GRADIENTS
        from mtselect.stages.trial import mean_scores, run_seeds, run_trial, shared_stages

        trial.set_user_attr("worker", _worker_name())
        trials = self.study.get_trials(deepcopy=False)
        if _surplus(trials[trial.number], trials, self.sweep.study.n_trials):
            trial.set_user_attr("surplus", True)
            raise optuna.TrialPruned
        baseline = trial.user_attrs.get("baseline")
        values = trial.user_attrs["fields"] if baseline else suggest(trial, self.sweep)
        try:
            experiment = trial_experiment(self.sweep.experiment, values)
        except UserError as error:  # two searched fields do not go together: it would fail again
            trial.set_user_attr("failed", str(error))
            raise
        name = baseline or f"t{slot(trials[trial.number], trials):03d}"
        rival = trial.user_attrs.get("rival")
        kind: Kind = "trial" if not baseline else "again" if rival == "again" else "baseline"
        searched = {path: value for path, value in values.items() if path in self.sweep.search}
        params = trial_params(experiment, searched, rival if kind == "baseline" else None)
        run_id = self.tracker.start_trial(self.parent, name, kind, params,
                                          {"mtselect.trial": str(trial.number)})
        trial.set_user_attr("run_id", run_id)
        self.console.print(f"[bold]{name}[/] {'  '.join(f'{key}={value}' for key, value in params.items())}")
        start = time.monotonic()
        try:
            results = (run_seeds(self.bench, experiment, trial.user_attrs["seeds"]) if baseline else
                       [run_trial(self.bench, experiment, self._pruning(trial))])
            scores = mean_scores(results[0].lineage, [result.evaluation for result in results])
            record_trial(self.tracker, run_id, results, scores, self.sweep.tracking)
            if GRADIENTS in shared_stages(experiment):
                self._record_gradients(results[0].lineage)
            minutes = (time.monotonic() - start) / 60
            self.tracker.log(run_id, metrics={"trial/minutes": minutes})
            self.tracker.end(run_id, "FINISHED")
        except (optuna.TrialPruned, KeyboardInterrupt, SystemExit):
            self.tracker.abandon(run_id, "KILLED")
            raise
        except BaseException as error:
            self.tracker.abandon(run_id, "FAILED", note=f"Failed: {error}")
            if isinstance(error, UserError) and not isinstance(error, StorageError):  # it would fail again
                trial.set_user_attr("failed", str(error))
                self.console.print(f"  trial failed: {error}", style="red")
            raise
        metrics = trial_metrics(results, scores)
        row = Row(name=name, run_id=run_id, kind=kind, params=params, metrics=metrics, minutes=minutes)
        trial.set_user_attr("row", dataclasses.asdict(row))
        self.console.print("  " + _scores_text(results, scores), style="green")
        if baseline:
            raise optuna.TrialPruned
        return [_objective_value(metrics, name) for name in self.sweep.study.objectives]

    def _pruning(self, trial: optuna.Trial) -> Any:
        """Report each epoch's dev loss and stop the trial if the pruner says so."""
        import optuna

        from mtselect.question import directions

        if self.sweep.study.pruner == "none":
            return None
        sign = -1 if directions(self.sweep)[0] == "maximize" else 1

        def on_epoch(epoch: int, dev_loss: float) -> None:
            with contextlib.suppress(StorageError):  # waited for long enough: what was trained is worth keeping
                trial.report(sign * dev_loss, epoch)
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

    def _wanted_baselines(self) -> dict[str, Rival]:
        """Of each best trial, and it again."""
        from mtselect.resolve import trial_experiment
        from mtselect.rivals import Rival, rivals_of
        from mtselect.stages.trial import run_trial

        wanted: dict[str, Rival] = {}
        best = self.study.best_trials
        if not best and "untuned" in self.sweep.study.baselines:
            wanted["untuned"] = Rival(kind="untuned", fields={"selection.method": "untuned"})
        for trial in best[:1] if len(self.sweep.study.objectives) == 1 else best:  # equal ones are often the same set
            experiment = trial_experiment(self.sweep.experiment, trial.params)
            wanted |= rivals_of(run_trial(self.bench, experiment), trial.params, trial.user_attrs["row"]["name"],
                                list(self.sweep.study.baselines))
        return wanted


def open_study(sweep: Sweep) -> optuna.Study:
    """The Optuna study, made or resumed by name.

    Raises:
        StorageError: the storage cannot be opened.
        ConfigError: the study was begun with another question, so its trials would not compare.
    """
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would print a failed trial's traceback
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    from mtselect.question import directions, question, refuse_other
    from mtselect.study_storage import remember, storage, unusable

    try:
        remember(sweep)
        study = optuna.create_study(study_name=sweep.study.name, storage=storage(sweep), load_if_exists=True,
                                    directions=directions(sweep), pruner=_pruner(sweep))
    except Exception as error:
        raise unusable(sweep, error) from error
    begun = study.user_attrs.get("sweep")
    if begun is None:
        study.set_user_attr("sweep", question(sweep))
    else:  # perhaps by another worker, a moment ago
        refuse_other(sweep, begun)
    return study


def shared_by_trials(sweep: Sweep) -> list[Stage]:
    """The stages that every trial asks for with the same settings: those that read nothing that is searched, up to the first
    one that does. A sweep that searches the selector computes before its trials only what all of them need."""
    from mtselect.stages.trial import shared_stages

    def alike(stage: Stage) -> bool:
        return not any(path == read or path.startswith(f"{read}.") for path in sweep.search for read in stage.reads)

    searched = {path: sweep.search[path].choices or []
                for path in ("selection.method", "selection.gate") if path in sweep.search}
    needed = [shared_stages(with_fields(sweep.experiment, dict(zip(searched, values, strict=True))))
              for values in itertools.product(*searched.values())]
    return list(itertools.takewhile(alike, (stage for stage in needed[0] if all(stage in others for others in needed))))


def make_sampler(sweep: Sweep, seed: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler; its state is the study's trials and the seed."""
    import optuna

    n_startup = max(4, min(10, sweep.study.n_trials // 4))
    kind = sweep.study.sampler
    if kind == "tpe":  # group: the baselines have no parameter, which must not empty the joint space
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup, multivariate=True, group=True)
    if kind == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=n_startup)
    return optuna.samplers.NSGAIISampler(seed=seed) if kind == "nsga2" else optuna.samplers.RandomSampler(seed=seed)


def slot_sampler(sweep: Sweep) -> optuna.samplers.BaseSampler:
    """Hands each trial to a fresh sampler that is seeded by the trial's slot."""
    import optuna

    class SlotSampler(optuna.samplers.BaseSampler):
        def __init__(self) -> None:
            self._inner = make_sampler(sweep, 0)

        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            place = slot(trial, study.get_trials(deepcopy=False))
            self._inner = make_sampler(sweep, derive_seed(sweep.study.seed, f"trial {place}"))
            self._inner.before_trial(study, trial)

        def infer_relative_search_space(self, *arguments: Any) -> Any:
            return self._inner.infer_relative_search_space(*arguments)

        def sample_relative(self, *arguments: Any) -> Any:
            return self._inner.sample_relative(*arguments)

        def sample_independent(self, *arguments: Any) -> Any:
            return self._inner.sample_independent(*arguments)

        def after_trial(self, *arguments: Any) -> None:
            self._inner.after_trial(*arguments)

    return SlotSampler()


def slot(trial: optuna.trial.FrozenTrial, trials: Sequence[optuna.trial.FrozenTrial]) -> int:
    """Place of a search trial among the first tries; a trial that was taken up again has its predecessor's."""
    inherited = trial.user_attrs.get("slot")
    return sum(one.number < trial.number for one in _first_tries(trials)) if inherited is None else int(inherited)


def _first_tries(trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Search trials, each once: no baseline, nothing taken up again, nothing put aside."""
    return [trial for trial in trials if not {"baseline", "retries", "surplus"} & trial.user_attrs.keys()]


def _surplus(trial: optuna.trial.FrozenTrial, trials: Sequence[optuna.trial.FrozenTrial], n_trials: int) -> bool:
    """Whether other workers have already begun enough trials, this baseline, or the same trial again."""
    earlier = [one.user_attrs for one in trials if one.number < trial.number and "surplus" not in one.user_attrs]
    retries, baseline = trial.user_attrs.get("retries"), trial.user_attrs.get("baseline")
    if retries is not None:
        return any(one.get("retries") == retries for one in earlier)
    if baseline is not None:
        return any(one.get("baseline") == baseline for one in earlier)
    return slot(trial, trials) >= n_trials


def suggest(trial: optuna.Trial, sweep: Sweep) -> dict[str, Any]:
    """Ask Optuna for every searched field, as the field's own type."""
    values: dict[str, Any] = {}
    for path, space in sweep.search.items():
        if space.choices is not None:
            kind = field_type(path)
            values[path] = trial.suggest_categorical(path, [float(one) if kind is float else one for one in space.choices])
            continue
        assert space.low is not None
        assert space.high is not None
        if range_type(path, space) is int:
            values[path] = trial.suggest_int(path, int(space.low), int(space.high), step=int(space.step or 1), log=space.log)
        else:
            values[path] = trial.suggest_float(path, space.low, space.high, step=space.step, log=space.log)
    return values


def study_rows(study: optuna.Study, objective: str) -> list[Row]:
    """All finished trials and baselines, best first; each baseline once."""
    from mtselect.metrics.base import direction

    rows: dict[str, Row] = {}
    for trial in study.get_trials(deepcopy=False):
        if "row" in trial.user_attrs:
            row = Row(**trial.user_attrs["row"])
            rows.setdefault(row.name, row)
    sign = -1 if direction(objective) == "maximize" else 1
    return sorted(rows.values(), key=lambda row: sign * row.metrics.get(objective, float("nan")))


def best_rows(study: optuna.Study) -> list[Row]:
    """The best trial, or with several objectives the Pareto front."""
    return [Row(**trial.user_attrs["row"]) for trial in study.best_trials]


def final_table(rows: list[Row], sweep: Sweep) -> Table:
    """Trials, best first, for the console."""
    return _table(table_cells(rows, sweep), f"{sweep.study.name}: {len(rows)} trials on dev, best first",
                  "[ ]: 95% interval over sentences, one finetuning seed")


def proof_table(rows: list[Row], comparisons: Mapping[str, PairedResult], sweep: Sweep) -> Table:
    """The best trial again and its rivals, best first, for the console."""
    seeds = sweep.study.finetune_seeds
    return _table(proof_cells(rows, comparisons, sweep), f"{sweep.study.name}: the best trial and its rivals on dev",
                  f"mean of {seeds} fresh finetuning seeds; [ ]: 95% interval over seeds and sentences\n"
                  "dev chose the best trial: test decides, when it is promoted")


def _table(cells: list[list[str]], title: str, caption: str) -> Table:
    from rich import box
    from rich.table import Table

    headings, *lines = cells
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, caption=caption)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def table_cells(rows: list[Row], sweep: Sweep) -> list[list[str]]:
    """The trials as texts, headings first: the score that decides with its interval, the others, then what was searched."""
    metrics, noise = _shown_metrics(rows, sweep)
    searched = [path.rpartition(".")[2] for path in sweep.search]
    headings = ["run", *(METRICS.load(name).title for name in metrics), "pairs", *(["noise"] if noise else []), *searched]
    return [headings, *([*_cells(row, metrics, noise), *(_param(row, path) for path in sweep.search)] for row in rows)]


def proof_cells(rows: list[Row], comparisons: Mapping[str, PairedResult], sweep: Sweep) -> list[list[str]]:
    """The best trial again and its rivals as texts: scores, steps of finetuning, and how much better the trial is."""
    metrics, noise = _shown_metrics(rows, sweep)
    headings = ["run", *(METRICS.load(name).title for name in metrics), "pairs", *(["noise"] if noise else []), "steps",
                "the best is better by", "p"]
    lines = []
    for row in rows:
        found = comparisons.get(row.name)
        against = ["", ""] if found is None else [f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]",
                                                  f"{found.p_value:.3f}"]
        lines.append([*_cells(row, metrics, noise), f"{row.metrics['finetune/steps']:,.0f}", *against])
    return [headings, *lines]


def _shown_metrics(rows: list[Row], sweep: Sweep) -> tuple[list[str], bool]:
    """The one that decides first, and whether noise is known."""
    metrics = sorted(sweep.experiment.evaluation.metrics, key=lambda name: f"eval/{name}" not in sweep.study.objectives)
    return list(metrics), any("select/noise_share" in row.metrics for row in rows)


def _cells(row: Row, metrics: Sequence[str], noise: bool) -> list[str]:
    first, *others = (row.metrics[f"eval/{name}"] for name in metrics)
    low, high = (row.metrics[f"eval/{metrics[0]}_{end}"] for end in ("low", "high"))
    share = row.metrics.get("select/noise_share")
    return [row.name, f"{first:.1f} [{low:.1f}, {high:.1f}]", *(f"{value:.1f}" for value in others), f"{row.pairs:,}",
            *([f"{share:.1%}" if share is not None else ""] if noise else [])]


def _param(row: Row, path: str) -> str:
    value = row.params.get(path, row.params.get(path.removeprefix("selection.")))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _study_note(trials: list[Row], proof: list[Row], comparisons: Mapping[str, PairedResult], sweep: Sweep,
                links: dict[str, str], promote: str) -> str:
    """What a person wants first comes first: MLflow shows a few lines and folds the rest."""
    headings, *lines = table_cells(trials, sweep)
    best = [f"**Best trial: {cells[0]}**, {headings[1]} {cells[1]} with {row.pairs:,} pairs."
            for row, cells in zip(trials, lines, strict=True)][:1]
    return "\n".join([
        *best, "",
        f"[Trials, best first]({links['trials']}) · [charts]({links['charts']}) · "
        f"[translations side by side]({links['translations']}) · among the artifacts `study.html` (score against pairs, "
        "which setting matters, the candidates where they are clustered) and `translation_changes.html`", "",
        f"Promote the best: `{promote}`", "",
        f"## {sweep.study.name}: the best trial and its rivals on dev", "",
        *_markdown(proof_cells(proof, comparisons, sweep)), "",
        f"Means of {sweep.study.finetune_seeds} fresh finetuning seeds; [ ]: 95% interval over seeds and sentences. "
        "Dev chose the best trial: test decides, when it is promoted.", "",
        "## Trials on dev, best first", "", *_markdown([headings, *lines]), "",
        "[ ]: 95% interval over sentences, one finetuning seed."])


def _markdown(cells: list[list[str]]) -> list[str]:
    headings, *lines = cells
    return [f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *lines)]


def _objective_value(metrics: dict[str, float], name: str) -> float:
    if name not in metrics:
        raise ConfigError(f"study.objectives: a trial that selected nothing has no {name!r}: choose of {', '.join(metrics)}")
    return metrics[name]


def _scores_text(results: Sequence[TrialResult], scores: Sequence[Score]) -> str:
    shown = "  ".join(f"{one.name} {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in scores)
    noise = "" if results[0].noise_share is None else f"  noise {results[0].noise_share:.1%}"
    seeds = "" if len(results) == 1 else f"  {len(results)} seeds"
    return f"{shown}  pairs {len(results[0].selection.pairs):,}{noise}{seeds}"


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    import optuna

    kind = sweep.study.pruner
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    return optuna.pruners.SuccessiveHalvingPruner() if kind == "successive_halving" else optuna.pruners.NopPruner()


def _worker_name() -> str:
    """Host, process and its start time; a process id alone comes back after a restart."""
    import psutil

    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def _alive(trial: optuna.trial.FrozenTrial, unsigned: dict[int, float]) -> bool:
    """Whether a running trial's worker still runs; one on another host is taken to (its database's heartbeat tells).

    Args:
        trial: that is running.
        unsigned: number -> when this process first saw the trial without its worker's name. Optuna's own times are local ones
            of the worker's host, without a zone.
    """
    import psutil

    worker = trial.user_attrs.get("worker")
    if worker is None:
        return time.monotonic() - unsigned.setdefault(trial.number, time.monotonic()) < _SIGNING_SECONDS
    host, pid, created = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return bool(f"{process.create_time():.2f}" == created and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main())
