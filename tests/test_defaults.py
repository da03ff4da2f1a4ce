"""docs/defaults.md has a line for every field that decides a result, and the default that the code has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from mtselect.config import Experiment

PAGE = Path(__file__).parents[1] / "docs" / "defaults.md"
SAID_IN_WORDS = {"attribution.layers"}  # a regular expression of two lines


def defaults() -> Iterator[tuple[str, object]]:
    """`section.field`, default."""
    for one in fields(Experiment()):
        value = getattr(Experiment(), one.name)
        if is_dataclass(value):
            yield from ((f"{one.name}.{field.name}", getattr(value, field.name)) for field in fields(value))
        else:
            yield one.name, value


def said(text: str) -> dict[str, tuple[str, str]]:
    """Field -> its default and its reason, as a page has them."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.+) \|$", text, re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: (default, why) for name, default, why in rows}


def written(value: object) -> str:
    """A default as the page has it."""
    if isinstance(value, str):
        return "`{}`".format(value.replace("\n", "\\n"))
    return ", ".join(map(written, value)) if isinstance(value, list | tuple) else json.dumps(value)


def check(text: str) -> None:
    page, real = said(text), dict(defaults())
    assert page.keys() == real.keys()
    for name, value in real.items():
        assert name in SAID_IN_WORDS or page[name][0] == written(value), f"{name}: the default is {written(value)}"


def test_every_default_has_a_line() -> None:
    check(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("old", "new"), [("| 0.95 |", "| 0.9 |"), ("| `finetune.seed` |", "| `finetune.sede` |")])
def test_another_default_or_a_missing_line_is_red(old: str, new: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(AssertionError):
        check(text.replace(old, new))
