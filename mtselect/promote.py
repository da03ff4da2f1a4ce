"""python -m mtselect.promote STUDY

Takes a finished study's best trial, checks it again (same selected ids, same dev score), scores the test set once, compares
it with every random baseline of the same size by a paired bootstrap, and registers the selected set as the next version of
the dataset `mtselect.<study>` with the alias `champion`. It refuses, with the reason, when the trial does not beat random.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mtselect import cli
from mtselect.config import Experiment, Sweep, load
from mtselect.errors import PromotionRefused

if TYPE_CHECKING:
    from rich.console import Console

    from mtselect.evaluation.metrics import PairedResult
    from mtselect.pipeline import Bench, Evaluation, Selection
    from mtselect.tracking import RecordedRun, Tracker

ALIAS = "champion"
P_VALUE = 0.05
# A dev score computed again on the same machine is the same to the last digit; another processor rounds otherwise.
SAME_SCORE = 0.5

CARD = """\
# {name}

{forced}{pairs} {data.src_lang}-{data.tgt_lang} sentence pairs chosen by mtselect.

## Where from

- pool: `{data.pool}`, {candidates} candidates
- seeds: `{data.seeds}`
- dev: `{data.dev}`, test: `{data.test}`

## How chosen

Trial `{run.name}` (MLflow run `{run.run_id}`) of study `{study}`. A pair was kept if it benefits at least {threshold} of
the seeds by {curvature} influence ({passed} did); {pairs} were drawn evenly from {clusters} clusters of gradient sketches
(G-DIG, arXiv 2405.12915). `experiment.yaml` replays it: `python -m mtselect.select experiment.yaml --out selected.jsonl`.

## Scores of the model finetuned on it

| split | metric | score | 95% interval | signature |
|---|---|---|---|---|
{scores}

Against models finetuned on as many random pairs, on test (paired bootstrap, two-sided):

| baseline | its {metric} | difference (95%) | p |
|---|---|---|---|
{rivals}

## How to load

```python
import json, mlflow
folder = mlflow.artifacts.download_artifacts("models:/{name}@{alias}", dst_path="champion")
pairs = [json.loads(line) for line in open(f"{{folder}}/selected.jsonl", encoding="utf-8")]
```

Columns: `id` (hash of the pair), `src`, `tgt`, `benefit` (mean over the seeds, larger is better), `benefit_share`, `cluster`.
"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The best trial, computed again and scored on test, with its comparisons."""

    run: RecordedRun
    experiment: Experiment
    selection: Selection
    dev: Evaluation
    test: Evaluation
    comparisons: dict[str, PairedResult]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mtselect.promote", description=str(__doc__).split("\n\n")[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="quickstart", help="the study's name (default: quickstart)")
    parser.add_argument("--force", action="store_true", help="promote even if the trial does not beat random")
    parser.add_argument("--tracking.uri", dest="uri", help="MLflow server (default: MLflow's own)")
    parser.add_argument("--tracking.experiment", dest="experiment", help="MLflow experiment (default: the study's name)")
    parser.add_argument("--runtime.workdir", dest="workdir", default="mlruns", help="stage store (default: mlruns)")
    arguments = parser.parse_args(list(sys.argv[1:] if argv is None else argv))
    return cli.run(lambda console: promote(arguments, console), again="Nothing was promoted; run the same command again.")


def promote(arguments: argparse.Namespace, console: Console) -> str:
    """Check, score and register the best trial of a study; returns the version.

    Raises:
        PromotionRefused: there is no such study or trial, or a gate did not pass.
    """
    from mtselect.config import StudyConfig, TrackingConfig
    from mtselect.tracking import open_tracker

    tracking = TrackingConfig(uri=arguments.uri, experiment=arguments.experiment)
    tracker = open_tracker(tracking, StudyConfig(name=arguments.study).name, Path(arguments.workdir), create=False)
    sweep, runs = _read_study(tracker, arguments.study)
    bench = cli.make_bench(dataclasses.replace(sweep.runtime, workdir=arguments.workdir), console)
    candidate = check(bench, tracker, sweep, runs)
    report(console, candidate, sweep)
    _log(tracker, candidate)
    reasons = gates(candidate, _metric(sweep))
    if reasons and not arguments.force:
        raise PromotionRefused(f"{candidate.run.name} is not promoted: {'; '.join(reasons)}; --force promotes it all the same")
    name = f"mtselect.{arguments.study}"
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), candidate, sweep, reasons, name)
        version, made = tracker.register_dataset(name, candidate.run.run_id, Path(folder), digest=candidate.selection.digest,
                                                 alias=ALIAS, tags={"mtselect.study": arguments.study},
                                                 description=card(candidate, sweep, reasons, name))
    console.print(f"[green]{name}[/] version {version} is {ALIAS}" + ("" if made else " (the same set was registered before)"))
    console.print(f"look at it   {tracker.dataset_link(name, version)}")
    console.print(f"load it      mlflow.artifacts.download_artifacts('models:/{name}@{ALIAS}', dst_path='champion')")
    return version


