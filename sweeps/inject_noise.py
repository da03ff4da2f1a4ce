"""Make a noisy pool with known labels from clean parallel data: python sweeps/inject_noise.py CLEAN... OUT [options]

CLEAN is a folder with train, dev and test as .jsonl or .jsonl.gz (columns src and tgt); of several, as many rows are taken of
each and mixed; with --target, seeds, dev and test are of one of them alone: a domain to reach. OUT gets pool.jsonl (src, tgt,
noise), seeds.jsonl, dev.jsonl and test.jsonl. Seeds are drawn from train and leave the pool; they stay clean, as do dev and
test. A sentence of any test leaves every dev, one of either leaves train (`mtselect.data.normalise` says what is the same
sentence). The label is a column of its own, which `data.label_column` keeps from every selector. Each noisy row has one kind:

    misaligned     the target of another pool row
    untranslated   the target is the source
    truncated      the target stops after 30-60 % of its words (characters where it has fewer than four words)
    shuffled       the target's words in another order (characters where it has fewer than four words)
    swapped        source and target change sides (only if named in --kinds)

The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from mtselect.data.normalise import normalise
from mtselect.store import write_lines

Row = dict[str, str]
KINDS = ("misaligned", "untranslated", "truncated", "shuffled")
SWAPPED = "swapped"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clean", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=18000, help="pool rows of each CLEAN (default: 18000, or what train has)")
    parser.add_argument("--share", type=float, default=0.5, help="share of noisy pool rows (default: 0.5)")
    parser.add_argument("--seeds", type=int, default=128, help="trusted pairs of each CLEAN (default: 128)")
    parser.add_argument("--target", type=Path, help="the CLEAN whose seeds, dev and test they are (default: of all)")
    parser.add_argument("--held-out", type=int, help="dev and test rows of each CLEAN (default: all)")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, SWAPPED], default=KINDS, help=f"default: {' '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.target not in (None, *arguments.clean):
        parser.error(f"--target must be one of {', '.join(map(str, arguments.clean))}, got {arguments.target}")
    folders = [{name: read(folder, name) for name in ("train", "dev", "test")} for folder in arguments.clean]
    reached = [folder for path, folder in zip(arguments.clean, folders, strict=True) if arguments.target in (None, path)]
    splits = {name: [row for folder in reached for row in folder[name][: arguments.held_out]] for name in ("dev", "test")}
    in_test = {normalise(row["src"]) for row in splits["test"]}
    splits["dev"] = [row for row in splits["dev"] if normalise(row["src"]) not in in_test]
    held_out = in_test | {normalise(row["src"]) for row in splits["dev"]}
    rng = random.Random(f"inject_noise {arguments.seed}")
    seeds, pool = [], []
    for folder in folders:
        train = [row for row in unique(folder["train"]) if normalise(row["src"]) not in held_out]
        rng.shuffle(train)
        held_out |= {normalise(row["src"]) for row in train}
        seeds += train[: arguments.seeds] if folder in reached else []
        clean = train[arguments.seeds : arguments.seeds + arguments.rows]
        pool += inject(clean, arguments.share, arguments.kinds, rng)
    if len(folders) > 1:
        rng.shuffle(pool)
        splits = {name: interleaved(rows, folders, name) for name, rows in splits.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pool", pool), ("seeds", seeds), ("dev", splits["dev"]), ("test", splits["test"])):
        write_lines(arguments.out / f"{name}.jsonl", rows)
    noisy = sum(bool(row["noise"]) for row in pool)
    print(f"{arguments.out}: {len(pool)} pool rows, {noisy} of them noisy, {len(seeds)} seeds, "
          f"{len(splits['dev'])} dev, {len(splits['test'])} test")
    return 0


def read(folder: Path, name: str) -> list[Row]:
    """Rows of one split, src and tgt only."""
    for path in (folder / f"{name}.jsonl.gz", folder / f"{name}.jsonl"):
        if path.exists():
            with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
                return [{side: row[side] for side in ("src", "tgt")} for row in map(json.loads, file)]
    sys.exit(f"error: {folder} has no {name}.jsonl or {name}.jsonl.gz: give a folder with train, dev and test")


def unique(rows: list[Row]) -> list[Row]:
    """The first row of each source sentence."""
    return list({normalise(row["src"]): row for row in reversed(rows)}.values())[::-1]


def interleaved(rows: list[Row], folders: list[dict[str, list[Row]]], name: str) -> list[Row]:
    """Rows of several folders by turns, so that the first ones are of all."""
    turn = {normalise(row["src"]): place for folder in folders for place, row in enumerate(folder[name])}
    return sorted(rows, key=lambda row: turn[normalise(row["src"])])


def inject(rows: list[Row], share: float, names: Sequence[str], rng: random.Random) -> list[Row]:
    """Corrupt a share of the rows, each kind equally often; the order of the rows stays."""
    noisy = rng.sample(range(len(rows)), round(share * len(rows)))
    kinds = {row: names[i % len(names)] for i, row in enumerate(noisy)}
    pool = []
    for i, row in enumerate(rows):
        if kinds.get(i) == SWAPPED:
            pool.append({"src": row["tgt"], "tgt": row["src"], "noise": SWAPPED})
            continue
        target = corrupt(row, kinds.get(i, ""), rows, rng)
        label = kinds.get(i, "") if normalise(target) != normalise(row["tgt"]) else ""  # "OK" untranslated is no noise
        pool.append(row | {"noise": label, "tgt": target})
    return pool


def corrupt(row: Row, kind: str, rows: list[Row], rng: random.Random) -> str:
    """The target of a row after one kind of noise; it differs from the right one where it can."""
    target = row["tgt"]
    if kind == "untranslated":
        return row["src"]
    units, glue = (target.split(" "), " ") if target.count(" ") >= 3 else (list(target), "")
    if kind == "truncated":
        return glue.join(units[: max(1, int(len(units) * rng.uniform(0.3, 0.6)))])
    changed = target
    for _ in range(100 if kind else 0):  # "aaa" has no other order
        changed = rng.choice(rows)["tgt"] if kind == "misaligned" else glue.join(rng.sample(units, len(units)))
        if changed.strip() and normalise(changed) != normalise(target):
            break
    return changed


if __name__ == "__main__":
    sys.exit(main())
