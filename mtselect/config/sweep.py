"""A sweep: an experiment, what is searched in it, and how that is done and recorded. None of the latter enters a stage key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import Field

from mtselect.config.experiment import Experiment
from mtselect.config.section import Count, Positive, Section, hint, must, one_of, section
from mtselect.plugins import part_names

Name = Annotated[str, must(re.compile(r"[\w.-]*\w[\w.-]*").fullmatch, "a name of letters, digits, '-', '_' and '.'",
                           "it names files, an MLflow experiment and a dataset")]
Baseline = Annotated[str, one_of(lambda: ["few-shot", "pool-epochs", "pool-cost", "filter-random",
                                          *part_names("mtselect.selectors")])]
Storage = Annotated[str | None, must(
    lambda url: url is None or not re.fullmatch(r"sqlite(\+\w+)?://(/?:memory:)?/?", url),
    "a database that outlives its process, or null for a journal file")]
Address = Annotated[str | None, must(lambda head: head is None or re.fullmatch(r"[\w.-]+:\d{1,5}", head),
                                     "the HOST:PORT that `ray start --head` printed, or null")]
Cores = Annotated[int, Field(ge=1, le=1024)]
Devices = Annotated[int, Field(ge=1, le=64)]


@section
class Range(Section):
    """What Optuna may choose for one field: an interval, or a list of choices."""

    low: float | None = Field(default=None, description="smallest value.")
    high: float | None = Field(default=None, description="largest value.")
    log: bool = Field(default=False, description="sample on a log scale.")
    step: Positive | None = Field(default=None, description="distance between values.")
    choices: list[Any] | None = Field(default=None, min_length=1, description="the values themselves, instead of low and high.")

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        if (self.choices is None) != (self.low is not None and self.high is not None):
            yield "", "either low and high, or choices", ""
        if self.low is not None and self.high is not None and self.low > self.high:
            yield "low", f"at most high ({self.high})", ""
        if self.log and self.low is not None and self.low <= 0:
            yield "low", "above 0 on a log scale", ""
        if self.log and self.step is not None:
            yield "step", "null on a log scale", ""


@section
class StudyConfig(Section):
    """The Optuna study."""

    name: Name = Field(default="mtselect", description="the study, the MLflow experiment and, as `mtselect.<name>`, the "
        "promoted dataset.")
    n_trials: Count = Field(default=20, description="search trials that should be finished in the end, over all workers and "
        "runs.")
    objectives: Annotated[list[str], hint("name one, such as eval/chrf")] = Field(default=["eval/chrf"], min_length=1,
        description="logged metrics to optimise; `select/pairs` is minimised, scores go where they are better.")
    sampler: Literal["tpe", "gp", "nsga2", "random"] = Field(default="tpe", description="Optuna's TPE, Gaussian process, "
        "NSGA-II or random sampler.")
    pruner: Literal["none", "median", "successive_halving"] = Field(default="none",
        description="stops a poor trial between epochs, by its dev loss; single objective only.")
    storage: Storage = Field(default=None, description="database URL (postgresql+psycopg://, sqlite:///); null is a journal "
        "file under `runtime.workdir`.")
    baselines: list[Baseline] = Field(
        default=["untuned", "pool", "pool-epochs", "pool-cost", "random", "filter-random", "loss"],
        description="what the best trial is compared with, each at the trial's number of optimiser steps: the model `untuned`, "
        "and it with three seeds in its prompt (`few-shot`, for a base that was pretrained); "
        "the whole `pool`, and it for its own epochs (`pool-epochs`) and for as many more steps as the selecting took seconds "
        "(`pool-cost`); and of the best trial's size `random` pairs, random ones of those that pass the gate "
        "(`filter-random`), those of lowest `loss`, or of any other selector.")
    finetune_seeds: int = Field(default=3, ge=1, le=100, description="seeds with which the best trial and its rivals are "
        "finetuned once more; intervals are over them and over sentences.")
    seed: int = Field(default=0, description="of the sampler.")

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        if self.pruner != "none" and len(self.objectives) > 1:
            yield "pruner", "none when there are several objectives", ""


@section
class RuntimeConfig(Section):
    """How the work is done; none of it can change a result beyond rounding."""

    workdir: str = Field(default="mlruns", description="stage store and default Optuna storage.")
    batch_size: Count = Field(default=32, description="pairs per batch of the gradient pass and of decoding.")
    micro_batch: Count | None = Field(default=None, description="pairs of an optimiser step (`finetune.batch_size`) that are "
        "in a device's memory at a time; null is all. Fewer take less memory, and longer: their gradients are summed.")
    checkpointing: bool = Field(default=False, description="while training keep the layers' inputs alone, and compute the rest "
        "of the activations once more for the backward pass: a third more time, a fraction of the memory.")
    devices_per_trial: Devices = Field(default=1, description="devices of one machine that train a model, each with its share "
        "of every batch: GPUs, or without them processes. Only training takes more than one.")
    strategy: Literal["ddp", "fsdp"] = Field(default="ddp", description="with several devices: `ddp`, each holds the model, or "
        "`fsdp`, each holds its part of the weights, gradients and moments, for models whose training does not fit one.")
    accelerator: Literal["auto", "cpu", "gpu", "cuda"] = Field(default="auto", description="`auto` (a GPU where there is one), "
        "`cpu`, `gpu` or `cuda`.")
    threads: Annotated[Cores | None, hint("null takes all cores")] = Field(default=None,
        description="CPU threads of torch; null takes the cores this process may use.")
    processes: Cores | None = Field(default=None, description="finetunings of the best trial's rivals at a time. Null: as many "
        "as cores where a small model would leave them idle, else one.")
    record_gb: float = Field(default=16.0, ge=0, description="EK-FAC keeps its rows' tokens at all tracked layers (in a "
        "temporary file under the workdir) up to this size, to run the model once; where they would be larger it runs twice.")
    memory_gb: Annotated[Positive | None, hint("null takes what is free")] = Field(default=None,
        description="memory of the device that is planned with: for the model, and beside it for the curvature, which is "
        "fitted for as many layers at a time as fit, and for the seeds. Null is all there is, or what of it is free.")
    executor: Literal["local", "ray"] = Field(default="local", description="who computes: `local`, this process, or `ray`, all "
        "GPUs or cores of this machine or of a Ray cluster (`pip install 'mtselect[ray]'`).")
    address: Address = Field(default=None, description="head of the Ray cluster, HOST:PORT; null is RAY_ADDRESS, else this "
        "machine alone.")
    keep_models: bool = Field(default=True, description="keep each trial's finetuned weights in the store; otherwise promotion "
        "trains again.")

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        if self.address is not None and self.executor != "ray":
            yield "address", f"null where runtime.executor is {self.executor}", "set runtime.executor to ray"
        if self.strategy != "ddp" and self.devices_per_trial == 1:
            yield "strategy", "ddp where runtime.devices_per_trial is 1", "raise that"


@section
class TrackingConfig(Section):
    """Where MLflow records."""

    kind: Literal["mlflow", "none"] = Field(default="mlflow", description="who records: `mlflow`, or `none`: scores stay in "
        "the study's storage, selected sets in the stage store.")
    uri: str | None = Field(default=None, description="tracking server; null is MLflow's own default (MLFLOW_TRACKING_URI, "
        "else sqlite:///mlflow.db).")
    experiment: str | None = Field(default=None, description="MLflow experiment; null takes the study's name.")
    index_limit_mb: float = Field(default=64.0, description="a larger sketch index is recorded as manifest and path, not as "
        "artifact.")
    sample_sentences: int = Field(default=20, description="dev sentences in the side-by-side translation table, and "
        "on the page of translations that differ most from the rivals'.")


@section
class Sweep(Section):
    """A whole sweep file."""

    experiment: Experiment = Field(default_factory=Experiment)
    search: dict[str, Range] = Field(default={}, description="dotted field of the experiment -> range that Optuna searches.")
    study: StudyConfig = Field(default_factory=StudyConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    def choices(self, path: str) -> list[Any]:
        """What its trials may have in a field of the experiment that is no number: the search's choices, or the one value."""
        space = self.search.get(path)
        return [attrgetter(path)(self.experiment)] if space is None else space.choices or []
