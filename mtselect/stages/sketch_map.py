"""map: the candidates' sketches in their principal plane, points.npy [N, 2], for the picture."""

from __future__ import annotations

import numpy as np

from mtselect.selection.projection import planar_map
from mtselect.stages.gradients import INDEXED
from mtselect.stages.lineage import Stage, Work


def _run(work: Work) -> None:
    np.save(work.out / "points.npy", planar_map(work.read(INDEXED)))


MAP = Stage(name="map", version=1, reads=(), inputs=lambda _: [INDEXED], run=_run)