def check(bench: Bench, tracker: Tracker, sweep: Sweep, runs: list[RecordedRun]) -> Candidate:
    """Compute the best trial's selection and dev scores afresh, then its and its rivals' test scores.

    Raises:
        PromotionRefused: nothing to promote, no random baseline of the same size, or the trial does not come out again.
    """
    from mtselect.evaluation.metrics import paired_bootstrap
    from mtselect.pipeline import evaluate, select_pairs, split_pairs
    from mtselect.store import derive_seed

    best, rivals = choose(runs, sweep)
    experiment = _experiment(tracker, best)
    selection, dev = _again(bench, experiment, best)
    test = evaluate(bench, experiment, selection, "test")
    references = [pair.tgt for pair in split_pairs(bench, experiment, "test")]
    comparisons = {}
    for rival in rivals:
        other = _experiment(tracker, rival)
        hypotheses = evaluate(bench, other, select_pairs(bench, other), "test").hypotheses
        comparisons[rival.name] = paired_bootstrap(
            _metric(sweep), test.hypotheses, hypotheses, references, bootstrap=experiment.evaluation.bootstrap,
            seed=derive_seed(experiment.seed, "paired bootstrap"), tgt_lang=experiment.data.tgt_lang)
    return Candidate(run=best, experiment=experiment, selection=selection, dev=dev, test=test, comparisons=comparisons)


def choose(runs: list[RecordedRun], sweep: Sweep) -> tuple[RecordedRun, list[RecordedRun]]:
    """The best trial by the study's score on dev, and the random baselines with as many pairs."""
    metric = f"eval/{_metric(sweep)}"
    trials = [run for run in runs if run.tags["mtselect.kind"] == "trial" and run.metrics.get("select/pairs")]
    if not trials:
        raise PromotionRefused(f"study {sweep.study.name!r} has no finished trial that selected a pair: run the sweep first")
    best = max(trials, key=lambda run: (run.metrics[metric], -int(run.tags["mtselect.trial"])))  # Optuna's, if two are equal
    rivals = {run.name: run for run in runs if run.params.get("method") == "random"
              and run.metrics["select/pairs"] == best.metrics["select/pairs"]}
    if not rivals:
        raise PromotionRefused(f"no random baseline has {best.metrics['select/pairs']:.0f} pairs like {best.name}: let the "
                               "sweep run to its end, with `random` in study.baselines")
    return best, list(rivals.values())


def gates(candidate: Candidate, metric: str) -> list[str]:
    """Why the candidate should not be promoted; empty if it should."""
    return [f"{metric} on test is not significantly above {name} ({result.system:.2f} against {result.baseline:.2f}, "
            f"p = {result.p_value:.3f}, needed p < {P_VALUE})"
            for name, result in candidate.comparisons.items() if result.difference <= 0 or result.p_value >= P_VALUE]


def report(console: Console, candidate: Candidate, sweep: Sweep) -> None:
    """Print test scores and comparisons."""
    from rich.table import Table

    metric = _metric(sweep)
    table = Table(title=f"{sweep.study.name}: {candidate.run.name} on test, {len(candidate.selection.pairs):,} pairs")
    for heading in ("against", f"{metric}", f"its {metric}", "difference [95%]", "p (paired bootstrap)"):
        table.add_column(heading, justify="left" if heading == "against" else "right")
    for name, result in candidate.comparisons.items():
        table.add_row(name, f"{result.system:.2f}", f"{result.baseline:.2f}",
                      f"{result.difference:+.2f} [{result.low:+.2f}, {result.high:+.2f}]", f"{result.p_value:.4f}")
    console.print(table)
    for score in candidate.test.scores:
        console.print(f"{score.name} on test {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]  {score.signature}")


