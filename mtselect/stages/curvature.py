"""curvature: EK-FAC (or K-FAC) of the candidates at the tracked layers.

layers/<name>.safetensors: eigenbases and eigenvalues of a layer, none for the identity; spectra.json, for the picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from mtselect.attribution.gradients import layer_shape
from mtselect.attribution.kfac import Covariances, EigenvalueRefit, LayerCurvature, spectrum
from mtselect.attribution.memory import fitting_bytes, layer_groups
from mtselect.attribution.record import Record, fit
from mtselect.stages.candidates import READS, candidate_rows
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.models import load_scored, memory_beside
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import derive_seed
from mtselect.training.device import statistics_dtype
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import tracked_layers

# Bytes of a recorded pass that stay in memory, where there is room; the rest lies in a file under the workdir.
_RECORD_MEMORY = 512 * 2**20


def _run(work: Work) -> None:
    folder, spectra = work.out / "layers", {}
    folder.mkdir()
    for name, layer in () if work.experiment.attribution.curvature == "identity" else _fitted(work):
        here = layer.to("cpu")
        save_file({part: tensor.contiguous() for part, tensor in vars(here).items()}, folder / f"{name}.safetensors")
        spectra[name] = spectrum(here.eigenvalues)
    (work.out / "spectra.json").write_text(json.dumps(spectra), encoding="utf-8")


def _fitted(work: Work) -> Iterator[tuple[str, LayerCurvature]]:
    """One pass for EK-FAC if its tokens may be kept; else one for K-FAC and one more for EK-FAC, which see the same drawn
    targets, for as many layers at a time as there is memory for."""
    experiment, runtime = work.experiment, work.bench.runtime
    lm = load_scored(experiment, runtime, work.read(WARM_MODEL))
    attribution, pool = experiment.attribution, work.read(POOL_TOKENS)
    rng = np.random.default_rng(derive_seed(experiment.seed, "curvature rows"))
    sample = pool.take(np.sort(rng.permutation(candidate_rows(experiment, pool))[: attribution.curvature_rows]))
    uniforms = rng.random((len(sample), sample.target_lengths.max())) if attribution.fisher == "sampled" else None
    layers = tracked_layers(lm.model, attribution.layers)
    shapes = {name: layer_shape(layer) for name, layer in layers.items()}
    numbers, room = int(sample.lengths.sum()) * sum(map(sum, shapes.values())), memory_beside(lm, runtime)
    statistics = statistics_dtype(attribution)
    refitted = attribution.curvature == "ekfac"
    kept = refitted and lm.model.dtype.itemsize * numbers <= 1e9 * runtime.record_gb
    groups = [list(shapes)] if kept else layer_groups(shapes, room)
    with work.bench.progress.task("curvature", len(groups) * (2 if refitted and not kept else 1) * len(sample)) as advance:
        run = partial(run_gradient_pass, lm, examples=sample, batch_size=runtime.batch_size, accelerator=runtime.accelerator,
                      advance=advance, uniforms=uniforms)
        if kept:
            one_layer = max(fitting_bytes({name: shape}) for name, shape in shapes.items())
            held = max(0, min(_RECORD_MEMORY, room - one_layer))
            record = Record(held, Path(runtime.workdir))
            run(layers, consumer=record)
            yield from fit(record, room - held, statistics)
            return
        for group in groups:
            yield from _fitted_in_passes(partial(run, {name: layers[name] for name in group}), refitted, statistics)


def _fitted_in_passes(run: Callable[..., None], refitted: bool, statistics: torch.dtype
                      ) -> Iterator[tuple[str, LayerCurvature]]:
    """K-FAC or EK-FAC of some layers; `run` is a pass that sees them."""
    covariances = Covariances(statistics)
    run(consumer=covariances)
    if not refitted:
        yield from covariances.eigenbasis().items()
        return
    refit = EigenvalueRefit(covariances.eigenbasis(), statistics)
    run(consumer=refit)
    yield from refit.curvature().items()


CURVATURE = Stage(
    name="curvature", version=3, inputs=lambda _: [POOL_TOKENS, WARM_MODEL], run=_run,
    reads=("model", "attribution.layers", "attribution.curvature", "attribution.fisher", "attribution.curvature_rows",
           "attribution.statistics", *READS))
FITTED = Output(stage=CURVATURE)


class StoredCurvature(Mapping[str, LayerCurvature]):
    """Layers of an entry, each read when it is asked for: all at once are larger than the model.

    Args:
        folder: of the entry.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = {path.name.removesuffix(".safetensors"): path for path in sorted((folder / "layers").iterdir())}

    def __getitem__(self, name: str) -> LayerCurvature:
        return LayerCurvature(**load_file(self._paths[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
