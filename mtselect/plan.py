"""What a sweep would do: which stages are there, how many trials are left, and roughly how long and how large it will be.

Minutes come from the manifests of the same stage under this workdir, where there are some; else from arithmetic (products per
token times tokens, at the speed of a matrix product measured now), which is good to a factor of two or three.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Column, Table

from mtselect.attribution.memory import Shapes, curvature_bytes, tracked_parameters
from mtselect.config import Experiment, ModelConfig, Range, RuntimeConfig, Sweep, budget_pairs, decided
from mtselect.data.rows import count_rows, read_rows
from mtselect.resolve import trial_experiment
from mtselect.stages.corpus import CORPUS, corpus_of
from mtselect.stages.drops import EPOCHS
from mtselect.stages.gradients import GRADIENTS
from mtselect.stages.lineage import Bench, Lineage, Stage, depends_on
from mtselect.stages.models import scored_model
from mtselect.stages.trial import selecting_stages, shared_stages
from mtselect.store import NotStored
from mtselect.training.language_model import Model, empty_model, n_parameters

_CHARACTERS = 4.0  # of a token
_USED = 0.35  # of the speed of a large product, that training a model reaches


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part of the work.

    Args:
        name: of the stage, or of what is done for each trial.
        count: how often it is left to do; 0 where it is in the store.
        rivals: how many of these are for the best trial's rivals, and for it again beside them.
        minutes: of one; null if nobody knows.
        gigabytes: it writes to disk.
        source: of the minutes: `measured here`, `arithmetic`, another step's, or empty.
        shared: by all trials; else each has its own.
    """

    name: str
    count: int
    minutes: float | None
    gigabytes: float
    source: str
    shared: bool
    rivals: int = 0


def cached_stages(bench: Bench, experiment: Experiment) -> set[Stage]:
    """The stages all trials share whose output is in the store; one that is not hides those after it."""
    looking = Lineage(bench.looking(), experiment)
    found: set[Stage] = set()
    for stage in shared_stages(experiment):
        try:
            looking.entry(stage)
        except NotStored:
            return found
        found.add(stage)
    return found


def make_plan(bench: Bench, sweep: Sweep, trials: int, baselines: int) -> list[Step]:
    """The steps in order, of a sweep with everything decided (`resolve.resolve`), for the trials and baselines that are not
    done; each baseline is finetuned with several seeds."""
    rivals = sweep.study.finetune_seeds * baselines
    left = trials + rivals
    experiment = trial_experiment(sweep.experiment, {})
    cached = cached_stages(bench, experiment)
    pairs, seeds, dev, tokens = _sizes(bench, experiment, CORPUS in cached)
    model, shapes = (scored_model(experiment) if GRADIENTS in shared_stages(experiment) else
                     (empty_model(experiment.model), {}))
    work = _products(sweep, model, shapes, pairs, seeds, dev, tokens)
    disk = {"tokens": 4.0 * tokens * pairs, **_bytes(experiment, model, shapes, pairs, seeds)}
    speed = _speed(experiment.model.dtype) * _USED
    stages = shared_stages(experiment)
    kinds = {stage.name: _kinds(stage, experiment, sweep.search) for stage in stages}
    searched = [name for name, many in kinds.items() if many > 1]
    counts = {stage.name: int(min(trials, kinds[stage.name])) if stage.name in searched else int(stage not in cached)
              for stage in stages}
    counts |= dict.fromkeys(("finetune", "evaluation"), left)
    steps = []
    for name, count in counts.items():
        measured = _measured(bench.store.root / name, experiment.model, pairs if name == "gradients" else None)
        minutes = measured if measured is not None else work[name] / speed / 60 if name in work else None
        kept = 0.0 if name == "finetune" and not bench.runtime.keep_models else disk.get(name, 0.0)
        steps.append(Step(name=name, count=count, minutes=minutes, gigabytes=kept * count / 1e9,
                          source="" if minutes is None else "measured here" if measured is not None else "arithmetic",
                          shared=name not in ("finetune", "evaluation", *searched),
                          rivals=rivals if name in ("finetune", "evaluation") else 0))
    return [*steps, *_whole_pool(sweep, steps, pairs)] if baselines else steps


