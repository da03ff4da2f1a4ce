"""deploy/slurm.sh, run by bash as Slurm would run it, with `scontrol`, `srun` and `ray` that write down what they were asked:
Ray's and mtselect's own parsers then read that. The `#SBATCH` lines are read by the options of sbatch's manual that it uses."""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import pytest

from mtselect.__main__ import COMMANDS
from mtselect.cli import read_arguments

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm.sh"
STUBS = {
    "scontrol": '[ "$*" = "show hostnames node[01-02]" ] || exit 1\nprintf "node01\\nnode02\\n"',
    "srun": 'for one in "$@"; do case $one in --*) echo "$one" >>"$LOG.srun"; shift;; *) break;; esac; done\nexec "$@"',
    "ray": 'printf "%s\\0" "$@" >"$LOG.ray"',
}


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script in a folder, with stubs before everything else."""
    (folder / "bin").mkdir()
    for name, body in STUBS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (folder / "bin" / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[01-02]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8", **environment}
    return subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, cwd=folder, check=False,
                          env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LOG": str(folder / "log"), **slurm})


@pytest.mark.parametrize(("slurm", "gpus"), [({"SLURM_GPUS_ON_NODE": "4"}, 4), ({}, 0)])
def test_ray_and_mtselect_read_what_it_runs(slurm: dict[str, str], gpus: int, tmp_path: Path) -> None:
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    ran = run(tmp_path, str(ROOT / "sweeps" / "quickstart.yaml"), "--experiment.model.prompt", "{src} in\nGerman: ", **slurm)
    assert ran.returncode == 0, ran.stderr
    command, *given = (tmp_path / "log.ray").read_text(encoding="utf-8").split("\0")[:-1]
    middle = given.index("--")
    ours = symmetric_run.make_context("_", given[:middle], resilient_parsing=True).params
    assert (command, ours["address"], ours["min_nodes"]) == ("symmetric-run", "node01:6379", 2)
    node = start.make_context("start", curate_and_validate_ray_start_args(given[:middle])).params
    assert (node["num_cpus"], node["num_gpus"]) == (8, gpus)
    program, name, *rest = given[middle + 1:]
    assert program == "mtselect" and name in COMMANDS
    sweep = read_arguments(rest)
    assert (sweep.runtime.executor, sweep.runtime.address, sweep.experiment.model.prompt) == (
        "ray", "node01:6379", "{src} in\nGerman: ")
    assert (tmp_path / "log.srun").read_text(encoding="utf-8").split() == ["--nodes=2", "--ntasks=2", "--cpus-per-task=8"]


def test_without_a_sweep_file_it_says_how_it_is_called(tmp_path: Path) -> None:
    ran = run(tmp_path)
    assert ran.returncode != 0 and "usage: sbatch deploy/slurm.sh SWEEP.yaml" in ran.stderr
    assert not (tmp_path / "log.ray").exists()


def test_slurm_reads_its_options() -> None:
    """One task a node, which symmetric-run needs; all options stand before the first command, after which Slurm reads none."""
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first:] if "#SBATCH" in line]
    sbatch = argparse.ArgumentParser(exit_on_error=False)
    for name in ("nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node"):
        sbatch.add_argument(f"--{name}", type=int)
    for name in ("mem", "time", "output", "job-name"):
        sbatch.add_argument(f"--{name}")
    for name in ("requeue", "exclusive"):
        sbatch.add_argument(f"--{name}", action="store_true")
    found = sbatch.parse_args([line.removeprefix("#SBATCH ") for line in lines[:first] if line.startswith("#SBATCH ")])
    assert found.nodes >= 2 and found.ntasks_per_node == 1 and found.requeue and found.exclusive
