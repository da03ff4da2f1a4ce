"""What a sweep file leaves open (`auto`, names on the hub), decided for this machine before any work: results depend on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mtselect.attribution.memory import PLANNED_BATCH, fitting_rank, seed_pass_bytes
from mtselect.config import Experiment, Range, RuntimeConfig, Sweep, most_clusters, with_fields
from mtselect.data.corpus import ROLES
from mtselect.data.rows import count_rows
from mtselect.errors import ConfigError
from mtselect.plugins import part_names
from mtselect.readers.base import pinned_source
from mtselect.search.question import Question, begun_experiment
from mtselect.selection.duplicates import require_minhash
from mtselect.selectors.base import SELECTORS
from mtselect.stages.models import Scored, scored_model
from mtselect.training.device import USED_MEMORY, compute_device, device_dtype, device_memory, device_name, statistics_dtype
from mtselect.training.language_model import compute_dtype, pinned, weight_bytes
from mtselect.training.sentence_encoder import pinned_encoder

_NAMES = {"model.name", "adequacy.encoder", *(f"data.{role}" for role in ROLES)}  # that may be names on the hub
_DECIDED = ("attribution.seed_rank", "attribution.sketch_rank", "attribution.statistics", "model.dtype")  # for `auto`
_SKETCH_RANK = 8  # where clusters are asked for


def resolve(experiment: Experiment, runtime: RuntimeConfig, search: dict[str, Range] | None = None) -> Experiment:
    """The experiment with everything decided: hub names as commits, `model.dtype`, `attribution.statistics`,
    `attribution.seed_rank` and `attribution.sketch_rank` for `auto`.

    Args:
        experiment: as asked for.
        runtime: its accelerator counts.
        search: of the sweep it belongs to: clusters that are searched want sketches.

    Raises:
        ConfigError, ModelError, DataError: what is wrong with the model, its layers or the seeds, if they have to be looked at.
    """
    if "selection.method" not in (search or {}):  # else each trial has what its own selector fixes
        experiment = trial_experiment(experiment, {})
    if wants_encoder([experiment.selection.gate], [experiment.selection.method]):
        experiment = with_fields(experiment, {"adequacy.encoder": pinned_encoder(experiment.adequacy.encoder)})
    if experiment.selection.near_duplicates is not None:
        require_minhash()
    found = decide(experiment, runtime, search or {})
    if found.attribution.seed_rank != "auto":
        return found
    return choose_seed_rank(found, runtime)


def wants_encoder(gates: Iterable[object], methods: Iterable[str]) -> bool:
    """Whether one of these gates or selectors compares pairs by their meaning."""
    return not {"adequacy", "learned_adequacy"}.isdisjoint(gates) or any("adequacy" in SELECTORS.load(name).needs
                                                                         for name in methods)


def adopt(sweep: Sweep, begun: Question) -> Sweep:
    """The sweep with what is open decided as the study did that it continues: on a machine with another memory or processor
    perhaps, or at an earlier commit on the hub.

    Args:
        sweep: as asked for.
        begun: the question of the study (`question.question`).
    """
    return replace(sweep, experiment=_adopt_experiment(sweep.experiment, begun_experiment(begun)),
                   search=adopt_search(sweep.search, begun["search"]))


def _adopt_experiment(experiment: Experiment, begun: Question) -> Experiment:
    values: dict[str, object] = {}
    for path in _DECIDED:
        section, name = path.split(".")
        flat = path == "attribution.seed_rank" and experiment.attribution.curvature == "identity"  # no rank to cut seeds at
        if getattr(getattr(experiment, section), name) == "auto" and not flat:
            values[path] = begun[section][name]
    for path in _NAMES:
        section, name = path.split(".")
        values[path] = _adopted(getattr(getattr(experiment, section), name), begun.get(section, {}).get(name))
    return with_fields(experiment, values)


def adopt_search(search: dict[str, Range], begun: Question) -> dict[str, Range]:
    """The search with its hub names as the study's has them."""
    found = dict(search)
    for path in _NAMES & search.keys() & begun.keys():
        asked, then = search[path].choices or [], begun[path]["choices"] or []
        if len(asked) == len(then):
            found[path] = Range(choices=[_adopted(*pair) for pair in zip(asked, then, strict=True)])
    return found


