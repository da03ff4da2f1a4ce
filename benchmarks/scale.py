"""From the corpus to the selected set of a large pool: seconds, disk and memory, with random words for sentences and a model of
one layer; then clusters and draw of random sketches.

    python benchmarks/scale.py                          1,000,000 rows, and 250,000 for comparison
    python benchmarks/scale.py --rows 100000 --width 512 --folder /data/scratch

Each side of a pair has 5 to 25 words out of 20,000; the tokenizer is a byte-level BPE of 4,096 tokens trained on them, as the
built-in base's. The model has one layer of width 32 and random weights, of which all matrices are tracked; the stages are
those of the default method behind the gate that --gate names. The sketches are float16 directions in R numbers: as many
planted groups as clusters are asked for, and noise around them (`noise` times the group's own length), so that what K-means
finds can be compared with what was planted. The index is written by a process that is killed (SIGKILL) in the middle of a
shard, half of the way; a second process goes on with the first missing shard. Each pool's steps run in one fresh process; peak
memory is VmHWM, reset before each step, and counts pages of memory maps too. "Process" is that before the first step:
interpreter, torch, scikit-learn, transformers, Lightning.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from mtselect.attribution.index import IndexWriter, Layout, Shard, SketchIndex
from mtselect.config import DataConfig, Experiment, ModelConfig, RuntimeConfig, SelectionConfig
from mtselect.config.experiment import Gate
from mtselect.progress import SilentProgress
from mtselect.selection.cluster import cluster
from mtselect.selection.resample import Columns, draw_order, rank_values, select_rows
from mtselect.store import Store


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A simulated pool."""

    rows: int
    width: int
    seeds: int
    clusters: int
    noise: float
    shard_rows: int
    budget: int
    gate: Gate | None

    def layout(self) -> Layout:
        """Of its index."""
        return Layout(n_rows=self.rows, width=self.width, shard_rows=self.shard_rows, content=f"simulated, noise {self.noise}")

    def groups(self) -> torch.Tensor:
        """The planted directions, [K, R], of unit length."""
        directions: torch.Tensor = torch.randn(self.clusters, self.width, generator=torch.Generator().manual_seed(1))
        unit: torch.Tensor = directions / directions.norm(dim=1, keepdim=True)
        return unit

    def planted(self) -> np.ndarray[Any, Any]:
        """Group of every row; sizes differ by up to ten times."""
        weights = np.random.default_rng(2).uniform(1, 10, self.clusters)
        return np.random.default_rng(3).choice(self.clusters, self.rows, p=weights / weights.sum())

    def fill(self, shard: Shard, groups: torch.Tensor, planted: np.ndarray[Any, Any]) -> None:
        """What a gradient pass over the shard's rows would write."""
        generator = torch.Generator().manual_seed(shard.rows.start)
        for begin in range(0, len(shard.rows), 4096):
            some = planted[shard.rows.start + begin : shard.rows.start + min(begin + 4096, len(shard.rows))]
            rows = torch.randn(len(some), self.width, generator=generator).mul_(self.noise / self.width**0.5)
            rows += groups[torch.from_numpy(some)]
            length = rows.norm(dim=1)
            shard.sketches[begin : begin + len(some)] = (rows / length.unsqueeze(1)).half().numpy()
            shard.norms[begin : begin + len(some)] = length.numpy()


