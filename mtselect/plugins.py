"""Parts found by name: a module of a folder, or an entry point of another package.

A folder such as `mtselect/metrics` holds one part a file: `metrics/chrf.py` is the metric `chrf`, its `METRIC` the part. Other
packages add theirs in their `pyproject.toml`:

    [project.entry-points."mtselect.metrics"]
    mymetric = "mypackage.mymetric:METRIC"

Nothing is imported before a part is asked for. Modules `base` and those that begin with an underscore are no parts.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Generic, TypeVar, cast

from mtselect.errors import ConfigError

T = TypeVar("T")


@cache
def part_names(package: str) -> tuple[str, ...]:
    """Of all parts of a kind, ours first."""
    own = _own(package)
    return (*own, *(name for name in sorted(_others(package)) if name not in own))


class Plugins(Generic[T]):
    """The parts of one kind.

    Args:
        package: folder of ours, and group of entry points: `mtselect.metrics`.
        attribute: name of the part in a module of ours.
        field: of the sweep file that names parts, for errors.
    """

    def __init__(self, package: str, attribute: str, field: str) -> None:
        self._package, self._attribute, self._field = package, attribute, field

    def load(self, name: str) -> T:
        """A part.

        Raises:
            ConfigError: there is none of this name, its file does not say which it is, or another package's cannot be imported.
        """
        if name in _own(self._package):
            module = import_module(f"{self._package}.{name}")
            if not hasattr(module, self._attribute):
                raise ConfigError(f"{self._field} {name!r} is {module.__file__}, which has no {self._attribute}: end the file "
                                  f"with `{self._attribute} = YourClass`, or begin its name with _ if it is no part")
            return cast(T, getattr(module, self._attribute))
        if name not in (names := part_names(self._package)):
            raise ConfigError(f"{self._field} must be of {', '.join(names)}, got {name!r}")
        point = self._other(name)
        try:
            return cast(T, point.load())
        except Exception as error:  # of somebody else's code
            raise ConfigError(f"{self._field} {name!r} is {point.value}, which cannot be imported ({error}): mend or remove "
                              "that package") from error

    def origin(self, name: str) -> list[str]:
        """Package and version of another's part, for the keys of what it decides; nothing of ours: stages have versions."""
        if name in _own(self._package):
            return []
        package = self._other(name).dist
        return [] if package is None else [f"{package.name} {package.version}"]

    def _other(self, name: str) -> EntryPoint:
        first, *more = _others(self._package)[name]
        if more:
            raise ConfigError(f"{self._field} {name!r} is a part of several packages ({first.value}, "
                              f"{', '.join(point.value for point in more)}): remove all but one")
        return first


@cache
def _own(package: str) -> tuple[str, ...]:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None, package
    return tuple(module.name for module in iter_modules(spec.submodule_search_locations)
                 if module.name != "base" and not module.name.startswith("_"))


@cache
def _others(package: str) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=package):
        found.setdefault(point.name, []).append(point)
    return found
