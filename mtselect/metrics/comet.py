"""COMET (Rei et al. 2020): a model's score of each sentence, times 100; the corpus' is their mean.

It needs older libraries than ours and runs in an environment of its own (`_comet/`): `python -m mtselect.comet install`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtselect.data.fingerprint import local_digest
from mtselect.metrics._comet.client import CometScorer
from mtselect.metrics._comet.install import comet_version
from mtselect.metrics.base import Metric, Scoring


class Comet(Metric):
    """Scores of `evaluation.comet_model`."""

    title = "COMET"
    alone = True  # one process, and perhaps one GPU, for all

    def __init__(self) -> None:
        self._scorer = CometScorer()

    def look(self, scoring: Scoring) -> str:
        """Model and version. Raises CometError if COMET is not installed or the model is a path where there is none."""
        return self._scorer.look(scoring.settings.comet_model)

    def prepare(self, scoring: Scoring) -> None:
        """Load the model."""
        model = scoring.settings.comet_model
        with scoring.progress.task(f"COMET: load {model}", 1) as advance:
            self._scorer.requires_references(model)
            advance(1)

    def source(self, scoring: Scoring) -> str | None:
        """Of a model that is a folder or a file."""
        return local_digest(scoring.settings.comet_model)

    def signature(self, scoring: Scoring) -> str:
        """Model and version."""
        return f"model:{scoring.settings.comet_model}|comet:{comet_version()}"

    def statistics(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str],
                   scoring: Scoring) -> NDArray[np.float64]:
        """Each sentence's score and 1, [n, 2]."""
        with scoring.progress.task("COMET", len(sources)) as advance:
            scores = self._scorer.score(scoring.settings.comet_model, sources, hypotheses, references, advance=advance)
        return np.column_stack([scores, np.ones(len(scores))])

    def score(self, totals: NDArray[np.float64], scoring: Scoring) -> float:
        """Mean, times 100."""
        return 100 * float(totals[0] / totals[1])


METRIC = Comet
