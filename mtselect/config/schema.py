"""What a sweep file may hold, for editors as a JSON schema and for readers as text; both are made of the sections."""

from __future__ import annotations

import json
import textwrap

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from mtselect.config.experiment import Experiment
from mtselect.config.section import fields_of, is_section, takes
from mtselect.config.sweep import Sweep


class _Untitled(GenerateJsonSchema):
    """Without titles, which would only say the names again."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def json_schema() -> dict[str, object]:
    """Of a sweep file."""
    schema = TypeAdapter(Sweep).json_schema(schema_generator=_Untitled)
    searched = [path for path, info in fields_of(Experiment) if not is_section(info.annotation)]
    schema["properties"]["search"]["propertyNames"] = {"anyOf": [{"enum": searched}, {"pattern": r"^selection\.options\."}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def help_text(command: str) -> str:
    """Every field with what it takes and what it is."""
    lines = [f"usage: {command} [SWEEP.yaml] [--FIELD VALUE ...] [--help]"]
    for path, info in fields_of(Sweep):
        if is_section(info.annotation):
            lines += ["", f"{path}: {str(info.annotation.__doc__).splitlines()[0]}"]
        else:
            lines += [f"  --{path}  {takes(info)}; default: {json.dumps(info.default, ensure_ascii=False)}",
                      textwrap.fill(info.description or "", 110, initial_indent=" " * 8, subsequent_indent=" " * 8)]
    return "\n".join(lines)
