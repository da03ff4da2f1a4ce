"""Makes COMET's own environment.

    <environment>/mtselect-comet.txt   empty while the environment is made; the requirements when it is whole
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from mtselect.errors import CometError

INSTALL = "python -m mtselect.comet install"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
MARKER = "mtselect-comet.txt"
NEWEST = (3, 12)  # numpy 1.26 has no wheels for later Pythons
LINES = 12  # of a failed command, shown


def environment() -> Path:
    """Where COMET's environment is or will be: $MTSELECT_COMET_ENV, else `mtselect/comet` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("MTSELECT_COMET_ENV") or f"{cache}/mtselect/comet").expanduser().absolute()


def python(path: Path) -> Path:
    """The Python of an environment."""
    return path / "bin" / "python"


def comet_version() -> str:
    """Of the package unbabel-comet that is installed here."""
    (line,) = (line for line in REQUIREMENTS.read_text("utf-8").splitlines() if line.startswith("unbabel-comet=="))
    return line.split("==")[1]


def is_installed(path: Path) -> bool:
    """Whether the environment is whole and has what this version of mtselect asks for."""
    marker = path / MARKER
    return python(path).exists() and marker.is_file() and marker.read_text("utf-8") == REQUIREMENTS.read_text("utf-8")


def install(path: Path, show: Callable[[str], None] = lambda line: None) -> bool:
    """Make COMET's environment, unless it is there; what an interrupted call left is made afresh.

    Args:
        path: its folder; must be absent, empty or of an earlier call.
        show: is told each line of what goes on.

    Returns:
        Whether there was anything to do.

    Raises:
        CometError: the folder is not ours or cannot be written, or a step failed; nothing then passes for installed.
    """
    if is_installed(path):
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_installed(path):  # by another process, while this one waited
                return False
            _make(path, lambda command, advice: _call(command, advice, show, lock.fileno()))
    except OSError as error:
        raise CometError(f"COMET's environment cannot be written to {path}: {error}: free space or choose another folder "
                         f"with `{INSTALL} --path DIR`") from error
    return True


def _make(path: Path, call: Callable[[list[str], str], None]) -> None:
    if sys.version_info[:2] > NEWEST:
        raise CometError(f"COMET needs Python {NEWEST[0]}.{NEWEST[1]} or older, this is {sys.version.split()[0]}: "
                         "make mtselect's environment with an older Python")
    if path.exists() and any(path.iterdir()) and not (path / MARKER).is_file():
        raise CometError(f"{path} holds other files: choose an empty or a new folder with `{INSTALL} --path DIR`")
    path.mkdir(exist_ok=True)
    (path / MARKER).write_text("", encoding="utf-8")
    for left in path.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif left.name != MARKER:
            left.unlink()
    call([sys.executable, "-I", "-m", "venv", str(path)], "on Debian and Ubuntu it needs `apt install python3-venv`")
    torch = f"torch=={version('torch').partition('+')[0]}"  # the wheel that fits this machine's GPU, as for mtselect
    pip = [str(python(path)), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    call([*pip, torch, "-r", str(REQUIREMENTS)], "mend what pip names above and run the same command again")
    call([str(python(path)), "-I", "-c", "import comet"],
         "run the same command again; if this comes again, COMET cannot run here")
    whole = path / f"{MARKER}.part"
    shutil.copyfile(REQUIREMENTS, whole)
    whole.rename(path / MARKER)


def _call(command: list[str], advice: str, show: Callable[[str], None], lock: int) -> None:
    """Run one step, which holds the lock as long as it lives; raises CometError with its last lines if it fails."""
    last: deque[str] = deque(maxlen=LINES)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", process_group=0, pass_fds=[lock]) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "connection broken by" in line:
                    advice = "the package index is out of reach: connect, or set pip's proxy or index, and run it again"
                last.append(f"  {line.rstrip()}")
                show(line.strip())
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise CometError("\n".join([f"COMET was not installed, `{' '.join(command[1:5])}` failed:", *last, advice]))
