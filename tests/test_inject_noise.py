"""sweeps/inject_noise.py on the real pairs: labels are true, seeds leave the pool, and the corpus stage takes the result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mtselect.config import DataConfig
from mtselect.data.corpus import build_corpus, load_corpus

ROOT = Path(__file__).parents[1]
CLEAN = ROOT.parent / "shared" / "data" / "software.zh-en"
pytestmark = pytest.mark.skipif(not CLEAN.exists(), reason=f"needs the real parallel data in {CLEAN}")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noisy")
    inject(folder)
    return folder


def inject(folder: Path) -> None:
    command = [sys.executable, "sweeps/inject_noise.py", str(CLEAN), str(folder), "--rows", "2000", "--seeds", "50"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60, capture_output=True)


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_half_the_pool_is_noisy_in_equal_kinds(noisy: Path) -> None:
    counts = Counter(row["noise"] for row in rows(noisy, "pool"))
    assert counts == {"": 1000, "misaligned": 250, "untranslated": 250, "truncated": 250, "shuffled": 250}


def test_labels_are_true(noisy: Path) -> None:
    import gzip

    with gzip.open(CLEAN / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        right: dict[str, set[str]] = {}
        for row in map(json.loads, file):
            right.setdefault(row["src"], set()).add(row["tgt"])
    for row in rows(noisy, "pool"):
        targets = right[row["src"]]
        if not row["noise"]:
            assert row["tgt"] in targets
        elif row["noise"] == "untranslated":
            assert row["tgt"] == row["src"]
        elif row["noise"] == "truncated":
            assert any(target.startswith(row["tgt"]) and target != row["tgt"] for target in targets)
        elif row["noise"] == "shuffled":
            assert any(sorted(target) == sorted(row["tgt"]) and target != row["tgt"] for target in targets)
        else:
            assert row["tgt"] not in targets


def test_the_corpus_stage_takes_it_and_nothing_leaks(noisy: Path, tmp_path: Path) -> None:
    sources = {name: str(noisy / f"{name}.jsonl") for name in ("pool", "seeds", "dev", "test")}
    build_corpus(DataConfig(**sources, label_column="noise"), tmp_path)
    corpus = load_corpus(tmp_path)
    assert len(corpus.seeds) == 50
    assert {pair.src for pair in corpus.seeds}.isdisjoint(pair.src for pair in corpus.pool)


def test_the_same_arguments_give_the_same_bytes(noisy: Path, tmp_path: Path) -> None:
    inject(tmp_path)
    assert all((tmp_path / f"{name}.jsonl").read_bytes() == (noisy / f"{name}.jsonl").read_bytes()
               for name in ("pool", "seeds", "dev", "test"))


def test_a_target_has_the_seeds_dev_and_test_to_itself(tmp_path: Path) -> None:
    other = CLEAN.with_name("software.de-en")
    command = [sys.executable, "sweeps/inject_noise.py", str(other), str(CLEAN), str(tmp_path), "--rows", "300", "--seeds",
               "50", "--held-out", "40", "--target", str(CLEAN)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60, capture_output=True)

    def chinese(row: dict[str, str]) -> bool:
        return any("\u4e00" <= sign <= "\u9fff" for sign in row["src"])

    assert len(rows(tmp_path, "pool")) == 600 and 200 < sum(map(chinese, rows(tmp_path, "pool"))) <= 300
    for name, size in (("seeds", 50), ("test", 40)):
        assert len(rows(tmp_path, name)) == size and all(map(chinese, rows(tmp_path, name)))
    wrong = subprocess.run([*command[:-1], "elsewhere"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "--target must be one of" in wrong.stderr and "got elsewhere" in wrong.stderr
