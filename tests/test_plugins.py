"""Parts by name: ours, and another package's, which a sweep uses as if they were ours."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtselect import __main__ as program
from mtselect import plugins
from mtselect.config import Experiment, SelectionConfig, with_fields
from mtselect.errors import ConfigError
from mtselect.plugins import Plugins, part_names
from mtselect.readers.base import source_fingerprint
from mtselect.selectors.base import SELECTORS, read_options
from mtselect.stages.evaluation import EVALUATION
from mtselect.stages.selection import selection_stage

DOCS = Path(__file__).parents[1] / "docs" / "parts.md"

SELECTOR = '''
from dataclasses import dataclass

import numpy as np

from mtselect.selectors.base import Candidates, Chosen, Column, PlainSelector, read_options


@dataclass(frozen=True)
class Options:
    share: float = 0.5


class Middle(PlainSelector):
    """Those of middling loss."""

    needs = frozenset({"losses"})
    columns = {"distance": Column(kind=float, about="of its loss from the middle")}
    options = Options

    def select(self, candidates, n_pairs, config, seed):
        rows = np.flatnonzero(candidates.passed)
        losses = candidates.losses[rows]
        distance = np.abs(losses - np.quantile(losses, read_options(self, config).share))
        taken = np.sort(np.argsort(distance, kind="stable")[:n_pairs])
        return Chosen(rows=rows[taken], n_passed=len(rows), columns={"distance": distance[taken]})
'''
METRIC = '''
import numpy as np

from mtselect.metrics.base import PlainMetric


class Length(PlainMetric):
    """Characters too many or too few for each of the reference's."""

    title = "length error"
    higher_is_better = False

    def signature(self, scoring):
        return "length:1"

    def statistics(self, sources, hypotheses, references, scoring):
        return np.array([[abs(len(one) - len(other)), len(other)] for one, other in zip(hypotheses, references)], float)

    def score(self, totals, scoring):
        return 100 * float(totals[0] / totals[1])
'''
READER = '''
from mtselect.readers.base import FileReader, SourceRecord


class Bars(FileReader):
    suffixes = (".bars",)

    def read(self, stream):
        for number, line in enumerate(stream, 1):
            source, target, noise = line.decode().split(" ||| ")
            yield SourceRecord(number, {"src": source, "tgt": target, "noise": noise})
