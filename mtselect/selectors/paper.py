"""paper: G-DIG's own rule (arXiv 2405.12915): what helps every seed, drawn at random, evenly over clusters of gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtselect.config import SelectionConfig
from mtselect.selection.resample import select_rows
from mtselect.selectors.base import Candidates, Chosen, Column, Need, PlainSelector, read_options


@dataclass(frozen=True)
class Options:
    """The rule's numbers.

    Args:
        share: of the seeds, for which a pair's benefit has to be above 0.
        clusters: K of K-means over gradients of what is left.
    """

    share: float = 1.0
    clusters: int = 64


class Paper(PlainSelector):
    """No gate, raw benefits."""

    needs: frozenset[Need] = frozenset({"benefits", "sketches"})
    columns: Mapping[str, Column] = {
        "benefit_share": Column(kind=float, about="share of the seeds for which its benefit is above 0"),
        "cluster": Column(kind=int, about="of its gradient")}
    options: type = Options
    fixes: Mapping[str, object] = {"attribution.sketch_rank": 8}
    gated = False

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """As many of each cluster. Raises NonFiniteError if a benefit or a sketch is NaN or infinite."""
        columns, options = candidates.benefits, read_options(self, config)
        assert columns is not None
        rule = SelectionConfig(threshold_on="raw_share", threshold=options.share, n_clusters=options.clusters, draw="random")
        found = select_rows(columns, columns.z, candidates.sketches, candidates.passed, n_pairs, rule, seed)
        return Chosen(rows=found.rows, n_passed=found.n_passed, order=found.order, columns={
            "benefit_share": columns.raw_share[found.rows], "cluster": found.cluster})


SELECTOR = Paper
