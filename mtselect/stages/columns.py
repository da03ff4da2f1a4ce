"""columns: the candidates' benefits as columns that compare, z.npy and share.npy [N] (`selection/standardise.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtselect.selection.resample import Columns
from mtselect.selection.standardise import standardise
from mtselect.stages.candidates import CandidateIndex
from mtselect.stages.gradients import INDEXED
from mtselect.stages.lineage import Output, Stage, Work


def _run(work: Work) -> None:
    index = work.read(INDEXED)
    z, share = standardise(lambda: index.shards("benefits"))
    np.save(work.out / "z.npy", z)
    np.save(work.out / "share.npy", share)


COLUMNS = Stage(name="columns", version=1, reads=(), inputs=lambda _: [INDEXED], run=_run)
STANDARDISED = Output[Path](stage=COLUMNS)


def load_columns(index: CandidateIndex, folder: Path) -> Columns:
    """What candidates are chosen by, of a gradients and a columns entry; benefits [N, Q] are not read."""
    return Columns(mean=index.column("mean"), raw_share=index.column("share"), norm=index.column("norm"),
                   z=np.load(folder / "z.npy"), share=np.load(folder / "share.npy"))
