"""What can be known before any work, looked at before any work: a table of what was found and chosen, and all that is wrong.

Nothing is computed and nothing written. A look that fails is a line among the faults, and the others go on without it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mtselect.attribution.memory import fitting_bytes, layer_groups, seed_bytes, seed_pass_bytes, tracked_parameters
from mtselect.config import OPTIONS, Sweep, cross_faults, with_fields
from mtselect.data.corpus import ROLES
from mtselect.data.prompts import encode_prompts
from mtselect.data.rows import count_rows, read_rows
from mtselect.errors import ConfigError, DataError, StorageError, UserError
from mtselect.executors.choose import look_at_executor
from mtselect.findings import Preflight
from mtselect.metrics._comet.client import CometScorer
from mtselect.plan import cached_stages, free_bytes, largest_budget, make_plan, nearest_folder
from mtselect.resolve import (
    adopt,
    choose_seed_rank,
    decide,
    pin_search,
    selectors_of,
    trial_experiment,
    wants_benefits,
    wants_encoder,
)
from mtselect.search.question import Question, directions, refuse_other
from mtselect.search.storage import begun_study
from mtselect.selection.duplicates import require_minhash
from mtselect.selection.gate import MIN_SEEDS, USUAL_SEEDS
from mtselect.selectors.base import SELECTORS, read_options
from mtselect.stages.curvature import CURVATURE
from mtselect.stages.drops import SEEDED
from mtselect.stages.evaluation import scoring
from mtselect.stages.gradients import GRADIENTS
from mtselect.stages.lineage import Bench, Stage
from mtselect.stages.models import Scored, scored_model
from mtselect.stages.trial import shared_stages
from mtselect.tracking.choose import look_at_tracker
from mtselect.training.device import (
    USED_MEMORY,
    compute_device,
    device_memory,
    device_name,
    require_shared_memory,
    statistics_dtype,
)
from mtselect.training.language_model import decoder_start, load_tokenizer, n_parameters, weight_bytes
from mtselect.training.sentence_encoder import MANY, pinned_encoder, strange_to

_LOOKED_AT = 1000  # rows of each source
_TRAINED_BYTES = 16  # a parameter: float32 weight, gradient and AdamW's two moments


def preflight(bench: Bench, sweep: Sweep, alone: bool = False) -> Preflight:
    """Look at everything; where a set `alone` is wanted, at what selecting it needs."""
    if alone:
        sweep = dataclasses.replace(sweep, study=dataclasses.replace(sweep.study, baselines=[]))
    found = Preflight(sweep, alone=alone)
    found.faults += cross_faults(sweep)
    with found.part():
        _look_at_workdir(Path(sweep.runtime.workdir))
        found.study = begun_study(sweep)
    begun = None if found.study is None else found.study.user_attrs.get("sweep")
    with found.part():
        if begun is not None:
            found.sweep = adopt(sweep, begun)
        found.sweep = dataclasses.replace(found.sweep, search=pin_search(found.sweep.search))
    _look_at_encoder(found)
    _look_at_kiwi(found)
    if found.sweep.experiment.selection.near_duplicates is not None or "selection.near_duplicates" in found.sweep.search:
        with found.part():
            require_minhash()
    _look_at_data(found)
    model = _look_at_model(found)
    _look_at_rows(found)
    if model is not None:
        _look_at_memory(found, bench, sweep.experiment.attribution.seed_rank, model)
    if not alone:
        _look_at_study(found, begun)
        _look_at_trials(found, bench)
    if not found.faults:
        _look_at_disk(found, bench)
    return found


def _look_at_trials(found: Preflight, bench: Bench) -> None:
    """Who records, works and scores."""
    sweep = found.sweep
    with found.part():
        kept = "MLflow" if sweep.tracking.kind == "mlflow" else "tracking"
        found.facts[kept] = look_at_tracker(sweep.tracking, Path(sweep.runtime.workdir))
    with found.part():
        if said := look_at_executor(sweep.runtime):
            found.facts["work"] = said
    for name in sweep.experiment.evaluation.metrics:
        with found.part():
            metric = bench.metrics[name]
            if said := metric.look(scoring(sweep.experiment, bench.progress)):
                found.facts[metric.title] = said


def _look_at_encoder(found: Preflight) -> None:
    """Where a trial or a rival asks for one: whether its package is there, and its commit on the hub."""
    sweep = found.sweep
    gates = sweep.search["selection.gate"].choices or [] if "selection.gate" in sweep.search else []
    if not wants_encoder([sweep.experiment.selection.gate, *gates], selectors_of(sweep)):
        return
    with found.part():
        encoder = pinned_encoder(sweep.experiment.adequacy.encoder)
        found.sweep = dataclasses.replace(sweep, experiment=with_fields(sweep.experiment, {"adequacy.encoder": encoder}))
        data = sweep.experiment.data
        strange = " and ".join(strange_to(encoder, (data.src_lang, data.tgt_lang)))
        found.facts["encoder"] = f"{encoder}, which compares sources with targets" + (
            strange and f"; it was not trained on {strange}: set adequacy.encoder to one that was ({MANY})")


def _look_at_kiwi(found: Preflight) -> None:
    """Where a trial or a rival asks for it: whether COMET is installed, and a model that is a path is there."""
    if any("kiwi" in SELECTORS.load(name).needs for name in selectors_of(found.sweep)):
        with found.part():
            found.facts["CometKiwi"] = CometScorer().look(found.sweep.experiment.adequacy.kiwi)


def _look_at_workdir(path: Path) -> None:
    there = nearest_folder(path)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise StorageError(f"runtime.workdir {str(path)!r} cannot be written ({there} is no folder that may be written to): "
                           "free space, or set runtime.workdir to another folder")


def _look_at_study(found: Preflight, begun: Question | None) -> None:
    sweep = found.sweep
    with found.part():
        done, _ = found.finished()
        where = "a journal file" if sweep.study.storage is None else "its database"
        decides = " and ".join(f"{name} ({direction})" for name, direction
                               in zip(sweep.study.objectives, directions(sweep), strict=True))
        found.facts["study"] = (f"{sweep.study.name}, in {where}: {done} of {sweep.study.n_trials} trials done; "
                                f"{decides} decides")
        if begun is not None:
            refuse_other(sweep, begun)


def _look_at_data(found: Preflight) -> None:
    data = found.sweep.experiment.data
    for role in reversed(ROLES):
        if found.alone and getattr(data, role) is None:
            continue
        with found.part():
            if getattr(data, role) is None:
                raise ConfigError(f"data.{role} must be a source where there is a sweep, got None: name the pairs that "
                                  f"{'decide between trials' if role == 'dev' else 'promotion scores'}")
            rows = list(islice(read_rows(data, role), _LOOKED_AT))
            if len(rows) < _LOOKED_AT and all(row.reason is not None for row in rows):
                raise DataError(f"data.{role} ({getattr(data, role)}) must hold at least one usable pair, got none in "
                                f"{len(rows)} rows: give a source with more rows")
            found.facts[role] = f"{(n_rows := count_rows(data, role)):,} rows in {getattr(data, role)}"
            if role == "seeds" and n_rows < USUAL_SEEDS:
                found.facts["advice"] = (f"{USUAL_SEEDS} seeds or more are usual; 128 instead of 64 raised the AUC of the rank "
                                         "from 0.79 to 0.85 (docs/seeds.md): add trusted pairs if you have them")
    if not found.alone:
        found.facts["licence"] = data.licence or "not set; promotion asks for it (data.licence)"


def _look_at_model(found: Preflight) -> Scored | None:
    """The model without weights and the shapes of its tracked layers; and decide what is still open."""
    runtime = found.sweep.runtime
    model = None
    with found.part():
        experiment = decide(found.sweep.experiment, runtime, found.sweep.search)
        found.sweep = dataclasses.replace(found.sweep, experiment=experiment)
        device = device_name(compute_device(runtime.accelerator))
        if any(map(wants_benefits, selectors_of(found.sweep))):
            model = scored_model(experiment)
            network, shapes = model
            found.facts["model"] = (f"{experiment.model.name or 'a small Llama, to be built'}: "
                                    f"{_millions(n_parameters(network))} parameters, {experiment.model.dtype} on {device}")
            found.facts["layers"] = f"{len(shapes)} tracked, {_millions(tracked_parameters(shapes))} parameters"
        if experiment.model.name is not None:  # its tokenizer, and whether it knows the languages
            name = experiment.model.name
            encode_prompts(["a"], load_tokenizer(name), experiment.data, experiment.model, decoder_start(name))
    return model


def _look_at_rows(found: Preflight) -> None:
    """Warm-up, budgets and clusters against the pool's rows."""
    experiment = found.sweep.experiment
    warmup = experiment.warmup
    try:
        pool = candidates = count_rows(experiment.data, "pool")
    except UserError:
        return  # a fault already
    if warmup.epochs and warmup.rows is not None:
        found.facts["warm-up"] = f"{min(warmup.rows, candidates):,} rows, {warmup.epochs} epochs"
        if warmup.exclude:
            if warmup.rows >= candidates:
                found.faults.append(f"warmup.exclude leaves no candidate: warmup.rows ({warmup.rows}) must be below the "
                                    f"{candidates} rows of data.pool: lower it")
                return
            candidates -= warmup.rows
            found.facts["warm-up"] += f"; {candidates:,} candidates are left"
    with found.part():
        if (faults := list(_few_seeds(found.sweep))) and count_rows(experiment.data, "seeds") < MIN_SEEDS:
            found.faults += faults
    if "selection.budget" in found.sweep.search and experiment.finetune.steps is None:
        found.facts["equal work"] = ("no: larger sets train longer, since finetune.steps is null; the best trial's rivals are "
                                     "given its steps")
    selector = SELECTORS.load(experiment.selection.method)
    with found.part():
        read_options(selector, experiment.selection)
    for path, space in found.sweep.search.items():
        if path.startswith(OPTIONS):
            asked = {path.removeprefix(OPTIONS): space.choices[0] if space.choices else space.low}
            for name in found.sweep.choices("selection.method"):
                with found.part():
                    read_options(SELECTORS.load(name), dataclasses.replace(experiment.selection, method=name, options=asked))
    if selector.sized:
        with found.part():
            budget = largest_budget(found.sweep, pool)
            found.facts["budget"] = f"up to {budget:,} of {candidates:,} candidates" + (
                "" if budget <= candidates else ": more than there are, all that pass the threshold are taken")


