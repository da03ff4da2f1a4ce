"""What the gate sees of a pair: what the model loses on it, and what its two texts look like. Forward passes only.

    loss     log of the loss per target token
    pmi      loss per token under another pair's source, minus under its own: how much the target owes to its source
    tokens   log of the target's length in tokens
    chars    log ratio of the lengths in characters, target over source
    words    the same in words
    overlap  share of character trigrams in common, of the side with fewer
    digits   numbers that only one side has
    repeats  share of the target's words that came before
    ending   whether one side ends in punctuation and the other does not
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NAMES = ("loss", "pmi", "tokens", "chars", "words", "overlap", "digits", "repeats", "ending")
_NUMBER = re.compile(r"\d+")
COPY_OVERLAP = 0.6  # of character trigrams, from which a target counts as a copy of its source
_LEAST_LOSS = 1e-3  # nats per token: below, differences say nothing


def features(texts: Sequence[tuple[str, str]], loss: NDArray[np.float64], other: NDArray[np.float64],
             tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 9] in the order of `NAMES`.

    Args:
        texts: source and target of each pair.
        loss: summed over its target tokens and EOS, [n].
        other: the same with another pair's source, [n].
        tokens: how many there are, [n].
    """
    seen = np.array([_surface(source, target) for source, target in texts]).reshape(len(texts), len(NAMES) - 3)
    return np.column_stack([np.log(loss / tokens + _LEAST_LOSS), (other - loss) / tokens, np.log(tokens), seen])


def _surface(source: str, target: str) -> tuple[float, ...]:
    sources, targets = source.split(), target.split()
    numbers = Counter(_NUMBER.findall(source)), Counter(_NUMBER.findall(target))
    return (float(np.log((len(target) + 1) / (len(source) + 1))), float(np.log((len(targets) + 1) / (len(sources) + 1))),
            trigram_overlap(source, target),
            float(((numbers[0] - numbers[1]) + (numbers[1] - numbers[0])).total()),
            1 - len(set(targets)) / max(1, len(targets)), float(_ends(source) != _ends(target)))


def trigram_overlap(source: str, target: str) -> float:
    """Share of character trigrams in common, of the side with fewer."""
    left, right = _trigrams(source), _trigrams(target)
    return len(left & right) / max(1, min(len(left), len(right)))


def _trigrams(text: str) -> set[str]:
    padded = f" {text.lower()} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def _ends(text: str) -> bool:
    """Whether a text ends in what is no letter, digit or closing bracket."""
    last = text.rstrip()[-1:]
    return bool(last) and not last.isalnum() and last not in ")]}\"'"
