"""curvature: EK-FAC (or K-FAC) of the candidates at the tracked layers.

layers/<name>.safetensors: eigenbases and eigenvalues of a layer, none for the identity, and <name>.txt, the seconds it took;
spectra.json, for the picture. What is fitted of a layer does not depend on which others are in the same pass: processes may fit
some each, and a killed one's successor goes on with the first missing layer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from mtselect.attribution.gradients import layer_shape
from mtselect.attribution.kfac import Covariances, EigenvalueRefit, LayerCurvature, spectrum
from mtselect.attribution.memory import fitting_bytes, layer_groups
from mtselect.attribution.record import Record, fit
from mtselect.data.examples import ExampleTable
from mtselect.stages.candidates import READS, candidate_tokens
from mtselect.stages.lineage import Lineage, Output, Stage, Work
from mtselect.stages.models import load_scored, memory_beside, scored_model
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import derive_seed, write_text_whole, write_whole
from mtselect.training.device import statistics_dtype
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import LanguageModel, tracked_layers

# Bytes of a recorded pass that stay in memory, where there is room; the rest lies in a file under the workdir.
_RECORD_MEMORY = 512 * 2**20


def _run(work: Work) -> None:
    folder, layers = work.out / "layers", dict[str, nn.Module]()
    folder.mkdir(exist_ok=True)
    if work.experiment.attribution.curvature != "identity":
        weights, candidates, since = work.read(WARM_MODEL), candidate_tokens(work), time.monotonic()
        lm = load_scored(work.experiment, work.bench.runtime, weights)
        layers = tracked_layers(lm.model, work.experiment.attribution.layers)
        for name, layer in _fitted(work, lm, candidates, layers, [name for name in _part(list(layers), work.bench.part)
                                                                  if not (folder / f"{name}.safetensors").exists()]):
            tensors = {part: tensor.contiguous() for part, tensor in vars(layer.to("cpu")).items()}
            write_text_whole(folder / f"{name}.txt", f"{time.monotonic() - since:.3f}")
            write_whole(folder / f"{name}.safetensors", partial(save_file, tensors))
            since = time.monotonic()
    if all((folder / f"{name}.safetensors").exists() for name in layers):
        _finish(work, list(layers))


def _part(names: list[str], part: tuple[int, int]) -> list[str]:
    """Neighbours: they share inputs, and the graph of a pass begins at the first of them."""
    k, n = part
    return names[len(names) * k // n : len(names) * (k + 1) // n]


def _finish(work: Work, names: list[str]) -> None:
    folder, spectra, seconds = work.out / "layers", {}, 0.0
    for name in names:
        with safe_open(folder / f"{name}.safetensors", "pt") as file:
            spectra[name] = spectrum(file.get_tensor("eigenvalues"))
        seconds += float((folder / f"{name}.txt").read_text(encoding="utf-8"))
    write_text_whole(work.out / "spectra.json", json.dumps(spectra))
    write_text_whole(work.out / "manifest.json", json.dumps({**work.recipe.content(), "seconds": round(seconds, 3)}, indent=1))
    for left in set(folder.iterdir()) - {folder / f"{name}.{kind}" for name in names for kind in ("safetensors", "txt")}:
        left.unlink(missing_ok=True)  # of a killed process


def _fitted(work: Work, lm: LanguageModel, candidates: ExampleTable, layers: Mapping[str, nn.Module], wanted: Sequence[str]
            ) -> Iterator[tuple[str, LayerCurvature]]:
    """The wanted layers, by one pass for EK-FAC if the tokens of all layers may be kept; else by one for K-FAC and one more for
    EK-FAC, which see the same drawn targets, for as many layers at a time as there is memory for."""
    if not wanted:
        return
    experiment, runtime, attribution = work.experiment, work.bench.runtime, work.experiment.attribution
    rng = np.random.default_rng(derive_seed(experiment.seed, "curvature rows"))
    sample = candidates.take(np.sort(rng.permutation(len(candidates))[: attribution.curvature_rows]))
    uniforms = rng.random((len(sample), sample.target_lengths.max())) if attribution.fisher == "sampled" else None
    numbers = int(sample.lengths.sum()) * sum(sum(layer_shape(layer)) for layer in layers.values())
    shapes, room = {name: layer_shape(layers[name]) for name in wanted}, memory_beside(lm, runtime)
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
            run({name: layers[name] for name in wanted}, consumer=record)
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


def _parts(lineage: Lineage, room: int) -> int:
    """One for each task that there is room for: each runs the model over the sample."""
    identity = lineage.experiment.attribution.curvature == "identity"
    return 1 if identity else min(len(scored_model(lineage.experiment)[1]), room)


CURVATURE = Stage(
    name="curvature", version=3, parts=_parts, inputs=lambda _: [POOL_TOKENS, WARM_MODEL], run=_run,
    reads=("model", "attribution.layers", "attribution.curvature", "attribution.fisher", "attribution.curvature_rows",
           "attribution.statistics", *READS))


class StoredCurvature(Mapping[str, LayerCurvature]):
    """Layers of an entry, each read when it is asked for: all at once are larger than the model.

    Args:
        folder: of the entry.
    """

    def __init__(self, folder: Path) -> None:
        names = json.loads((folder / "spectra.json").read_text(encoding="utf-8"))
        self._paths = {name: folder / "layers" / f"{name}.safetensors" for name in names}

    def __getitem__(self, name: str) -> LayerCurvature:
        return LayerCurvature(**load_file(self._paths[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


FITTED = Output(stage=CURVATURE, opens=StoredCurvature)
