"""A study promoted: its candidate checked, reported and registered; a champion rolled back or exported."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mtselect import cli
from mtselect.config import StudyConfig, TrackingConfig
from mtselect.data.output import check_output, is_output_file, write_rows
from mtselect.errors import ConfigError, PromotionRefused
from mtselect.promotion import gates
from mtselect.promotion.candidate import OTHER_STEPS, Candidate, assess, read_study
from mtselect.promotion.card import write_dataset
from mtselect.promotion.gates import Gate
from mtselect.promotion.order import Order
from mtselect.promotion.push import NO_LICENCE, check_repository, push
from mtselect.recording import scores_as_metrics
from mtselect.remote import redact
from mtselect.store import read_lines
from mtselect.tracking.fetch import fetch_version
from mtselect.tracking.mlflow import MlflowTracker
from mtselect.tracking.recorded import RecordedRun
from mtselect.tracking.registry import CHALLENGER, CHAMPION, Registry
from mtselect.tracking.server import open_mlflow


def promote(order: Order, console: Console) -> None:
    """Check, score and register the best trial of a study, and push it if asked to; or roll back, export or push the champion.

    Raises:
        ConfigError: what is asked for does not go together, or cannot be written.
        PromotionRefused: there is no such study, trial or champion, or a gate did not pass.
        HubError: the Hugging Face hub is away, or refuses what is to be pushed.
    """
    if order.private and order.push is None:
        raise ConfigError("--private is for a repository that --push makes, got no --push: add it, or leave --private out")
    tracking = TrackingConfig(uri=order.uri, experiment=order.experiment)
    tracker = open_mlflow(tracking, StudyConfig(name=order.study).name, Path(order.workdir), create=False)
    registry = tracker.registry(f"mtselect.{order.study}")
    if order.rollback:
        old, new = registry.rollback()
        console.print(f"[green]{registry.name}[/]: version {new} is champion again, version {old} is not any more")
        return
    if order.export is not None:
        _export(registry, order.uri, order.export, console)
        return
    if order.push is not None:
        check_repository(order.push, private=order.private)
        if registry.versions():
            push(order, registry, console)
            return
    sweep, parent, runs = read_study(tracker, order.study)
    if order.push is not None and not (order.licence or sweep.experiment.data.licence):
        raise PromotionRefused(NO_LICENCE)
    bench = cli.make_bench(dataclasses.replace(sweep.runtime, workdir=order.workdir), console)

    def ask(run: RecordedRun, gates: list[Gate]) -> None:
        """Show gates, keep them on the trial's run, and stop at those that are not passed, whose reasons the refusal says."""
        for gate in gates:
            reason = f": {gate.detail}" if gate.passed or order.force else ""
            console.print(f"{'[green]passed[/]' if gate.passed else '[red]failed[/]'}  {gate.name}", end="")
            console.print(reason, markup=False, soft_wrap=True)
        if not order.dry_run:
            tracker.log(run.run_id, tags=_gate_tags(gates))
        if not order.force and (failed := [gate.detail for gate in gates if not gate.passed]):
            raise PromotionRefused(f"{run.name} is not promoted: {'; '.join(failed)}; --force promotes it all the same")

    with bench.progress.task("computed again", 1) as advance:
        candidate = assess(bench, tracker, sweep, runs, ask, licence=order.licence, from_scratch=order.from_scratch)
        advance(1)
    _print_comparisons(console, candidate, order.study)
    if not order.dry_run:
        _log(tracker, candidate)
    ask(candidate.run, candidate.gates[-1:])
    _register(order, tracker, registry, candidate, parent, console)
    if order.push is not None and not order.dry_run:
        push(order, registry, console)


def _print_comparisons(console: Console, candidate: Candidate, study: str) -> None:
    """Print test scores and comparisons."""
    table = Table(title=f"{study}: {candidate.run.name} on test, {len(candidate.selection.pairs):,} pairs")
    for heading in ("against", candidate.metric, f"its {candidate.metric}", "difference [95%]", "p"):
        table.add_column(heading, justify="left" if heading == "against" else "right")
    for name, result in candidate.comparisons.items():
        table.add_row(name, f"{result.system:.2f}", f"{result.baseline:.2f}",
                      f"{result.difference:+.2f} [{result.low:+.2f}, {result.high:+.2f}]", f"{result.p_value:.4f}")
    console.print(table)
    if others := [name for name in candidate.comparisons if candidate.rivals[name] in OTHER_STEPS]:
        console.print(f"no gate asks about {', '.join(others)}: not trained for as many steps as the set", soft_wrap=True)
    for score in candidate.test:
        console.print(f"{score.name} on test {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]  {score.signature}")


