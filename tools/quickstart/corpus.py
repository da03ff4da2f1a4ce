"""The quickstart corpus: German sentences with English translations from a small grammar of our own.

Words are in `lexicon`, morphology and word order in `grammar`, sentence patterns
in `sentences`; no sentence comes from anywhere else. The grammar has five domains (kitchen,
travel, workshop, office, clinic), three genders and three cases with weak, mixed and strong adjective
endings, weak nouns, six persons, present, preterite, perfect, modals, separable verbs, verb-second order with
fronted adverbials, questions, requests, negation with nicht and kein, numbers and prices, and subordinate
clauses (dass, weil, obwohl, wenn, zu, um zu).

Rows are dicts with `src`, `tgt` and `domain`; pool rows also have `noise`: "" where the pair is right, or

    misaligned      the target of another pool sentence, of any domain
    untranslated    the target is the source, or another German sentence
    truncated       the target stops after 30-60 % of its words
    wrong_number    one number of the target, in digits or as a word, is another one
    shuffled        the target's words in another order
    near_duplicate  correct, but differs from very many rows in one noun phrase only; all of one domain

dev, test and seeds are clean and share no source and no target with each other or with the pool. One in
eight combinations of a verb and its noun, or of an adjective and its noun, is reserved (`is_reserved`, a
checksum of the two words): reserved ones occur only in dev and test, where every second row has one.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TypeVar

from mtselect.errors import ConfigError, DataError
from tools.quickstart import lexicon
from tools.quickstart.sentences import Scene, Sentence, Words, draw_sentence, order_sentence, parse_words

T = TypeVar("T")
_Corruption = Callable[[random.Random, Sentence, Sequence[Words]], str]

# shares of the noise, in the order of its kinds; near-duplicates are 9 % of the pool at half noise
_NOISE_SHARES = {"misaligned": 0.25, "untranslated": 0.15, "truncated": 0.17, "wrong_number": 0.10,
                 "shuffled": 0.15, "near_duplicate": 0.18}
NOISES: tuple[str, ...] = tuple(_NOISE_SHARES)

_RESERVED_ONE_IN = 8
_MIN_POOL_ROWS = 10  # so that a misaligned row finds another row
_MAX_DRAWS = 2000  # a row that finds no unused sentence in so many draws: the grammar is exhausted
_NUMBER = re.compile(r"\b(?:\d+|" + "|".join(lexicon.ENGLISH_NUMBERS) + r")\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class QuickstartCorpus:
    """The four splits as plain rows; see the module's docstring for their columns."""

    pool: tuple[dict[str, str], ...]
    seeds: tuple[dict[str, str], ...]
    dev: tuple[dict[str, str], ...]
    test: tuple[dict[str, str], ...]


def generate(*, pool_rows: int = 12000, seed_rows: int = 128, dev_rows: int = 200, test_rows: int = 500,
             noise_share: float = 0.5, seed: int = 0) -> QuickstartCorpus:
    """Generate the corpus; the same arguments give the same rows in every process and Python version.

    Args:
        pool_rows: noisy candidates, at least 10.
        seed_rows: trusted pairs, in turn from each domain.
        dev_rows: pairs that decide between trials.
        test_rows: pairs for promotion.
        noise_share: share of the pool rows whose `noise` is not empty, between 0 and 1, to the nearest row.
        seed: of all random draws.

    Raises:
        ConfigError: an argument is out of range.
        DataError: more rows than the grammar has sentences.
    """
    _check_rows({"pool_rows": pool_rows, "seed_rows": seed_rows, "dev_rows": dev_rows, "test_rows": test_rows})
    if not 0 <= noise_share <= 1:
        raise ConfigError(f"quickstart noise_share must be between 0 and 1, got {noise_share}")
    draw = _Draw(random.Random(f"mtselect quickstart {seed}"))
    dev = draw.held_out(dev_rows, "dev_rows")
    test = draw.held_out(test_rows, "test_rows")
    seeds = tuple(_row(draw.fresh("seed_rows")) for _ in range(seed_rows))
    pool = _draw_pool(_Draw(draw.rng, used=draw.used, kept_out=frozenset(draw.used)), pool_rows, noise_share)
    return QuickstartCorpus(pool=pool, seeds=seeds, dev=dev, test=test)


