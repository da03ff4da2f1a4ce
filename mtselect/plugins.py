"""Parts found by name: a module of a folder, or an entry point of another package.

A folder such as `mtselect/metrics` holds one part a file: `metrics/chrf.py` is the metric `chrf`, its `METRIC` the part. Other
packages add theirs in their `pyproject.toml`:

    [project.entry-points."mtselect.metrics"]
    mymetric = "mypackage.mymetric:METRIC"

Nothing is imported before a part is asked for. Modules `base` and those that begin with an underscore are no parts.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Generic, TypeVar, cast

from mtselect.errors import ConfigError

T = TypeVar("T")


class Plugins(Generic[T]):
    """The parts of one kind.

    Args:
        package: folder of ours, and group of entry points: `mtselect.metrics`.
        attribute: name of the part in a module of ours.
        field: of the sweep file that names parts, for errors.
    """

    def __init__(self, package: str, attribute: str, field: str) -> None:
        self._package, self._attribute, self._field = package, attribute, field

    def names(self) -> list[str]:
        """Of all parts, ours first."""
        return [*self._own(), *(name for name in sorted(self._others()) if name not in self._own())]

    def load(self, name: str) -> T:
        """A part.

        Raises:
            ConfigError: there is none of this name, or another package's cannot be imported.
        """
        if name in self._own():
            return cast(T, getattr(import_module(f"{self._package}.{name}"), self._attribute))
        self.check(name)
        point = self._others()[name]
        try:
            return cast(T, point.load())
        except Exception as error:  # of somebody else's code
            raise ConfigError(f"{self._field} {name!r} is {point.value}, which cannot be imported ({error}): mend or remove "
                              "that package") from error

    def check(self, name: str) -> None:
        """Raise ConfigError with the nearest name if there is no such part."""
        if name not in (names := self.names()):
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            raise ConfigError(f"{self._field} must be of {', '.join(names)}, got {name!r}"
                              + (f": did you mean {nearest[0]!r}?" if nearest else ""))

    def _own(self) -> list[str]:
        spec = find_spec(self._package)
        assert spec is not None and spec.submodule_search_locations is not None, self._package
        return [module.name for module in iter_modules(spec.submodule_search_locations)
                if module.name != "base" and not module.name.startswith("_")]

    def _others(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._package)}
