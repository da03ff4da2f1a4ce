"""What decides whether the image builds, as one hash: `python tests/container/inputs.py` succeeds where the last recorded
build had the same. Standard library alone: .ci/run asks it before anything is installed."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("built.json")
INPUTS = ("Dockerfile", ".dockerignore", "pyproject.toml", "constraints.txt")


def inputs_hash() -> str:
    """SHA-256 of the names and contents of the inputs, in hexadecimal."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update(f"{name}\n{hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def is_built() -> bool:
    """Whether the recorded build had these inputs."""
    return RECORD.exists() and json.loads(RECORD.read_text(encoding="utf-8"))["inputs"] == inputs_hash()


if __name__ == "__main__":
    sys.exit(not is_built())
