"""sacreBLEU's metrics as ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.base import Metric as Sacre

from mtselect.errors import DataError
from mtselect.metrics.base import PlainMetric, Scoring


class SacreBleu(PlainMetric):
    """A metric of sacreBLEU's."""

    def __init__(self) -> None:
        self._made: dict[str, Sacre] = {}

    def make(self, tgt_lang: str) -> Sacre:
        """sacreBLEU's object for a target language."""
        raise NotImplementedError

    def signature(self, scoring: Scoring) -> str:
        """sacreBLEU's."""
        return str(self._sacre(scoring).get_signature())

    def statistics(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str],
                   scoring: Scoring) -> NDArray[np.float64]:
        """Sufficient statistics of each sentence, [n, S]; sacreBLEU has no public name for them.

        Raises:
            DataError: there are no sentences, or the numbers of sentences differ.
        """
        if not references:
            raise DataError("references must hold at least one sentence, got 0: check data.dev and evaluation.dev_rows")
        for name, sentences in (("sources", sources), ("hypotheses", hypotheses)):
            if len(sentences) != len(references):
                raise DataError(f"{name} must be as many as references ({len(references)}), got {len(sentences)}: "
                                "pass one per reference, in the same order")
        found = self._sacre(scoring)._extract_corpus_statistics(hypotheses, [references])
        return np.array(found, dtype=np.float64)

    def score(self, totals: NDArray[np.float64], scoring: Scoring) -> float:
        """Of summed statistics [S]."""
        counts = [int(value) for value in totals.tolist()]  # as sacreBLEU sums them; TER's words too are whole
        return float(self._sacre(scoring)._compute_score_from_stats(counts).score)

    def _sacre(self, scoring: Scoring) -> Sacre:
        if scoring.tgt_lang not in self._made:
            made = self.make(scoring.tgt_lang)
            made.num_refs = 1
            self._made[scoring.tgt_lang] = made
        return self._made[scoring.tgt_lang]
