"""The Dockerfile, built by buildah, and the quickstart's preflight run in the image: `MTSELECT_CONTAINER=1 python -m pytest
tests/container`, as root on Debian, with `apt-get install buildah debootstrap`.

The base image is made by debootstrap from this machine's own mirror, so that no image registry is asked; pip's settings of this
machine are mounted for the build. What came of it is written into `built.json`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mtselect

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/base:test", "localhost/mtselect:test"
PACKAGES = "ca-certificates,python3-venv,python-is-python3"  # what python:3.11-slim has of use here
HERE = "/etc/pip.conf /opt /src /app/.git"
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

pytestmark = [
    pytest.mark.skipif(os.environ.get("MTSELECT_CONTAINER") != "1", reason="builds an image: needs MTSELECT_CONTAINER=1"),
    pytest.mark.timeout(3000),
]


class Buildah:
    """buildah with a store of its own.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "overlay"]

    def __call__(self, command: str, *arguments: str) -> str:
        """The command's output, with its errors."""
        return run(["buildah", *self._options, command, *arguments])


def run(command: list[str]) -> str:
    """Output of a command that has to succeed."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                         env={**os.environ, "BUILDAH_ISOLATION": "chroot"})
    assert ran.returncode == 0, f"{' '.join(command[:12])} ...\n{ran.stdout[-3000:]}"
    return ran.stdout


def mirror() -> tuple[str, str]:
    """Address and suite of the first source of packages of this machine."""
    folder = Path("/etc/apt")
    texts = [path.read_text(encoding="utf-8") for path in [folder / "sources.list", *folder.glob("sources.list.d/*")]
             if path.suffix in (".list", ".sources") and path.exists()]
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    found = re.search(rf"^(?:deb (?:\[.*?\] )?(\S+) {suite} |URIs: (\S+)\nSuites: .*\b{suite}\b)", "\n".join(texts), re.M)
    assert found, f"no source of {suite} in {folder}"
    return found[1] or found[2], suite


def pip_mounts(folder: Path) -> list[str]:
    """Options that give pip this machine's settings, and the files that these name."""
    listed = run([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    settings = dict(re.findall(r"^[^.]*\.([\w-]+)='(.*)'$", "\n".join(listed).replace("\\n", " "), re.MULTILINE))
    (folder / "pip.conf").write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()),
                                     encoding="utf-8")
    named = {Path("/", *Path(part.removeprefix("file://")).parts[1:3]) for value in settings.values() for part in value.split()
             if part.removeprefix("file://").startswith("/")}
    folders = sorted(str(path) for path in named if path.is_dir())
    return [f"--volume={source}:{target}:ro"
            for source, target in [(str(folder / "pip.conf"), "/etc/pip.conf"), *zip(folders, folders, strict=True)]]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """A store with the base image and ours; removed at the end."""
    folder = tmp_path_factory.mktemp("images")
    buildah = Buildah(folder)
    try:
        address, suite = mirror()
        run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(folder / "base"), address])
        made = buildah("from", "scratch").split()[-1]
        buildah("add", "--quiet", made, str(folder / "base"), "/")
        buildah("config", "--env", f"PATH={PATHS}", made)
        buildah("commit", "--quiet", "--rm", made, BASE)
        buildah("build", "--pull-never", f"--build-arg=BASE={BASE}", *pip_mounts(folder), "--tag", IMAGE, str(ROOT))
        yield buildah
    finally:
        if (folder / "storage").exists():
            buildah("rm", "--all")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def container(buildah: Buildah) -> str:
    """A container of the image."""
    return buildah("from", "--pull-never", IMAGE).split()[-1]


def test_the_preflight_of_the_quickstart_finds_nothing_wrong(buildah: Buildah, container: str) -> None:
    said = buildah("run", container, "--", "python", "-m", "mtselect.check", "/app/sweeps/quickstart.yaml")
    assert "nothing is wrong" in said, said


@pytest.mark.parametrize(("command", "answer"), [
    (["mtselect", "--version"], f"mtselect {mtselect.__version__}"),
    (["ray", "job", "submit", "--help"], "ENTRYPOINT"),
    (["mlflow", "server", "--help"], "--allowed-hosts"),
    (["python", "-c", "import psycopg; print(psycopg.pq.version())"], "1"),
    (["id", "--user"], "1000"),
    (["sh", "-c", "echo $PWD; touch /data/new && echo written"], "/data\nwritten"),
])
def test_what_deploy_calls_is_there(command: list[str], answer: str, buildah: Buildah, container: str) -> None:
    assert answer in buildah("run", container, "--", *command)


def test_nothing_of_this_machine_is_in_the_image(buildah: Buildah, container: str) -> None:
    """Of what was mounted, empty places at most."""
    found = buildah("run", container, "--", "sh", "-c", f"find {HERE} -type f -size +0 2>/dev/null; echo end")
    assert found.strip() == "end"


def test_the_build_is_recorded(buildah: Buildah, request: pytest.FixtureRequest) -> None:
    """With its size, as buildah counts it: where a build had the same inputs, CI makes no other."""
    from tests.container.inputs import RECORD, inputs_hash

    assert not request.session.testsfailed, "an image that failed a test is not recorded"
    sizes = {one["names"][0]: one["size"] for one in json.loads(buildah("images", "--json")) if one["names"]}
    assert sizes[IMAGE].endswith(" GB") and float(sizes[IMAGE].split()[0]) < 5, sizes
    record = {"inputs": inputs_hash(), "date": datetime.date.today().isoformat(), "image": sizes[IMAGE], "base": sizes[BASE]}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