def _kinds(stage: Stage, experiment: Experiment, search: Mapping[str, Range]) -> float:
    """How many different ones a search may ask for, by the fields that the stage and those before it read."""
    return math.prod(math.inf if space.choices is None else len(space.choices) for path, space in search.items()
                     if depends_on(stage, experiment, path))


def _whole_pool(sweep: Sweep, steps: Sequence[Step], pairs: int) -> list[Step]:
    """What the baselines that train on the whole pool, for its own epochs or for as long as the choosing took, take beyond as
    many steps as a trial has."""
    experiment, seeds = trial_experiment(sweep.experiment, {}), sweep.study.finetune_seeds
    trial = experiment.finetune.steps_for(largest_budget(sweep, pairs))
    more = replace(experiment.finetune, steps=None).steps_for(pairs) - trial
    known = {step.name: step.minutes for step in steps}
    one = known["finetune"]
    found: list[tuple[str, float | None, str]] = []
    if "pool-epochs" in sweep.study.baselines and more > 0 and one is not None and trial:
        found.append(("pool-epochs", one * more / trial, "finetune"))
    # The stage `selection` itself is each trial's own, and takes seconds.
    choosing = [known[stage.name] for stage in selecting_stages(experiment) if stage.name in known]
    if "pool-cost" in sweep.study.baselines and choosing:
        parts = [minutes for minutes in choosing if minutes is not None]
        found.append(("pool-cost", sum(parts) if parts else None,
                      "as long as the choosing" + (", what is known of it" if len(parts) < len(choosing) else "")))
    return [Step(name=name, count=seeds, minutes=minutes, gigabytes=0.0, source=source, shared=False, rivals=seeds)
            for name, minutes, source in found]


def largest_budget(sweep: Sweep, pairs: int) -> int:
    """The largest number of pairs that a trial may select."""
    wanted = sweep.search.get("selection.budget")
    budgets = [sweep.experiment.selection.budget] if wanted is None else [*(wanted.choices or []), wanted.high or 0]
    return max(budget_pairs(budget, pairs) for budget in budgets if budget)


