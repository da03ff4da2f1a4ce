"""adequacy: the pairs whose two sides mean the same, as sentence embeddings have it, without copies.

The filter of crawled corpora: cosine of multilingual embeddings (LaBSE, Feng et al., arXiv 2007.01852), and a rule against
targets that are the source again, whose cosine is highest of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtselect.config import SelectionConfig
from mtselect.selection.features import COPY_OVERLAP
from mtselect.selectors.base import Candidates, Chosen, Column, Need, PlainSelector, read_options, take_best


@dataclass(frozen=True)
class Options:
    """The rule against copies.

    Args:
        copy_overlap: share of character trigrams that both sides have (of the shorter one) from which a pair counts as a copy;
            above 1 no pair does.
    """

    copy_overlap: float = COPY_OVERLAP


class Adequate(PlainSelector):
    """By `adequacy.encoder`."""

    needs: frozenset[Need] = frozenset({"adequacy"})
    columns: Mapping[str, Column] = {"cosine": Column(kind=float, about="of the sentence embeddings of source and target")}
    options: type = Options

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The highest of what passes the gate and is no copy."""
        found = candidates.adequacy
        assert found is not None
        right = candidates.passed & (found.overlap < read_options(self, config).copy_overlap)
        return take_best(found.cosine, right, n_pairs, self.columns, cosine=found.cosine)


SELECTOR = Adequate