def _check_rows(rows: dict[str, int]) -> None:
    for name, count in rows.items():
        low = _MIN_POOL_ROWS if name == "pool_rows" else 1
        if count < low:
            raise ConfigError(f"quickstart {name} must be at least {low}, got {count}")


def is_reserved(word: str, noun: str) -> bool:
    """Whether the combination of a verb or adjective with a noun is kept for dev and test."""
    return zlib.crc32(f"{word} {noun}".encode()) % _RESERVED_ONE_IN == 0


def _has_reserved(sentence: Sentence) -> bool:
    return any(is_reserved(word, noun) for word, noun in sentence.pairs)


def _row(sentence: Sentence) -> dict[str, str]:
    return {"src": sentence.src, "tgt": sentence.tgt, "domain": sentence.domain}


# --- clean sentences -----------------------------------------------------------------------------


@dataclass
class _Draw:
    """Draws sentences in turn from each domain and remembers which it gave out.

    Args:
        rng: its generator.
        used: source and target sentences that are taken.
        kept_out: those of the clean splits, which no pool row may have as its target.
    """

    rng: random.Random
    used: set[str] = field(default_factory=set)
    kept_out: frozenset[str] = frozenset()
    words: tuple[Words, ...] = field(default_factory=lambda: tuple(parse_words(d) for d in lexicon.DOMAINS))
    turn: Iterator[int] = field(default_factory=lambda: cycle(range(len(lexicon.DOMAINS))))

    def fresh(self, name: str, allowed: Callable[[Sentence], bool] = lambda s: not _has_reserved(s)) -> Sentence:
        """An unused sentence that is allowed; by default, one without reserved combinations."""
        words = self.words[next(self.turn)]
        for _ in range(_MAX_DRAWS):
            sentence = draw_sentence(words, self.rng)
            if allowed(sentence) and self.used.isdisjoint((sentence.src, sentence.tgt)):
                self.used.update((sentence.src, sentence.tgt))
                return sentence
        raise DataError(f"quickstart {name} asks for more sentences than the grammar has: lower {name}")

    def held_out(self, rows: int, name: str) -> tuple[dict[str, str], ...]:
        """Rows of dev or test: every second one has a reserved combination."""
        drawn = [self.fresh(name, _has_reserved if i % 2 else lambda s: True) for i in range(rows)]
        return tuple(_row(s) for s in drawn)


# --- the pool ------------------------------------------------------------------------------------


def noise_counts(pool_rows: int, noise_share: float) -> dict[str, int]:
    """Rows of each kind of noise; they sum to the share of the pool, to the nearest row."""
    total = round(pool_rows * noise_share)
    counts = {kind: int(total * share) for kind, share in _NOISE_SHARES.items()}
    for kind in NOISES[: total - sum(counts.values())]:
        counts[kind] += 1
    return counts


def _draw_pool(draw: _Draw, pool_rows: int, noise_share: float) -> tuple[dict[str, str], ...]:
    counts = noise_counts(pool_rows, noise_share)
    rows = [_row(draw.fresh("pool_rows")) | {"noise": ""} for _ in range(pool_rows - sum(counts.values()))]
    for kind, corrupt in _CORRUPTIONS.items():
        rows += [_corrupted(draw, kind, corrupt) for _ in range(counts[kind])]
    rows += _near_duplicates(draw, counts["near_duplicate"])
    misaligned = [_row(draw.fresh("pool_rows")) | {"noise": "misaligned"} for _ in range(counts["misaligned"])]
    rows += _misalign(draw.rng, misaligned, [row["tgt"] for row in rows if not row["noise"]])
    _shuffle(draw.rng, rows)
    return tuple(rows)