def write(pool: Pool, folder: Path, killed_after: int | None = None) -> None:
    """Write the index, or what is missing of it; a process to be killed dies in the middle of a shard."""
    groups, planted = pool.groups(), pool.planted()
    writer = IndexWriter(folder, pool.layout())
    for done, shard in enumerate(writer.shards()):
        pool.fill(shard, groups, planted)
        if done == killed_after:
            shard.norms[len(shard.rows) // 2 :] = -1
            os.kill(os.getpid(), signal.SIGKILL)


def write_corpus(pool: Pool, folder: Path) -> Experiment:
    """Random pairs, one JSON line each; the experiment that reads them."""
    rng = np.random.default_rng(5)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), n)) for n in rng.integers(2, 10, 20_000)])
    sizes = {"pool": pool.rows, "seeds": pool.seeds, "dev": 100, "test": 100}
    for part, size in sizes.items():
        with (folder / f"{part}.jsonl").open("w") as file:
            for _ in range(size):
                src, tgt = (" ".join(words[rng.integers(0, len(words), n)]) for n in rng.integers(5, 26, 2))
                file.write(json.dumps({"src": src, "tgt": tgt}) + "\n")
    pool_file, seeds_file, dev_file, test_file = (str(folder / f"{part}.jsonl") for part in sizes)
    data = DataConfig(pool=pool_file, seeds=seeds_file, dev=dev_file, test=test_file)
    return Experiment(data=data, model=ModelConfig(vocab_size=4096, hidden_size=32, n_layers=1, n_heads=2),
                      selection=SelectionConfig(budget=pool.budget, gate=pool.gate, rank="z"))


def peak_mib() -> float:
    """Of this process since the last reset."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def disk_bytes(folder: Path) -> int:
    """Allocated under a folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def run(pool: Pool, folder: Path) -> dict[str, Any]:
    """Every step; name -> seconds, bytes of disk it added, peak memory."""
    steps: dict[str, dict[str, float]] = {}
    facts: dict[str, Any] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        Path("/proc/self/clear_refs").write_text("5")
        before, start, cpu = disk_bytes(folder), time.perf_counter(), sum(os.times()[:4])
        result = work()
        steps[name] = {"seconds": time.perf_counter() - start, "cpu": sum(os.times()[:4]) - cpu, "peak_mib": peak_mib(),
                       "bytes": disk_bytes(folder) - before}
        print(f"  {pool.rows:,} rows: {name}: {steps[name]['seconds']:.1f} s", file=sys.stderr, flush=True)
        return result

    from mtselect.resolve import resolve  # not for the killed process
    from mtselect.stages.lineage import Bench, Lineage, ancestors
    from mtselect.stages.selection import selection_stage
    from mtselect.stages.tokens import POOL_TOKENS, TOKENS
    from mtselect.training.batching import loader

    def read(tokens: Any) -> int:
        return sum(len(batch.rows) for batch in loader(tokens, 32, 0))

    def write_and_die() -> None:
        half = len(pool.layout().shards()) // 2
        process = multiprocessing.get_context("spawn").Process(target=write, args=(pool, folder, half))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, process.exitcode

    step("process", lambda: (torch.randn(64, 64) @ torch.randn(64, 64), cluster(np.eye(9, dtype=np.float32), 3, 0)))
    runtime = RuntimeConfig(threads=torch.get_num_threads())
    lineage = Lineage(Bench(store=Store(folder / "store"), runtime=runtime, progress=SilentProgress()),
                      resolve(write_corpus(pool, folder), runtime))
    for stage in ancestors(selection_stage(lineage.experiment), lineage.experiment):
        step(stage.name, partial(lineage.entry, stage))
        if stage is TOKENS:
            tokens = POOL_TOKENS.read(lineage)
            step("tokens, read in batches", partial(read, tokens))
            facts["tokens"] = int(tokens.lengths.sum())
    step("index, until killed", write_and_die)
    missing = IndexWriter(folder, pool.layout()).missing()
    facts["kept"], facts["shards"] = len(pool.layout().shards()) - len(missing), len(pool.layout().shards())
    step("index, resumed", lambda: write(pool, folder))
    index = SketchIndex(folder)
    rng = np.random.default_rng(4)
    mean, share = rng.normal(size=pool.rows), rng.uniform(size=pool.rows)
    norms = step("norms", lambda: index.column("norms"))
    labels = step("K-means", lambda: cluster(index, pool.clusters, 0))
    facts["clusters"], facts["purity"] = int(labels.max()) + 1, purity(labels, pool.planted())
    columns = Columns(mean=mean, z=mean, share=share, raw_share=share, norm=norms)
    ranks = rank_values(columns, "benefit_per_norm")
    drawn = step("draw", lambda: draw_order(labels, ranks, "best", np.random.default_rng(0))[: pool.budget])
    facts["drawn"] = len(drawn)
    config = SelectionConfig(budget=pool.budget, n_clusters=pool.clusters, threshold=0.6, threshold_on="raw_share")
    passed = np.ones(len(index), bool)
    chosen = step("selection at threshold 0.6", lambda: select_rows(columns, ranks, index, passed, pool.budget, config, 0))
    facts["passed"] = chosen.n_passed
    return {"steps": steps, "facts": facts}


