"""What a section of the sweep file is: a frozen value that pydantic checks when it is made.

Types are strict: an integer fits a float, else only its own type fits. A bound is part of a field's type (`Count`); `must` is
any other check of one field, `one_of` that of a part's name, and `Section.conflicts` says which fields do not fit each other.
What is wrong is always told in one form: the field, what it must be, what it is, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, NoReturn, TypeGuard, TypeVar, dataclass_transform, get_args

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from mtselect.errors import ConfigError, Faults

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
T = TypeVar("T")
S = TypeVar("S", bound="Section")

_RENAMED = {"study.random_seeds": "random baselines are drawn anew for each of study.finetune_seeds"}
_NOUNS = {"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false", "null": "null",
          "array": "a list", "object": "a mapping of fields"}
_EXACTLY = {"finite_number": "a finite number", "string_type": "a text"}  # also of a part of a list, or a key
_OUT_OF_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "too_short"}


class Unfit(ValueError):  # noqa: N818  (pydantic collects it)
    """Values that are not allowed: of each its field below the checked one or "", itself, what is allowed, what to do."""

    def __init__(self, *found: tuple[str, object, str, str]) -> None:
        super().__init__(found)
        self.found = found


class Section:
    """Base of all sections."""

    __pydantic_fields__: ClassVar[dict[str, FieldInfo]]

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        """Fields that do not fit others, though each is right by itself: name, or none, what it must be, what to do."""
        yield from ()

    def __post_init__(self) -> None:
        if found := [(name, getattr(self, name, self), allowed, advice) for name, allowed, advice in self.conflicts()]:
            raise Unfit(*found)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> Any:
        return {**handler(source), "strict": False}  # strict in its fields, but made of a mapping, too


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def section(cls: type[S]) -> type[S]:
    """Make a class a section. Values that are wrong raise ConfigError, several of them Faults."""
    dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))(cls)
    build, name = cls.__init__, cls.__name__.removesuffix("Config").lower()

    def build_checked(self: S, **values: object) -> None:
        try:
            build(self, **values)
        except ValidationError as error:
            raise_faults(faults(error, cls, name))

    cls.__init__ = build_checked  # type: ignore[method-assign, assignment]
    return cls


def must(fits: Callable[[Any], bool], allowed: str, advice: str = "") -> AfterValidator:
    """A check of one field that is no plain bound."""
    def check(value: T) -> T:
        if not fits(value):
            raise Unfit(("", value, allowed, advice))
        return value
    return AfterValidator(check)


def one_of(known: Callable[[], Sequence[str]]) -> AfterValidator:
    """A check that a part is one of those there are when it is made; the nearest is named."""
    def check(value: str) -> str:
        if value not in known():
            near = difflib.get_close_matches(value, known(), n=1, cutoff=0.5)
            raise Unfit(("", value, f"of {', '.join(known())}", f"did you mean {near[0]!r}?" if near else ""))
        return value
    return AfterValidator(check)


def hint(advice: str) -> Any:
    """What to do about a value that is out of bounds."""
    return Field(json_schema_extra={"$comment": advice})


def validated(cls: type[S], data: object, *, lenient: bool = False) -> S:
    """A section from plain values; `lenient` leaves out fields that it does not have. Raises ConfigError or Faults."""
    try:
        return TypeAdapter(cls).validate_python(data, extra="ignore" if lenient else "forbid")
    except ValidationError as error:
        raise_faults(faults(error, cls))


def raise_faults(lines: Iterable[str]) -> NoReturn:
    """Raise ConfigError, or Faults where there are several."""
    different = list(dict.fromkeys(lines))
    raise ConfigError(different[0]) if len(different) == 1 else Faults(*different)


def faults(error: ValidationError, cls: type[Section], prefix: str = "") -> Iterator[str]:
    """A line for each value that is wrong with a section of a class; the prefix is the section's name in the file."""
    found = [(one, *_locate(one["loc"], cls, prefix)) for one in error.errors(include_url=False)]
    bounded = {path for one, path, _, _ in found if one["type"] in _OUT_OF_BOUNDS}
    for one, path, owner, info in found:
        if one["type"] in ("unexpected_keyword_argument", "invalid_key"):
            known = dict([*fields_of(owner, path.rpartition(".")[0]), *fields_of(cls, prefix)])
            yield f"unknown field {path!r}: {_RENAMED.get(path) or nearest(path, known)}"
        elif one["type"] == "value_error":
            yield from (fault_line(_dotted(path, field), *rest) for field, *rest in one["ctx"]["error"].found)
        else:
            allowed = _EXACTLY.get(one["type"]) or takes(info, bare=path in bounded)
            extra = info.json_schema_extra if info is not None and path in bounded else None
            advice = str(extra["$comment"]) if isinstance(extra, dict) else ""
            yield fault_line(path or "sweep file", one["input"], allowed, advice)


