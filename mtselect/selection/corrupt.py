"""Wrong pairs made of right ones: what the gate is shown beside the seeds.

Each kind changes one side of a pair so that a reader would throw it away. A kind that cannot apply to a pair (no number in it)
leaves it out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Text = tuple[str, str]  # source and target
_NUMBER = re.compile(r"\d+")


def corruptions(pairs: Sequence[Text], seed: int) -> dict[str, list[tuple[int, Text]]]:
    """Kind -> (row of the pair it was made of, wrong pair), in the order of the pairs; the same for the same seed."""
    found: dict[str, list[tuple[int, Text]]] = {}
    for kind, corrupt in KINDS.items():
        rng = random.Random(f"{seed} {kind}")
        for row, (source, target) in enumerate(pairs):
            wrong = corrupt(source, target, pairs, rng)
            if wrong.strip() and wrong != target:
                found.setdefault(kind, []).append((row, (source, wrong)))
    return found


def _misalign(source: str, target: str, pairs: Sequence[Text], rng: random.Random) -> str:
    return rng.choice(pairs)[1]


def _copy(source: str, target: str, pairs: Sequence[Text], rng: random.Random) -> str:
    return source


def _truncate(source: str, target: str, pairs: Sequence[Text], rng: random.Random) -> str:
    units, glue = _units(target)
    return glue.join(units[: max(1, int(len(units) * rng.uniform(0.3, 0.7)))])


def _shuffle(source: str, target: str, pairs: Sequence[Text], rng: random.Random) -> str:
    units, glue = _units(target)
    return glue.join(rng.sample(units, len(units)))


def _change_numbers(source: str, target: str, pairs: Sequence[Text], rng: random.Random) -> str:
    return _NUMBER.sub(lambda match: "".join(rng.choice("0123456789") for _ in match.group()), target)


def _merge(source: str, target: str, pairs: Sequence[Text], rng: random.Random) -> str:
    return f"{target} {rng.choice(pairs)[1]}"


def _repeat(source: str, target: str, pairs: Sequence[Text], rng: random.Random) -> str:
    units, glue = _units(target)
    begin, length = rng.randrange(len(units)), max(1, len(units) // 3)
    part = units[begin : begin + length]
    return glue.join([*units[:begin], *part, *part, *part, *units[begin + length :]])


def _half_translate(source: str, target: str, pairs: Sequence[Text], rng: random.Random) -> str:
    units, glue = _units(target)
    others, _ = _units(source)
    return glue.join(rng.choice(others) if rng.random() < 0.4 else unit for unit in units)


def _units(text: str) -> tuple[list[str], str]:
    """Words and what joins them; characters where there are fewer than four words, or no spaces."""
    return (text.split(" "), " ") if text.count(" ") >= 3 else (list(text), "")


KINDS: dict[str, Callable[[str, str, Sequence[Text], random.Random], str]] = {
    "misaligned": _misalign, "copied": _copy, "truncated": _truncate, "shuffled": _shuffle, "wrong number": _change_numbers,
    "merged": _merge, "repeated": _repeat, "half translated": _half_translate}
