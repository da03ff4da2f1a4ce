"""python -m mtselect.sweep [SWEEP.yaml] [--FIELD VALUE ...]

Prepares what all trials share (corpus, warm-up, curvature, gradients), lets Optuna search, runs the baselines in the same
study, and prints the trials, best first, with the next commands. The same command goes on where a stopped one ended;
several workers may run it at once on one storage. This is the only module that imports optuna.

A trial's sampler is seeded from (study seed, number of finished trials), so that an interrupted study proposes what an
undisturbed one would have. Baselines end as PRUNED trials: they carry a score but no parameter, samplers leave them out,
and Optuna's best trial is never a baseline.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtselect import cli
from mtselect.config import Sweep, field_type, with_fields
from mtselect.errors import ConfigError, NonFiniteError, StorageError
from mtselect.store import derive_seed

if TYPE_CHECKING:
    import optuna
    from rich.console import Console
    from rich.table import Table

    from mtselect.pipeline import Bench, TrialResult
    from mtselect.tracking import Tracker

COMMAND = "python -m mtselect.sweep"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the final table, as kept in the Optuna trial."""

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
        cli.print_help(COMMAND)
        return 0
    return cli.run(lambda console: run_sweep(cli.read_arguments(arguments, COMMAND), console),
                   again="Finished stages and trials are kept: the same command goes on from here.")


def run_sweep(sweep: Sweep, console: Console) -> list[Row]:
    """Run or continue a sweep to its end and return its rows, best first."""
    console.print(f"[bold]mtselect[/] sweep [bold]{sweep.study.name}[/]: {sweep.study.n_trials} trials "
                  f"for {', '.join(sweep.study.objectives)}")
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.pipeline import resolve
    from mtselect.tracking import open_tracker

    sweep = dataclasses.replace(sweep, experiment=resolve(sweep.experiment))
    tracker = open_tracker(sweep.tracking, sweep.study.name, Path(sweep.runtime.workdir))
    study = open_study(sweep)
    parent = tracker.study_run(sweep)
    worker = Worker(sweep, bench, tracker, study, parent, console)
    try:
        worker.prepare()
        worker.search()
        worker.run_baselines()
    except BaseException:
        tracker.end(parent, "KILLED")
        raise
    rows = study_rows(study, sweep.study.objectives[0])
    worker.report(rows)
    tracker.end(parent, "FINISHED")
    return rows


