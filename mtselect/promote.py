"""python -m mtselect.promote STUDY

Takes a finished study's best trial, checks it again (same selected ids, same dev score), scores the test set with fresh
finetuning seeds, compares it with every rival of the study by a bootstrap over seeds and sentences, and registers the selected
set as the next version of the dataset `mtselect.<study>`. It becomes `champion` if its test score is above the reigning
champion's, else `challenger`. A set that fails a gate is refused, with the reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtselect import cli
from mtselect.config import Experiment, Sweep, load
from mtselect.errors import ConfigError, PromotionRefused

if TYPE_CHECKING:
    from rich.console import Console

    from mtselect.gates import Gate
    from mtselect.significance import PairedResult, Score
    from mtselect.stages.corpus import Split
    from mtselect.stages.evaluation import Evaluation
    from mtselect.stages.lineage import Bench, Lineage
    from mtselect.stages.selection import Selection
    from mtselect.tracking.mlflow import MlflowTracker, RecordedRun
    from mtselect.tracking.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The best trial, computed again and scored on test, with its comparisons and gates.

    Args:
        run: of the trial.
        experiment: that replays it.
        selection: the set.
        n_seeds: trusted pairs it was chosen for.
        dev: scores, means over the study's finetuning seeds.
        test: likewise.
        test_digest: hash of the test set.
        rivals: name -> kind (`rivals.py`).
        comparisons: name of a rival -> the set against it on test.
        gates: all that were asked.
    """

    run: RecordedRun
    experiment: Experiment
    selection: Selection
    n_seeds: int
    dev: list[Score]
    test: list[Score]
    test_digest: str
    rivals: dict[str, str]
    comparisons: dict[str, PairedResult]
    gates: list[Gate]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.Parser(prog="python -m mtselect.promote", description=str(__doc__).split("\n\n")[1],
                        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="quickstart", help="the study's name (default: quickstart)")
    parser.add_argument("--force", action="store_true", help="promote to champion even if a gate is not passed")
    parser.add_argument("--dry-run", action="store_true", help="ask every gate and say what would happen; register nothing")
    parser.add_argument("--from-scratch", action="store_true", help="compute the best trial again from its sources, warm-up "
                        "and gradients included, rather than from the stage store")
    parser.add_argument("--rollback", action="store_true", help="give `champion` back to the version that had it before")
    parser.add_argument("--export", metavar="DIR", type=Path, help="write the champion to a new folder that "
                        "datasets.load_dataset opens; promotes nothing")
    parser.add_argument("--licence", help="SPDX identifier of the pool's licence, where the sweep has no data.licence")
    parser.add_argument("--tracking.uri", dest="uri", help="MLflow server (default: MLflow's own)")
    parser.add_argument("--tracking.experiment", dest="experiment", help="MLflow experiment (default: the study's name)")
    parser.add_argument("--runtime.workdir", dest="workdir", default="mlruns", help="stage store (default: mlruns)")
    arguments = parser.parse_args(list(sys.argv[1:] if argv is None else argv))
    return cli.run(lambda console: promote(arguments, console), again="Nothing was promoted; run the same command again.")


def promote(arguments: argparse.Namespace, console: Console) -> None:
    """Check, score and register the best trial of a study; or roll back, or export.

    Raises:
        PromotionRefused: there is no such study, trial or champion, or a gate did not pass.
    """
    from mtselect.config import StudyConfig, TrackingConfig
    from mtselect.tracking.server import open_mlflow

    tracking = TrackingConfig(uri=arguments.uri, experiment=arguments.experiment)
    tracker = open_mlflow(tracking, StudyConfig(name=arguments.study).name, Path(arguments.workdir), create=False)
    registry = tracker.registry(f"mtselect.{arguments.study}")
    if arguments.rollback:
        old, new = registry.rollback()
        console.print(f"[green]{registry.name}[/]: version {new} is champion again, version {old} is not any more")
        return
    if arguments.export is not None:
        _export(registry, arguments.uri, arguments.export, console)
        return
    sweep, parent, runs = _read_study(tracker, arguments.study)
    bench = cli.make_bench(dataclasses.replace(sweep.runtime, workdir=arguments.workdir), console)

    def ask(run: RecordedRun, gates: list[Gate]) -> None:
        """Show gates, keep them on the trial's run, and stop at those that are not passed."""
        for gate in gates:
            console.print(f"{'[green]passed[/]' if gate.passed else '[red]failed[/]'}  {gate.name}: ", end="")
            console.print(gate.detail, markup=False, soft_wrap=True)
        if not arguments.dry_run:
            tracker.log(run.run_id, tags=_gate_tags(gates))
        if not arguments.force and (failed := [gate.detail for gate in gates if not gate.passed]):
            raise PromotionRefused(f"{run.name} is not promoted: {'; '.join(failed)}; --force promotes it all the same")

    with bench.progress.task("computed again", 1) as advance:
        candidate = check(bench, tracker, sweep, runs, arguments, ask)
        advance(1)
    report(console, candidate, sweep)
    if not arguments.dry_run:
        _log(tracker, candidate)
    ask(candidate.run, candidate.gates[-1:])
    _register(tracker, registry, candidate, sweep, parent, console, force=arguments.force, dry_run=arguments.dry_run)


