"""gdig: by benefit for the seeds and loss after a short training on them (`selection.rank`), evenly over clusters of gradients
if wanted; after G-DIG (Pan et al., ACL 2024, arXiv 2405.12915)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mtselect.config import Experiment, SelectionConfig
from mtselect.selection.places import place_sums
from mtselect.selection.resample import rank_values, select_rows
from mtselect.selectors.base import Candidates, Chosen, Column, Need, PlainSelector


class Gdig(PlainSelector):
    """Threshold, rank and draw of `selection/resample.py`."""

    needs: frozenset[Need] = frozenset({"benefits", "sketches"})
    columns: Mapping[str, Column] = {
        "z": Column(kind=float, about="mean z-score of its benefits for the seeds"),
        "benefit": Column(kind=float, about="mean over them, larger is better"),
        "benefit_share": Column(kind=float, about="share of the seeds for which it is above the pool's mean"),
        "cluster": Column(kind=int, about="of its gradient")}
    fields = ("rank", "threshold", "threshold_on", "n_clusters", "draw")
    shown = ("rank", "n_clusters", "threshold")

    def also_needs(self, config: SelectionConfig) -> frozenset[Need]:
        """The losses that it ranks by."""
        return frozenset({"seeded_losses"} if config.rank == "z_and_loss" else ())

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The best, or evenly over clusters. Raises NonFiniteError if a benefit or a sketch is NaN or infinite."""
        columns = candidates.benefits
        assert columns is not None
        if config.rank == "z_and_loss":
            losses = candidates.seeded_losses
            assert losses is not None
            ranks = place_sums([(0.5, columns.z), (0.5, -losses)], candidates.passed)
            ranked_by: dict[str, NDArray[np.generic]] = {"z": columns.z, "seeded_loss": losses}
        else:
            ranks = rank_values(columns, config.rank)
            ranked_by = {config.rank: ranks}
        found = select_rows(columns, ranks, candidates.sketches, candidates.passed, n_pairs, config, seed)
        ranked_by = {} if config.draw == "random" else ranked_by
        return Chosen(rows=found.rows, n_passed=found.n_passed, order=found.order, ranked_by=ranked_by, columns={
            "z": columns.z[found.rows], "benefit": columns.mean[found.rows], "benefit_share": columns.share[found.rows],
            "cluster": found.cluster})

    def say(self, experiment: Experiment, n_selected: int, n_passed: int) -> str:
        """The rule."""
        chosen = experiment.selection
        z = "mean z-score of benefits for the seeds"
        ranks = {"z": f"the {z}", "z_and_loss": f"places by {z} and by loss after a short training on them",
                 "benefit": "mean benefit for the seeds",
                 "benefit_per_norm": "mean benefit for the seeds over the norm of the gradient"}
        if n_selected == n_passed:
            return f"All {n_passed:,} that passed were taken, nothing was filled up."
        evenly = f", evenly from {chosen.n_clusters} clusters of gradient sketches" if chosen.n_clusters > 1 else ""
        return (f"{n_passed:,} passed; the {n_selected:,} best by {ranks[chosen.rank]} "
                f"({experiment.attribution.curvature} influence, after G-DIG, arXiv 2405.12915) were taken{evenly}.")


SELECTOR = Gdig