class Worker:
    """One process of a study: proposes, runs and records trials."""

    def __init__(self, sweep: Sweep, bench: Bench, tracker: Tracker, study: optuna.Study, parent: str,
                 console: Console) -> None:
        self.sweep, self.bench, self.tracker = sweep, bench, tracker
        self.study, self.parent, self.console = study, parent, console

    def prepare(self) -> None:
        """Compute what the trials share, and take up the trials of killed workers."""
        from mtselect.recording import record_gradients

        record_gradients(self.tracker, self.parent, self.bench, self.sweep.experiment, self.sweep.tracking)
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name == "RUNNING" and not _alive(trial.user_attrs.get("worker")):
                self.retry(trial)

    def search(self) -> None:
        """Run search trials until the study has its number."""
        import optuna

        while True:
            finished, running, waiting = self._counts()
            if finished + running >= self.sweep.study.n_trials and not waiting:
                return
            self.study.sampler = make_sampler(self.sweep, derive_seed(self.sweep.study.seed, f"trial {finished + running}"))
            try:
                self.study.optimize(self._objective, n_trials=1, catch=(NonFiniteError,))
            except (KeyboardInterrupt, SystemExit):
                for trial in self.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
                    if trial.user_attrs.get("worker") == _worker_name():
                        self.retry(trial)
                raise

    def run_baselines(self) -> None:
        """Queue the baselines that are missing and run them; random ones are as large as the best trial's set."""
        known = {trial.user_attrs["baseline"] for trial in self.study.get_trials(deepcopy=False)
                 if "baseline" in trial.user_attrs and trial.state.name != "FAIL"}
        for name, fields in self._wanted_baselines().items():
            if name not in known:
                self.study.enqueue_trial({}, user_attrs={"baseline": name, "fields": fields})
        self.search()

    def retry(self, trial: optuna.trial.FrozenTrial) -> None:
        """Close a trial whose worker is gone and queue it again with the same parameters."""
        import optuna

        attributes = {key: value for key, value in trial.user_attrs.items() if key in ("baseline", "fields")}
        self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        self.study.enqueue_trial(trial.params, user_attrs={**attributes, "retries": trial.number})
        if "run_id" in trial.user_attrs:
            self.tracker.end_if_running(trial.user_attrs["run_id"])

    def report(self, rows: list[Row]) -> None:
        """The final table on the console and on the study's run, and what to do next."""
        links = self.tracker.links()
        table = final_table(rows, self.sweep)
        self.console.print(table)
        promote = f"python -m mtselect.promote {self.sweep.study.name}"
        if self.sweep.tracking.uri:
            promote += f" --tracking.uri {self.sweep.tracking.uri}"
        start = f"[bold]{links['command']}[/]  then open\n           " if links["command"] else "open "
        self.console.print(f"compare    {start}{links['trials']}", soft_wrap=True)
        self.console.print(f"promote    [bold]{promote}[/]")
        self.tracker.log(self.parent, note=_study_note(rows, self.sweep, links, promote))
        from mtselect import plots
        from mtselect.recording import score_rows

        metric = self.sweep.study.objectives[0]
        if metric.startswith("eval/"):
            self.tracker.log_figure(self.parent, plots.score_against_pairs(score_rows(rows, metric), metric.split("/")[1]),
                                    "score_against_pairs.png")

    def _objective(self, trial: optuna.Trial) -> list[float]:
        import optuna

        from mtselect.pipeline import run_trial
        from mtselect.recording import record_trial, trial_metrics, trial_params

        baseline = trial.user_attrs.get("baseline")
        values = trial.user_attrs["fields"] if baseline else suggest(trial, self.sweep)
        experiment = with_fields(self.sweep.experiment, values)
        name = baseline or f"t{trial.number:03d}"
        params = trial_params(experiment, {} if baseline else values)
        run_id = self.tracker.start_trial(self.parent, name, "baseline" if baseline else "trial", params,
                                          {"mtselect.trial": str(trial.number)})
        for key, value in (("worker", _worker_name()), ("run_id", run_id)):
            trial.set_user_attr(key, value)
        self.console.print(f"[bold]{name}[/] {'  '.join(f'{key}={value}' for key, value in params.items())}")
        start = time.monotonic()
        try:
            result = run_trial(self.bench, experiment, None if baseline else self._pruning(trial))
            record_trial(self.tracker, run_id, self.bench, result, self.sweep.tracking)
            minutes = (time.monotonic() - start) / 60
            self.tracker.log(run_id, metrics={"trial/minutes": minutes})
            self.tracker.end(run_id, "FINISHED")
        except (optuna.TrialPruned, KeyboardInterrupt, SystemExit):
            self.tracker.end(run_id, "KILLED")
            raise
        except BaseException as error:
            self.tracker.log(run_id, note=f"Failed: {error}")
            self.tracker.end(run_id, "FAILED")
            if isinstance(error, NonFiniteError):
                self.console.print(f"  trial failed: {error}", style="red")
            raise
        metrics = trial_metrics(result)
        row = Row(name=name, run_id=run_id, kind="baseline" if baseline else "trial", params=params, metrics=metrics,
                  minutes=minutes)
        trial.set_user_attr("row", dataclasses.asdict(row))
        self.console.print("  " + _scores_text(result), style="green")
        if baseline:
            raise optuna.TrialPruned
        return [_objective_value(metrics, name) for name in self.sweep.study.objectives]

    def _pruning(self, trial: optuna.Trial) -> Any:
        """Report each epoch's dev loss and stop the trial if the pruner says so."""
        import optuna

        if self.sweep.study.pruner == "none":
            return None
        sign = -1 if directions(self.sweep)[0] == "maximize" else 1

        def on_epoch(epoch: int, dev_loss: float) -> None:
            trial.report(sign * dev_loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return on_epoch

    def _counts(self) -> tuple[int, int, int]:
        """Search trials finished for good, trials running, trials waiting."""
        finished = running = waiting = 0
        retried = {trial.user_attrs.get("retries") for trial in self.study.get_trials(deepcopy=False)}
        for trial in self.study.get_trials(deepcopy=False):
            waiting += trial.state.name == "WAITING"
            running += trial.state.name == "RUNNING"
            finished += trial.state.is_finished() and "baseline" not in trial.user_attrs and trial.number not in retried
        return finished, running, waiting

    def _wanted_baselines(self) -> dict[str, dict[str, Any]]:
        """Name -> experiment fields."""
        study = self.sweep.study
        wanted: dict[str, dict[str, Any]] = {}
        for method in ("untuned", "pool"):
            if method in study.baselines:
                wanted[method] = {"selection.method": method}
        sizes = sorted({row.pairs for row in best_rows(self.study) if row.pairs}) if "random" in study.baselines else []
        for size in sizes:
            for seed in range(study.random_seeds):
                wanted[f"random-{size}-{seed}"] = {"selection.method": "random", "selection.budget": size,
                                                   "selection.seed": seed}
        return wanted


def open_study(sweep: Sweep) -> optuna.Study:
    """The Optuna study, made or resumed by name.

    Raises:
        StorageError: the storage cannot be opened.
        ConfigError: the study was begun with another experiment or search, so its trials would not compare.
    """
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        study = optuna.create_study(study_name=sweep.study.name, storage=_storage(sweep), load_if_exists=True,
                                    directions=directions(sweep), pruner=_pruner(sweep))
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise StorageError(f"study.storage {sweep.study.storage!r} cannot be used ({first}): start the database, correct the "
                           "URL, or leave it null for a journal file") from error
    asked = {"experiment": dataclasses.asdict(sweep.experiment),
             "search": {path: dataclasses.asdict(space) for path, space in sweep.search.items()}}
    begun = study.user_attrs.get("sweep")
    if begun is None:
        study.set_user_attr("sweep", asked)
    elif changed := _differences(begun, asked):
        raise ConfigError(f"study {sweep.study.name!r} was begun with other settings ({'; '.join(changed[:3])}): "
                          "its trials would not compare; choose another study.name")
    return study


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


def suggest(trial: optuna.Trial, sweep: Sweep) -> dict[str, Any]:
    """Ask Optuna for every searched field, as the field's own type."""
    values: dict[str, Any] = {}
    for path, space in sweep.search.items():
        if space.choices is not None:
            values[path] = trial.suggest_categorical(path, space.choices)
            continue
        assert space.low is not None
        assert space.high is not None
        if field_type(path) is int:
            values[path] = trial.suggest_int(path, int(space.low), int(space.high), step=int(space.step or 1), log=space.log)
        else:
            values[path] = trial.suggest_float(path, space.low, space.high, step=space.step, log=space.log)
    return values


def directions(sweep: Sweep) -> list[Literal["minimize", "maximize"]]:
    """Scores go up; what is selected (pairs, noise) goes down."""
    return ["maximize" if name.startswith("eval/") else "minimize" for name in sweep.study.objectives]


def study_rows(study: optuna.Study, objective: str) -> list[Row]:
    """All finished trials and baselines, best first; each baseline once."""
    rows: dict[str, Row] = {}
    for trial in study.get_trials(deepcopy=False):
        if "row" in trial.user_attrs:
            row = Row(**trial.user_attrs["row"])
            rows.setdefault(row.name, row)
    sign = -1 if objective.startswith("eval/") else 1
    return sorted(rows.values(), key=lambda row: sign * row.metrics.get(objective, float("nan")))


def best_rows(study: optuna.Study) -> list[Row]:
    """The best trial, or with several objectives the Pareto front."""
    return [Row(**trial.user_attrs["row"]) for trial in study.best_trials]


def final_table(rows: list[Row], sweep: Sweep) -> Table:
    """Trials and baselines, best first."""
    from rich import box
    from rich.table import Table

    names = [f"eval/{name}" for name in sweep.experiment.evaluation.metrics]
    table = Table(title=f"{sweep.study.name}: {len(rows)} runs on dev, best first; 95% intervals", box=box.SIMPLE_HEAD)
    for heading in _headings(rows, names):
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, names, rows), style=None if row.kind == "trial" else "dim")
    return table


