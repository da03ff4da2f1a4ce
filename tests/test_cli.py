"""What the commands share: help at once, the quickstart's file, one-line errors and a clean stop, from a shell."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from rich.console import Console

import mtselect
from mtselect import __main__ as program
from mtselect import cli
from mtselect.config import RuntimeConfig, load
from mtselect.errors import ConfigError

ROOT = Path(__file__).parents[1]
COMMANDS = ("init", "list", "sweep", "promote", "score", "select", "explain", "diff", "comet", "check", "prune")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_its_command(command: str) -> None:
    """That it comes at once is in test_floors: it loads neither torch nor mlflow."""
    ran = subprocess.run([sys.executable, "-m", f"mtselect.{command}", "--help"], capture_output=True, text=True, check=True)
    assert f"python -m mtselect.{command}" in ran.stdout


def test_one_program_has_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == program.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert set(program.COMMANDS) == set(COMMANDS) and all(f"  {command:<9}" in said for command in COMMANDS)
    assert program.main(["--version"]) == 0 and capsys.readouterr().out == f"mtselect {mtselect.__version__}\n"
    assert program.main(["sweap"]) == 2
    assert re.fullmatch(r"error: 'sweap' is no command of init, .*: did you mean 'sweep'\?\n", capsys.readouterr().err)


def test_the_program_runs_what_the_module_does() -> None:
    one, other = (subprocess.run([sys.executable, "-m", *arguments, "--help"], capture_output=True, text=True, check=True)
                  for arguments in (["mtselect", "select"], ["mtselect.select"]))
    assert one.stdout == other.stdout != ""
    (script,) = entry_points(group="console_scripts", name="mtselect")
    assert script.load() is program.main


def test_help_names_every_field() -> None:
    from mtselect.config import Sweep
    from mtselect.config.section import fields_of

    ran = subprocess.run([sys.executable, "-m", "mtselect.sweep", "--help"], capture_output=True, text=True, check=True)
    missing = [path for path, info in fields_of(Sweep)
               if path not in ran.stdout or (info.description or "")[:40] not in ran.stdout]
    assert not missing


@pytest.mark.parametrize("command", ["sweep", "select --out x"])
def test_a_users_error_is_one_line_and_status_2(command: str, tmp_path: Path) -> None:
    name, *options = command.split()
    (tmp_path / "sweep.yaml").write_text("experiment: {selection: {bugdet: 5}}", encoding="utf-8")
    ran = subprocess.run([sys.executable, "-m", f"mtselect.{name}", "sweep.yaml", *options], capture_output=True, text=True,
                         cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == ["error: unknown field 'experiment.selection.bugdet': did you mean "
                                       "'experiment.selection.budget'?"]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize("command", [
    "sweep --experiment.selection.budget", "sweep QUICKSTART another.yaml", "sweep --dry-run=1", "sweep --nonsense 3",
    "sweep --search.selection.budget.low", "sweep --study.n_trials x", "sweep --study.objectives eval/chrf", "sweep no.yaml",
    "init", "init nowhere.jsonl", "init a.de-en --nonsense", "init a.de-en --out", "list", "list nonsense",
    "select", "select --out", "select --out x.csv", "select --out x.tmx.gz", "score", "score --out", "score --out x.zip",
    "score --out x --signals loss", "select --out x --nonsense", "explain --ids", "explain --top", "explain --top 0",
    "explain --out", "explain --ids --top 3", "explain --nonsense 1", "diff", "diff a", "diff a b c", "diff a b --examples x",
    "diff a b --json=3", "promote a b", "promote --nonsense", "promote --tracking.uri", "promote --export", "comet",
    "comet nonsense", "comet install --path", "comet score", "comet score a", "comet score --batch-size x a b c"])
def test_a_bad_argument_is_one_line(command: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name, *arguments = command.replace("QUICKSTART", str(cli.quickstart_file())).split()
    with contextlib.chdir(tmp_path):
        try:
            status = importlib.import_module(f"mtselect.{name}").main(arguments)
        except SystemExit as left:
            status = left.code
    said = capfd.readouterr()
    assert status == 2
    assert len(said.err.splitlines()) == 1 and said.err.startswith("error: "), said.err
    assert not said.out
    assert not list(tmp_path.iterdir())


def test_the_quickstart_is_found_and_parses() -> None:
    sweep = load(cli.quickstart_file(), [])
    assert sweep.study.name == "quickstart"
    assert sweep.study.n_trials >= 8
    assert sweep.experiment.data.pool == "quickstart:pool"
    assert cli.read_arguments([]) == sweep
    assert cli.read_arguments(["--study.n_trials", "2"]).study.n_trials == 2


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_every_sweep_file_parses(path: Path) -> None:
    sweep = load(path, [])
    assert sweep.search, "a sweep searches something"
    assert sweep.study.name == path.stem


def test_there_are_sweep_files_to_parse() -> None:
    assert (ROOT / "sweeps" / "quickstart.yaml").is_file()


def give(error: BaseException | None) -> int:
    def command(console: Console) -> None:
        if error is not None:
            raise error

    return cli.run(command, again="The same command goes on.")


@pytest.mark.parametrize(("error", "status", "said"), [
    (None, 0, ""),
    (ConfigError("budget must be 1, got 2: raise it"), 2, "error: budget must be 1, got 2: raise it\n"),
    (KeyboardInterrupt(), 130, "\nstopped. The same command goes on.\n"),
    (SystemExit(1), 130, "\nstopped. The same command goes on.\n"),
])
def test_each_end_has_its_status_and_line(error: BaseException | None, status: int, said: str,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    assert give(error) == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("command", ["--help", "--version", "check --help", "sweep --help", "init --help", "list readers",
                                     "diff one.jsonl one.jsonl --json"])
def test_a_pipe_that_nobody_reads_ends_a_command_without_a_word(command: str, tmp_path: Path) -> None:
    """`| head` may have ended before the first line, or after it."""
    (tmp_path / "one.jsonl").write_text('{"id": "a", "src": "b", "tgt": "c"}\n', encoding="utf-8")
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run([sys.executable, "-m", "mtselect", *command.split()], stdout=write, stderr=subprocess.PIPE, text=True,
                         cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        give(ZeroDivisionError())


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_end_alike_and_their_handlers_come_back(which: signal.Signals,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    def command(console: Console) -> None:
        os.kill(os.getpid(), which)
        time.sleep(10)  # interrupted at once
        raise AssertionError(f"{which} did not interrupt")

    before = signal.getsignal(which)
    assert cli.run(command, again="Go on.") == 130
    assert capsys.readouterr().err == "\nstopped. Go on.\n"
    assert signal.getsignal(which) is before


def test_a_worker_takes_the_cores_that_its_cgroup_grants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("joblib.externals.loky.backend.context._cpu_count_cgroup", lambda cores: 3)
    try:
        cli.make_bench(RuntimeConfig(workdir=str(tmp_path)), Console())
        assert torch.get_num_threads() == 3
        cli.make_bench(RuntimeConfig(workdir=str(tmp_path), threads=2), Console())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_an_interruption_that_was_swallowed_is_raised_at_the_next_step(tmp_path: Path) -> None:
    """As callbacks of C libraries do: `Exception ignored in ...`."""
    steps = []

    def command(console: Console) -> None:
        with cli.make_bench(RuntimeConfig(workdir=str(tmp_path)), console).progress.task("work", 10) as advance:
            for step in range(10):
                if step == 3:
                    with contextlib.suppress(KeyboardInterrupt):
                        os.kill(os.getpid(), signal.SIGINT)
                        time.sleep(10)
                steps.append(step)
                advance(1)

    threads = torch.get_num_threads()
    assert cli.run(command, again="Go on.") == 130
    torch.set_num_threads(threads)
    assert steps == [0, 1, 2, 3]