def purity(labels: np.ndarray[Any, Any], planted: np.ndarray[Any, Any]) -> float:
    """Share of the rows in whose cluster their own planted group is the commonest."""
    together = np.zeros((labels.max() + 1, planted.max() + 1), dtype=np.int64)
    np.add.at(together, (labels, planted), 1)
    return float(together.max(axis=1).sum() / len(labels))


def table(results: list[tuple[Pool, dict[str, Any]]]) -> Iterator[str]:
    """Markdown rows: times and disk of the largest pool, peak memory of each."""
    largest, result = results[-1]
    written = len(range(result["facts"]["kept"] * largest.shard_rows, largest.rows)) / largest.rows
    peaks = [f"peak MiB, {pool.rows:,} rows" for pool, _ in results]
    yield f"| step | seconds | CPU seconds | seconds per million | disk | {' | '.join(peaks)} |"
    yield "|---" * (5 + len(results)) + "|"
    for name, measured in result["steps"].items():
        millions = largest.rows / 1e6 * {"index, until killed": 1 - written, "index, resumed": written}.get(name, 1)
        times = [f"{measured['seconds']:.1f}", f"{measured['cpu']:.1f}", f"{measured['seconds'] / millions:.1f}"]
        disk = f"{measured['bytes'] / 1e9:.2f} GB" if measured["bytes"] > 1e6 else ""
        peaks = [f"{one['steps'][name]['peak_mib']:,.0f}" for _, one in results]
        yield f"| {name} | {' | '.join([*(['', '', ''] if name == 'process' else times), disk, *peaks])} |"
    for pool, one in results:
        facts = one["facts"]
        yield ""
        yield (f"{pool.rows:,} rows, R = {pool.width:,}, Q = {pool.seeds}, K = {pool.clusters}, {torch.get_num_threads()} "
               f"threads: killed with {facts['kept']} of {facts['shards']} shards whole, which were kept; {facts['passed']:,} "
               f"passed; {facts['clusters']} clusters, purity {facts['purity']:.3f}; {facts['drawn']:,} drawn.")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000], help="pools, one after the other")
    parser.add_argument("--width", type=int, default=2048, help="R")
    parser.add_argument("--seeds", type=int, default=256, help="Q")
    parser.add_argument("--clusters", type=int, default=64, help="K")
    parser.add_argument("--noise", type=float, default=1.5)
    parser.add_argument("--shard-rows", type=int, default=16_384)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--gate", choices=get_args(Gate), help="of the selection (default: none)")
    parser.add_argument("--folder", type=Path, help="where the index is written and removed again (default: a temporary one)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    pools = [Pool(rows=rows, width=arguments.width, seeds=arguments.seeds, clusters=arguments.clusters, noise=arguments.noise,
                  shard_rows=arguments.shard_rows, budget=arguments.budget, gate=arguments.gate)
             for rows in sorted(arguments.rows)]
    if arguments.child:  # a pool's own process
        print(json.dumps(run(pools[0], arguments.child)))
        return 0
    results = []
    for pool in pools:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            needed, free = pool.rows * (2 * pool.width + 1500), shutil.disk_usage(folder).free
            if needed > free:
                print(f"{folder}: {needed / 1e9:.0f} GB wanted, {free / 1e9:.0f} free: lower --width or --rows, or give "
                      "another --folder", file=sys.stderr)
                return 1
            done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--rows", str(pool.rows), "--child", folder],
                                  stdout=subprocess.PIPE, text=True, check=True)
            results.append((pool, json.loads(done.stdout)))
    print("\n".join(table(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
