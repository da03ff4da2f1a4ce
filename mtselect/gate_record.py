"""What is recorded of a trial's gate: gate.json, as the selection counted it, and gate.html, for whoever wants to judge it.

All of the page comes from what the stages `gate` and `selection` keep; of the pool's texts only the examples are read.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from mtselect.reports.pages import GateReason, GateView, Judged, Strictness, gate_page
from mtselect.selection.gate import bound
from mtselect.stages.candidates import candidate_rows
from mtselect.stages.corpus import corpus_of
from mtselect.stages.gate import gate_output
from mtselect.stages.lineage import Lineage
from mtselect.stages.selection import Selection
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.tracking.base import Tracker

_EXAMPLES = 6  # of each reason
_NEAREST = 10  # on either side of the cut
_KEEPS = (0.8, 0.9, 0.95, 0.99)  # values of `selection.gate_keeps` to compare with the trial's


def record_gate(tracker: Tracker, run_id: str, lineage: Lineage, selection: Selection) -> None:
    """Both files, where the trial has a gate."""
    if selection.gate is not None:
        tracker.log_text(run_id, json.dumps(selection.gate, indent=1, ensure_ascii=False), "gate.json")
        tracker.log_text(run_id, gate_page(view_gate(lineage, selection)), "gate.html")


def view_gate(lineage: Lineage, selection: Selection) -> GateView:
    """What the gate before a trial's selection did, with examples."""
    assert selection.gate is not None
    experiment, corpus = lineage.experiment, corpus_of(lineage)
    gated = gate_output(experiment.selection).read(lineage)
    keeps, n_dropped = float(selection.gate["keeps"]), int(selection.gate["dropped"])
    rows, pool, noisy = candidate_rows(experiment, POOL_TOKENS.read(lineage)), corpus.pool, corpus.noisy
    order = np.argsort(gated.pool, kind="stable")
    dropped, passed = order[:n_dropped], order[n_dropped:]

    def judged(some: NDArray[np.int64]) -> list[Judged]:
        return [Judged(src=pair.src, tgt=pair.tgt, score=float(gated.pool[row]), look=gated.kinds[gated.looks[row]])
                for row, pair in zip(some, pool.take(rows[some]), strict=True)]

    def noise(some: NDArray[np.int64]) -> float | None:
        return float(noisy[rows[some]].mean()) if noisy is not None and len(some) else None

    def reason(kind: str, some: NDArray[np.int64]) -> GateReason:
        shown = np.unique(np.linspace(0, len(some) - 1, _EXAMPLES).astype(np.int64))
        return GateReason(look=kind, rows=len(some), noise=noise(some), examples=judged(some[shown]))

    def strictness(share: float) -> Strictness:
        through = np.flatnonzero(gated.lets_through(share))
        return Strictness(keeps=share, cut=bound(gated.seeds, share), passed=len(through), noise=noise(through))

    reasons = [reason(kind, some) for kind, some in gated.dropped(keeps).items()]
    return GateView(gate=str(selection.gate["gate"]), keeps=keeps, cut=float(selection.gate["bound"]), pool=gated.pool,
                    seeds=gated.seeds, reasons=reasons, noise=noise(order),
                    noise_passed=noise(passed), strictness=[strictness(share) for share in sorted({*_KEEPS, keeps})],
                    failed=judged(dropped[::-1][:_NEAREST]), passed=judged(passed[:_NEAREST]), repeats=selection.n_repeats,
                    selected=len(selection.pairs))
