"""What a name on the Hugging Face hub stands for now: a commit. Pinned once, it is part of every stage's key and of
`experiment.yaml`, so that a model or a dataset that moves on the hub is another one here too."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Literal

Kind = Literal["model", "dataset"]
_COMMIT = re.compile("[0-9a-f]{40}")
_SECONDS = 10.0  # that the hub is waited for


def pin(name: str, kind: Kind) -> str:
    """`NAME[@REVISION]` with the commit that the revision (the main branch) stands for: `NAME@COMMIT`.

    Without a network the commit that was last downloaded counts (of a named revision, the one that was so called then). A name
    that neither the hub nor its cache knows comes back as it is: loading it will say what is wrong.
    """
    repository, _, revision = name.partition("@")
    if _COMMIT.fullmatch(revision):
        return name
    with contextlib.suppress(ValueError, OSError):  # it cannot be a name
        commit = _asked(repository, kind, revision or None) or _cached(repository, kind, revision or None)
        return f"{repository}@{commit}" if commit else name
    return name


def is_local(name: str) -> bool:
    """Whether it is a file or folder here."""
    return os.path.exists(Path(name))  # unlike Path.exists, it takes names of any length


def located(name: str) -> tuple[str, str | None]:
    """(name or folder, revision or null), as `from_pretrained` wants them; a folder may have an @ in its name."""
    if is_local(name):
        return name, None
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _asked(repository: str, kind: Kind, revision: str | None) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        return None
    try:
        return HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=_SECONDS).sha
    except Exception:  # no network, no such name: the classes are those of an HTTP library that changes between versions
        return None


def _cached(repository: str, kind: Kind, revision: str | None) -> str | None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type=kind))
    # What was downloaded by its commit, as we do, is no reference; so the newest folder counts before `refs/main`.
    snapshots = sorted(folder.glob("snapshots/*"), key=lambda path: path.stat().st_mtime)
    if revision is None and snapshots:
        return snapshots[-1].name
    named = folder / "refs" / (revision or "main")
    return named.read_text(encoding="utf-8").strip() if named.is_file() else None