'''
POINTS = """\
[mtselect.selectors]
middle = toyparts.middle:Middle

[mtselect.readers]
bars = toyparts.bars:Bars

[mtselect.metrics]
length = toyparts.length:Length
broken = toyparts.nowhere:Nothing
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A package outside the repository, installed in a folder on Python's path."""
    folder = tmp_path / "site"
    (folder / "toyparts").mkdir(parents=True)
    (folder / "toyparts" / "__init__.py").write_text("")
    (folder / "toyparts" / "middle.py").write_text(SELECTOR)
    (folder / "toyparts" / "length.py").write_text(METRIC)
    (folder / "toyparts" / "bars.py").write_text(READER)
    meta = folder / "toyparts-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: toyparts\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text(POINTS)
    return folder


def test_a_sweep_uses_the_parts_of_another_package(toy: Path, warm_lab: Callable[..., Any]) -> None:
    """A reader of the pool, a selector as method and as rival with an option of its own, and a metric of which less is better
    that decides."""
    lab = warm_lab(stages=("corpus", "base", "tokens", "warmup"), experiment__selection={"method": "middle", "gate": None},
                   experiment__data__pool="data/pool.bars",
                   experiment__evaluation__metrics=["length", "chrf"], study__objectives=["eval/length"], study__n_trials=2,
                   study__baselines=["random", "middle"],
                   search={"selection.options.share": {"low": 0.2, "high": 0.8},
                           "selection.budget": {"choices": [20, 40]}})
    pool = [json.loads(line) for line in (lab.folder / "data" / "pool.jsonl").read_text(encoding="utf-8").splitlines()]
    (lab.folder / "data" / "pool.bars").write_text(
        "".join(f"{row['src']} ||| {row['tgt']} ||| {row['noise']}\n" for row in pool), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(toy), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run([sys.executable, "-m", "mtselect.sweep", "sweep.yaml"], cwd=lab.folder, env=environment,
                         capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert not list(lab.store.glob("gradients/*")) and not list(lab.store.glob("curvature/*")), "nothing asked for them"
    assert len(list(lab.store.glob("losses/*/manifest.json"))) == 1
    children = lab.children()
    trials = [run for name, run in children.items() if re.fullmatch(r"t\d+", name)]
    assert all(0.2 <= float(run.data.params["selection.options.share"]) <= 0.8 for run in trials)
    for run in trials:
        rows = lab.lines(run)
        assert all(row.keys() == {"id", "src", "tgt", "distance"} for row in rows)
        assert run.data.tags["mtselect.signature.length"].startswith("length:1|bs:100")
    best = min(trials, key=lambda run: run.data.metrics["eval/length"])
    assert f"{best.info.run_name}-again" in children, "less of it is better"
    assert "length error" in ran.stdout


@pytest.fixture
def installed(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The toy package where this process finds it."""
    def forget() -> None:
        plugins.part_names.cache_clear()
        plugins._others.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "toyparts"]:
            del sys.modules[name]

    monkeypatch.syspath_prepend(str(toy))
    forget()
    yield toy
    forget()


def test_another_version_of_a_package_is_another_result(installed: Path, tmp_path: Path) -> None:
    """Its selector, its metric and its reader stand in the keys with their version; ours do not."""
    source = tmp_path / "pool.bars"
    source.write_text("a ||| b ||| \n")
    experiment = with_fields(Experiment(), {"selection.method": "middle", "evaluation.metrics": ["chrf", "length"]})
    assert selection_stage(experiment).sources(experiment) == ["toyparts 1.0"]
    assert EVALUATION["dev"].sources(experiment) == ["toyparts 1.0"]
    before = source_fingerprint(str(source))
    meta = installed / "toyparts-1.0.dist-info"
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: toyparts\nVersion: 2.0\n")
    plugins._others.cache_clear()
    assert selection_stage(experiment).sources(experiment) == ["toyparts 2.0"]
    assert source_fingerprint(str(source)) != before
    ours = Experiment()
    assert selection_stage(ours).sources(ours) == [] and EVALUATION["dev"].sources(ours) == []


def test_two_packages_with_a_part_of_one_name(installed: Path) -> None:
    meta = installed / "other-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[mtselect.selectors]\nmiddle = other.middle:Middle\n")
    plugins._others.cache_clear()
    with pytest.raises(ConfigError, match=r"selection.method 'middle' is a part of several packages \(.*\): remove all"):
        SELECTORS.load("middle")


def test_a_selector_among_the_warm_ups_rows_measures_nothing(installed: Path) -> None:
    path = installed / "toyparts" / "middle.py"
    path.write_text(path.read_text() + "\n\nclass Everywhere(Middle):\n    excludes = False\n")
    (installed / "toyparts-1.0.dist-info" / "entry_points.txt").write_text(
        "[mtselect.selectors]\neverywhere = toyparts.middle:Everywhere\n")
    plugins._others.cache_clear()
    with pytest.raises(ConfigError, match=r"selection.method 'everywhere' chooses among the warm-up's rows too"):
        selection_stage(with_fields(Experiment(), {"selection.method": "everywhere"}))


def test_a_part_that_cannot_be_imported_is_named(toy: Path) -> None:
    code = "from mtselect.metrics.base import METRICS\nMETRICS.load('broken')"
    path = os.pathsep.join([str(toy), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
                         timeout=60)
    assert "evaluation.metrics 'broken' is toyparts.nowhere:Nothing, which cannot be imported (No module" in ran.stderr


@pytest.mark.parametrize(("kind", "attribute", "field"), [
    ("metrics", "METRIC", "evaluation.metrics"), ("selectors", "SELECTOR", "selection.method"),
    ("readers", "READER", "a reader")])
def test_a_file_that_does_not_say_which_part_it_is(kind: str, attribute: str, field: str, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    package = importlib.import_module(f"mtselect.{kind}")
    (tmp_path / "near.py").write_text('"""near: how near it is."""\n', encoding="utf-8")
    folders = [*package.__path__, str(tmp_path)]
    monkeypatch.setattr(package, "__path__", folders)
    monkeypatch.setattr(package.__spec__, "submodule_search_locations", folders)
    plugins._own.cache_clear()
    plugins.part_names.cache_clear()
    try:
        assert program.main(["list", kind]) == 2
    finally:
        monkeypatch.undo()
        sys.modules.pop(f"mtselect.{kind}.near", None)
        plugins._own.cache_clear()
        plugins.part_names.cache_clear()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'near' is {tmp_path}/near.py, which has no {attribute}: end the file with `{attribute} = YourClass`" in line
    assert line.startswith(f"error: {field} ")


def test_an_option_that_a_selector_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"selection.options.share is no option of selection.method 'random', which has none"):
        read_options(SELECTORS.load("random"), SelectionConfig(method="random", options={"share": 1}))


def test_an_unknown_part_names_all() -> None:
    with pytest.raises(ConfigError, match=r"evaluation.metrics must be of bleu, .*, got 'blue'"):
        Plugins[Any]("mtselect.metrics", "METRIC", "evaluation.metrics").load("blue")


@pytest.mark.parametrize("package", ["mtselect.selectors", "mtselect.metrics", "mtselect.readers"])
def test_every_part_has_its_line_in_the_docs(package: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    section = next(part for part in text.split("\n## ") if f"group `{package}`" in part)
    assert set(re.findall(r"^- `(\w+)`", section, re.MULTILINE)) == set(part_names(package))
