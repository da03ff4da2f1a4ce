"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = {"metric": "## Metrics", "selector": "## Selectors", "reader": "## Readers"}

USED = {
    "metric": """
from mtselect.config import EvaluationConfig
from mtselect.metrics.base import METRICS, Metrics, Scoring
from mtselect.progress import SilentProgress
from mtselect.significance import score

scoring = Scoring(settings=EvaluationConfig(metrics=["chrf", "exact"]), tgt_lang="English", progress=SilentProgress())
metric = Metrics()["exact"]
found = score("exact", metric, [metric.statistics(["x"] * 4, list("abcd"), list("abxx"), scoring)], scoring, 0)
assert found.value == 50 and found.signature == "exact:1|bs:1000|seed:0", found
""",
    "selector": """
import numpy as np
from mtselect.config import SelectionConfig, StudyConfig
from mtselect.selectors.base import SELECTORS, Candidates

StudyConfig(baselines=["random", "hardest"])
shown = Candidates(passed=np.array([True, True, False, True]), losses=np.array([1.0, 3.0, 9.0, 2.0]))
found = SELECTORS.load("hardest")().select(shown, 2, SelectionConfig(method="hardest"), 0)
assert found.rows.tolist() == [1, 3], found
""",
    "reader": """
import gzip
from pathlib import Path
from mtselect.config import DataConfig
from mtselect.data.rows import count_rows, read_rows

Path("pool.bars.gz").write_bytes(gzip.compress("Ja. ||| Yes.\\nNein. ||| No.\\nleer\\n".encode()))
data = DataConfig(pool="pool.bars.gz")
found = [(row.line, row.src, row.tgt, row.reason) for row in read_rows(data, "pool")]
assert found == [(1, "Ja.", "Yes.", None), (2, "Nein.", "No.", None), (3, "", "", "empty side")], found
assert count_rows(data, "pool") == 3
""",
    "stage": """
import sys
from pathlib import Path
import numpy as np
from mtselect.config import Experiment, RuntimeConfig
from mtselect.progress import SilentProgress
from mtselect.stages.characters import CHARACTERS, COUNTED
from mtselect.stages.lineage import Bench, Lineage, ancestors
from mtselect.store import Store

lineage = Lineage(Bench(store=Store(Path("store")), runtime=RuntimeConfig(), progress=SilentProgress()), Experiment())
assert len(COUNTED.read(lineage)) == 12000
assert [stage.name for stage in ancestors(CHARACTERS, Experiment())] == ["corpus", "characters"]
""",
}


def recipe(name: str) -> list[tuple[str, str]]:
    """Path and text of each block of a recipe."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (section,) = (part for part in text.split("\n## ") if part.startswith(f"Add a {name}\n"))
    return BLOCK.findall(section)


@pytest.mark.parametrize("name", ["metric", "selector", "reader", "stage"])
def test_a_recipe_works_as_it_stands(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "mtselect", tmp_path / "mtselect", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("images"))
    blocks = recipe(name)
    assert [Path(path).suffix for path, _ in blocks] == ([".py", ".md"] if name in SECTION else [".py"])
    for path, text in blocks:
        place = tmp_path / path
        if place.suffix == ".md":
            before, heading, after = place.read_text(encoding="utf-8").partition(SECTION[name])
            about, lines, others = after.partition("\n- ")
            place.write_text(f"{before}{heading}{about}\n{text}{lines.lstrip()}{others}", encoding="utf-8")
        else:
            assert not place.exists()
            place.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", USED[name]], cwd=tmp_path, env=environment, capture_output=True, text=True,
                         timeout=120)
    assert ran.returncode == 0, ran.stderr
    for path, _ in blocks[:1]:
        linted = subprocess.run([sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), path],
                                cwd=tmp_path, capture_output=True, text=True)
        assert linted.returncode == 0, linted.stdout
