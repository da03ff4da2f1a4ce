"""Texts of many lines: a Jinja2 template in a file of its own, which a module fills in."""

from __future__ import annotations

from pathlib import Path

import yaml


def fill(template: Path, **values: object) -> str:
    """The text of a template, none of whose values may be missing; in HTML they are escaped. Its filter `yaml` writes a value
    as YAML on one line."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(loader=FileSystemLoader(template.parent), autoescape=select_autoescape(["html", "html.jinja"]),
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["yaml"] = _one_line
    return environment.get_template(template.name).render(values)


def _one_line(value: object) -> str:
    return yaml.safe_dump(value, allow_unicode=True, width=1000).removesuffix("...\n").strip()