def print_plan(steps: Sequence[Step], title: str, runtime: RuntimeConfig, console: Console) -> None:
    """The steps as a table, and the sums: each stage's seconds are its own, so none counts twice."""
    numbers = (Column(heading, justify="right") for heading in ("left", "minutes", "GB on disk"))
    table = Table("step", *numbers, "minutes from", title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for step in steps:
        if step.count:
            left = "to run" if step.shared else str(step.count)
            minutes = "?" if step.minutes is None else f"{step.minutes * step.count:.1f}"
            table.add_row(step.name, left, minutes, f"{step.gigabytes:.2f}", step.source)
        else:
            table.add_row(step.name, "in the store" if step.shared else "none", "", "", "")
    console.print(table)
    total = sum(step.minutes * step.count for step in steps if step.minutes is not None)
    rivals = sum(step.minutes * step.rivals for step in steps if step.minutes is not None)
    unknown = " and what is marked ?" if any(step.minutes is None and step.count for step in steps) else ""
    free = free_bytes(runtime) / 1e9
    console.print(f"{_minutes(total)}{unknown} with one worker; {sum(step.gigabytes for step in steps):.2f} GB of the "
                  f"{free:.0f} GB free in {runtime.workdir}")
    if any(step.rivals for step in steps):
        console.print(f"{_minutes(rivals)} of that for the baselines that study.baselines names, and the best trial again")
    console.print("next: the same command without --dry-run")


def _minutes(minutes: float) -> str:
    return "under a minute" if minutes < 1 else f"about {minutes:.{int(minutes < 10)}f} minutes"


def free_bytes(runtime: RuntimeConfig) -> int:
    """Of the disk that the workdir is on, or will be."""
    return shutil.disk_usage(nearest_folder(Path(runtime.workdir))).free


def nearest_folder(path: Path) -> Path:
    """A path that exists, or the first of its parents that does."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def _sizes(bench: Bench, experiment: Experiment, built: bool) -> tuple[int, int, int, float]:
    """Pool, seed and dev pairs, and tokens of a pair."""
    if built:
        corpus = corpus_of(Lineage(bench, experiment))
        pool, seeds, dev = len(corpus.pool), len(corpus.seeds), len(corpus.dev)
        lengths = [len(pair.src) + len(pair.tgt) for pair in corpus.pool[:1000]]
    else:
        pool, seeds, dev = (count_rows(experiment.data, role) for role in ("pool", "seeds", "dev"))
        lengths = [len(row.src) + len(row.tgt) for row in islice(read_rows(experiment.data, "pool"), 1000)
                   if row.reason is None]
    dev = dev if experiment.evaluation.dev_rows is None else min(dev, experiment.evaluation.dev_rows)
    prompt = len(experiment.model.prompt) - len("{src}")
    return pool, seeds, dev, (statistics.mean(lengths or [0]) + prompt) / _CHARACTERS + 2


def _products(sweep: Sweep, model: Model, shapes: Shapes, pairs: int, seeds: int, dev: int, tokens: float
              ) -> dict[str, float]:
    """Multiplications and additions of each step. A pass forward takes 2 a parameter and token, one back 4, or 2 where weights
    are frozen."""
    experiment, size = sweep.experiment, n_parameters(model)
    tracked = tracked_parameters(shapes)
    rotated = sum(n_out**2 + n_in**2 for n_out, n_in in shapes.values())
    warmed = min(experiment.warmup.rows or pairs, pairs)
    candidates = pairs - warmed if experiment.warmup.exclude and experiment.warmup.epochs else pairs
    fitted = min(experiment.attribution.curvature_rows or candidates, candidates)
    steps = experiment.finetune.steps_for(largest_budget(sweep, pairs))
    return {"warmup": 6.0 * size * tokens * warmed * experiment.warmup.epochs,
            "curvature": fitted * tokens * (4.0 * size + 4.0 * rotated + 2.0 * tracked),
            "gradients": candidates * (tokens * (4.0 * size + 2.0 * tracked) + 2.0 * tracked * seeds),
            "losses": 2 * candidates * tokens * 2.0 * size, "drops": candidates * tokens * 2.0 * size,
            "seeded": 6.0 * size * tokens * seeds * EPOCHS,
            "finetune": 6.0 * size * tokens * steps * experiment.finetune.batch_size,
            # Each new token is a pass of its own, whose small products run at a tenth of the speed.
            "evaluation": 2.0 * size * tokens * dev * (1 + 10 * experiment.evaluation.num_beams)}


def _bytes(experiment: Experiment, model: Model, shapes: Shapes, pairs: int, seeds: int) -> dict[str, float]:
    weights = 4.0 * n_parameters(model)
    width = len(shapes) * decided(experiment.attribution.sketch_rank) ** 2
    return {"base": weights if experiment.model.name is None else 0.0,
            "warmup": weights if experiment.warmup.epochs else 0.0,
            "curvature": curvature_bytes(shapes),
            "gradients": pairs * (2.0 * width + 4.0 * (1 + seeds + len(shapes))),
            "columns": 16.0 * pairs, "losses": 24.0 * pairs, "drops": 8.0 * pairs,
            "gate": 9.0 * pairs, "duplicates": 520.0 * pairs,  # 8 of them stay
            **dict.fromkeys(("seeded", "finetune"), weights * (0.02 if experiment.model.lora_rank else 1.0))}


def _measured(folder: Path, model: ModelConfig, pairs: int | None) -> float | None:
    """Median minutes of a stage's entries under this workdir, of the same model where the stage has one; for so many pairs, if
    its manifest says how many there were."""
    seconds = []
    for path in folder.glob("*/manifest.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):  # one that is damaged
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if "seconds" in manifest and manifest["section"].get("model", asdict(model)) == asdict(model):
                seconds.append(float(manifest["seconds"]) * (1 if pairs is None else pairs / manifest["n_rows"]))
    return statistics.median(seconds) / 60 if seconds else None


def _speed(dtype: str) -> float:
    """Multiplications and additions a second of a large matrix product, measured for a tenth of a second or so."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 768
    matrix = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (matrix @ matrix).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
