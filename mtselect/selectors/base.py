"""What a selector is, what it is shown, and where one is found by name.

Shapes: N candidates, n selected rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mtselect.config import Experiment, SelectionConfig
from mtselect.errors import ConfigError
from mtselect.plugins import Plugins
from mtselect.selection.cluster import Sketches
from mtselect.selection.resample import Columns

# What can be looked at, each a field of `Candidates`; `stages/signals.py` says where it comes from and so what it costs.
Need = Literal["benefits", "benefit_matrix", "sketches", "losses", "drops", "seeded_losses", "pmi", "tokens",
               "adequacy", "kiwi", "states"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Adequacy:
    """How near targets lie to their sources, [N] each.

    Args:
        cosine: of the sentence embeddings of source and target.
        overlap: share of character trigrams in common, of the side with fewer; 1 for a copy.
    """

    cosine: NDArray[np.float64]
    overlap: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class States:
    """Vectors of unit length from the hidden states of the model that scores.

    Args:
        pool: of the candidates, [N, D].
        seeds: of the seeds, [Q, D].
    """

    pool: NDArray[np.float32]
    seeds: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """What a selector may look at; what it did not say it needs is null.

    Args:
        passed: whether the gate lets each candidate through, [N]; all where there is none.
        benefits: for the seeds, as columns [N] each (a gradient pass).
        benefit_matrix: for each seed, [N, Q] (the same pass; held in memory whole).
        sketches: of the gradients, [N, R] (the same); null too where `attribution.sketch_rank` is 0.
        losses: per target token, [N] (forward passes).
        drops: share of the loss that a short training on the seeds takes away, [N] (training, and forward passes).
        seeded_losses: per target token after that training, [N] (the same).
        pmi: loss per target token after another pair's source, minus the loss, [N] (the same).
        tokens: of the target, [N].
        adequacy: from a sentence encoder.
        kiwi: quality of each pair, [N], from COMET's reference-free model.
        states: of the hidden states (a forward pass).
    """

    passed: NDArray[np.bool_]
    benefits: Columns | None = None
    benefit_matrix: NDArray[np.float32] | None = None
    sketches: Sketches | None = None
    losses: NDArray[np.float64] | None = None
    drops: NDArray[np.float64] | None = None
    seeded_losses: NDArray[np.float64] | None = None
    pmi: NDArray[np.float64] | None = None
    tokens: NDArray[np.int32] | None = None
    adequacy: Adequacy | None = None
    kiwi: NDArray[np.float64] | None = None
    states: States | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """What was selected.

    Args:
        rows: indices into the candidates, ascending, [n].
        n_passed: candidates that could have been taken.
        columns: what goes beside each pair into `selected.jsonl`, [n] each; those of `Selector.columns`.
        order: indices of all candidates that were ranked, best first: the first n are the set; null where no order decided.
        ranked_by: what the order goes by, for people: values [N] by the names that they have in `score`'s table; none where the
            order is a draw.
    """

    rows: NDArray[np.int64]
    n_passed: int
    columns: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    order: NDArray[np.int64] | None = None
    ranked_by: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of `selected.jsonl` beside the pair's own: its type, `float` or `int`, and what it is, for the card."""

    kind: type
    about: str


@dataclass(frozen=True)
class NoOptions:
    """Of a selector that has none."""


class Selector(Protocol):
    """A way to choose. One that says nothing else stands behind the gate, takes as many as the budget says, and has no options.

    Attributes:
        needs: what it looks at.
        columns: what it leaves beside each pair.
        fields: of `selection` that it reads beside method, budget and seed.
        shown: of these, the ones that people compare trials by.
        options: dataclass of `selection.options`, its own section.
        fixes: fields of the experiment that it is not itself without, and their values.
        gated: whether `selection.gate` stands before it.
        sized: whether it takes `selection.budget` pairs, rather than all or none.
        drawn: whether it draws at random: then each finetuning seed has a set of its own.
        excludes: whether rows that `warmup.exclude` leaves out are no candidates.
    """

    needs: frozenset[Need] = frozenset()
    columns: Mapping[str, Column] = {}
    fields: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    options: type = NoOptions
    fixes: Mapping[str, object] = {}
    gated: bool = True
    sized: bool = True
    drawn: bool = False
    excludes: bool = True

    def also_needs(self, config: SelectionConfig) -> frozenset[Need]:
        """What it looks at beside `needs` with these of its `fields`."""
        return frozenset()

    @abstractmethod
    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """Choose.

        Args:
            candidates: what it needs of them.
            n_pairs: to select if it is `sized`, or fewer where fewer can be taken: a set is never filled up.
            config: `fields` of it, and its options (`read_options`).
            seed: of its draws.
        """

    def say(self, experiment: Experiment, n_selected: int, n_passed: int) -> str:
        """What was done, in a sentence, for cards and notes."""
        return f"{n_selected:,} of the {n_passed:,} that were left were taken by `{experiment.selection.method}`."


class PlainSelector(Selector):
    """The name that a selector's file, here or in another package, is a subclass of."""


def take_best(values: NDArray[np.floating | np.integer], passed: NDArray[np.bool_], n_pairs: int,
              columns: Iterable[str] = (), **ranked_by: NDArray[np.generic]) -> Chosen:
    """The rows [min(n, passed)] of the largest values [N] among those that passed [N]; of equal ones the earlier. `ranked_by`
    is what the values are, or are made of (`Chosen`); `columns` says what of it goes beside each pair."""
    passing = np.flatnonzero(passed)
    order = passing[np.argsort(-values[passing], kind="stable")]
    rows = np.sort(order[:n_pairs])
    return Chosen(rows=rows, n_passed=len(passing), order=order, ranked_by=ranked_by,
                  columns={name: ranked_by[name][rows] for name in columns})


def read_options(selector: type[Selector] | Selector, config: SelectionConfig) -> Any:
    """`selection.options` as the selector's own section. Raises ConfigError for one that it does not have."""
    known = [one.name for one in fields(selector.options)]
    for name in config.options or {}:
        if name not in known:
            raise ConfigError(f"selection.options.{name} is no option of selection.method {config.method!r}, which has "
                              f"{', '.join(known) or 'none'}: correct or remove it")
    try:
        return TypeAdapter(selector.options).validate_python(dict(config.options or {}))
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"]))
        raise ConfigError(f"selection.options.{name}: {wrong['msg']}, got {wrong['input']!r}") from error


SELECTORS: Plugins[type[Selector]] = Plugins("mtselect.selectors", "SELECTOR", "selection.method")
