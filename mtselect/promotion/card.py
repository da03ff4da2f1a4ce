"""The folder that is promoted: rows as JSON lines and Parquet, a card in the Hugging Face form, what replays and proves it.

    selected.jsonl  selected.parquet  README.md  experiment.yaml  scores.json  gates.json  study.png

`datasets.load_dataset(FOLDER)` opens it: the card's header names the Parquet file.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mtselect.config import DataConfig, Experiment, to_yaml, validated
from mtselect.data.languages import language_tag
from mtselect.selectors.base import SELECTORS
from mtselect.stages.gate import is_gated
from mtselect.store import read_lines, write_lines
from mtselect.template import fill

if TYPE_CHECKING:
    from mtselect.promotion.candidate import Candidate

FROM_MLFLOW = """\
```python
import mtselect
pairs = mtselect.load_set("{study}@{alias}")
```

or, of a folder written by `mtselect promote {study} --export DIR`, `datasets.load_dataset("DIR", split="train")`.
"""
FROM_HUB = """\
```python
import datasets
pairs = datasets.load_dataset("{repository}", revision="{tag}", split="train")
```

or, where its MLflow server is at hand,

"""
_LOADING = re.compile(r"(?<=## How to load\n\n).*?(?=\nColumns: )", re.DOTALL)
_NOT_GIVEN = "not given"


def write_dataset(folder: Path, candidate: Candidate, *, name: str, alias: str, study: str) -> str:
    """Write the folder; returns the card without header and picture, for where no file stands beside it.

    Args:
        folder: empty, or with study.png: score against pairs of the whole study.
        candidate: what is promoted.
        name: of the registered dataset.
        alias: it is to have.
        study: it comes from.
    """
    import pyarrow
    from pyarrow import parquet

    experiment, selection, comparisons = candidate.experiment, candidate.selection, candidate.comparisons
    rows = [pair.row() for pair in selection.pairs]
    write_lines(folder / "selected.jsonl", rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "selected.parquet")
    (folder / "experiment.yaml").write_text(to_yaml(experiment, "experiment"), encoding="utf-8")
    scores = {"dev": [asdict(score) for score in candidate.dev], "test": [asdict(score) for score in candidate.test],
              "against": {rival: asdict(result) for rival, result in comparisons.items()}}
    (folder / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    (folder / "gates.json").write_text(json.dumps([asdict(gate) for gate in candidate.gates], indent=1), encoding="utf-8")
    data = experiment.data
    text = partial(fill, Path(__file__).with_suffix(".md.jinja"), **vars(candidate), name=name, study=study, data=data,
                   pairs=len(rows), columns=_columns(experiment), how=" ".join(selection.in_words(experiment)),
                   scores=[("dev", score) for score in candidate.dev] + [("test", score) for score in candidate.test],
                   finetunings=max((one.n_seeds for one in comparisons.values()), default=1), not_given=_NOT_GIVEN,
                   loading=FROM_MLFLOW.format(study=study, alias=alias))
    card = text(picture=(folder / "study.png").exists())
    (folder / "README.md").write_text(f"---\n{_header(name, data, data.licence, len(rows))}---\n\n{card}", encoding="utf-8")
    return text(picture=False)


def _columns(experiment: Experiment) -> dict[str, str]:
    """What stands beside each pair, and what it is."""
    chosen = experiment.selection
    found = {column: one.about for column, one in SELECTORS.load(chosen.method).columns.items()}
    return {**found, "gate": "score of the gate"} if is_gated(chosen) else found


def _header(name: str, data: DataConfig, licence: str | None, n_rows: int) -> str:
    """The YAML that the Hugging Face hub and `datasets` read; its `language` takes codes alone, `pt` of `pt-BR`."""
    from huggingface_hub import DatasetCardData

    sizes = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M"]
    files = [{"config_name": "default", "data_files": [{"split": "train", "path": "selected.parquet"}]}]
    languages = [tag for tag in (language_tag(data.src_lang), language_tag(data.tgt_lang)) if tag]
    codes = list(dict.fromkeys(tag.split("-")[0] for tag in languages))
    return DatasetCardData(pretty_name=name, license=(licence or "unknown").lower(), language=codes or None,
                           language_bcp47=languages if languages != codes else None, multilinguality=["translation"],
                           task_categories=["translation"], tags=["mtselect", "data-selection", "parallel-corpus"],
                           size_categories=[sizes[min(max(len(str(n_rows)) - 3, 0), 4)]], configs=files).to_yaml() + "\n"


def hub_card(folder: Path, *, name: str, alias: str, study: str, licence: str, repository: str, tag: str) -> str:
    """A version's card as it is to stand in a repository of the Hugging Face hub, with header and way to load it written anew.

    Args:
        folder: the version's files.
        name: of the registered dataset.
        alias: that it has.
        study: it comes from.
        licence: of the pool.
        repository: ORG/NAME.
        tag: of this version there.
    """
    body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    loading = FROM_HUB.format(repository=repository, tag=tag) + FROM_MLFLOW.format(study=study, alias=alias)
    body = _LOADING.sub(lambda _: loading, body.replace(f", licence {_NOT_GIVEN}\n", f", licence {licence}\n"))
    return f"---\n{_header(name, data_of(folder), licence, len(read_lines(folder / 'selected.jsonl')))}---\n{body}"


def data_of(folder: Path) -> DataConfig:
    """What a version was promoted with, of `experiment.yaml`: another version of mtselect may know other fields of it."""
    read = yaml.safe_load((folder / "experiment.yaml").read_text(encoding="utf-8"))
    return validated(DataConfig, read["experiment"]["data"], lenient=True)