def _register(order: Order, tracker: MlflowTracker, registry: Registry, candidate: Candidate, parent: str, console: Console
              ) -> None:
    """The next version, or the one that holds the same ids already; champion or challenger."""
    digest, metric = candidate.selection.digest, candidate.metric
    value = next(score.value for score in candidate.test if score.name == metric)
    champion = registry.champion()
    reigns = champion is not None and champion.digest == digest
    above = gates.above_champion(metric, value, candidate.test_set.digest, None if champion is None else champion.tags)
    alias = CHAMPION if reigns or above.passed or order.force else CHALLENGER
    console.print("it is the champion's own set" if reigns else above.detail, markup=False)
    failed = [gate.name for gate in (*candidate.gates, *([] if reigns else [above])) if not gate.passed]
    forced = f", by force (not passed: {', '.join(failed)})" if order.force and failed else ""
    if order.dry_run:
        would = f"it stays {alias}" if reigns else f"without --dry-run it would become {alias}"
        console.print(f"dry run: nothing was registered; {would} of {registry.name}{forced}", soft_wrap=True)
        return
    known = next((version for version in registry.versions() if version.digest == digest), None)
    if known is None:
        tags = {"mtselect.study": order.study, "mtselect.selected": digest,
                "mtselect.test_digest": candidate.test_set.digest,
                **{f"mtselect.test.{score.name}": f"{score.value:.4f}" for score in candidate.test},
                **{f"mtselect.signature.test.{score.name}": score.signature for score in candidate.test},
                **_gate_tags(candidate.gates)}
        with tempfile.TemporaryDirectory() as folder:
            tracker.download(parent, "score_against_pairs.png", Path(folder)).rename(Path(folder) / "study.png")
            card = write_dataset(Path(folder), candidate, name=registry.name, alias=alias, study=order.study)
            version = registry.register(Path(folder), candidate.run.run_id, tags, card)
    else:
        version = known
    tracker.log_scores(candidate.run.run_id, version.model_id, scores_as_metrics(candidate.test, "test"),
                       candidate.test_set)
    (registry.crown if alias == CHAMPION else registry.challenge)(version.number)
    console.print(f"[green]{registry.name}[/] version {version.number} is {alias}"
                  + ("" if known is None else " (the same set was registered before)") + forced, soft_wrap=True)
    console.print(f"look at it   {tracker.dataset_link(registry.name, version.number)}", soft_wrap=True)
    where = f", uri={address!r}" if (address := _address(tracker.uri)) else ""
    console.print(f"load it      mtselect.load_set('{order.study}@{alias}'{where})", soft_wrap=True, markup=False)


def _address(uri: str) -> str | None:
    """What finds MLflow from other folders and shells too; null where their environment has it."""
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return None if uri == redact(os.environ.get("MLFLOW_TRACKING_URI", "")) else uri


def _export(registry: Registry, uri: str | None, folder: Path, console: Console) -> None:
    champion = registry.champion()
    if champion is None:
        raise PromotionRefused(f"{registry.name} has no champion to export: promote the study first")
    as_file = is_output_file(folder) and not folder.is_dir()
    if as_file:
        check_output("--export", folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--export must name a new or empty folder, got {str(folder)!r}")
    with tempfile.TemporaryDirectory() as aside:
        path, _ = fetch_version(f"models:/{registry.name}/{champion.number}", uri, Path(aside))
        if as_file:
            write_rows(folder, read_lines(path / "selected.jsonl"))
        else:
            shutil.copytree(path, folder, dirs_exist_ok=True)
    console.print(f"{registry.name} version {champion.number} written to {folder}")
    if not as_file:
        console.print(f"open it      datasets.load_dataset('{folder}', split='train')", soft_wrap=True)


def _gate_tags(gates: Sequence[Gate]) -> dict[str, str]:
    return {f"mtselect.gate.{gate.name.replace(' ', '_')}": f"{'passed' if gate.passed else 'failed'}: {gate.detail}"[:500]
            for gate in gates}


def _log(tracker: MlflowTracker, candidate: Candidate) -> None:
    metrics = scores_as_metrics(candidate.test, "test")
    for name, result in candidate.comparisons.items():
        kind = candidate.rivals[name]
        metrics |= {f"test/p_value_against_{kind}": result.p_value, f"test/difference_to_{kind}": result.difference}
    signatures = {f"mtselect.signature.test.{score.name}": score.signature for score in candidate.test}
    tracker.log(candidate.run.run_id, metrics=metrics, tags=signatures)
    tracker.log_inputs(candidate.run.run_id, [candidate.test_set])
    tracker.log_text(candidate.run.run_id, json.dumps([dataclasses.asdict(gate) for gate in candidate.gates], indent=1),
                     "gates.json")
