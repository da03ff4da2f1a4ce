"""What selectors ask to be shown, by the name of its field in `Candidates`: the stages that it comes from, and how it is read.

A selector's needs decide what is computed. A new signal is a line here, its field, and perhaps a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mtselect.selectors.base import Need
from mtselect.stages.adequacy import COMPARED
from mtselect.stages.candidates import CandidateIndex, candidate_tokens
from mtselect.stages.columns import STANDARDISED, load_columns
from mtselect.stages.drops import DROPPED, load_drops
from mtselect.stages.gradients import INDEXED
from mtselect.stages.kiwi import KIWI_SCORED
from mtselect.stages.lineage import Input, Work
from mtselect.stages.losses import MEASURED, loss_per_token
from mtselect.stages.states import READ_STATES
from mtselect.stages.tokens import POOL_TOKENS


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Where something comes from.

    Args:
        inputs: of the selection stage.
        read: what is shown of them.
    """

    inputs: tuple[Input[object], ...]
    read: Callable[[Work], object]


def _sketches(work: Work) -> CandidateIndex | None:
    index = work.read(INDEXED)
    return index if index.shape[1] else None


def _pmi(work: Work) -> object:
    index = work.read(MEASURED)
    return (index.column("other") - index.column("loss")) / index.column("tokens")


def _seeded_losses(work: Work) -> object:
    return work.read(DROPPED).column("loss") / candidate_tokens(work).target_lengths


SIGNALS: Mapping[Need, Signal] = {
    "benefits": Signal(inputs=(INDEXED, STANDARDISED),
                       read=lambda work: load_columns(work.read(INDEXED), work.read(STANDARDISED))),
    "benefit_matrix": Signal(inputs=(INDEXED,), read=lambda work: work.read(INDEXED).column("benefits")),
    "sketches": Signal(inputs=(INDEXED,), read=_sketches),
    "losses": Signal(inputs=(MEASURED,), read=lambda work: loss_per_token(work.read(MEASURED))),
    "drops": Signal(inputs=(MEASURED, DROPPED), read=load_drops),
    "seeded_losses": Signal(inputs=(POOL_TOKENS, DROPPED), read=_seeded_losses),
    "pmi": Signal(inputs=(MEASURED,), read=_pmi),
    "tokens": Signal(inputs=(POOL_TOKENS,), read=lambda work: candidate_tokens(work).target_lengths),
    "adequacy": Signal(inputs=(COMPARED,), read=lambda work: work.read(COMPARED)),
    "kiwi": Signal(inputs=(KIWI_SCORED,), read=lambda work: work.read(KIWI_SCORED).column("kiwi")),
    "states": Signal(inputs=(READ_STATES,), read=lambda work: work.read(READ_STATES)),
}