def write_dataset(folder: Path, candidate: Candidate, sweep: Sweep, reasons: list[str], name: str) -> None:
    """selected.jsonl, experiment.yaml, scores.json and the dataset card README.md."""
    from mtselect.config import to_yaml
    from mtselect.tracking import jsonl

    (folder / "selected.jsonl").write_text(jsonl(candidate.selection.pairs), encoding="utf-8")
    (folder / "experiment.yaml").write_text(to_yaml(candidate.experiment, "experiment"), encoding="utf-8")
    scores = {"dev": [dataclasses.asdict(score) for score in candidate.dev.scores],
              "test": [dataclasses.asdict(score) for score in candidate.test.scores],
              "against_random": {rival: dataclasses.asdict(result) for rival, result in candidate.comparisons.items()}}
    (folder / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    header = yaml.safe_dump({"pretty_name": name, "task_categories": ["translation"], "tags": ["mtselect"],
                             "configs": [{"config_name": "default", "data_files": "selected.jsonl"}]}, sort_keys=False)
    readme = f"---\n{header}---\n\n{card(candidate, sweep, reasons, name)}"
    (folder / "README.md").write_text(readme, encoding="utf-8")


def card(candidate: Candidate, sweep: Sweep, reasons: list[str], name: str) -> str:
    """The dataset card in Markdown; in the file a header in the Hugging Face form comes before it."""
    data, chosen = candidate.experiment.data, candidate.experiment.selection
    scores = [f"| {split} | {score.name} | {score.value:.2f} | {score.low:.2f} to {score.high:.2f} | `{score.signature}` |"
              for split, evaluation in (("dev", candidate.dev), ("test", candidate.test)) for score in evaluation.scores]
    rivals = [f"| {rival} | {result.baseline:.2f} | {result.difference:+.2f} ({result.low:+.2f} to {result.high:+.2f}) | "
              f"{result.p_value:.4f} |" for rival, result in candidate.comparisons.items()]
    return CARD.format(
        name=name, alias=ALIAS, pairs=f"{len(candidate.selection.pairs):,}", data=data,
        forced="".join(f"> Promoted by force although {reason}.\n\n" for reason in reasons),
        candidates=f"{candidate.selection.n_candidates:,}", passed=f"{candidate.selection.n_passed:,}",
        run=candidate.run, study=sweep.study.name, threshold=f"{chosen.threshold:.1%}", clusters=chosen.n_clusters,
        curvature=candidate.experiment.attribution.curvature, metric=_metric(sweep),
        scores="\n".join(scores), rivals="\n".join(rivals))


def _read_study(tracker: Tracker, name: str) -> tuple[Sweep, list[RecordedRun]]:
    parent = tracker.find_study()
    if parent is None:
        raise PromotionRefused(f"MLflow at {tracker.uri} has no study {name!r}: check the name, or set --tracking.uri")
    return _sweep_file(tracker, parent, "sweep.yaml"), tracker.children(parent.run_id)


def _experiment(tracker: Tracker, run: RecordedRun) -> Experiment:
    return _sweep_file(tracker, run, "experiment.yaml").experiment


def _sweep_file(tracker: Tracker, run: RecordedRun, name: str) -> Sweep:
    """A run's artifact as a sweep file; checked like any other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(tracker.read_text(run.run_id, name), encoding="utf-8")
        return load(path, [])


def _again(bench: Bench, experiment: Experiment, run: RecordedRun) -> tuple[Selection, Evaluation]:
    """Selection and dev scores computed anew, not read from the store; they must be what was recorded."""
    from mtselect.pipeline import evaluate, forget, select_pairs

    forget(bench, experiment)
    selection = select_pairs(bench, experiment)
    if selection.digest != run.tags["mtselect.selected"]:
        raise PromotionRefused(f"{run.name} selects other pairs when computed again: its data or machine changed; "
                               "run the sweep again under another study.name")
    dev = evaluate(bench, experiment, selection, "dev")
    for score in dev.scores:
        recorded = run.metrics[f"eval/{score.name}"]
        if abs(score.value - recorded) > SAME_SCORE:
            raise PromotionRefused(f"{run.name} scores {score.name} {score.value:.2f} on dev when computed again, recorded was "
                                   f"{recorded:.2f}: results are not reproducible here; run the sweep again")
    return selection, dev


def _log(tracker: Tracker, candidate: Candidate) -> None:
    from mtselect.tracking import scores_as_metrics

    metrics: dict[str, Any] = {name.replace("eval/", "test/"): value
                               for name, value in scores_as_metrics(candidate.test.scores).items()}
    worst = max(candidate.comparisons.values(), key=lambda result: result.p_value)
    metrics |= {"test/p_value_against_random": worst.p_value, "test/difference_to_random": worst.difference}
    tracker.log(candidate.run.run_id, metrics=metrics)


def _metric(sweep: Sweep) -> Any:
    """The score that decides: the first objective that is one, else the first metric."""
    names = [name.removeprefix("eval/") for name in sweep.study.objectives if name.startswith("eval/")]
    return names[0] if names else sweep.experiment.evaluation.metrics[0]


if __name__ == "__main__":
    sys.exit(main())