def _headings(rows: list[Row], names: list[str]) -> list[str]:
    noise = ["noise"] if any("select/noise_share" in row.metrics for row in rows) else []
    scores = {"eval/bleu": "BLEU", "eval/chrf": "chrF", "eval/comet": "COMET"}
    return ["run", *(scores[name] for name in names), "pairs", *noise, "clusters", "threshold", "budget", "minutes"]


def _cells(row: Row, names: list[str], rows: list[Row]) -> list[str]:
    cells = [row.name]
    for name in names:
        value, low, high = (row.metrics[key] for key in (name, f"{name}_low", f"{name}_high"))
        cells.append(f"{value:.1f} [{low:.1f}, {high:.1f}]")
    cells.append(f"{row.pairs:,}")
    if "noise" in _headings(rows, names):
        share = row.metrics.get("select/noise_share")
        cells.append("" if share is None else f"{share:.1%}")
    searched = row.params["method"] == "gdig"
    threshold = f"{row.params['threshold']:.2f}" if searched else ""
    return [*cells, str(row.params["n_clusters"]) if searched else "", threshold,
            f"{row.params['budget']:,}" if "budget" in row.params else "", f"{row.minutes:.1f}"]


def _study_note(rows: list[Row], sweep: Sweep, links: dict[str, str], promote: str) -> str:
    names = [f"eval/{name}" for name in sweep.experiment.evaluation.metrics]
    headings = _headings(rows, names)
    lines = [f"## {sweep.study.name}: trials and baselines on dev, best first", "",
             f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(_cells(row, names, rows))} |" for row in rows]
    return "\n".join([*lines, "", "Intervals: 95%, bootstrap over sentences.", "",
                      f"Trials, best first: {links['trials']}", "", f"Promote the best: `{promote}`"])


