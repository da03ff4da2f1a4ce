"""What `mtselect promote` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Order:
    """What was asked for on the command line.

    Args:
        study: its name.
        force: promote to champion, or push, even if a gate is not passed.
        dry_run: register and push nothing.
        from_scratch: compute all again.
        rollback: give the alias back instead.
        export: folder, or file with an ending that `data.output` knows, to write the champion to instead.
        push: ORG/NAME of the dataset repository on the Hugging Face hub that the champion goes to.
        private: make that repository a private one.
        licence: of the pool, where the sweep has none.
        uri: MLflow's address.
        experiment: MLflow's.
        workdir: of the stage store.
    """

    study: str
    force: bool = False
    dry_run: bool = False
    from_scratch: bool = False
    rollback: bool = False
    export: Path | None = None
    push: str | None = None
    private: bool = False
    licence: str | None = None
    uri: str | None = None
    experiment: str | None = None
    workdir: str = "mlruns"
