"""Sketches against exact benefits, on a trained model: how much of the ranking survives at how many bytes an example.

    python benchmarks/sketch.py                                         the quickstart's model, about 15 minutes on one core
    python benchmarks/sketch.py sweeps/multi30k.yaml --candidates 1000  of any sweep file; half of it is training the model
    python benchmarks/sketch.py --experiment.attribution.damping 10     any field of the sweep file

Corpus, model and curvature are the pipeline's own stages, taken from the workdir's store where a sweep left them. N random
candidates, Q seeds; all tracked layers. Kinds of sketches:

    random    Gaussian projections of rank r on both sides, r^2 numbers a layer
    eigen     the top r EK-FAC eigenvectors on both sides, r^2 numbers a layer
    entries   as many entries of the eigenbases, no grid: the largest L / (L + lambda) over all layers
    anchors   K other pool rows: exact benefits for them, turned so that inner products are those of the projections onto
              their span (Nystroem). Costs what K dense seeds cost: to see what directions fitted to the pool could do
    low rank  no sketch: the seeds themselves cut to rank r, bytes are a seed's; "no R": without the mean over seeds of what was
              cut off (attribution/factored.py), one matrix a layer that is not counted here

Columns, sketched against exact: Spearman over candidates, mean over seeds; the same from numbers rounded to int8; Spearman over
all pairs; of the mean benefit over seeds; of the benefit share; how much of the top quarter (of `selection.rank`) is the same
(0.25 by chance); and, where noise is labelled, how well the mean benefit ranks clean candidates above noisy ones (AUC), which
asks nothing of the exact benefits. Numbers are float16 of unit length beside a float32 norm, as in the index. The last line
says how well two halves of the seeds agree in the exact mean benefit: fidelity far beyond that buys nothing in ranking.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "50000")

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from mtselect.attribution.factored import FactoredScorer, FactoredSeeds
from mtselect.attribution.gradients import Captured, GradientConsumer, layer_shape
from mtselect.attribution.influence import PoolScorer, SeedGradients
from mtselect.attribution.kfac import Curvature
from mtselect.attribution.record import Record
from mtselect.attribution.sketch import Projections, Sketcher, eigen_projections, random_projections
from mtselect.cli import quickstart_file
from mtselect.config import Experiment, RuntimeConfig, load
from mtselect.data.prompts import encode_pairs
from mtselect.progress import ConsoleProgress
from mtselect.resolve import resolve
from mtselect.selection.resample import benefit_share, rank_values
from mtselect.stages.candidates import candidate_rows
from mtselect.stages.corpus import corpus_of
from mtselect.stages.curvature import CURVATURE, load_curvature
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import Store, derive_seed
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import LanguageModel, tracked_layers
from mtselect.training.language_model import load as load_model

Array = NDArray[Any]
RANKS = (2, 3, 4, 6, 8, 12, 16, 32)
SEED_RANKS = (2, 4, 8, 16, 32)
RECORD_BYTES = 3 * 2**30


@dataclass(frozen=True, kw_only=True)
class Work:
    """Recorded gradient passes and what is known of the rows.

    Args:
        candidates: N rows.
        seeds: Q rows.
        anchors: K further pool rows.
        sizes: N, Q, K.
        clean: [N], null where the pool has no labels.
        shapes: layer -> (O, I).
    """

    candidates: Record
    seeds: Record
    anchors: Record
    sizes: tuple[int, int, int]
    clean: Array | None
    curvature: Curvature
    shapes: dict[str, tuple[int, int]]
    experiment: Experiment


def record(bench: Bench, experiment: Experiment, sizes: tuple[int, int, int]) -> Work:
    """Run the stages, then the model over the rows, once."""
    lineage = Lineage(bench, experiment)
    folder = WARM_MODEL.read(lineage).name
    curvature = lineage.open(CURVATURE, load_curvature)
    if not curvature:
        raise SystemExit("attribution.curvature is identity: there are no eigenvectors to choose from")
    lm = load_model(folder, getattr(torch, experiment.model.dtype))
    layers = tracked_layers(lm.model, experiment.attribution.layers)
    pool = POOL_TOKENS.read(lineage)
    rng = np.random.default_rng(derive_seed(experiment.seed, "sketch benchmark"))
    drawn = rng.permutation(candidate_rows(experiment, pool))
    n, q, k = sizes
    rows, others = np.sort(drawn[:n]), drawn[n : n + k]
    loaded = corpus_of(lineage)
    seeds = encode_pairs(loaded.seeds[:q], lm.tokenizer, experiment.data, experiment.model, lm.decoder_start)
    noisy = loaded.noisy
    clean = None if noisy is None else ~noisy[rows]
    passes = [keep(bench, lm, layers, examples) for examples in
              (pool.take(rows), seeds, pool.take(others))]
    return Work(candidates=passes[0], seeds=passes[1], anchors=passes[2], sizes=(len(rows), len(seeds), len(others)),
                clean=clean, curvature=curvature, experiment=experiment,
                shapes={name: layer_shape(layer) for name, layer in layers.items()})


def keep(bench: Bench, lm: LanguageModel, layers: Any, examples: Any) -> Record:
    """A gradient pass."""
    kept = Record(RECORD_BYTES, Path(bench.runtime.workdir))
    if not examples:
        return kept
    with bench.progress.task("gradients", len(examples)) as advance:
        run_gradient_pass(lm, layers, examples, kept, batch_size=bench.runtime.batch_size,
                          accelerator=bench.runtime.accelerator, advance=advance)
    return kept


def replay(kept: Record, consumer: GradientConsumer) -> None:
    """Feed a recorded pass to a consumer, all layers of a batch together."""
    for parts in zip(*(kept.batches(group) for group in kept.groups()), strict=True):
        layers = {name: tokens for part in parts for name, tokens in part.layers.items()}
        consumer.update(Captured(rows=parts[0].rows, lengths=parts[0].lengths, layers=layers,
                                 source_lengths=parts[0].source_lengths))


# --- benefits ---------------------------------------------------------------------------------------------------------


def solve(kept: Record, count: int, work: Work) -> dict[str, torch.Tensor]:
    """Dense preconditioned gradients of recorded rows."""
    consumer = SeedGradients(count, work.curvature, work.experiment.attribution.damping)
    replay(kept, consumer)
    return consumer.preconditioned


def products(kept: Record, count: int, solved: dict[str, torch.Tensor], work: Work) -> tuple[Array, Array]:
    """Exact benefits [count, Q] and gradient norms [count] of recorded rows."""
    benefits = np.zeros((count, len(next(iter(solved.values())))), np.float32)
    norms = {name: np.zeros(count, np.float32) for name in work.shapes}
    replay(kept, PoolScorer(solved, benefits=benefits, norms=norms))
    return benefits, np.sqrt(sum(np.square(norm, dtype=np.float64) for norm in norms.values()))


def from_index(sketches: Array, norms: Array, seeds: Array) -> tuple[Array, Array]:
    """Benefits [N, Q] from sketches of unit length in float16, and in int8 with a scale for each row."""
    scale = np.abs(sketches.astype(np.float32)).max(1, keepdims=True) / 127
    rounded = np.rint(sketches / np.maximum(scale, 1e-30)) * scale
    benefits = [units.astype(np.float32) @ seeds.T * norms[:, None] for units in (sketches, rounded)]
    return benefits[0], benefits[1]


def sketched(projections: Projections, solved: dict[str, torch.Tensor], work: Work) -> tuple[Array, Array]:
    """Benefits by way of an index, float16 and int8."""
    sketches = np.zeros((work.sizes[0], projections.width), np.float16)
    norms = np.zeros(work.sizes[0], np.float32)
    replay(work.candidates, Sketcher(projections, sketches=sketches, sketch_norms=norms))
    return from_index(sketches, norms, projections.seeds(solved).numpy())


@dataclass(frozen=True, kw_only=True)
class Entries(Projections):
    """Single numbers of a sketch.

    Args:
        kept: their places.
    """

    kept: torch.Tensor

    @property
    def width(self) -> int:
        return len(self.kept)

    def sketch(self, captured: Captured) -> torch.Tensor:
        return super().sketch(captured)[:, self.kept]

    def seeds(self, preconditioned: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return super().seeds(preconditioned)[:, self.kept]


def entry_projections(curvature: Curvature, rank: int, damping: float) -> Entries:
    """rank^2 entries a layer on average, where they count most."""
    names = sorted(curvature)
    shares = [curvature[name].eigenvalues / curvature[name].damped(damping) for name in names]
    flat = torch.cat([share.flatten() for share in shares])
    least = flat.topk(min(len(names) * rank**2, len(flat))).values[-1]
    sides, weights, kept = {}, {}, []
    for name, share in zip(names, shares, strict=True):
        mask = share >= least
        rows, columns = mask.any(1), mask.any(0)
        sides[name] = (curvature[name].basis_a[:, columns], curvature[name].basis_s[:, rows])
        weights[name] = curvature[name].damped(damping).rsqrt()[rows][:, columns]
        kept.append(mask[rows][:, columns].flatten())
    return Entries(sides=sides, weights=weights, kept=torch.cat(kept).nonzero()[:, 0])


def anchored(work: Work, solved: dict[str, torch.Tensor], counts: list[int]) -> Iterator[tuple[int, tuple[Array, Array]]]:
    """Sketches by benefits for anchors A: z -> K_zA K_AA^(-1/2). Their number, and benefits float16 and int8."""
    n, q, k = work.sizes
    if not k:
        return
    anchors = solve(work.anchors, k, work)
    gram, of_candidates, of_seeds = (products(kept, count, anchors, work)[0].astype(np.float64)
                                     for kept, count in ((work.anchors, k), (work.candidates, n), (work.seeds, q)))
    del anchors
    for count in counts:
        values, vectors = np.linalg.eigh(gram[:count, :count])
        root = vectors / np.sqrt(np.maximum(values, 1e-6 * values[-1]))
        sketches, seeds = of_candidates[:, :count] @ root, of_seeds[:, :count] @ root
        norms = np.linalg.norm(sketches, axis=1)
        yield count, from_index((sketches / norms[:, None]).astype(np.float16), norms, seeds)


def low_rank(ranks: list[int], work: Work) -> Iterator[tuple[str, Array, int]]:
    """Name, benefits, and bytes of a seed in float16; with and without what seeds share of the part cut off."""
    n, q, _ = work.sizes
    seeds = FactoredSeeds(q, work.curvature, work.experiment.attribution.damping, max(ranks, default=0))
    replay(work.seeds, seeds)
    for rank in ranks:
        whole = {name: kept.truncated(rank) for name, kept in seeds.factors.items()}
        cut = {name: replace(kept, mean=kept.mean - kept.remainder()) for name, kept in whole.items()}
        size = 2 * sum(side[0].numel() for kept in whole.values() for side in (kept.left, kept.right))
        for what, factors in ((f"low rank {rank}", whole), (f"low rank {rank}, no R", cut)):
            benefits = np.zeros((n, q), np.float32)
            norms = {name: np.zeros(n, np.float32) for name in work.shapes}
            replay(work.candidates, FactoredScorer(factors, benefits=benefits, norms=norms))
            yield what, benefits, size


# --- fidelity ---------------------------------------------------------------------------------------------------------


def spearman(x: Array, y: Array) -> float:
    """Mean over columns of the rank correlation over rows."""
    ranks = [rankdata(values, axis=0) for values in (x, y)]
    centred = [values - values.mean(0) for values in ranks]
    return float(((centred[0] * centred[1]).sum(0) / np.sqrt((centred[0] ** 2).sum(0) * (centred[1] ** 2).sum(0))).mean())


def auc(scores: Array, clean: Array | None) -> str:
    """How often a clean row ranks above a noisy one."""
    if clean is None or clean.all() or not clean.any():
        return "-"
    return f"{roc_auc_score(clean, scores):.3f}"


def top_quarter(benefits: Array, norms: Array, work: Work) -> set[int]:
    """The candidates the product would rank first, as `selection.rank` says."""
    values = rank_values(benefits, norms, work.experiment.selection.rank)
    return set(np.argsort(-values, kind="stable")[: len(values) // 4].tolist())


def cells(benefits: Array, exact: Array, norms: Array, work: Work, rounded: Array | None = None) -> str:
    """A row's right part."""
    column = [some.reshape(-1, 1) for some in (benefits, exact)]
    mean = [some.mean(1, keepdims=True) for some in (benefits, exact)]
    share = [benefit_share(some)[:, None] for some in (benefits, exact)]
    same = top_quarter(benefits, norms, work) & top_quarter(exact, norms, work)
    integers = "-" if rounded is None else f"{spearman(rounded, exact):.3f}"
    values = [spearman(*mean), spearman(*share), len(same) / (len(norms) // 4)]
    return (f"**{spearman(benefits, exact):.3f}** | {integers} | {spearman(*column):.3f} | "
            f"{' | '.join(f'{value:.3f}' for value in values)} | {auc(mean[0][:, 0], work.clean)} |")


def table(work: Work, ranks: list[int], seed_ranks: list[int]) -> Iterator[str]:
    """Markdown rows, one at a time, since some take minutes."""
    damping = work.experiment.attribution.damping
    solved = solve(work.seeds, work.sizes[1], work)
    exact, norms = products(work.candidates, work.sizes[0], solved, work)
    yield "| | numbers | bytes | per seed | int8 | all pairs | mean benefit | share | top quarter | AUC |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    dense = sum(n_out * n_in for n_out, n_in in work.shapes.values())
    yield f"| exact | {work.sizes[1]:,} seeds | {2 * dense:,} a seed | {cells(exact, exact, norms, work)}"
    for kind in ("random", "eigen", "entries"):
        for rank in ranks:
            generator = torch.Generator().manual_seed(derive_seed(work.experiment.seed, "sketch"))
            projections = {"random": lambda: random_projections(work.shapes, rank, generator),  # noqa: B023
                           "eigen": lambda: eigen_projections(work.curvature, rank, damping),  # noqa: B023
                           "entries": lambda: entry_projections(work.curvature, rank, damping)}[kind]()  # noqa: B023
            halves, integers = sketched(projections, solved, work)
            yield (f"| {kind} {rank} | {projections.width:,} | {2 * projections.width + 4:,} | "
                   f"{cells(halves, exact, norms, work, integers)}")
    for count, (halves, integers) in anchored(work, solved, [work.sizes[2] // 4, work.sizes[2]]):
        yield f"| anchors | {count:,} | {2 * count + 4:,} | {cells(halves, exact, norms, work, integers)}"
    for what, benefits, size in low_rank(seed_ranks, work):
        yield f"| {what} | {size // 2:,} a seed | {size:,} a seed | {cells(benefits, exact, norms, work)}"
    halves = exact[:, ::2].mean(1, keepdims=True), exact[:, 1::2].mean(1, keepdims=True)
    yield ""
    yield f"Mean benefit over one half of the seeds against the other half: Spearman {spearman(*halves):.3f}."


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage="sketch.py [SWEEP.yaml] [options] [fields of the sweep file]", allow_abbrev=False)
    parser.add_argument("--candidates", "--limit", type=int, default=1500, help="N")
    parser.add_argument("--seeds", type=int, default=96, help="Q; fewer where the corpus has fewer")
    parser.add_argument("--anchors", type=int, default=512, help="K; 0 leaves them out")
    parser.add_argument("--ranks", nargs="*", type=int, default=list(RANKS))
    parser.add_argument("--seed-ranks", nargs="*", type=int, default=list(SEED_RANKS))
    parser.add_argument("--workdir", default="mlruns", help="with the stage store")
    given = sys.argv[1:]
    path = given.pop(0) if given and not given[0].startswith("-") else quickstart_file()
    arguments, overrides = parser.parse_known_args(given)
    sweep = load(path, overrides, "python benchmarks/sketch.py")
    torch.set_num_threads(1)
    runtime = RuntimeConfig(workdir=arguments.workdir, accelerator="cpu", batch_size=sweep.runtime.batch_size)
    console = Console(stderr=True, highlight=False)
    bench = Bench(store=Store(Path(runtime.workdir) / "store"), runtime=runtime, progress=ConsoleProgress(console))
    work = record(bench, resolve(sweep.experiment, sweep.runtime), (arguments.candidates, arguments.seeds, arguments.anchors))
    n, q, k = work.sizes
    print(f"{n:,} candidates, {q:,} seeds, {k:,} anchors, {len(work.shapes)} layers, damping "
          f"{work.experiment.attribution.damping:g}\n")
    for line in table(work, arguments.ranks, arguments.seed_ranks):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
