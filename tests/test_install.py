"""The package as people install it: sdist and wheel, and the wheel in an environment of its own, away from the checkout.

Nothing is downloaded: what builds is installed, and the environment sees the dependencies of the one that runs the tests. CI
installs all of them, from nothing, by the README's own command.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from mtselect.plugins import part_names

ROOT = Path(__file__).parents[1]
SHIPPED = {"mtselect", "sweeps", "tests", "tools", "benchmarks", "deploy", "docs", "README.md", "LICENSE", "CHANGELOG.md",
           "CITATION.cff", "CONTRIBUTING.md", "constraints.txt", "zensical.toml", "pyproject.toml", "PKG-INFO", "Dockerfile",
           ".dockerignore", ".gitignore"}
LOOK = """
import sys
import mtselect
print(mtselect.__file__)
print("heavy:", *sorted({"torch", "mlflow", "transformers", "lightning", "optuna", "numpy"} & sys.modules.keys()))
from mtselect import cli
print(cli.quickstart_file())
"""


def build(out: Path, *options: str) -> None:
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", out, ROOT], check=True,
                   capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built of it."""
    out = tmp_path_factory.mktemp("dist")
    build(out)
    return out


def wheel_in(folder: Path) -> zipfile.ZipFile:
    (path,) = folder.glob("mtselect-*-py3-none-any.whl")
    return zipfile.ZipFile(path)


def test_the_sdist_ships_what_it_names_and_nothing_else(archives: Path) -> None:
    (path,) = archives.glob("mtselect-*.tar.gz")
    with tarfile.open(path) as file:
        names = [Path(name).parts[1:] for name in file.getnames()]
    assert {name[0] for name in names} == SHIPPED
    assert not [name for name in names if "__pycache__" in name or name[-1].startswith("mlflow.db")]


def test_the_wheel_of_the_sdist_is_that_of_the_checkout(archives: Path, tmp_path: Path) -> None:
    build(tmp_path, "--wheel")
    ours, theirs = ({one.filename: one.CRC for one in wheel_in(folder).infolist()} for folder in (tmp_path, archives))
    assert ours == theirs


def test_the_wheel_is_whole(archives: Path) -> None:
    wheel = wheel_in(archives)
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mtselect").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == {*sources, "mtselect/quickstart.yaml"}
    assert wheel.read("mtselect/quickstart.yaml") == (ROOT / "sweeps" / "quickstart.yaml").read_bytes()


def test_bounds_have_their_reasons() -> None:
    """Each bound from above and each version that is left out is a row of docs/pins.md, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    bounds = {requirement for requirement in asked if re.search("<|!=", requirement)}
    rows = re.findall(r"^\| `([^`]+)` \| .", (ROOT / "docs" / "pins.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(bounds)


def test_the_pythons_are_those_of_the_page() -> None:
    """Classifiers name what was tried."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [one.removeprefix("Programming Language :: Python :: ") for one in project["classifiers"] if ":: Python ::" in one]
    rows = re.findall(r"^\| (3\.\d+) \| .* \| (.*) \|$", (ROOT / "docs" / "pins.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert named == [version for version, tried in rows if not tried.startswith("no")]


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel alone."""

    folder: Path

    def run(self, *command: str) -> str:
        """What a command of it prints; away from the checkout."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ran = subprocess.run([self.folder / "bin" / command[0], *command[1:]], cwd=self.folder, env=environment, text=True,
                             capture_output=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def see_dependencies(self) -> None:
        """Those of the environment that runs the tests."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))


@pytest.fixture(scope="module")
def installed(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder)
    (wheel,) = archives.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True, capture_output=True, timeout=120)
    return Installed(folder)


def test_it_says_what_it_can_before_anything_else_is_there(installed: Installed) -> None:
    assert "usage: mtselect COMMAND" in installed.run("mtselect", "--help")


def test_it_runs_where_its_dependencies_are(installed: Installed) -> None:
    installed.see_dependencies()
    file, heavy, quickstart = installed.run("python", "-c", LOOK).splitlines()
    assert all(Path(path).is_relative_to(installed.folder) for path in (file, quickstart)) and Path(quickstart).is_file()
    assert heavy == "heavy:"
    listed = installed.run("mtselect", "list", "selectors")
    assert all(f"\n{name} " in f"\n{listed}" for name in part_names("mtselect.selectors"))