def _objective_value(metrics: dict[str, float], name: str) -> float:
    if name not in metrics:
        raise ConfigError(f"study.objectives: no trial logs {name!r}: choose of {', '.join(metrics)}")
    return metrics[name]


def _scores_text(result: TrialResult) -> str:
    scores = "  ".join(f"{one.name} {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in result.evaluation.scores)
    noise = "" if result.noise_share is None else f"  noise {result.noise_share:.1%}"
    return f"{scores}  pairs {len(result.selection.pairs):,}{noise}"


def _storage(sweep: Sweep) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    url = sweep.study.storage
    if url is not None:
        return optuna.storages.RDBStorage(url, heartbeat_interval=60, grace_period=180)
    path = Path(sweep.runtime.workdir) / "optuna" / f"{sweep.study.name}.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    import optuna

    kind = sweep.study.pruner
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    return optuna.pruners.SuccessiveHalvingPruner() if kind == "successive_halving" else optuna.pruners.NopPruner()


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted fields in which two plain values differ, as `field: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [text for key in keys for text in _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def _worker_name() -> str:
    """Host, process and its start time; a process id alone comes back after a restart."""
    import psutil

    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def _alive(worker: str | None) -> bool:
    """Whether a worker still runs; one on another host is taken to (its database's heartbeat tells)."""
    import psutil

    if worker is None:
        return False
    host, pid, started = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    return psutil.pid_exists(int(pid)) and f"{psutil.Process(int(pid)).create_time():.2f}" == started


if __name__ == "__main__":
    sys.exit(main())
