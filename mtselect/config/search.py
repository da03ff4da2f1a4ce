"""What is searched: the type of a field's values, and what is wrong between a sweep's sections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from mtselect.config.experiment import Experiment, with_fields
from mtselect.config.section import fault_line, fields_of, is_section, nearest
from mtselect.config.sweep import Range, Sweep
from mtselect.errors import ConfigError, Faults

OPTIONS = "selection.options."  # of a selector, whose types are its own


def field_type(path: str) -> object:
    """The type of a dotted experiment field, without its bounds. Raises ConfigError naming the nearest field."""
    known = dict(fields_of(Experiment))
    if path.startswith(OPTIONS):
        return bool | int | float | str
    if path not in known:
        raise ConfigError(f"search: unknown field {path!r}: {nearest(path, known)}")
    return known[path].annotation


def range_type(path: str, space: Range) -> object:
    """The type of a searched field's values: where it takes whole numbers and shares, what the range's own numbers are."""
    kind = field_type(path)
    if kind == int | float or (path.startswith(OPTIONS) and space.choices is None):
        return int if all(value == int(value) for value in (space.low, space.high, space.step) if value is not None) else float
    return kind


def most_clusters(experiment: Experiment, search: dict[str, Range]) -> int:
    """The largest `selection.n_clusters` that a trial may have."""
    space = search.get("selection.n_clusters", Range(choices=[experiment.selection.n_clusters]))
    return max(int(end) for end in (0, *_numbers(space.choices or [space.high])))


def cross_faults(sweep: Sweep) -> list[str]:
    """What is wrong between sections: ranges beyond a field's own, objectives that no trial has, clusters without sketches."""
    return list(dict.fromkeys([*_range_faults(sweep), *_other_faults(sweep)]))


def _range_faults(sweep: Sweep) -> Iterator[str]:
    """Each end of each range must make a valid experiment, beside the fewest pairs and the most clusters."""
    ends: dict[str, Sequence[object]] = {}
    for path, space in sweep.search.items():
        try:
            ends[path] = _ends(path, space)
        except ConfigError as error:
            yield str(error)
    worst = {path: pick(numbers) for path, pick in (("selection.budget", min), ("selection.n_clusters", max))
             if (numbers := _numbers(ends.get(path, [])))}
    for path, values in ends.items():
        for value in values:
            try:
                with_fields(sweep.experiment, {**worst, path: value})
            except (ConfigError, Faults) as error:
                yield from error.lines


def _numbers(values: Sequence[object]) -> list[int | float]:
    return [value for value in values if isinstance(value, int | float)]


def _ends(path: str, space: Range) -> Sequence[object]:
    """The choices, or the ends of the interval. Raises ConfigError where the field cannot have such a range."""
    kind = range_type(path, space)
    if is_section(kind):
        raise ConfigError(f"search: {path!r} is a section, not a field: name one of its fields")
    if space.choices is not None:
        if "auto" in space.choices:
            raise ConfigError(f"search.{path} offers 'auto', which is decided once for a whole study: "
                              "offer what it may stand for")
        return space.choices
    if kind not in (int, float) or space.low is None or space.high is None:
        raise ConfigError(f"search.{path} needs choices: an interval fits only numbers")
    numbers = [value for value in (space.low, space.high, space.step) if value is not None]
    if kind is int and (any(value != int(value) or abs(value) >= 2**63 for value in numbers)
                        or (space.log and min(numbers) < 1)):
        raise ConfigError(f"search.{path} takes whole numbers (from 1 on a log scale), got {numbers}: round them")
    if path == "selection.budget" and kind is float and space.high >= 1:
        raise ConfigError(fault_line(f"search.{path}", numbers, "whole numbers of pairs, or between 0 and 1 shares of the pool",
                                     "what lies between the ends is neither"))
    return [int(space.low), int(space.high)] if kind is int else [space.low, space.high]


def _other_faults(sweep: Sweep) -> Iterator[str]:
    objectives = sweep.study.objectives
    scored = [names for names in sweep.choices("evaluation.metrics") if isinstance(names, list)]
    known = [*(f"eval/{name}" for name in chain(*scored[:1]) if all(name in one for one in scored)),
             "select/pairs", "select/noise_share"]
    if len(set(objectives)) < len(objectives):
        yield fault_line("study.objectives", objectives, "different metrics")
    for name in objectives:
        if name not in known:
            yield fault_line("study.objectives", name, f"of {', '.join(known)}", "no other metric decides")
    if "select/noise_share" in objectives and sweep.experiment.data.label_column is None:
        yield fault_line("study.objectives", "select/noise_share", "left out while data.label_column is null",
                       "name the label column")
    if sweep.experiment.model.quantize is not None and sweep.runtime.devices_per_trial > 1:
        yield fault_line("runtime.devices_per_trial", sweep.runtime.devices_per_trial, "1 where model.quantize is "
                         f"{sweep.experiment.model.quantize}", "4-bit weights train on one device alone")
    clusters = most_clusters(sweep.experiment, sweep.search)
    if clusters > 1 and sweep.experiment.attribution.sketch_rank == 0:
        yield fault_line("attribution.sketch_rank", 0, f"at least 1 where selection.n_clusters is {clusters}",
                       "raise it, or ask for 1 cluster")