def check(bench: Bench, tracker: MlflowTracker, sweep: Sweep, runs: list[RecordedRun], arguments: argparse.Namespace,
          ask: Callable[[RecordedRun, list[Gate]], None]) -> Candidate:
    """Compute the best trial's selection and dev scores afresh, then its and its rivals' test scores.

    Args:
        bench: store, runtime, progress.
        tracker: where the study is.
        sweep: as it was recorded.
        runs: its trials and baselines.
        arguments: `licence` stands for data.licence if given; `from_scratch` asks for nothing of the store to be taken.
        ask: is told the gates that need no test set before that is read; may raise.

    Raises:
        PromotionRefused: nothing to promote, rivals are missing, or the trial does not come out again, which no force can mend.
    """
    from mtselect import gates
    from mtselect.config import with_fields
    from mtselect.plots import LEVELS
    from mtselect.selectors.base import SELECTORS
    from mtselect.stages.corpus import CORPUS, corpus_of, load_digests
    from mtselect.stages.selection import select_pairs
    from mtselect.stages.trial import compare, mean_scores, run_seeds

    best, rivals = choose(runs, sweep)
    experiment = _experiment(tracker, best)
    same, lineage = _replay(bench, experiment, best, arguments.from_scratch)
    if not same.passed:
        ask(best, [same])
        raise PromotionRefused(f"{best.name} {same.detail}; nothing else can be promoted, with or without --force")
    corpus, selection = corpus_of(lineage), select_pairs(lineage)
    described = with_fields(experiment, {"data.licence": arguments.licence}) if arguments.licence else experiment
    beside = {name: column.kind for name, column in SELECTORS.load(experiment.selection.method).columns.items()}
    asked = [same, gates.schema(selection.pairs, experiment.selection.pairs(len(corpus.pool)), beside),
             gates.contamination(selection.pairs, {"dev": corpus.dev, "test": corpus.test}),
             gates.provenance(described.data, len(corpus.seeds))]
    ask(best, asked)
    seeds = range(1, sweep.study.finetune_seeds + 1)

    def evaluations(one: Experiment, split: Split) -> list[Evaluation]:
        return [result.evaluation for result in run_seeds(bench, one, seeds, split)]

    # The steps that the trial had, as its rivals.
    again = with_fields(experiment, {"finetune.steps": experiment.finetune.steps_for(len(selection.pairs))})
    test, metric = evaluations(again, "test"), _metric(sweep)
    comparisons = {}
    for rival in rivals:
        theirs = evaluations(_experiment(tracker, rival), "test")
        comparisons[rival.name] = compare(lineage, metric, test, theirs)
    kinds = {rival.name: rival.params["method"] for rival in rivals}
    beaten = {name: comparisons[name] for name, kind in kinds.items() if kind not in LEVELS or kind in ("pool", "untuned")}
    asked.append(gates.beats_rivals(beaten, metric, [name for name, kind in kinds.items() if kind == "filter-random"]))
    return Candidate(run=best, experiment=described, selection=selection, n_seeds=len(corpus.seeds),
                     dev=mean_scores(lineage, evaluations(again, "dev")),
                     test=mean_scores(lineage, test),
                     test_digest=lineage.open(CORPUS, load_digests)["test"], rivals=kinds, comparisons=comparisons, gates=asked)


