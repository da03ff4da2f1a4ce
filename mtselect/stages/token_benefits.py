"""Benefits of single target tokens, computed anew for the few pairs that somebody asks about (`explain`)."""

from __future__ import annotations

from collections.abc import Sequence

from mtselect.attribution.tokens import MeanSeed
from mtselect.data.pairs import Pair
from mtselect.data.prompts import texts_of_tokens
from mtselect.stages.corpus import SEEDS
from mtselect.stages.curvature import FITTED
from mtselect.stages.lineage import Lineage
from mtselect.stages.models import encode, load_scored
from mtselect.stages.warmup import WARM_MODEL
from mtselect.training.gradient_module import run_gradient_pass, token_benefits
from mtselect.training.language_model import tracked_layers


def benefits_of_tokens(lineage: Lineage, pairs: Sequence[Pair]) -> list[list[tuple[str, float]]]:
    """Each pair's target tokens, EOS among them, as text and benefit; a pair's benefits add up to its mean benefit."""
    experiment, bench, weights = lineage.experiment, lineage.bench, WARM_MODEL.read(lineage)
    lm = load_scored(experiment, bench.runtime, weights)
    layers = tracked_layers(lm.model, experiment.attribution.layers)
    seeds = encode(experiment, weights.name, SEEDS.read(lineage)[:])
    examples = encode(experiment, weights.name, pairs)
    with bench.progress.task("benefits of tokens", len(seeds) + len(examples)) as advance:
        mean = MeanSeed()
        run_gradient_pass(lm, layers, seeds, mean, batch_size=bench.runtime.batch_size, accelerator=bench.runtime.accelerator,
                          advance=advance)
        direction = mean.preconditioned(FITTED.read(lineage), experiment.attribution.damping)
        values = token_benefits(lm, layers, direction, examples, batch_size=bench.runtime.batch_size,
                                accelerator=bench.runtime.accelerator, advance=advance)
    return [list(zip(texts_of_tokens(lm.tokenizer, example.target), benefits.tolist(), strict=True))
            for example, benefits in zip(examples, values, strict=True)]
