"""Make a pool whose noise is natural: LibreOffice's help in two languages, aligned as a careless crawler would.

    apt-get download libreoffice-help-de libreoffice-help-en-us
    for package in libreoffice-help-*.deb; do dpkg-deb -x $package help; done
    python sweeps/align_help.py help/usr/share/libreoffice/help/{de,en-US} data/natural.de-en

Each page is split into sentences, and the n-th of one language is paired with the n-th of the other: from the first sentence
that a translator split, joined or left out, the rest of the page is shifted. Paragraphs have the same id in both languages, so
that the truth is known: a pair is right if both sides are the same sentence of the same paragraph, which has as many sentences
in both. OUT gets pool.jsonl (src, tgt, noise), seeds.jsonl, dev.jsonl and test.jsonl, the last three of right pairs alone and
of other pages than the pool's. Kinds of noise, kept from every selector:

    misaligned     the two sides are not the same sentence of the same paragraph
    untranslated   both sides are the same text

The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from mtselect.data.normalise import normalise
from mtselect.store import write_lines

Row = dict[str, str]
_ENDS = re.compile(r"(?<=[.!?])\s+(?=[^\W\d_a-zäöüß])|(?<=[。！？])")
_BLOCKS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6"})


class Paragraphs(HTMLParser):
    """Id and text of a page's paragraphs and headings, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._open, self._id, self._text = "", "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A paragraph with an id begins."""
        if tag in _BLOCKS:
            self._open, self._id, self._text = tag, dict(attrs).get("id") or "", ""

    def handle_data(self, data: str) -> None:
        """Its text."""
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        """It ends."""
        if tag == self._open:
            text = " ".join(self._text.split())
            if self._id and text:
                self.found.append((self._id, text))
            self._open = self._id = ""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the source language's pages")
    parser.add_argument("target", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, help="pool rows (default: all)")
    parser.add_argument("--seeds", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=500, help="dev rows, and as many of test")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pages = sorted(str(path.relative_to(arguments.source)) for path in arguments.source.rglob("*.html")
                   if (arguments.target / path.relative_to(arguments.source)).exists())
    if not pages:
        sys.exit(f"error: {arguments.source} and {arguments.target} have no page (.html) in common: name two languages")
    rng = random.Random(f"align_help {arguments.seed}")
    rng.shuffle(pages)
    trusted = arguments.seeds + 2 * arguments.held_out
    right: dict[str, Row] = {}
    taken = iter(pages)
    while len(right) < trusted:
        page = next(taken, None)
        if page is None:
            sys.exit(f"error: there are fewer than {trusted} right pairs: lower --seeds or --held-out")
        for row in aligned(arguments.source / page, arguments.target / page):
            if not row["noise"] and len(row["src"]) > 20:
                right.setdefault(normalise(row["src"]), row)
    clean = [{side: row[side] for side in ("src", "tgt")} for row in right.values()]
    rng.shuffle(clean)
    seen = set(right) | {normalise(row["tgt"]) for row in right.values()}
    pool: dict[tuple[str, str], Row] = {}
    for page in taken:
        for row in aligned(arguments.source / page, arguments.target / page):
            sides = normalise(row["src"]), normalise(row["tgt"])
            if sides[0] and sides[1] and not seen.intersection(sides):
                pool.setdefault(sides, row)
    rows = list(pool.values())
    rng.shuffle(rows)
    rows = rows[: arguments.rows]
    held = arguments.held_out
    parts = {"pool": rows, "dev": clean[:held], "test": clean[held : 2 * held], "seeds": clean[2 * held : trusted]}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, some in parts.items():
        write_lines(arguments.out / f"{name}.jsonl", some)
    noisy = sum(bool(row["noise"]) for row in rows)
    print(f"{arguments.out}: {len(rows)} pool rows, {noisy} of them noisy, {arguments.seeds} seeds, {held} dev, {held} test")
    return 0


def aligned(source: Path, target: Path) -> Iterator[Row]:
    """Pairs of a page, the n-th sentences of both languages, each with its noise."""
    for (where, src), (there, tgt) in zip(sentences(source), sentences(target), strict=False):
        noise = "misaligned" if where != there else "untranslated" if normalise(src) == normalise(tgt) else ""
        yield {"src": src, "tgt": tgt, "noise": noise}


def sentences(page: Path) -> Iterator[tuple[tuple[str, int, int], str]]:
    """Each sentence of a page with where it is: its paragraph's id, its place there, and how many that has."""
    for name, text in Paragraphs(page.read_text(encoding="utf-8")).found:
        parts = [part.strip() for part in _ENDS.split(text) if part.strip()]
        for place, part in enumerate(parts):
            yield (name, place, len(parts)), part


if __name__ == "__main__":
    sys.exit(main())
