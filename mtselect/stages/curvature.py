"""curvature: EK-FAC (or K-FAC) of the candidates at the tracked layers.

curvature.safetensors: eigenbases and eigenvalues per layer, empty for the identity; spectra.json, for the picture.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from mtselect.attribution.gradients import layer_shape
from mtselect.attribution.kfac import Covariances, Curvature, EigenvalueRefit, from_tensors, spectrum, to_tensors
from mtselect.attribution.record import Record, fit
from mtselect.stages.candidates import READS, candidate_rows
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.models import load_scored
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import derive_seed
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import tracked_layers

# Bytes of a recorded pass that stay in memory; the rest lies in a file under the workdir.
_RECORD_MEMORY = 512 * 2**20


def _run(work: Work) -> None:
    curvature = {} if work.experiment.attribution.curvature == "identity" else _fit(work)
    save_file(to_tensors(curvature), work.out / "curvature.safetensors")
    spectra = {name: spectrum(layer.eigenvalues) for name, layer in curvature.items()}
    (work.out / "spectra.json").write_text(json.dumps(spectra), encoding="utf-8")


def _fit(work: Work) -> Curvature:
    """One pass for K-FAC, and for EK-FAC if its tokens may be kept; else two that see the same drawn targets."""
    experiment, runtime = work.experiment, work.bench.runtime
    lm = load_scored(experiment, runtime, work.read(WARM_MODEL))
    attribution, pool = experiment.attribution, work.read(POOL_TOKENS)
    rng = np.random.default_rng(derive_seed(experiment.seed, "curvature rows"))
    sample = pool.take(np.sort(rng.permutation(candidate_rows(experiment, pool))[: attribution.curvature_rows]))
    uniforms = rng.random((len(sample), sample.target_lengths.max())) if attribution.fisher == "sampled" else None
    layers = tracked_layers(lm.model, attribution.layers)
    numbers = int(sample.lengths.sum()) * sum(sum(layer_shape(layer)) for layer in layers.values())
    kept = lm.model.dtype.itemsize * numbers <= 1e9 * runtime.record_gb
    passes = 2 if attribution.curvature == "ekfac" and not kept else 1
    with work.bench.progress.task("curvature", passes * len(sample)) as advance:
        run = partial(run_gradient_pass, lm, layers, sample, batch_size=runtime.batch_size, accelerator=runtime.accelerator,
                      advance=advance, uniforms=uniforms)
        if attribution.curvature == "ekfac" and kept:
            record = Record(_RECORD_MEMORY, Path(runtime.workdir))
            run(record)
            curvature = fit(record)
        else:
            covariances = Covariances()
            run(covariances)
            curvature = covariances.eigenbasis()
            if passes == 2:
                refit = EigenvalueRefit(curvature)
                run(refit)
                curvature = refit.curvature()
    return {name: layer.to("cpu") for name, layer in curvature.items()}


CURVATURE = Stage(
    name="curvature", version=2, inputs=lambda _: [POOL_TOKENS, WARM_MODEL], run=_run,
    reads=("model", "attribution.layers", "attribution.curvature", "attribution.fisher", "attribution.curvature_rows", *READS))
FITTED = Output(stage=CURVATURE)


def load_curvature(folder: Path) -> Curvature:
    """Of an entry."""
    return from_tensors(load_file(folder / "curvature.safetensors"))
