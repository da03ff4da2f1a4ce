"""Truth against retraining: do predicted benefits foretell what finetuning does? (linear datamodelling score)

    python benchmarks/lds.py                                        half an hour, estimated; a killed run goes on
    python benchmarks/lds.py --repeats 4                            less noise in the truth, measured beside the scores
    python benchmarks/lds.py --experiment.finetune.epochs 1         any field of sweeps/quickstart.yaml

The quickstart's corpus and warmed-up model. N random candidates that the warm-up has not seen; M subsets, each a random half
of them; on each the warmed-up model is finetuned as the quickstart finetunes, and the loss of every seed pair is measured,
averaged over repeats with other shuffling. A contestant gives benefits [N, Q] without retraining. LDS of a seed: Spearman
correlation over the subsets between the sum of the subset's benefits and minus the seed's loss (Park et al. 2023, arXiv
2303.14186). The columns:

    LDS            mean over the seeds
    over dot       LDS minus that of the plain gradient dot product
    mean seed      the same correlation for the mean benefit and the mean loss, by which pairs are ranked for selection
    AUC            how well the mean benefit ranks clean candidates above noisy ones; no retraining in it

Brackets: 95 % bootstrap interval, subsets and seeds resampled together. Ceiling: the LDS that the repeats' agreement would
allow a perfect prediction. Gradients are taken at the warmed-up model unless a row says otherwise, in all tracked layers;
factors are fitted on the N candidates.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from mtselect.attribution.gradients import GradientConsumer, layer_shape
from mtselect.attribution.influence import PoolScorer, SeedGradients
from mtselect.attribution.kfac import Covariances, Curvature, EigenvalueRefit
from mtselect.attribution.sketch import Sketcher, random_projections
from mtselect.cli import quickstart_file
from mtselect.config import Experiment, RuntimeConfig, decided, load, with_fields
from mtselect.data.examples import Example
from mtselect.data.pairs import Pair
from mtselect.data.prompts import encode_pairs
from mtselect.progress import ConsoleProgress
from mtselect.resolve import resolve
from mtselect.stages.corpus import corpus_of
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.selection import select_pairs
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import Recipe, Store, derive_seed, hash_json
from mtselect.training.batching import loader
from mtselect.training.finetune_module import finetune
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import LanguageModel, load_model, target_logits, target_losses, tracked_layers

Array = NDArray[Any]
DOT = "gradient dot product"
DAMPINGS = (0.01, 0.1, 1.0, 10.0)
RESAMPLES = 1000
ROWS = 21  # of the table, for the progress bar


# --- the score --------------------------------------------------------------------------------------------------------


def lds(benefits: Array, subsets: Array, losses: Array) -> Array:
    """[Q] linear datamodelling scores.

    Args:
        benefits: [N, Q], larger is better.
        subsets: [M, N], true where a candidate was trained on.
        losses: [M, Q] after training on each subset.
    """
    return spearman(subsets.astype(np.float64) @ benefits, -losses)


def spearman(x: Array, y: Array) -> Array:
    """Rank correlation of each column of x [M, Q] with that of y; 0 where one is constant."""
    return np.asarray((standard_ranks(x) * standard_ranks(y)).sum(0))


def standard_ranks(x: Array) -> Array:
    """Ranks in each column of x [M, Q], centred and of unit length; zeros where it is constant."""
    ranks: Array = rankdata(x, axis=0)
    ranks -= ranks.mean(0)
    unit: Array = ranks / np.maximum(np.linalg.norm(ranks, axis=0), 1e-9)
    return unit


def ceiling(losses: Array) -> tuple[Array, Array]:
    """Of losses [R, M, Q] of R repeats: the mean correlation [Q] of two repeats, and the largest LDS [Q] that allows for
    their mean (the root of its reliability, by Spearman and Brown)."""
    repeats = len(losses)
    pairs = [spearman(losses[i], losses[j]) for i in range(repeats) for j in range(i)]
    agreement = np.mean(pairs, axis=0)
    return agreement, np.sqrt((repeats * agreement / (1 + (repeats - 1) * agreement)).clip(0, 1))


# --- the truth --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained, on what, and what is measured."""

    bench: Bench
    experiment: Experiment
    warm: LanguageModel
    warm_key: str
    ids: list[str]
    candidates: list[Example]
    clean: Array
    seeds: list[Example]


