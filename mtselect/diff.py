"""python -m mtselect.diff A B

Says how two selected sets differ: rows in common, clusters, lengths, benefits, and the scores of the models finetuned on them.
A and B are each one of

    selected.jsonl                     a file, as `mtselect.select` writes it
    champion/                          a folder with one, such as a downloaded dataset
    quickstart/t005                    a trial or baseline of a study in MLflow
    0123456789abcdef0123456789abcdef   an MLflow run id
    models:/mtselect.quickstart@champion, models:/mtselect.quickstart/2   a version of a promoted dataset
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtselect import cli
from mtselect.config import TrackingConfig
from mtselect.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from mtselect.tracking.recorded import RecordedRun

Pairs = dict[str, dict[str, Any]]  # by id, in the set's order
Interval = tuple[float, float, float]

_QUANTILES = (5, 50, 95)
_SIDES = (("source", "src"), ("target", "tgt"))
_ALLOWED = ("a selected.jsonl, a folder with one, STUDY/TRIAL such as quickstart/t005, an MLflow run id, or a dataset version "
            "such as models:/mtselect.quickstart@champion")
_EXCERPT = 100  # characters of an example's sentence


@dataclass(frozen=True, kw_only=True)
class Side:
    """One selected set.

    Args:
        name: as given.
        pairs: the rows of its selected.jsonl.
        scores: such as `dev chrf` -> (value, low, high), 0 to 100, with the ends of the 95% interval.
        noise_share: known share of noise, 0 to 1.
    """

    name: str
    pairs: Pairs
    scores: dict[str, Interval] = field(default_factory=dict)
    noise_share: float | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.parser_of("diff", __doc__)
    parser.add_argument("a", metavar="A", help="a selected set")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--examples", type=int, default=3, help="pairs to show of what only one has (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--tracking.uri", dest="uri", help="MLflow server (default: MLflow's own)")
    parser.add_argument("--tracking.experiment", dest="experiment", help="MLflow experiment (default: the study's name)")
    arguments = parser.parse_args(argv)

    def command(console: Console) -> None:
        a, b = (read_side(name, arguments.uri, arguments.experiment) for name in (arguments.a, arguments.b))
        found = compare_sets(a, b, max(arguments.examples, 0))
        if arguments.json:
            console.out(json.dumps(found, indent=1), highlight=False)
        else:
            print_difference(found, console)

    return cli.run(command, again="Nothing was written; run the same command again.")


def read_side(name: str, uri: str | None = None, experiment: str | None = None) -> Side:
    """Find a selected set, its scores and its share of noise.

    Args:
        name: one of the five kinds that the module's head lists; what exists as a path is a path.
        uri: MLflow server; null takes MLflow's own.
        experiment: MLflow experiment of a STUDY/TRIAL; null takes the study's name.

    Raises:
        DataError: there is no such set, or a line of it is not a pair.
        StorageError: MLflow does not answer.
    """
    from mtselect.tracking.fetch import fetch_run, fetch_version
    from mtselect.tracking.trials import find_trial

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        study, _, trial = name.partition("/")
        if name.startswith("models:/"):
            path, run = fetch_version(name, uri, path)
        elif name and Path(name).exists():
            path, run = Path(name), None
        elif re.fullmatch("[0-9a-f]{32}", name):
            _, run = fetch_run(name, uri, path)
        elif re.fullmatch(r"[\w.-]*\w[\w.-]*", study) and trial and not name.endswith(".jsonl"):
            found = find_trial(study, trial, TrackingConfig(uri=uri, experiment=experiment))
            _, run = fetch_run(found.run_id, uri, path)
        else:
            raise DataError(f"{name!r} is no selected set: there is no such file or folder; name {_ALLOWED}")
        return _read_path(name, path, run)


def read_pairs(path: Path, name: str) -> Pairs:
    """The rows of a selected.jsonl by id. Raises DataError, which calls it by the name: it cannot be read, or a line, which is
    named, is not a pair."""
    pairs: Pairs = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}): name {_ALLOWED}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:  # also of UTF-8
            raise DataError(f"{name}, line {number}: not JSON in UTF-8 ({error}): correct or remove the line") from error
        if reason := _fault(row, pairs):
            raise DataError(f"{name}, line {number}: {reason}: correct or remove the line, or write the file again with "
                            "python -m mtselect.select")
        pairs[row["id"]] = row
    return pairs


def compare_sets(a: Side, b: Side, n_examples: int = 3) -> dict[str, Any]:
    """How two sets differ, as plain values for JSON: counts, `jaccard` (rows in common over rows in either), `cluster_ami`
    (adjusted mutual information of the two clusterings of the common rows; 1: the same, about 0: unrelated, null: unknown),
    and `a`, `b`, `only_a`, `only_b`, each described by `describe`."""
    from mtselect.selection.cluster import agreement

    common = [i for i in a.pairs if i in b.pairs]
    only = [{i: row for i, row in one.pairs.items() if i not in other.pairs} for one, other in ((a, b), (b, a))]
    labels = [(a.pairs[i].get("cluster"), b.pairs[i].get("cluster")) for i in common]
    clustered = [pair for pair in labels if None not in pair]
    union = len(a.pairs) + len(only[1])
    sides = [{"name": side.name, **describe_set(side.pairs), "noise_share": side.noise_share,
              "scores": {name: list(score) for name, score in side.scores.items()}} for side in (a, b)]
    return {"common": len(common), "jaccard": len(common) / union if union else None,
            "cluster_ami": agreement(*zip(*clustered, strict=True)) if len(clustered) > 1 else None,
            "a": sides[0], "b": sides[1],
            **{key: {**describe_set(pairs), "examples": _examples(pairs, n_examples)}
               for key, pairs in zip(("only_a", "only_b"), only, strict=True)}}


def describe_set(pairs: Pairs) -> dict[str, Any]:
    """Of a set: `pairs`, `clusters` (sizes by number), `evenness` (entropy of the sizes over that of equal ones: 1 is even,
    null with fewer than two clusters), and 5th, 50th and 95th percentile of words and characters of either side, of the
    benefit (mean over the seeds) and of its share of the seeds; null where no row has one."""
    import numpy as np

    rows = list(pairs.values())
    clusters = Counter(row["cluster"] for row in rows if row.get("cluster") is not None)
    shares = np.array(list(clusters.values())) / max(clusters.total(), 1)
    values = {**{f"{side}_words": [len(row[key].split()) for row in rows] for side, key in _SIDES},
              **{f"{side}_characters": [len(row[key]) for row in rows] for side, key in _SIDES},
              **{key: [row[key] for row in rows if row.get(key) is not None] for key in ("benefit", "benefit_share")}}
    return {"pairs": len(rows), "clusters": {str(number): clusters[number] for number in sorted(clusters)},
            "evenness": float(-(shares * np.log(shares)).sum() / np.log(len(shares))) if len(shares) > 1 else None,
            **{key: np.percentile(some, _QUANTILES).tolist() if some else None for key, some in values.items()}}


def print_difference(found: Mapping[str, Any], console: Console) -> None:
    """Print what `compare_sets` found."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    a, b = found["a"], found["b"]
    for letter, side in (("A", a), ("B", b)):
        console.print(f"[bold]{letter}[/]  {escape(side['name'])}", soft_wrap=True)
    jaccard = "" if found["jaccard"] is None else f" (Jaccard {found['jaccard']:.1%})"
    console.print(f"\n[bold]{found['common']:,}[/] pairs in common{jaccard}, {found['only_a']['pairs']:,} only in A, "
                  f"{found['only_b']['pairs']:,} only in B")
    if found["cluster_ami"] is not None:
        console.print(f"clusters of the common pairs: adjusted mutual information {found['cluster_ami']:.2f} (1: the same, "
                      "0: unrelated)")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption="three numbers: 5th, 50th, 95th percentile; [ ]: 95% interval")
    for heading in ("", "A", "B", "only A", "only B"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for label, cells in _lines(found):
        if any(cells):
            table.add_row(label, *map(escape, cells))
    console.print(table)
    for letter, key in (("A", "only_a"), ("B", "only_b")):
        if found[key]["examples"]:
            console.print(f"[bold]only in {letter}[/], most beneficial first where that is known")
        for row in found[key]["examples"]:
            benefit = "" if row["benefit"] is None else f"  [dim]benefit {_number(row['benefit'])}[/]"
            console.print(f"  {escape(row['src'])}\n  {escape(row['tgt'])}{benefit}\n", soft_wrap=True)


def _lines(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The table's lines: a label and a cell for A, B, only A, only B."""
    groups = [found[key] for key in ("a", "b", "only_a", "only_b")]

    def sizes(one: Mapping[str, Any]) -> str:
        counts = sorted(one["clusters"].values())
        return f"{counts[0]:,} to {counts[-1]:,}" if counts else ""

    def quantiles(label: str, key: str, form: Callable[[float], str]) -> tuple[str, list[str]]:
        return label, [" / ".join(map(form, one[key] or [])) for one in groups]

    lines = [("pairs", [f"{one['pairs']:,}" for one in groups])]
    for name in dict.fromkeys([*found["a"]["scores"], *found["b"]["scores"]]):
        lines.append((name, [_score(one.get("scores", {}).get(name)) for one in groups]))
    lines.append(("noise", ["" if one.get("noise_share") is None else f"{one['noise_share']:.1%}" for one in groups]))
    lines.append(("clusters", [str(len(one["clusters"]) or "") for one in groups]))
    lines.append(("pairs in a cluster", [sizes(one) for one in groups]))
    lines.append(("evenness of clusters", ["" if one["evenness"] is None else f"{one['evenness']:.3f}" for one in groups]))
    whole, share = "{:,.0f}".format, "{:.0%}".format
    lengths = [quantiles(f"{side} {unit}", f"{side}_{unit}", whole) for unit in ("words", "characters") for side, _ in _SIDES]
    return [*lines, quantiles("benefit", "benefit", _number), quantiles("seeds benefited", "benefit_share", share), *lengths]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _score(score: Sequence[float] | None) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*score) if score else ""


def _examples(pairs: Pairs, count: int) -> list[dict[str, Any]]:
    """The most beneficial rows; texts cut, and without characters that a terminal would obey."""
    from mtselect.reports.pages import short_text

    def benefit(row: Mapping[str, Any]) -> float:
        return float("-inf") if row.get("benefit") is None else float(row["benefit"])

    return [{"id": short_text(row["id"]), "src": short_text(row["src"], _EXCERPT), "tgt": short_text(row["tgt"], _EXCERPT),
             "benefit": row.get("benefit")} for row in sorted(pairs.values(), key=benefit, reverse=True)[:count]]


def _fault(row: Any, known: Pairs) -> str | None:
    """Why a line is not a row of a selected set."""
    if not isinstance(row, dict):
        return "not a JSON object"
    if wrong := [key for key in ("id", "src", "tgt") if not isinstance(row.get(key), str)]:
        return f"{wrong[0]!r} must be a text, got {row.get(wrong[0])!r}"
    for key, kind in (("benefit", (int, float)), ("benefit_share", (int, float)), ("cluster", int)):
        value = row.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            return f"{key!r} must be a number or null, got {value!r}"
    return f"the id {row['id']!r} is there twice" if row["id"] in known else None


def _read_path(name: str, path: Path, run: RecordedRun | None) -> Side:
    """A file, or a folder with selected.jsonl and perhaps scores.json; the run adds its metrics."""
    file, called = (path / "selected.jsonl", f"{name}/selected.jsonl") if path.is_dir() else (path, name)
    if path.is_dir() and not file.is_file():
        raise DataError(f"{name!r} holds no selected.jsonl: name {_ALLOWED}")
    metrics = run.metrics if run else {}
    scores = _run_scores(metrics)
    if (path / "scores.json").is_file():
        try:
            recorded = json.loads((path / "scores.json").read_text(encoding="utf-8"))
            scores |= {f"{split} {score['name']}": (float(score["value"]), float(score["low"]), float(score["high"]))
                       for split in ("dev", "test") for score in recorded.get(split, [])}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{name}/scores.json is not what promotion writes ({error}): download the dataset again, or "
                            "remove the file") from error
    return Side(name=name, pairs=read_pairs(file, called), scores=scores, noise_share=metrics.get("select/noise_share"))


def _run_scores(metrics: Mapping[str, float]) -> dict[str, Interval]:
    """`eval/chrf` becomes `dev chrf`, and `test/chrf` `test chrf`, with the ends of their intervals."""
    return {name.replace("eval/", "dev ").replace("test/", "test "): (value, metrics[f"{name}_low"], metrics[f"{name}_high"])
            for name, value in sorted(metrics.items()) if {f"{name}_low", f"{name}_high"} <= metrics.keys()}


if __name__ == "__main__":
    sys.exit(main())