def _replay(bench: Bench, experiment: Experiment, best: RecordedRun, from_scratch: bool) -> tuple[Gate, Lineage]:
    """The gate `replay`, of the store's gradients and weights or of nothing but the sources; and the lineage."""
    from mtselect import gates
    from mtselect.stages.evaluation import evaluate
    from mtselect.stages.lineage import Lineage
    from mtselect.stages.selection import select_pairs
    from mtselect.stages.trial import forget
    from mtselect.store import Store

    def ask(lineage: Lineage, recomputed: str) -> Gate:
        selection = select_pairs(lineage)
        digest = best.tags["mtselect.selected"]
        gate = gates.replay(selection.pairs, digest, [], {}, recomputed)
        if gate.passed:
            dev = evaluate(lineage, "dev")
            gate = gates.replay(selection.pairs, digest, dev.scores, best.metrics, recomputed)
        return gate

    if not from_scratch:
        forget(Lineage(bench, experiment))
        lineage = Lineage(bench, experiment)
        weights = "finetuned weights" if bench.runtime.keep_models else "what it was finetuned from"
        return ask(lineage, "computed again: selection and translations; from the store: corpus, warm-up, gradients, losses, "
                   f"gate and {weights} (--from-scratch computes all)"), lineage
    with tempfile.TemporaryDirectory(dir=bench.runtime.workdir, prefix="from-scratch-") as folder:
        again = Lineage(dataclasses.replace(bench, store=Store(Path(folder))), experiment)
        gate = ask(again, "computed again: all, warm-up included")
    return gate, Lineage(bench, experiment)


def choose(runs: list[RecordedRun], sweep: Sweep) -> tuple[RecordedRun, list[RecordedRun]]:
    """The best trial by the study's score on dev, and its rivals: baselines of its size, the whole pool, the untuned model."""
    from mtselect.metrics.base import direction
    from mtselect.plots import LEVELS

    metric = f"eval/{_metric(sweep)}"
    trials = [run for run in runs if run.tags["mtselect.kind"] == "trial" and run.metrics.get("select/pairs")]
    if not trials:
        raise PromotionRefused(f"study {sweep.study.name!r} has no finished trial that selected a pair: run the sweep first")
    sign = 1 if direction(metric) == "maximize" else -1
    best = max(trials, key=lambda run: (sign * run.metrics[metric], -int(run.tags["mtselect.trial"])))  # Optuna's, if equal
    size = best.metrics["select/pairs"]
    rivals = {run.name: run for run in runs if run.tags["mtselect.kind"] == "baseline"
              and (run.params["method"] in LEVELS or run.params.get("budget") == f"{size:.0f}")}
    missing = {"random", "pool", *sweep.study.baselines} - {run.params["method"] for run in rivals.values()}
    if missing:
        raise PromotionRefused(f"{best.name} ({size:.0f} pairs) was not compared with {', '.join(sorted(missing))}: let the "
                               "sweep run to its end, with random and pool in study.baselines")
    return best, list(rivals.values())


def report(console: Console, candidate: Candidate, sweep: Sweep) -> None:
    """Print test scores and comparisons."""
    from rich.table import Table

    metric = _metric(sweep)
    table = Table(title=f"{sweep.study.name}: {candidate.run.name} on test, {len(candidate.selection.pairs):,} pairs")
    for heading in ("against", f"{metric}", f"its {metric}", "difference [95%]", "p"):
        table.add_column(heading, justify="left" if heading == "against" else "right")
    for name, result in candidate.comparisons.items():
        table.add_row(name, f"{result.system:.2f}", f"{result.baseline:.2f}",
                      f"{result.difference:+.2f} [{result.low:+.2f}, {result.high:+.2f}]", f"{result.p_value:.4f}")
    console.print(table)
    for score in candidate.test:
        console.print(f"{score.name} on test {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]  {score.signature}")