def _corrupted(draw: _Draw, kind: str, corrupt: _Corruption) -> dict[str, str]:
    """Corrupt the first drawn sentence to which this kind of noise can apply."""
    for _ in range(_MAX_DRAWS):
        sentence = draw.fresh("pool_rows")
        target = corrupt(draw.rng, sentence, draw.words)
        if target and target != sentence.tgt and target not in draw.kept_out:
            return _row(sentence) | {"tgt": target, "noise": kind}
        draw.used.difference_update((sentence.src, sentence.tgt))
    raise DataError(f"quickstart pool_rows: no sentence left for noise {kind}: lower pool_rows or noise_share")


def _misalign(rng: random.Random, rows: list[dict[str, str]], targets: list[str]) -> list[dict[str, str]]:
    """Give each row the target of another pool sentence."""
    targets = targets + [row["tgt"] for row in rows]

    def other(row: dict[str, str]) -> str:
        target = row["tgt"]
        while target == row["tgt"]:
            target = targets[int(rng.random() * len(targets))]
        return target

    return [row | {"tgt": other(row)} for row in rows]


def _near_duplicates(draw: _Draw, count: int) -> list[dict[str, str]]:
    """Rows that differ from one template in its noun phrase."""
    scene = Scene(draw.words[int(draw.rng.random() * len(draw.words))], draw.rng)
    template = order_sentence(scene)
    rows = []
    for _ in range(count):
        rows.append(_row(_unused_variant(draw, template, 40 + count // 5)) | {"noise": "near_duplicate"})
    return rows


def _unused_variant(draw: _Draw, template: Callable[[int], Sentence], largest: int) -> Sentence:
    for _ in range(_MAX_DRAWS):
        sentence = template(largest)
        if not _has_reserved(sentence) and draw.used.isdisjoint((sentence.src, sentence.tgt)):
            draw.used.update((sentence.src, sentence.tgt))
            return sentence
    raise DataError("quickstart pool_rows asks for more near-duplicates than the grammar has: lower pool_rows")


# --- corruptions: the noisy target, or "" where this kind cannot apply ------------------------------


def _leave_untranslated(rng: random.Random, sentence: Sentence, words: Sequence[Words]) -> str:
    if rng.random() < 0.7:
        return sentence.src
    other = draw_sentence(words[int(rng.random() * len(words))], rng)
    return "" if _has_reserved(other) else other.src


def _truncate(rng: random.Random, sentence: Sentence, _: Sequence[Words]) -> str:
    words = sentence.tgt.split(" ")
    shortest, longest = -(-3 * len(words) // 10), 6 * len(words) // 10
    if len(words) < 4:
        return ""
    return " ".join(words[: shortest + int(rng.random() * (longest - shortest + 1))])


def _change_number(rng: random.Random, sentence: Sentence, _: Sequence[Words]) -> str:
    numbers = list(_NUMBER.finditer(sentence.tgt))
    if not numbers:
        return ""
    match = numbers[int(rng.random() * len(numbers))]
    return sentence.tgt[: match.start()] + _other_number(rng, match.group()) + sentence.tgt[match.end() :]


def _other_number(rng: random.Random, number: str) -> str:
    other = number
    while other.lower() == number.lower():
        if number.isdigit():
            other = str(2 + int(rng.random() * 98))
        else:
            other = lexicon.ENGLISH_NUMBERS[int(rng.random() * len(lexicon.ENGLISH_NUMBERS))]
    return other.capitalize() if number[0].isupper() else other


def _shuffle_words(rng: random.Random, sentence: Sentence, _: Sequence[Words]) -> str:
    words = sentence.tgt.split(" ")
    if len(words) < 4:
        return ""
    _shuffle(rng, words)
    return " ".join(words)


def _shuffle(rng: random.Random, items: list[T]) -> None:
    for i in range(len(items) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        items[i], items[j] = items[j], items[i]


_CORRUPTIONS: dict[str, _Corruption] = {
    "untranslated": _leave_untranslated, "truncated": _truncate, "wrong_number": _change_number,
    "shuffled": _shuffle_words,
}