def _few_seeds(sweep: Sweep) -> Iterator[str]:
    """A fault for each gate that a trial, or a rival of it, may have and that learns from seeds, of which there are too few."""
    gates = sweep.choices("selection.gate")
    for gate in gates:
        if gate in ("learned", "learned_adequacy"):
            yield (f"selection.gate: {gate} needs at least {MIN_SEEDS} seeds, data.seeds has fewer: add trusted pairs, or set "
                   "selection.gate to seed_loss or null")
    if None in gates and "filter-random" in sweep.study.baselines:
        yield (f"study.baselines: filter-random is behind the gate learned where selection.gate is null, which needs at least "
               f"{MIN_SEEDS} seeds, data.seeds has fewer: add trusted pairs, set selection.gate to seed_loss, or leave it out")


def _look_at_memory(found: Preflight, bench: Bench, asked: object, scored: Scored) -> None:
    """Whether training, curvature and seeds fit the device, unless they are in the store; and the rank at which seeds do, where
    `auto` was asked for."""
    runtime, (network, shapes) = found.sweep.runtime, scored
    if found.sweep.experiment.attribution.seed_rank == "auto":
        with found.part():
            decided = choose_seed_rank(found.sweep.experiment, runtime, scored, selectors_of(found.sweep))
            found.sweep = dataclasses.replace(found.sweep, experiment=decided)
    experiment = trial_experiment(found.sweep.experiment, {})
    cached: set[Stage] = set()
    with found.part():
        cached = cached_stages(bench, experiment)
    device = compute_device(runtime.accelerator)
    memory, weights = device_memory(device).at_most(runtime.memory_gb), weight_bytes(experiment.model, network)

    def require(what: str, needed: int, advice: str) -> None:
        room = int(USED_MEMORY * memory.total)
        if needed > room:
            found.faults.append(f"{what} takes {_gb(needed)} of the {_gb(room)} that {device_name(device)} has for it: "
                                f"{advice}")
        elif needed > memory.free:
            found.faults.append(f"{what} takes {_gb(needed)}, of {device_name(device)} {_gb(memory.free)} are free now: stop "
                                f"what else uses it, or {advice}")

    full, size = not experiment.model.lora_rank, n_parameters(network)
    sharded = runtime.strategy == "fsdp" and device.type == "cuda"
    shards = runtime.devices_per_trial if sharded else 1  # processes on a CPU have one memory
    whose = "" if shards == 1 else f" on {shards} devices, on each,"
    if full and found.left() != (0, 0):
        require(f"finetuning all {_millions(size)} parameters{whose}", _TRAINED_BYTES * size // shards,
                "set model.lora_rank (16), or choose a smaller model")
    elif full and SEEDED in {*shared_stages(experiment)} - cached:
        require(f"training all {_millions(size)} parameters on the seeds{whose}", _TRAINED_BYTES * size // shards,
                "set model.lora_rank (16), choose a smaller model, or do not train on them (selection.rank: z)")
    if runtime.devices_per_trial > 1:
        with found.part():
            require_shared_memory(4 * size if full else weights)
    curved = experiment.attribution.curvature != "identity"
    if curved:
        groups = layer_groups(shapes, int(USED_MEMORY * min(memory.total, memory.free)) - weights)
        needed = weights + max(fitting_bytes({name: shapes[name] for name in group}) for group in groups)
        parts = "" if len(groups) == 1 else f" in {len(groups)} groups of layers"
        found.facts["curvature"] = (f"{experiment.attribution.curvature}{parts}, {_gb(needed)} with the model, of "
                                    f"{_gb(memory.total)}, in {experiment.attribution.statistics}")
        if CURVATURE not in cached:
            smallest = min(shapes, key=lambda name: sum(side**2 for side in shapes[name])).rpartition(".")[2]
            require(f"the curvature of {len(shapes)} layers, one at a time, with the model,", needed, "track fewer "
                    f"attribution.layers, such as {smallest}, or set attribution.curvature to identity")
    rank = experiment.attribution.seed_rank
    if rank == "auto":
        return  # a fault already
    with found.part():
        n_seeds, statistics = count_rows(experiment.data, "seeds"), statistics_dtype(experiment.attribution)
        needed = weights + seed_pass_bytes(n_seeds, shapes, rank, runtime.batch_size, curved=curved, statistics=statistics)
        kept = "dense" if rank is None else f"at rank {rank}"
        why = "" if asked != "auto" or rank is None else f" ({_gb(seed_bytes(n_seeds, shapes, None, statistics))} dense)"
        found.facts["seeds kept"] = f"{kept}{why}, {_gb(needed)} with all beside them, of {_gb(memory.total)}"
        if GRADIENTS not in cached:
            rather = 16 if asked == "auto" else "auto"
            require(f"the pass with the gradients of {n_seeds} seeds at {len(shapes)} layers, with what is there beside them,",
                    needed, f"set attribution.seed_rank to {rather}, or track fewer attribution.layers")


def _look_at_disk(found: Preflight, bench: Bench) -> None:
    sweep = found.sweep
    if found.alone:  # it has the file's own settings
        sweep = dataclasses.replace(sweep, search={})
    with found.part():
        found.steps = make_plan(bench, sweep, *found.left())
        needed, free = int(1e9 * sum(step.gigabytes for step in found.steps)), free_bytes(sweep.runtime)
        found.facts["disk"] = f"{_gb(needed)} to write, of {_gb(free)} free in {sweep.runtime.workdir}"
        if needed > free:
            raise StorageError(f"runtime.workdir {sweep.runtime.workdir!r} has {_gb(free)} free, what is left to do writes "
                               f"{_gb(needed)}: set runtime.keep_models to false, or runtime.workdir to another disk")


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size < 10e9 else f"{size / 1e9:,.0f} GB"