def set_up(bench: Bench, experiment: Experiment, n_candidates: int, n_seeds: int) -> Setting:
    """The quickstart's corpus and warmed-up model, from the store or made now, and random candidates it has not seen."""
    lineage = Lineage(bench, experiment)
    folder, key = WARM_MODEL.read(lineage).name, lineage.input_key(WARM_MODEL)
    corpus = corpus_of(lineage)
    drawn = select_pairs(Lineage(bench, with_fields(experiment, {"selection.method": "random",
                                                                     "selection.budget": n_candidates})))
    warm = load_model(folder)

    def encode(pairs: list[Pair]) -> list[Example]:
        return encode_pairs(pairs, warm.tokenizer, experiment.data, experiment.model)

    assert corpus.noisy is not None
    return Setting(bench=bench, experiment=experiment, warm=warm, warm_key=key, ids=[pair.id for pair in drawn.pairs],
                   candidates=encode([Pair(id=pair.id, src=pair.src, tgt=pair.tgt) for pair in drawn.pairs]),
                   clean=~corpus.noisy[corpus.pool.among([pair.id for pair in drawn.pairs])],
                   seeds=encode(corpus.seeds[:n_seeds]))


def draw_subsets(n_subsets: int, n_candidates: int) -> Array:
    """[M, N] random halves; the first are the same whatever their number."""
    subsets = np.zeros((n_subsets, n_candidates), bool)
    for i, subset in enumerate(subsets):
        subset[np.random.default_rng([0, i]).permutation(n_candidates)[: n_candidates // 2]] = True
    return subsets


def finetuned(setting: Setting, rows: Array, repeat: int) -> LanguageModel:
    """The warmed-up model, finetuned on these candidates."""
    lm = LanguageModel(model=copy.deepcopy(setting.warm.model).requires_grad_(True), tokenizer=setting.warm.tokenizer)
    experiment = setting.experiment
    finetune(lm, [setting.candidates[row] for row in rows], [], experiment.finetune, setting.bench.runtime,
             n_steps=experiment.finetune.steps_for(len(rows)), name="finetune",
             seed=derive_seed(experiment.seed, f"retraining {repeat}"), dtype=experiment.model.dtype, advance=lambda n: None)
    return lm


def measure(lm: LanguageModel, examples: list[Example]) -> Array:
    """Loss of each example, summed over its target tokens."""
    losses = np.zeros(len(examples))
    lm.model.eval()
    with torch.no_grad():
        for batch in loader(examples, 64, lm.pad_id):
            losses[batch.rows.numpy()] = target_losses(target_logits(lm.model, batch), batch.targets).numpy()
    return losses


def retrain(setting: Setting, subsets: Array, repeats: int) -> Array:
    """[R, M, Q] losses of the seeds; each retraining is kept in the store."""
    losses = np.zeros((repeats, len(subsets), len(setting.seeds)))
    with setting.bench.progress.task("retrainings", repeats * len(subsets)) as advance:
        for repeat in range(repeats):
            for i, subset in enumerate(subsets):
                rows = np.flatnonzero(subset)
                section = {"finetune": setting.experiment.finetune, "ids": hash_json([setting.ids[row] for row in rows]),
                           "repeat": repeat, "seeds": hash_json([[seed.prompt, seed.target] for seed in setting.seeds])}

                def compute(out: Path, rows: Array = rows, repeat: int = repeat) -> None:
                    np.save(out / "losses.npy", measure(finetuned(setting, rows, repeat), setting.seeds))

                recipe = Recipe(stage="lds", version=1, section=section, upstream=[setting.warm_key])
                losses[repeat, i] = np.load(setting.bench.store.fetch(recipe, compute).path / "losses.npy")
                advance(1)
    return losses


# --- the predictions --------------------------------------------------------------------------------------------------


class Predictor:
    """Gradient passes at one model."""

    def __init__(self, setting: Setting, lm: LanguageModel) -> None:
        attribution = setting.experiment.attribution
        self.setting, self.lm = setting, lm
        self.layers = tracked_layers(lm.model, attribution.layers)
        self.rank = attribution.sketch_rank

    def run(self, examples: list[Example], consumer: Any, uniforms: Array | None = None) -> Any:
        """One pass."""
        fed: GradientConsumer = consumer
        run_gradient_pass(self.lm, self.layers, examples, fed, batch_size=32, accelerator="cpu", advance=lambda n: None,
                          uniforms=uniforms)
        return consumer

    def fit(self, fisher: str) -> tuple[Curvature, Curvature]:
        """K-FAC and EK-FAC on the candidates."""
        candidates, uniforms = self.setting.candidates, None
        if fisher == "sampled":
            longest = max(len(example.target) for example in candidates)
            uniforms = np.random.default_rng(0).random((len(candidates), longest))
        kfac = self.run(candidates, Covariances(), uniforms).eigenbasis()
        return kfac, self.run(candidates, EigenvalueRefit(kfac), uniforms).curvature()

    def score(self, curvature: Curvature, damping: float = 0.1) -> tuple[Array, Array]:
        """Benefits [N, Q], and the candidates' gradient norms [N]."""
        n, q = len(self.setting.candidates), len(self.setting.seeds)
        seeds = self.run(self.setting.seeds, SeedGradients(q, curvature, damping)).preconditioned
        benefits, norms = np.zeros((n, q), np.float32), {name: np.zeros(n, np.float32) for name in self.layers}
        self.run(self.setting.candidates, PoolScorer(seeds, benefits=benefits, norms=norms))
        return benefits, np.sqrt(sum(np.square(norm, dtype=np.float64) for norm in norms.values()))

    def sketched(self) -> Array:
        """Dot products [N, Q] of random sketches."""
        projections = random_projections({name: layer_shape(layer) for name, layer in self.layers.items()}, decided(self.rank),
                                         torch.Generator().manual_seed(0))

        def sketch(examples: list[Example]) -> Array:
            sketches, norms = np.zeros((len(examples), projections.width), np.float16), np.zeros(len(examples), np.float32)
            self.run(examples, Sketcher(projections, sketches=sketches, sketch_norms=norms))
            return sketches * norms[:, None]

        return sketch(self.setting.candidates) @ sketch(self.setting.seeds).T


def predictions(setting: Setting) -> Iterator[tuple[str, Array]]:
    """(name, benefits [N, Q]) of every contestant, the plain dot product first. `/ norm` divides by the candidate's gradient
    norm, as selection.rank benefit_per_norm; `/ token` by its target tokens, as a batch's mean loss does."""
    warm = Predictor(setting, setting.warm)
    tokens = np.array([[len(example.target)] for example in setting.candidates])
    dot, norms = warm.score({})
    everyone = np.ones((1, len(setting.seeds)))
    loss = measure(setting.warm, setting.candidates)[:, None]

    def variants(name: str, benefits: Array) -> Iterator[tuple[str, Array]]:
        yield name, benefits
        yield f"{name} / token", benefits / tokens
        yield f"{name} / norm", benefits / norms[:, None]

    yield from variants(DOT, dot)
    yield f"sketch dot product, rank {warm.rank}", warm.sketched()
    for fisher in ("sampled", "observed"):
        kfac, ekfac = warm.fit(fisher)
        for damping in DAMPINGS:
            named = f"EK-FAC, {fisher} Fisher, damping {damping:g}"
            benefits, _ = warm.score(ekfac, damping)
            yield from variants(named, benefits) if (fisher, damping) == ("sampled", 0.1) else [(named, benefits)]
        yield f"K-FAC, {fisher} Fisher, damping 0.1", warm.score(kfac, 0.1)[0]
    yield "minus gradient norm", -norms[:, None] * everyone
    yield "minus loss", -loss * everyone
    yield "minus loss / token", -loss / tokens * everyone
    after = Predictor(setting, finetuned(setting, np.arange(len(setting.candidates)), 0))
    yield f"{DOT}, finetuned on all", after.score({})[0]
    yield "EK-FAC, sampled Fisher, damping 0.1, finetuned on all", after.score(after.fit("sampled")[1], 0.1)[0]


# --- the table --------------------------------------------------------------------------------------------------------


def bootstrap(scores: Mapping[str, Array], subsets: Array, losses: Array) -> dict[str, Array]:
    """[3, B] per contestant: LDS, its lead over the dot product, correlation of the means; the same draws for all."""
    rng = np.random.default_rng(0)
    found: dict[str, list[list[float]]] = {name: [] for name in scores}
    sums = {name: subsets.astype(np.float64) @ benefits for name, benefits in scores.items()}
    for _ in range(RESAMPLES):
        rows, columns = (rng.integers(0, size, size) for size in losses.shape)
        truth = standard_ranks(-losses[rows])
        mean_truth = standard_ranks(-losses[np.ix_(rows, columns)].mean(1, keepdims=True))
        each = {name: float((standard_ranks(total[rows]) * truth).sum(0)[columns].mean()) for name, total in sums.items()}
        for name, total in sums.items():
            mean = standard_ranks(total[np.ix_(rows, columns)].mean(1, keepdims=True))
            found[name].append([each[name], each[name] - each[DOT], float((mean * mean_truth).sum())])
    return {name: np.array(draws).T for name, draws in found.items()}


def table(scores: Mapping[str, Array], subsets: Array, losses: Array, clean: Array) -> Iterator[str]:
    """Markdown rows."""
    yield "| benefit | LDS | over dot | mean seed | AUC |"
    yield "|---|---|---|---|---|"
    drawn = bootstrap(scores, subsets, losses)
    reference = lds(scores[DOT], subsets, losses).mean()
    for name, benefits in scores.items():
        score = lds(benefits, subsets, losses).mean()
        mean = lds(benefits.mean(1, keepdims=True), subsets, losses.mean(1, keepdims=True))[0]
        low, high = np.quantile(drawn[name], [0.025, 0.975], axis=1)
        cells = [f"{value:.3f} [{a:.3f}, {b:.3f}]" for value, a, b in zip((score, score - reference, mean), low, high,
                                                                         strict=True)]
        auc = roc_auc_score(clean, benefits.mean(1))
        yield f"| {name} | {cells[0]} | {'' if name == DOT else cells[1]} | {cells[2]} | {auc:.3f} |"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=800, help="N")
    parser.add_argument("--subsets", type=int, default=80, help="M")
    parser.add_argument("--seeds", type=int, default=128, help="Q, at most 128")
    parser.add_argument("--repeats", type=int, default=2, help="trainings of each subset; the ceiling needs two")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / ".lds", help="what is kept between runs")
    arguments, overrides = parser.parse_known_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    console = Console(highlight=False)
    bench = Bench(store=Store(arguments.work), runtime=RuntimeConfig(workdir=str(arguments.work), accelerator="cpu"),
                  progress=ConsoleProgress(console))
    sweep = load(quickstart_file(), overrides)
    experiment = resolve(sweep.experiment, sweep.runtime)
    setting = set_up(bench, experiment, arguments.candidates, arguments.seeds)
    subsets = draw_subsets(arguments.subsets, len(setting.candidates))
    losses = retrain(setting, subsets, arguments.repeats)
    mean = losses.mean(0)
    print(f"\n{len(setting.candidates)} candidates, {len(subsets)} subsets, {len(setting.seeds)} seeds, {len(losses)} repeats; "
          f"mean seed loss {measure(setting.warm, setting.seeds).mean():.2f} before, {mean.mean():.2f} after, "
          f"{mean.mean(1).std():.3f} over the subsets")
    if len(losses) > 1:
        agreement, bound = ceiling(losses)
        whole, whole_bound = ceiling(losses.mean(2, keepdims=True))
        print(f"two repeats agree to {agreement.mean():.3f} (mean seed {whole[0]:.3f}); "
              f"ceiling {bound.mean():.3f} (mean seed {whole_bound[0]:.3f})")
    scores = {}
    with bench.progress.task("predictions", ROWS) as advance:
        for name, benefits in predictions(setting):
            scores[name] = benefits
            advance(1)
    print("\n" + "\n".join(table(scores, subsets, mean, setting.clean)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
