"""What a metric is, and where one is found by name.

A corpus score is a function of statistics summed over sentences:

    score = f(Σ_i s_i),  s_i [S] statistics of sentence i

n-gram counts for BLEU and chrF, edits and words for TER, the score and 1 for a mean of sentence scores such as COMET. That is
all that intervals and tests need to know of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mtselect.config import EvaluationConfig
from mtselect.errors import ConfigError
from mtselect.plugins import Plugins
from mtselect.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What a metric may ask for beside the texts.

    Args:
        settings: of the evaluation.
        tgt_lang: name or code of the target language.
        progress: for what takes long.
    """

    settings: EvaluationConfig
    tgt_lang: str
    progress: Progress


class Metric(Protocol):
    """A metric. Its attributes are the class's: they are asked for without making one.

    Attributes:
        title: for people.
        higher_is_better: whether a study maximises it.
        alone: whether it wants the machine for itself, so that trials are not evaluated side by side.
    """

    title: str
    higher_is_better: bool = True
    alone: bool = False

    def look(self, scoring: Scoring) -> str | None:
        """What will score, in words, if there is anything to say; called before any work, starts nothing.

        Raises:
            UserError: it cannot score here.
        """
        return None

    def prepare(self, scoring: Scoring) -> None:
        """Load what takes long, so that what is wrong with it is said before hours of work."""

    def source(self, scoring: Scoring) -> str | None:
        """Hash of the files that decide its scores, if there are such."""
        return None

    @abstractmethod
    def signature(self, scoring: Scoring) -> str:
        """What decides its scores: names and versions, as sacreBLEU's."""

    @abstractmethod
    def statistics(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str],
                   scoring: Scoring) -> NDArray[np.float64]:
        """Of each sentence, [n, S].

        Raises:
            UserError: it cannot score here.
        """

    @abstractmethod
    def score(self, totals: NDArray[np.float64], scoring: Scoring) -> float:
        """Of a corpus, from its summed statistics [S]; sacreBLEU's scale of 0 to 100."""


class PlainMetric(Metric):
    """The name that a metric's file, here or in another package, is a subclass of."""


METRICS: Plugins[type[Metric]] = Plugins("mtselect.metrics", "METRIC", "evaluation.metrics")


class Metrics(dict[str, Metric]):
    """The metrics of a process by their names, each made once: COMET's keeps a process of its own."""

    def __missing__(self, name: str) -> Metric:
        """Make it. Raises ConfigError if there is none, or not all of it."""
        try:
            made = self[name] = METRICS.load(name)()
        except TypeError as error:  # it lacks a method
            raise ConfigError(f"evaluation.metrics {name!r} is no whole metric ({error}): mend or remove it") from error
        return made


def direction(objective: str) -> Literal["minimize", "maximize"]:
    """Most scores go up; what is selected (pairs, noise) goes down."""
    up = objective.startswith("eval/") and METRICS.load(objective.removeprefix("eval/")).higher_is_better
    return "maximize" if up else "minimize"


def sign(objective: str) -> Literal[1, -1]:
    """What a score is multiplied by so that more is better."""
    return 1 if direction(objective) == "maximize" else -1
