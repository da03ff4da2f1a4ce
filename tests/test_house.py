"""What keeps the house easy to find one's way in: no circles, short modules, folders that say their rule, typed values."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mtselect"
LONGEST = 350  # lines of a module
ANY_PER_THOUSAND = 8  # lines that mention `Any`: what mlflow, plotly and their like return


def module_name(path: Path) -> str:
    parts = ("mtselect", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}


def imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> modules among the sources that it imports anywhere: at the top, in a function, for type checking only."""
    found = {}
    for name, text in sources.items():
        nodes = list(ast.walk(ast.parse(text)))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= (inner & sources.keys()) or {str(node.module)}
        found[name] = named & sources.keys() - {name}
    return found


def test_no_module_imports_itself_by_a_detour() -> None:
    TopologicalSorter(imports(SOURCES)).prepare()


def test_a_circle_is_found() -> None:
    circle = {"mtselect.a": "def f():\n    from mtselect.b import x", "mtselect.b": "from mtselect import c",
              "mtselect.c": "if TYPE_CHECKING:\n    import mtselect.a", "mtselect": ""}
    with pytest.raises(CycleError):
        TopologicalSorter(imports(circle)).prepare()


def test_no_module_is_long() -> None:
    lengths = {name: text.count("\n") for name, text in SOURCES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST}


@pytest.mark.parametrize("folder", sorted(path.parent.relative_to(ROOT) for path in ROOT.rglob("__init__.py")), ids=str)
def test_a_folder_says_its_rule(folder: Path) -> None:
    said = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8")))
    assert said and len(said.split()) >= 10, f"mtselect/{folder}: what belongs in here, and what does not?"


def test_values_have_types() -> None:
    lines = [line for text in SOURCES.values() for line in text.splitlines()]
    untyped = [line for line in lines if re.search(r"\bAny\b", line) and "import" not in line]
    assert len(untyped) <= len(lines) * ANY_PER_THOUSAND / 1000, f"{len(untyped)} of {len(lines)} lines"