def _register(tracker: MlflowTracker, registry: Registry, candidate: Candidate, sweep: Sweep, parent: str, console: Console, *,
              force: bool, dry_run: bool) -> None:
    """The next version, or the one that holds the same ids already; champion or challenger."""
    from mtselect import gates
    from mtselect.dataset_card import write_dataset
    from mtselect.tracking.registry import CHALLENGER, CHAMPION

    digest, metric = candidate.selection.digest, _metric(sweep)
    value = next(score.value for score in candidate.test if score.name == metric)
    champion = registry.champion()
    reigns = champion is not None and champion.digest == digest
    above = gates.above_champion(metric, value, candidate.test_digest, None if champion is None else champion.tags)
    alias = CHAMPION if reigns or above.passed or force else CHALLENGER
    console.print("it is the champion's own set" if reigns else above.detail, markup=False)
    if dry_run:
        would = f"it stays {alias}" if reigns else f"without --dry-run it would become {alias}"
        console.print(f"dry run: nothing was registered; {would} of {registry.name}")
        return
    known = next((version for version in registry.versions() if version.digest == digest), None)
    if known is None:
        tags = {"mtselect.study": sweep.study.name, "mtselect.selected": digest, "mtselect.test_digest": candidate.test_digest,
                **{f"mtselect.test.{score.name}": f"{score.value:.4f}" for score in candidate.test},
                **{f"mtselect.signature.test.{score.name}": score.signature for score in candidate.test},
                **_gate_tags(candidate.gates)}
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as aside:
            card = write_dataset(
                Path(folder), name=registry.name, alias=alias, study=sweep.study.name, metric=metric, run=candidate.run,
                experiment=candidate.experiment, selection=candidate.selection, n_seeds=candidate.n_seeds,
                scores={"dev": candidate.dev, "test": candidate.test}, comparisons=candidate.comparisons,
                gates=candidate.gates, picture=tracker.download(parent, "score_against_pairs.png", Path(aside)))
            version = registry.register(Path(folder), candidate.run.run_id, tags, card)
    else:
        version = known
    (registry.crown if alias == CHAMPION else registry.challenge)(version.number)
    console.print(f"[green]{registry.name}[/] version {version.number} is {alias}"
                  + ("" if known is None else " (the same set was registered before)"))
    console.print(f"look at it   {tracker.dataset_link(registry.name, version.number)}", soft_wrap=True)
    console.print(f"load it      mlflow.artifacts.download_artifacts('models:/{registry.name}@{alias}', dst_path='{alias}')",
                  soft_wrap=True)


def _export(registry: Registry, uri: str | None, folder: Path, console: Console) -> None:
    from mtselect.tracking.fetch import fetch_version

    champion = registry.champion()
    if champion is None:
        raise PromotionRefused(f"{registry.name} has no champion to export: promote the study first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--export must name a new or empty folder, got {str(folder)!r}")
    with tempfile.TemporaryDirectory() as aside:
        path, _ = fetch_version(registry.name, uri, Path(aside), number=champion.number)
        shutil.copytree(path, folder, dirs_exist_ok=True)
    console.print(f"{registry.name} version {champion.number} written to {folder}")
    console.print(f"open it      datasets.load_dataset('{folder}', split='train')", soft_wrap=True)


def _gate_tags(gates: Sequence[Gate]) -> dict[str, str]:
    return {f"mtselect.gate.{gate.name.replace(' ', '_')}": f"{'passed' if gate.passed else 'failed'}: {gate.detail}"[:500]
            for gate in gates}


def _read_study(tracker: MlflowTracker, name: str) -> tuple[Sweep, str, list[RecordedRun]]:
    parent = tracker.find_study()
    if parent is None:
        raise PromotionRefused(f"MLflow at {tracker.uri} has no study {name!r}: check the name, or set --tracking.uri")
    return _sweep_file(tracker, parent, "sweep.yaml"), parent.run_id, tracker.children(parent.run_id)


def _experiment(tracker: MlflowTracker, run: RecordedRun) -> Experiment:
    return _sweep_file(tracker, run, "experiment.yaml").experiment


def _sweep_file(tracker: MlflowTracker, run: RecordedRun, name: str) -> Sweep:
    """A run's artifact as a sweep file; checked like any other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(tracker.read_text(run.run_id, name), encoding="utf-8")
        return load(path, [])


def _log(tracker: MlflowTracker, candidate: Candidate) -> None:
    from mtselect.recording import scores_as_metrics

    metrics: dict[str, Any] = {name.replace("eval/", "test/"): value
                               for name, value in scores_as_metrics(candidate.test).items()}
    for name, result in candidate.comparisons.items():
        kind = candidate.rivals[name]
        metrics |= {f"test/p_value_against_{kind}": result.p_value, f"test/difference_to_{kind}": result.difference}
    signatures = {f"mtselect.signature.test.{score.name}": score.signature for score in candidate.test}
    tracker.log(candidate.run.run_id, metrics=metrics, tags=signatures)
    tracker.log_text(candidate.run.run_id, json.dumps([dataclasses.asdict(gate) for gate in candidate.gates], indent=1),
                     "gates.json")


def _metric(sweep: Sweep) -> Any:
    """The score that decides: the first objective that is one, else the first metric."""
    names = [name.removeprefix("eval/") for name in sweep.study.objectives if name.startswith("eval/")]
    return names[0] if names else sweep.experiment.evaluation.metrics[0]


if __name__ == "__main__":
    sys.exit(main())
