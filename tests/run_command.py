"""Run by `Lab.start` in a forked process: one command of mtselect, with its output in a file. `ORDER` is passed in."""

import os
import runpy
import sys

folder, log, module, *arguments = ORDER  # type: ignore[name-defined]  # noqa: F821
os.chdir(folder)
output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(output, 1)
os.dup2(output, 2)
sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
