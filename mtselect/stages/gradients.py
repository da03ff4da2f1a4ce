"""gradients: one pass over the seeds, then over the candidates shard by shard; what is left of each candidate's gradient.

An index (`attribution/index.py`) with benefits [N, Q], gradient_norms [N, layers], their mean, share and norm [N], and sketches
[N, R] if asked for; rows.npy [N] (in the pool) and layers.json. A killed pass goes on with its first missing shard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from mtselect.attribution.factored import FactoredScorer, FactoredSeeds
from mtselect.attribution.gradients import Both, GradientConsumer, layer_shape
from mtselect.attribution.index import Shard
from mtselect.attribution.influence import PoolScorer, Scorer, SeedGradients
from mtselect.attribution.kfac import LayerCurvature
from mtselect.attribution.memory import seed_pass_bytes
from mtselect.attribution.sketch import Sketcher, random_projections
from mtselect.config import AttributionConfig, RuntimeConfig, decided
from mtselect.errors import ConfigError
from mtselect.selection.resample import benefit_share
from mtselect.stages.candidates import READS, CandidateIndex, candidate_tokens, index_shards, pass_parts
from mtselect.stages.corpus import SEEDS
from mtselect.stages.curvature import FITTED
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.models import encode, load_scored, memory_beside
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import derive_seed, write_text_whole
from mtselect.training.device import compute_device, device_name, statistics_dtype
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import LanguageModel, tracked_layers


def _run(work: Work) -> None:
    experiment, runtime = work.experiment, work.bench.runtime
    curvature, weights = work.read(FITTED), work.read(WARM_MODEL)
    lm, attribution = load_scored(experiment, runtime, weights), experiment.attribution
    layers = tracked_layers(lm.model, attribution.layers)
    shapes = {name: layer_shape(layer) for name, layer in layers.items()}
    candidates = candidate_tokens(work)
    seeds = encode(experiment, weights.name, work.read(SEEDS)[:])
    generator = torch.Generator().manual_seed(derive_seed(experiment.seed, "sketch"))
    sketch_rank = decided(attribution.sketch_rank)
    projections = random_projections(shapes, sketch_rank, generator) if sketch_rank else None
    run = partial(run_gradient_pass, lm, layers, batch_size=runtime.batch_size, accelerator=runtime.accelerator)
    needed = seed_pass_bytes(len(seeds), shapes, decided(attribution.seed_rank), runtime.batch_size, curved=bool(curvature),
                             statistics=statistics_dtype(attribution))
    _refuse_too_large(lm, runtime, needed, len(seeds), len(shapes))
    with work.bench.progress.task("seed gradients", len(seeds)) as advance:
        scorer = _seed_pass(partial(run, seeds, advance=advance), len(seeds), curvature, attribution)
    write_text_whole(work.out / "layers.json", json.dumps(list(layers)))
    for shard, advance in index_shards(work, "pool gradients", candidates, width=projections.width if projections else 0,
                                       columns={"benefits": len(seeds), "gradient_norms": len(layers)},
                                       values=("mean", "share", "norm")):
        norms = {name: shard.columns["gradient_norms"][:, i] for i, name in enumerate(layers)}
        scores = scorer(benefits=shard.columns["benefits"], norms=norms, first=shard.rows.start)
        consumers: list[GradientConsumer] = [scores] if projections is None else [scores, Sketcher(
            projections, sketches=shard.sketches, sketch_norms=shard.norms, first=shard.rows.start)]
        run(candidates, Both(*consumers), advance=advance, rows=shard.rows)
        _sum_up(shard)
        del scores  # it holds the seeds once more, and the next one is made before this name is bound to it


def _sum_up(shard: Shard) -> None:
    """Fill in the means of a shard's benefits and the norm over all its layers."""
    benefits = shard.columns["benefits"]
    shard.values["mean"][:] = benefits.mean(1, dtype=np.float64)
    shard.values["share"][:] = benefit_share(benefits)
    shard.values["norm"][:] = np.sqrt(np.square(shard.columns["gradient_norms"], dtype=np.float64).sum(1))


def _seed_pass(run: Callable[[GradientConsumer], None], n_seeds: int, curvature: Mapping[str, LayerCurvature],
               attribution: AttributionConfig) -> Callable[..., Scorer]:
    """The scorer of these seeds, without its arrays: dense, or of `attribution.seed_rank`."""
    statistics = statistics_dtype(attribution)
    if (rank := decided(attribution.seed_rank)) is not None:
        factored = FactoredSeeds(n_seeds, curvature, attribution.damping, rank)
        run(factored)
        return partial(FactoredScorer, factored.factors, statistics=statistics)
    dense = SeedGradients(n_seeds, curvature, attribution.damping, statistics)
    run(dense)
    return partial(PoolScorer, dense.preconditioned)


def _refuse_too_large(lm: LanguageModel, runtime: RuntimeConfig, needed: int, n_seeds: int, n_layers: int) -> None:
    """What was planned with may be taken by now."""
    free, device = memory_beside(lm, runtime), device_name(compute_device(runtime.accelerator))
    if needed > free:
        raise ConfigError(f"the gradients of {n_seeds} seeds at {n_layers} layers take {1e-9 * needed:.1f} GB, with what is "
                          f"there beside them, of the {1e-9 * max(free, 0):.1f} GB that {device} has beside the model: set "
                          "attribution.seed_rank (16 keeps the benefits' order), or track fewer attribution.layers")


GRADIENTS = Stage(name="gradients", version=5, parts=pass_parts, run=_run,
                  inputs=lambda _: [POOL_TOKENS, SEEDS, WARM_MODEL, FITTED],
                  reads=("model", "data.src_lang", "data.tgt_lang", "attribution", *READS))
INDEXED = Output(stage=GRADIENTS, opens=CandidateIndex)
