"""The README's lines of Python, run as they are written, in a folder with files of these names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtselect.config import TrackingConfig
from mtselect.store import write_lines
from mtselect.tracking.server import open_mlflow

ROOT = Path(__file__).parents[1]
SHOWN = """
print([type(one).__module__ + "." + type(one).__name__ for one in (best, known, champion)])
print(len(best), len(known), best.column_names, champion.to_list())
"""


def test_the_lines_of_python(swept: Any, make_lab: Callable[..., Any]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    lab = make_lab()
    (base,) = (path.parent for path in swept.store.glob("base/*/manifest.json"))
    shutil.copytree(base, lab.folder / "Qwen" / "Qwen2.5-0.5B")
    for name, part in (("crawl", "pool"), ("trusted", "seeds")):
        rows = [json.loads(line) for line in (lab.folder / "data" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
        for side, language in (("src", "de"), ("tgt", "en")):
            (lab.folder / f"{name}.{language}").write_text("".join(f"{row[side]}\n" for row in rows), encoding="utf-8")
    promoted = [{"id": "0", "src": "Ja.", "tgt": "Yes.", "z": 0.5}]
    _register(lab, promoted)
    ran = subprocess.run([sys.executable, "-c", blocks[0] + SHOWN], cwd=lab.folder, capture_output=True, text=True, timeout=300,
                         env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr
    kinds, rest = ran.stdout.splitlines()[-2:]
    assert kinds == str(["datasets.arrow_dataset.Dataset"] * 3)
    chosen, scored, columns = re.fullmatch(r"(\d+) (\d+) (\[.*\]) \[\{.*\}\]", rest).groups()  # type: ignore[union-attr]
    assert 0 < int(chosen) < int(scored) and "'benefit'" in columns and rest.endswith(str(promoted))


def _register(lab: Any, rows: list[dict[str, object]]) -> None:
    """Some rows as the champion of the study `quickstart`."""
    folder = lab.folder / "promoted"
    folder.mkdir()
    write_lines(folder / "selected.jsonl", rows)
    tracker = open_mlflow(TrackingConfig(uri=f"sqlite:///{lab.folder}/mlflow.db"), "quickstart", lab.folder / "mlruns")
    client = lab.client()
    run = client.create_run(client.get_experiment_by_name("quickstart").experiment_id)
    registry = tracker.registry("mtselect.quickstart")
    registry.crown(registry.register(folder, run.info.run_id, {"mtselect.selected": "0"}, "").number)
