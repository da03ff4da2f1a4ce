"""Make a noisy pool with known labels from clean parallel data: python sweeps/inject_noise.py CLEAN OUT [options]

CLEAN is a folder with train, dev and test as .jsonl or .jsonl.gz (columns src and tgt). OUT gets pool.jsonl (src, tgt, noise),
seeds.jsonl, dev.jsonl and test.jsonl. Seeds are drawn from train and leave the pool; they stay clean, as do dev and test.
A sentence of test leaves dev, one of either leaves train (`mtselect.data.normalise` says what is the same sentence).
The label is a column of its own, which `data.label_column` keeps from every selector. Each noisy row has one kind:

    misaligned     the target of another pool row
    untranslated   the target is the source
    truncated      the target stops after 30-60 % of its words (characters where it has fewer than four words)
    shuffled       the target's words in another order (characters where it has fewer than four words)

The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from pathlib import Path

from mtselect.data.normalise import normalise

Row = dict[str, str]
KINDS = ("misaligned", "untranslated", "truncated", "shuffled")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clean", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=18000, help="pool rows (default: 18000, or what train has)")
    parser.add_argument("--share", type=float, default=0.5, help="share of noisy pool rows (default: 0.5)")
    parser.add_argument("--seeds", type=int, default=128, help="trusted pairs (default: 128)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    splits = {name: read(arguments.clean, name) for name in ("train", "dev", "test")}
    in_test = {normalise(row["src"]) for row in splits["test"]}
    splits["dev"] = [row for row in splits["dev"] if normalise(row["src"]) not in in_test]
    held_out = in_test | {normalise(row["src"]) for row in splits["dev"]}
    rng = random.Random(f"inject_noise {arguments.seed}")
    train = [row for row in unique(splits["train"]) if normalise(row["src"]) not in held_out]
    rng.shuffle(train)
    seeds, clean = train[: arguments.seeds], train[arguments.seeds : arguments.seeds + arguments.rows]
    pool = inject(clean, arguments.share, rng)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pool", pool), ("seeds", seeds), ("dev", splits["dev"]), ("test", splits["test"])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (arguments.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
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


def inject(rows: list[Row], share: float, rng: random.Random) -> list[Row]:
    """Corrupt a share of the rows, each kind equally often; the order of the rows stays."""
    noisy = rng.sample(range(len(rows)), round(share * len(rows)))
    kinds = {row: KINDS[i % len(KINDS)] for i, row in enumerate(noisy)}
    pool = []
    for i, row in enumerate(rows):
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