def pin_search(search: dict[str, Range]) -> dict[str, Range]:
    """The search with hub names among its choices pinned to commits."""
    pin_by_section = {"model": pinned, "data": pinned_source, "adequacy": pinned_encoder}
    return {path: Range(choices=[name and pin_by_section[path.split(".")[0]](name) for name in space.choices])
            if path in _NAMES and space.choices else space for path, space in search.items()}


def trial_experiment(experiment: Experiment, values: dict[str, object]) -> Experiment:
    """A trial's: the study's with the values that were searched, and what its selector fixes. Without a curvature there is no
    rank to cut seeds at."""
    values = {**values, **SELECTORS.load(str(values.get("selection.method", experiment.selection.method))).fixes}
    if values.get("attribution.curvature") == "identity":
        values = {"attribution.seed_rank": None, **values}
    return with_fields(experiment, values)


def _adopted(asked: str | None, then: str | None) -> str | None:
    return then if asked and then and re.sub("@[0-9a-f]{40}", "", then) == asked else asked


def decide(experiment: Experiment, runtime: RuntimeConfig, search: dict[str, Range]) -> Experiment:
    """The hub names of sources and model, `model.dtype`, `attribution.statistics` and `sketch_rank`, for which the model is not
    looked at. There is no sketch where nothing asks for one."""
    sources = {role: getattr(experiment.data, role) for role in ROLES}
    values: dict[str, object] = {f"data.{role}": source and pinned_source(source) for role, source in sources.items()}
    device = compute_device(runtime.accelerator)
    values["model.dtype"] = compute_dtype(experiment.model, device)
    if experiment.attribution.statistics == "auto":
        values["attribution.statistics"] = device_dtype(device)
    if experiment.attribution.sketch_rank == "auto":
        values["attribution.sketch_rank"] = _SKETCH_RANK if most_clusters(experiment, search) > 1 else 0
    if experiment.model.name is not None:
        values["model.name"] = pinned(experiment.model.name)
    return with_fields(experiment, values)


def selectors_of(sweep: Sweep) -> list[str]:
    """Names of the selectors that a sweep may run: its own or those that are searched, and those among its rivals."""
    named = {*sweep.choices("selection.method"), *sweep.study.baselines}
    return [name for name in part_names("mtselect.selectors") if name in named]


def wants_benefits(name: str) -> bool:
    """Whether a selector asks for a gradient pass."""
    return bool(SELECTORS.load(name).needs & {"benefits", "benefit_matrix", "sketches"})


def choose_seed_rank(experiment: Experiment, runtime: RuntimeConfig, scored: Scored | None = None,
                     selectors: Sequence[str] = ()) -> Experiment:
    """The experiment with what `attribution.seed_rank: auto` stands for on this machine.

    Args:
        experiment: with `auto`.
        runtime: its accelerator counts.
        scored: what `scored_model` gives, if that was asked for before.
        selectors: that may run with it; the experiment's own if none is named.

    Raises:
        ConfigError: not even one direction of each seed fits.
    """
    own = experiment.attribution.curvature
    if not any(wants_benefits(name) and SELECTORS.load(name).fixes.get("attribution.curvature", own) != "identity"
               for name in selectors or [experiment.selection.method]):
        rank = None  # there is no eigenbasis to cut in, or no seed is asked for
    else:
        model, shapes = scored or scored_model(experiment)
        device = compute_device(runtime.accelerator)
        room = int(USED_MEMORY * device_memory(device).at_most(runtime.memory_gb).total) - weight_bytes(experiment.model, model)
        n_seeds = count_rows(experiment.data, "seeds")
        statistics = statistics_dtype(experiment.attribution)
        rank = fitting_rank(n_seeds, shapes, room, statistics)
        if rank == 0:
            least = seed_pass_bytes(n_seeds, shapes, 1, PLANNED_BATCH, curved=True, statistics=statistics)
            raise ConfigError(f"the gradients of {n_seeds} seeds at {len(shapes)} layers take {1e-9 * least:.1f} GB even at "
                              f"attribution.seed_rank 1, {device_name(device)} has {1e-9 * max(room, 0):.1f} GB for them: "
                              "track fewer attribution.layers")
    return with_fields(experiment, {"attribution.seed_rank": rank})
