"""corpus: the four sources read, checked and freed of duplicates and leaks.

pool.arrow, seeds.arrow, dev.arrow, test.arrow, labels.arrow, quarantine.jsonl, summary.json, digests.json. Later stages are
keyed by the digests of the parts they read: new seeds do not ask for another warm-up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mtselect.config import Experiment
from mtselect.data.corpus import ROLES, build_corpus, load_corpus
from mtselect.data.pairs import Corpus, PairTable
from mtselect.data.rows import Role, count_rows
from mtselect.readers.base import source_fingerprint
from mtselect.stages.lineage import Lineage, Stage, Work

Split = Literal["dev", "test"]


def _run(work: Work) -> None:
    data = work.experiment.data
    with work.bench.progress.task("corpus", sum(count_rows(data, role) for role in ROLES)) as advance:
        build_corpus(data, work.out, advance)
    corpus = load_corpus(work.out)
    digests = {part: getattr(corpus, part).digest for part in ROLES}
    (work.out / "digests.json").write_text(json.dumps(digests), encoding="utf-8")


def _sources(experiment: Experiment) -> list[str]:
    data = experiment.data
    return [source_fingerprint(source) for source in (data.pool, data.seeds, data.dev, data.test) if source is not None]


CORPUS = Stage(name="corpus", version=3, reads=("data",), sources=_sources, run=_run)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The input that is a part of the corpus, known by its content."""

    role: Role

    def stages(self, experiment: Experiment) -> list[Stage]:
        return [CORPUS]

    def key(self, lineage: Lineage) -> str:
        """Hash of its pairs."""
        return lineage.open(CORPUS, load_digests)[self.role]

    def read(self, lineage: Lineage) -> PairTable:
        table: PairTable = getattr(lineage.open(CORPUS, load_corpus), self.role)
        return table


POOL, SEEDS = Pairs(role="pool"), Pairs(role="seeds")


def load_digests(folder: Path) -> dict[str, str]:
    """Content hash of each part of a corpus entry."""
    digests: dict[str, str] = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
    return digests


def scored_part(table: PairTable, role: Role, experiment: Experiment) -> PairTable:
    """What is translated and scored of a part: of dev its first `evaluation.dev_rows`, of the others all."""
    return table.take(np.arange(len(table))[: experiment.evaluation.dev_rows]) if role == "dev" else table


def corpus_of(lineage: Lineage) -> Corpus:
    """The corpus of an experiment."""
    return lineage.open(CORPUS, load_corpus)
