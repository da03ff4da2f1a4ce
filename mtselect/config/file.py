"""Reading a sweep file and the command line's overrides of its fields, and writing a section as YAML."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from mtselect.config.search import cross_faults
from mtselect.config.section import Section, fields_of, is_section, nearest, put, raise_faults, validated
from mtselect.config.sweep import Sweep
from mtselect.errors import ConfigError

_OPEN = ("search", "experiment.selection.options")  # mappings: what is below them has no field of its own


class Loader(yaml.SafeLoader):
    """YAML 1.2's numbers, of which 1e-3 is one, and no dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as it is in the base class)
        first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
                             list("-+0123456789"))


def load(path: str | Path, overrides: list[str], *, checked: bool = True) -> Sweep:
    """Read a sweep file; the rest is as for `parse`. Raises ConfigError where it is missing, too."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"sweep file {str(path)!r} does not exist: check the path, or start from sweeps/quickstart.yaml")
    return parse(file.read_bytes(), overrides, checked=checked, named=f"sweep file {str(path)!r}")


def parse(text: str | bytes, overrides: list[str], *, checked: bool = True, named: str = "sweep") -> Sweep:
    """Read what a sweep file holds, and command-line overrides (`--experiment.selection.budget 500`).

    Args:
        text: YAML, in UTF-8.
        overrides: arguments.
        checked: also what holds between sections; else the caller asks `cross_faults`.
        named: what errors call it.

    Raises:
        ConfigError: it is not YAML; a key is unknown, mistyped or out of range.
        Faults: more than one such thing.
    """
    try:
        data = yaml.load(text.decode() if isinstance(text, bytes) else text, Loader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{named} is not YAML: {' '.join(str(error).split())}") from error
    if isinstance(data, dict):  # else it is told as a fault
        _override(data, overrides)
    sweep = validated(Sweep, data)
    if checked and (found := cross_faults(sweep)):
        raise_faults(found)
    return sweep


def to_yaml(section: Section, key: str | None = None) -> str:
    """A section as YAML, under a key if given: `to_yaml(experiment, "experiment")` is a sweep file."""
    data = dataclasses.asdict(section)  # type: ignore[call-overload]
    return yaml.safe_dump({key: data} if key else data, sort_keys=False, allow_unicode=True)


def _override(data: dict[str, object], overrides: list[str]) -> None:
    """Set what `--FIELD VALUE` and `--FIELD=VALUE` say."""
    known = {path: info for path, info in fields_of(Sweep) if not is_section(info.annotation)}
    left = list(overrides)
    while left:
        option, equals, text = left.pop(0).partition("=")
        path = option.removeprefix("--")
        if not option.startswith("--"):
            raise ConfigError(f"unknown argument {option!r}: give one sweep file, then fields as --FIELD VALUE")
        if path not in known and not path.startswith(tuple(f"{one}." for one in _OPEN)):
            raise ConfigError(f"unknown option {option!r}: {nearest(option, [f'--{one}' for one in known])}")
        if not equals and (not left or left[0].startswith("--")):
            raise ConfigError(f"option {option!r} needs a value: write {option} VALUE")
        depth = 1 if path.startswith("search.") else 3  # below which names may have dots
        put(data, path.split(".", depth), _value(text if equals else left.pop(0), known.get(path)))


def _value(text: str, info: FieldInfo | None) -> object:
    """What an argument stands for: YAML, but as it stands where the field takes text."""
    kind = None if info is None else info.annotation
    kinds = (kind,) if get_origin(kind) in (list, dict) else (kind, *get_args(kind))
    try:
        value = yaml.load(text, Loader) if text else text
    except yaml.YAMLError:
        return text
    return text if str in kinds and not (value is None and NoneType in kinds) else value