def _dotted(*names: str) -> str:
    return ".".join(name for name in names if name)


def _locate(steps: Sequence[int | str], owner: type[Section], path: str) -> tuple[str, type[Section], FieldInfo | None]:
    """Where an error is: dotted name, section, and field. Steps within a field lead to a part of a union, or of a list."""
    kind: object = owner
    info = None
    for step in steps:
        values = get_args(kind)[-1:]  # of a mapping
        if is_section(kind):
            owner, info = kind, kind.__pydantic_fields__.get(str(step))
            kind = info and info.annotation
        elif values and is_section(values[0]):
            kind, info = values[0], None
        else:
            break
        path = _dotted(path, str(step))
    return path, owner, info


def fault_line(path: str, value: object, allowed: str, advice: str = "") -> str:
    """The line about a value that is not allowed."""
    return f"{path} must be {allowed}, got {value!r}{': ' + advice if advice else ''}"


def takes(info: FieldInfo | None, *, bare: bool = False) -> str:
    """What a field takes, in words: `a whole number (at least 1), auto or null`; `bare` of the types where there are bounds."""
    schema: dict[str, Any] = {"type": "object"} if info is None else TypeAdapter(info.rebuild_annotation()).json_schema()
    words = [word for node in schema.get("anyOf", [schema]) for word in _words(node, bare)]
    words = [word for word in words if word != "a whole number" or "a number" not in words]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _words(node: dict[str, Any], bare: bool) -> list[str]:
    if "enum" in node or "const" in node:
        return [str(value) for value in node.get("enum", [node.get("const")])]
    noun = _NOUNS[node.get("type", "object")] + (" of texts" if node.get("items") == {"type": "string"} else "")
    least, above, most = (node.get(bound) for bound in ("minimum", "exclusiveMinimum", "maximum"))
    bounds = f"between {least} and {most}" if None not in (least, most) else " and ".join(
        f"{word} {bound}" for word, bound in (("at least", least), ("above", above), ("at most", most)) if bound is not None)
    bounds = bounds or ("at least one value" if node.get("minItems") else "")
    return [noun if not bounds else bounds if bare else f"{noun} ({bounds})"]


def is_section(kind: object) -> TypeGuard[type[Section]]:
    """Whether a type is a section's."""
    return isinstance(kind, type) and issubclass(kind, Section)


def fields_of(cls: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted name of each field; after a section its own."""
    for name, info in cls.__pydantic_fields__.items():
        yield _dotted(prefix, name), info
        if is_section(info.annotation):
            yield from fields_of(info.annotation, _dotted(prefix, name))


def put(data: dict[str, object], names: Sequence[str], value: object) -> None:
    """Set a field in plain values of sections, by the names that lead to it. Raises ConfigError where one is no section."""
    *sections, last = names
    for depth, name in enumerate(sections, 1):
        inner = data[name] = {} if data.get(name) is None else data[name]
        if not isinstance(inner, dict):
            raise ConfigError(fault_line(".".join(names[:depth]), inner, "a mapping of fields"))
        data = inner
    data[last] = value


def nearest(path: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: take the nearest that there is."""
    others = [one for one in known if not path.startswith(f"{one}.")]  # its own section is near, but no answer
    match = difflib.get_close_matches(path, others, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else "`--help` lists every field"
