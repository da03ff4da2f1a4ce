"""sweeps/align_help.py: pages of two languages, one with a sentence that its translator split."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "sweeps/align_help.py"]


def page(paragraphs: dict[str, str]) -> str:
    return "<html><body><p>kein Absatz mit id</p>" + "".join(
        f'<p id="{name}" class="x">{text}</p>\n' for name, text in paragraphs.items()) + "</body></html>"


@pytest.fixture
def help_pages(tmp_path: Path) -> Path:
    """Twenty pages of right pairs, in one of which everything is shifted after the first paragraph."""
    for number in range(20):
        german = {f"p{i}": f"Absatz {i} der Seite Nummer {number} <span>steht</span> hier." for i in range(6)}
        english = {f"p{i}": f"Paragraph {i} of page number {number} stands here." for i in range(6)}
        german["p4"] = f"Erster Satz {number} im vierten. Zweiter Satz {number} im vierten."
        english["p4"] = f"First sentence {number} in the fourth. Second sentence {number} in the fourth."
        english["p5"] = german["p5"].replace("<span>", "").replace("</span>", "")
        if number == 7:
            german["p1"] = "Absatz 1 wurde geteilt. Von dem Uebersetzer."
        for language, texts in (("de", german), ("en", english)):
            file = tmp_path / language / "sub" / f"{number}.html"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(page(texts), encoding="utf-8")
    return tmp_path


def made(folder: Path, out: Path, *options: str) -> dict[str, list[dict[str, str]]]:
    command = [*COMMAND, str(folder / "de"), str(folder / "en"), str(out), *options]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return {name: [json.loads(line) for line in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
            for name in ("pool", "seeds", "dev", "test")}


def test_the_truth_is_known_by_paragraph_and_sentence(help_pages: Path) -> None:
    """One of the seeds of the draw leaves page 7 in the pool."""
    for seed in range(10):
        found = made(help_pages, help_pages / f"out{seed}", "--seeds", "2", "--held-out", "2", "--seed", str(seed))
        shifted = [row for row in found["pool"] if row["noise"] == "misaligned"]
        assert len(found["seeds"]) == len(found["dev"]) == len(found["test"]) == 2
        trusted = [row["src"] for name in ("seeds", "dev", "test") for row in found[name]]
        assert len(set(trusted)) == 6 and not {row["src"] for row in found["pool"]}.intersection(trusted)
        assert all((row["src"] == row["tgt"]) == (row["noise"] == "untranslated") for row in found["pool"])
        for row in found["pool"]:
            if not row["noise"]:
                digits = [sign for sign in row["src"] if sign.isdigit()]
                assert digits == [sign for sign in row["tgt"] if sign.isdigit()]
        if shifted:
            pairs = {row["src"]: row["tgt"] for row in shifted}
            assert pairs["Von dem Uebersetzer."] == "Paragraph 2 of page number 7 stands here."
            assert pairs["Absatz 2 der Seite Nummer 7 steht hier."] == "Paragraph 3 of page number 7 stands here."
            return
    raise AssertionError("page 7 was in no pool")


def test_the_same_arguments_give_the_same_bytes(help_pages: Path) -> None:
    options = ("--seeds", "2", "--held-out", "2", "--rows", "9")
    one, two = (made(help_pages, help_pages / name, *options) for name in ("one", "two"))
    assert one == two and len(one["pool"]) == 9


@pytest.mark.parametrize(("folder", "options", "said"), [
    ("none", [], "have no page (.html) in common"), ("en", ["--seeds", "5000"], "there are fewer than 6000 right pairs")])
def test_what_cannot_be_made_is_told(folder: str, options: list[str], said: str, help_pages: Path) -> None:
    done = subprocess.run([*COMMAND, str(help_pages / "de"), str(help_pages / folder), str(help_pages / "out"), *options],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr and not (help_pages / "out").exists()
