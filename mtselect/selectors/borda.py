"""borda: by influence and by loss together: the sum of a pair's places in both orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtselect.config import SelectionConfig
from mtselect.selection.places import place_sums
from mtselect.selectors.base import Candidates, Chosen, Column, Need, PlainSelector, read_options, take_best


@dataclass(frozen=True)
class Options:
    """How much each counts.

    Args:
        loss: weight of the place by loss per token (lowest is best), 0 to 1; the place by z has the rest.
    """

    loss: float = 0.5


class Borda(PlainSelector):
    """What the two get wrong differs: influence lets plausible noise through, loss takes what is easy."""

    needs: frozenset[Need] = frozenset({"benefits", "losses"})
    columns: Mapping[str, Column] = {"z": Column(kind=float, about="mean z-score of its benefits for the seeds"),
                                     "loss": Column(kind=float, about="per target token")}
    options: type = Options

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """Places are among what passes the gate; of equal sums the earlier row."""
        assert candidates.benefits is not None and candidates.losses is not None
        z, losses, passed = candidates.benefits.z, candidates.losses, candidates.passed
        weight = read_options(self, config).loss
        return take_best(place_sums([(1 - weight, z), (weight, -losses)], passed), passed, n_pairs, self.columns, z=z,
                         loss=losses)


SELECTOR = Borda
