"""The stages in order, from an experiment to scores.

    corpus -> base -> tokens -> warm-up -> curvature -> gradients -> columns -> selection -> finetune -> evaluation
                                       \\-> losses -> gate ---------------------/

Each stage is one function: it takes the bench (store, runtime, progress) and the experiment, fetches its upstream
entries, and returns its own. What a sweep does not search is therefore computed once. Finetuning is keyed by the
selected ids: two trials that choose the same set share it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from mtselect.attribution.factored import FactoredScorer, FactoredSeeds
from mtselect.attribution.gradients import Both, layer_shape
from mtselect.attribution.index import IndexWriter, Layout, SketchIndex
from mtselect.attribution.influence import PoolScorer, Scorer, SeedGradients
from mtselect.attribution.kfac import Covariances, Curvature, EigenvalueRefit, from_tensors, spectrum, to_tensors
from mtselect.attribution.memory import seed_pass_bytes
from mtselect.attribution.record import Record, fit
from mtselect.attribution.sketch import Sketcher, random_projections
from mtselect.attribution.tokens import MeanSeed
from mtselect.config import (
    AttributionConfig,
    EvaluationConfig,
    Experiment,
    RuntimeConfig,
    SelectionConfig,
    TrainConfig,
    with_fields,
)
from mtselect.data.corpus import (
    ROLES,
    Corpus,
    Pair,
    PairTable,
    build_corpus,
    count_rows,
    load_corpus,
    source_fingerprint,
)
from mtselect.data.prompts import (
    Example,
    ExampleTable,
    encode_pairs,
    encode_prompts,
    set_languages,
    texts_of_tokens,
    write_examples,
)
from mtselect.errors import ConfigError, DataError
from mtselect.evaluation.comet.client import CometScorer
from mtselect.evaluation.comet.install import comet_version
from mtselect.evaluation.decode import decode, decoding_signature
from mtselect.evaluation.metrics import (
    MetricName,
    PairedResult,
    Score,
    compare_over_seeds,
    mean_over_seeds,
    mean_score,
    score,
)
from mtselect.hub import is_local
from mtselect.progress import Advance, Progress
from mtselect.selection.baselines import all_rows, lowest, random_rows
from mtselect.selection.corrupt import corruptions
from mtselect.selection.features import features
from mtselect.selection.gate import Gated, bound, by_loss, learn
from mtselect.selection.projection import planar_map
from mtselect.selection.resample import Columns, benefit_share, select
from mtselect.selection.standardise import standardise
from mtselect.store import Entry, Recipe, Store, derive_seed, hash_ids, write_whole
from mtselect.training.device import compute_device, device_memory, device_name
from mtselect.training.finetune_module import finetune
from mtselect.training.gradient_module import run_gradient_pass, token_benefits
from mtselect.training.language_model import (
    LanguageModel,
    add_lora,
    build_small_llama,
    decoder_start,
    load,
    load_tokenizer,
    tracked_layers,
)
from mtselect.training.loss_module import example_losses

Split = Literal["dev", "test"]
# Bytes of a recorded gradient pass that stay in memory; the rest lies in a file under the workdir.
_RECORD_MEMORY = 512 * 2**20
# Candidates of a shard of the gradients stage: what a killed pass loses.
_SHARD_ROWS = 4096
# Pairs that are tokenised at a time.
_TOKENISED = 4096
# Dropped candidates that a gate's report shows of each kind: the clearest, and as many of the closest.
_EXAMPLES = 3
OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every stage works with and none depends on for its result."""

    store: Store
    runtime: RuntimeConfig
    progress: Progress
    comet: CometScorer = field(default_factory=CometScorer)


@dataclass(frozen=True, kw_only=True)
class SelectedPair:
    """One line of `selected.jsonl`: what is null was not asked for.

    Args:
        id: hash of the pair.
        src: source sentence.
        tgt: target sentence.
        z: mean z-score of its benefits.
        benefit: mean over the seeds.
        benefit_share: share of the seeds for which it is above the pool's mean.
        cluster: of its sketch.
        gate: score of the gate.
    """

    id: str
    src: str
    tgt: str
    z: float | None = None
    benefit: float | None = None
    benefit_share: float | None = None
    cluster: int | None = None
    gate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selected set, in the pool's order.

    Args:
        pairs: the set.
        n_candidates: rows it was chosen from.
        n_passed: rows that passed gate and threshold.
        gate: what the gate did (`_gate_report`); null without one.
    """

    pairs: list[SelectedPair]
    n_candidates: int
    n_passed: int
    gate: dict[str, Any] | None = None

    @property
    def digest(self) -> str:
        """Hash of the selected ids."""
        return hash_ids(pair.id for pair in self.pairs)

    @property
    def dropped_looks(self) -> str:
        """What the gate dropped, by what it looks like, most first: `1,503 copied, 12 merged`."""
        looks = {} if self.gate is None else self.gate["looks"]
        return ", ".join(f"{look['rows']:,} {kind}" for kind, look in looks.items())


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Hypotheses of a split and their scores.

    Args:
        hypotheses: in the order of the split.
        scores: of the whole split.
        curve: of the finetuning.
        cost: its steps, and their seconds; null where nothing was trained.
        comet: COMET's score of each sentence, where it is one of the metrics.
    """

    hypotheses: list[str]
    scores: list[Score]
    curve: list[dict[str, Any]]
    cost: dict[str, float] | None = None
    comet: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """All of one trial that is recorded."""

    experiment: Experiment
    selection: Selection
    evaluation: Evaluation
    noise_share: float | None


def run_trial(bench: Bench, experiment: Experiment, on_epoch: OnEpoch | None = None, split: Split = "dev") -> TrialResult:
    """Select, finetune, evaluate.

    Args:
        bench: store, runtime, progress.
        experiment: with everything decided (`resolve.resolve`).
        on_epoch: called with (epoch, dev loss) while finetuning computes; may raise to stop the trial.
        split: to evaluate on.
    """
    selection = select_pairs(bench, experiment)
    evaluation = evaluate(bench, experiment, selection, split, on_epoch)
    corpus = load_corpus(corpus_entry(bench, experiment).path)
    return TrialResult(experiment=experiment, selection=selection, evaluation=evaluation,
                       noise_share=noise_share(corpus, [pair.id for pair in selection.pairs]))


def start_comet(bench: Bench, experiment: Experiment) -> None:
    """Start COMET and load its model, if it is to score: what is wrong with it is said before hours of work."""
    if "comet" in experiment.evaluation.metrics:
        with bench.progress.task(f"COMET: load {experiment.evaluation.comet_model}", 1) as advance:
            bench.comet.requires_references(experiment.evaluation.comet_model)
            advance(1)


def noise_share(corpus: Corpus, ids: Sequence[str]) -> float | None:
    """Share of the ids with a noise label; None where the pool has no labels or nothing is selected."""
    noisy = corpus.noisy
    if noisy is None or not ids:
        return None
    return float(noisy[corpus.pool.among(ids)].mean())


def shared_stages(experiment: Experiment) -> dict[str, Callable[[Bench, Experiment], Any]]:
    """The stages before the selection, in order: those that the selector and its gate read."""
    always: dict[str, Callable[[Bench, Experiment], Any]] = {
        "corpus": corpus_entry, "base": base_entry, "tokens": tokens_entry, "warmup": warmup_entry}
    influence: dict[str, Callable[[Bench, Experiment], Any]] = {
        "curvature": curvature_entry, "gradients": gradients_entry, "columns": columns_entry}
    losses: dict[str, Callable[[Bench, Experiment], Any]] = {"losses": losses_entry, "gate": gate_entry}
    return {**always, **(influence if experiment.selection.method == "gdig" else {}),
            **(losses if _is_gated(experiment.selection) else {})}


def corpus_entry(bench: Bench, experiment: Experiment) -> Entry:
    """pool.arrow, seeds.arrow, dev.arrow, test.arrow, labels.arrow, quarantine.jsonl, summary.json, digests.json.

    Later stages are keyed by the digests of the parts they read: new seeds do not ask for another warm-up.
    """
    data = experiment.data
    files = [source_fingerprint(source) for source in (data.pool, data.seeds, data.dev, data.test)]

    def compute(out: Path) -> None:
        with bench.progress.task("corpus", sum(count_rows(data, role) for role in ROLES)) as advance:
            build_corpus(data, out, advance)
        corpus = load_corpus(out)
        digests = {part: getattr(corpus, part).digest for part in ROLES}
        (out / "digests.json").write_text(json.dumps(digests), encoding="utf-8")

    return bench.store.fetch(Recipe(stage="corpus", version=3, section=data, upstream=files), compute)


def base_entry(bench: Bench, experiment: Experiment) -> tuple[str, str]:
    """(name or folder, key) of the base model: the configured one, or a small Llama built for the corpus."""
    model = experiment.model
    if model.name is not None:
        return model.name, source_fingerprint(model.name) if is_local(model.name) else model.name
    corpus = corpus_entry(bench, experiment)
    section = {"model": model, "seed": experiment.seed}  # the prompt is in no text the tokenizer is trained on

    def compute(out: Path) -> None:
        texts = (text for pair in load_corpus(corpus.path).pool for text in (pair.src, pair.tgt))
        build_small_llama(model, texts, derive_seed(experiment.seed, "base"), out)

    entry = bench.store.fetch(Recipe(stage="base", version=1, section=section, upstream=_digests(corpus, "pool")), compute)
    return str(entry.path), entry.key


def tokens_entry(bench: Bench, experiment: Experiment) -> Entry:
    """examples.arrow: the pool's token ids, row for row."""
    corpus = corpus_entry(bench, experiment)
    base, base_key = base_entry(bench, experiment)

    def compute(out: Path) -> None:
        pool, tokenizer, start = load_corpus(corpus.path).pool, load_tokenizer(base), decoder_start(base)

        def examples(advance: Advance) -> Iterator[Example]:
            pairs = iter(pool)
            while some := list(islice(pairs, _TOKENISED)):
                yield from encode_pairs(some, tokenizer, experiment.data, experiment.model, start)
                advance(len(some))

        with bench.progress.task("tokens", len(pool)) as advance:
            write_examples(examples(advance), out / "examples.arrow")

    model, data = experiment.model, experiment.data
    section = {"prompt": model.prompt, "chat_template": model.chat_template, "src_lang": data.src_lang,
               "tgt_lang": data.tgt_lang}
    recipe = Recipe(stage="tokens", version=1, section=section, upstream=[*_digests(corpus, "pool"), base_key])
    return bench.store.fetch(recipe, compute)


def warmup_entry(bench: Bench, experiment: Experiment) -> tuple[str, str]:
    """(folder, key) of the model at which gradients are taken: finetuned on the pool, or the base itself.

    With LoRA the folder holds the merged weights, and `adapter` beside it the adapters.
    """
    tokens_entry(bench, experiment)  # later stages read it; here, so that its minutes count as its own
    if experiment.warmup.epochs == 0:
        return base_entry(bench, experiment)
    entry = _warmup(bench, experiment)
    return str(entry.path / "model"), entry.key


def _warmup(bench: Bench, experiment: Experiment) -> Entry:
    """model/, adapter/ with LoRA, curve.jsonl and cost.json."""
    base, base_key = base_entry(bench, experiment)
    corpus = corpus_entry(bench, experiment)
    section = {**_encoding(experiment), "warmup": experiment.warmup, "seed": experiment.seed}
    lora = experiment.model.lora_rank > 0
    recipe = Recipe(stage="warmup", version=3, section=section, upstream=[*_digests(corpus, "pool"), base_key])

    def compute(out: Path) -> None:
        pool = pool_examples(bench, experiment)
        examples = pool.take(_warmup_rows(experiment, _usable(experiment, pool)))
        config = experiment.warmup
        lm = _train(bench, experiment, base, examples, [], config, config.epochs * -(-len(examples) // config.batch_size),
                    derive_seed(experiment.seed, "warmup"), "warmup", out)
        model = lm.model
        if lora:
            model.save_pretrained(out / "adapter")
            model = (model.merge_and_unload() if experiment.model.quantize is None else
                     load(base, getattr(torch, experiment.model.dtype), adapter=str(out / "adapter")).model)
        model.save_pretrained(out / "model")
        lm.tokenizer.save_pretrained(out / "model")

    return bench.store.fetch(recipe, compute)


def curvature_entry(bench: Bench, experiment: Experiment) -> Entry:
    """curvature.safetensors: eigenbases and eigenvalues per tracked layer; spectra.json, for the picture. Empty for the
    identity."""
    corpus = corpus_entry(bench, experiment)
    folder, key = warmup_entry(bench, experiment)
    attribution = experiment.attribution
    section = {**_encoding(experiment), "layers": attribution.layers, "curvature": attribution.curvature,
               "fisher": attribution.fisher, "rows": attribution.curvature_rows, "seed": experiment.seed,
               "exclude": experiment.warmup.exclude}

    def compute(out: Path) -> None:
        curvature = {} if attribution.curvature == "identity" else _fit_curvature(bench, experiment, folder)
        save_file(to_tensors(curvature), out / "curvature.safetensors")
        spectra = {name: spectrum(layer.eigenvalues) for name, layer in curvature.items()}
        (out / "spectra.json").write_text(json.dumps(spectra), encoding="utf-8")

    recipe = Recipe(stage="curvature", version=2, section=section, upstream=[*_digests(corpus, "pool"), key])
    return bench.store.fetch(recipe, compute)


def gradients_entry(bench: Bench, experiment: Experiment) -> Entry:
    """The candidates' index (`attribution/index.py`: sketches [N, R] if asked for, benefits [N, Q], gradient_norms [N, layers],
    and their mean, share and norm [N], in shards), rows.npy [N] (in the pool) and layers.json.

    Any number of workers write it together, and a killed pass goes on with its first missing shard.
    """
    corpus = corpus_entry(bench, experiment)
    folder, key = warmup_entry(bench, experiment)
    curvature = curvature_entry(bench, experiment)
    section = {**_encoding(experiment), "attribution": experiment.attribution, "seed": experiment.seed}
    upstream = [*_digests(corpus, "pool", "seeds"), key, curvature.key]

    recipe = Recipe(stage="gradients", version=4, section=section, upstream=upstream)

    def write(out: Path) -> None:
        tensors = load_file(curvature.path / "curvature.safetensors")
        _take_gradients(bench, experiment, folder, corpus, from_tensors(tensors), recipe, out)

    return bench.store.share(recipe, write)


def columns_entry(bench: Bench, experiment: Experiment) -> Entry:
    """z.npy and share.npy [N]: the candidates' benefits as columns that compare (`selection.standardise`)."""
    gradients = gradients_entry(bench, experiment)

    def compute(out: Path) -> None:
        index = SketchIndex(gradients.path)
        z, share = standardise(lambda: index.shards("benefits"))
        np.save(out / "z.npy", z)
        np.save(out / "share.npy", share)

    return bench.store.fetch(Recipe(stage="columns", version=1, section={}, upstream=[gradients.key]), compute)


def losses_entry(bench: Bench, experiment: Experiment) -> Entry:
    """An index of the candidates' losses at the model that scores, summed over target tokens: `loss` of the pair, `other` of
    its target after another candidate's source, and `tokens`; and rows.npy [N] (in the pool). Workers share it."""
    corpus = corpus_entry(bench, experiment)
    folder, key = warmup_entry(bench, experiment)
    section = {**_encoding(experiment), "seed": experiment.seed, "exclude": experiment.warmup.exclude}
    recipe = Recipe(stage="losses", version=1, section=section, upstream=[*_digests(corpus, "pool"), key])

    def write(out: Path) -> None:
        start = time.monotonic()
        lm = _scored_model(bench, experiment, folder)
        pool = pool_examples(bench, experiment)
        rows = candidate_rows(experiment, pool)
        others = _other_rows(len(rows), experiment.seed)
        write_whole(out / "rows.npy", partial(np.save, arr=rows))
        layout = Layout(n_rows=len(rows), width=0, shard_rows=_SHARD_ROWS, content=recipe.key,
                        values=["loss", "other", "tokens"])
        writer = IndexWriter(out, layout, recipe.content(), time.monotonic() - start)
        with bench.progress.task("pool losses", 2 * sum(map(len, writer.missing()))) as advance:
            for shard in writer.shards():
                here = slice(shard.rows.start, shard.rows.stop)
                examples = list(pool.take(rows[here]))
                with_others = list(pool.take(rows[others[here]]))
                _fill_losses(bench, lm, examples, with_others, shard.values, advance)

    return bench.store.share(recipe, write)


def gate_entry(bench: Bench, experiment: Experiment) -> Entry:
    """pool.npy [N], seeds.npy [Q], looks.npy [N] and kinds.json: scores of `selection.gate` (`selection.gate.Gated`)."""
    losses = losses_entry(bench, experiment)
    corpus = corpus_entry(bench, experiment)
    kind = experiment.selection.gate
    recipe = Recipe(stage="gate", version=1, section={"gate": kind, "seed": experiment.seed},
                    upstream=[losses.key, *_digests(corpus, "seeds")])

    def compute(out: Path) -> None:
        gated = _loss_gate(bench, experiment, losses) if kind == "seed_loss" else _learned_gate(bench, experiment, losses)
        for name in ("pool", "seeds", "looks"):
            np.save(out / f"{name}.npy", getattr(gated, name))
        (out / "kinds.json").write_text(json.dumps(gated.kinds), encoding="utf-8")

    return bench.store.fetch(recipe, compute)


def benefits_of_tokens(bench: Bench, experiment: Experiment, pairs: Sequence[Pair]) -> list[list[tuple[str, float]]]:
    """Each pair's target tokens, EOS among them, as text and benefit; a pair's benefits add up to its mean benefit."""
    corpus = corpus_entry(bench, experiment)
    folder, _ = warmup_entry(bench, experiment)
    curvature = from_tensors(load_file(curvature_entry(bench, experiment).path / "curvature.safetensors"))
    lm = _scored_model(bench, experiment, folder)
    layers = tracked_layers(lm.model, experiment.attribution.layers)
    seeds = _examples(experiment, folder, load_corpus(corpus.path).seeds)
    examples = _examples(experiment, folder, pairs)
    with bench.progress.task("benefits of tokens", len(seeds) + len(examples)) as advance:
        mean = MeanSeed()
        run_gradient_pass(lm, layers, seeds, mean, batch_size=bench.runtime.batch_size, accelerator=bench.runtime.accelerator,
                          advance=advance)
        _to_device(lm, bench.runtime)
        direction = mean.preconditioned(curvature, experiment.attribution.damping)
        values = token_benefits(lm, layers, direction, examples, batch_size=bench.runtime.batch_size, advance=advance)
    return [list(zip(texts_of_tokens(lm.tokenizer, example.target), benefits.tolist(), strict=True))
            for example, benefits in zip(examples, values, strict=True)]


def map_entry(bench: Bench, experiment: Experiment) -> Entry:
    """points.npy [N, 2]: the candidates' sketches in their principal plane, for the picture."""
    gradients = gradients_entry(bench, experiment)

    def compute(out: Path) -> None:
        np.save(out / "points.npy", planar_map(SketchIndex(gradients.path)))

    return bench.store.fetch(Recipe(stage="map", version=1, section={}, upstream=[gradients.key]), compute)


def selection_recipe(bench: Bench, experiment: Experiment) -> Recipe:
    """What decides a selection: the columns it ranks by, its gate's scores, or for a baseline only the candidates."""
    chosen = experiment.selection
    gate = [] if not _is_gated(chosen) else [gate_entry(bench, experiment).key]
    if chosen.method == "gdig":
        return Recipe(stage="selection", version=2, section=chosen, upstream=[columns_entry(bench, experiment).key, *gate])
    section = {"method": chosen.method, "budget": chosen.budget, "seed": _draw_seed(experiment), **_encoding(experiment),
               "gate_keeps": chosen.gate_keeps if gate else None, "warmup": experiment.warmup,
               "experiment_seed": experiment.seed}
    upstream = [*_digests(corpus_entry(bench, experiment), "pool"), base_entry(bench, experiment)[1], *gate]
    if chosen.method == "loss":
        upstream.append(losses_entry(bench, experiment).key)
    return Recipe(stage="selection", version=2, section=section, upstream=upstream)


def _draw_seed(experiment: Experiment) -> int:
    """Of a set that is drawn at random: a new set for each finetuning seed, so that intervals over seeds cover the draw."""
    return experiment.selection.seed + experiment.finetune.seed


def _is_gated(chosen: SelectionConfig) -> bool:
    return chosen.gate is not None and chosen.method in ("gdig", "loss", "random")


def selection_entry(bench: Bench, experiment: Experiment) -> Entry:
    """selected.jsonl and summary.json."""
    compute = _select_by_gradients if experiment.selection.method == "gdig" else _select_baseline
    return bench.store.fetch(selection_recipe(bench, experiment), partial(compute, bench, experiment))


def select_pairs(bench: Bench, experiment: Experiment) -> Selection:
    """The selected set of an experiment."""
    path = selection_entry(bench, experiment).path
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return Selection(pairs=[SelectedPair(**row) for row in _read_lines(path / "selected.jsonl")], **summary)


def finetune_entry(bench: Bench, experiment: Experiment, selection: Selection, on_epoch: OnEpoch | None) -> Entry:
    """curve.jsonl and the weights: `model/`, or `adapter/` with LoRA. The untuned baseline has neither."""
    corpus = corpus_entry(bench, experiment)
    start, _ = _start(bench, experiment)

    def compute(out: Path) -> None:
        pairs = [Pair(id=pair.id, src=pair.src, tgt=pair.tgt) for pair in selection.pairs]
        examples = _examples(experiment, start, [*pairs, *_split(experiment, corpus, "dev")])
        config = experiment.finetune
        seed = derive_seed(experiment.seed, f"finetune {config.seed}" if config.seed else "finetune")
        lm = _train(bench, experiment, start, examples[: len(pairs)], examples[len(pairs) :], config,
                    config.steps_for(len(pairs)), seed, "finetune", out, on_epoch)
        lm.model.save_pretrained(out / ("adapter" if experiment.model.lora_rank else "model"))
        lm.tokenizer.save_pretrained(out / "model")

    return bench.store.fetch(_finetune_recipe(bench, experiment, selection), compute)


def evaluate(bench: Bench, experiment: Experiment, selection: Selection, split: Split,
             on_epoch: OnEpoch | None = None) -> Evaluation:
    """Finetune if that was not done yet, decode the split and score it."""
    corpus = corpus_entry(bench, experiment)
    start, _ = _start(bench, experiment)

    def compute(out: Path) -> None:
        name, adapter = start, None
        if selection.pairs:
            entry = finetune_entry(bench, experiment, selection, on_epoch)
            for kept in ("curve.jsonl", "cost.json"):
                shutil.copy(entry.path / kept, out)
            adapter = str(entry.path / "adapter") if experiment.model.lora_rank else None
            name = start if adapter else str(entry.path / "model")
        _decode_and_score(bench, experiment, name, adapter, _split(experiment, corpus, split), split, out)
        if selection.pairs and not bench.runtime.keep_models:
            bench.store.discard(_finetune_recipe(bench, experiment, selection))

    path = bench.store.fetch(_evaluation_recipe(bench, experiment, selection, split), compute).path
    scores = json.loads((path / "scores.json").read_text(encoding="utf-8"))
    curve = _read_lines(path / "curve.jsonl") if (path / "curve.jsonl").exists() else []
    cost = json.loads((path / "cost.json").read_text(encoding="utf-8")) if (path / "cost.json").exists() else None
    rows = _read_lines(path / "hypotheses.jsonl")
    comet = [row["comet"] for row in rows] if "comet" in experiment.evaluation.metrics else None
    return Evaluation(hypotheses=[row["hyp"] for row in rows], scores=[Score(**one) for one in scores], curve=curve,
                      cost=cost, comet=comet)


def compare(bench: Bench, experiment: Experiment, metric: MetricName, system: Sequence[Evaluation],
            baseline: Sequence[Evaluation], split: Split) -> PairedResult:
    """Two systems on one split, each with the evaluations of its finetuning seeds."""
    return compare_over_seeds(metric, _outputs(metric, system), _outputs(metric, baseline),
                              **_over_seeds(bench, experiment, metric, split))


def mean_scores(bench: Bench, experiment: Experiment, runs: Sequence[Evaluation], split: Split) -> list[Score]:
    """Scores of a system over its finetuning seeds, with intervals over seeds and sentences; one seed's are its own."""
    if len(runs) == 1:
        return runs[0].scores
    decoded = decoding_signature(experiment.evaluation, experiment.model.dtype)
    scores = [mean_over_seeds(metric, _outputs(metric, runs), **_over_seeds(bench, experiment, metric, split))
              for metric in experiment.evaluation.metrics]
    return [replace(one, signature=f"{one.signature}|{decoded}") for one in scores]


def _outputs(metric: MetricName, runs: Sequence[Evaluation]) -> list[Sequence[Any]]:
    """What each run is scored by."""
    return [run.comet or [] if metric == "comet" else run.hypotheses for run in runs]


def _over_seeds(bench: Bench, experiment: Experiment, metric: MetricName, split: Split) -> dict[str, Any]:
    settings = experiment.evaluation
    return {"references": [pair.tgt for pair in split_pairs(bench, experiment, split)], "bootstrap": settings.bootstrap,
            "seed": derive_seed(experiment.seed, "bootstrap"), "tgt_lang": experiment.data.tgt_lang,
            "signature": _comet_signature(settings) if metric == "comet" else ""}


def at_seed(experiment: Experiment, seed: int) -> Experiment:
    """The experiment with another finetuning seed; a random set is another one then (`_draw_seed`)."""
    return with_fields(experiment, {"finetune.seed": seed})


def at_seeds(experiment: Experiment, seeds: Sequence[int]) -> list[Experiment]:
    """The experiment at each seed; the model as it was is the same at all."""
    return [at_seed(experiment, seed) for seed in (seeds[:1] if experiment.selection.method == "untuned" else seeds)]


def run_seeds(bench: Bench, experiment: Experiment, seeds: Sequence[int], split: Split = "dev") -> list[TrialResult]:
    """The same at several finetuning seeds."""
    return [run_trial(bench, one, split=split) for one in at_seeds(experiment, seeds)]


def selecting_seconds(bench: Bench, experiment: Experiment) -> float:
    """What the choice cost before it was made: all that is computed for it and for no finetuning, in seconds of its stages."""
    needs = shared_stages(experiment)
    keys = {"curvature", "gradients", "columns", "losses", "gate"} & needs.keys()
    found: list[Entry] = [needs[name](bench, experiment) for name in keys]
    if experiment.finetune.start == "base" and experiment.warmup.epochs:
        found.append(_warmup(bench, experiment))
    return sum(entry.seconds for entry in [*found, selection_entry(bench, experiment)])


def forget(bench: Bench, experiment: Experiment) -> None:
    """Remove the selection and its dev evaluation from the store, so that the next call computes them again."""
    selection = select_pairs(bench, experiment)
    bench.store.discard(_evaluation_recipe(bench, experiment, selection, "dev"))
    bench.store.discard(selection_recipe(bench, experiment))


def load_parts(bench: Bench, experiment: Experiment) -> tuple[Corpus, dict[str, str]]:
    """The corpus, and the content hash of each of its parts."""
    path = corpus_entry(bench, experiment).path
    return load_corpus(path), json.loads((path / "digests.json").read_text(encoding="utf-8"))


def split_pairs(bench: Bench, experiment: Experiment, split: Split) -> list[Pair]:
    """The pairs an evaluation of the split decodes."""
    return _split(experiment, corpus_entry(bench, experiment), split)


def _split(experiment: Experiment, corpus: Entry, split: Split) -> list[Pair]:
    loaded = load_corpus(corpus.path)
    return loaded.test[:] if split == "test" else loaded.dev[: experiment.evaluation.dev_rows]


def _start(bench: Bench, experiment: Experiment) -> tuple[str, str]:
    return (warmup_entry if experiment.finetune.start == "warmup" else base_entry)(bench, experiment)


def _finetune_recipe(bench: Bench, experiment: Experiment, selection: Selection) -> Recipe:
    """Keyed by the selected ids, whatever selected them; nothing selected means nothing trained."""
    section = {"finetune": experiment.finetune, **_encoding(experiment), "seed": experiment.seed,
               "dev_rows": experiment.evaluation.dev_rows, "selected": selection.digest if selection.pairs else None}
    upstream = [*_digests(corpus_entry(bench, experiment), "dev"), _start(bench, experiment)[1]]
    return Recipe(stage="finetune", version=2, section=section, upstream=upstream)


def _evaluation_recipe(bench: Bench, experiment: Experiment, selection: Selection, split: Split) -> Recipe:
    section = {"evaluation": experiment.evaluation, "split": split, "tgt_lang": experiment.data.tgt_lang}
    upstream = [*_digests(corpus_entry(bench, experiment), split), _finetune_recipe(bench, experiment, selection).key]
    if "comet" in experiment.evaluation.metrics and Path(experiment.evaluation.comet_model).exists():
        upstream.append(source_fingerprint(experiment.evaluation.comet_model))
    return Recipe(stage="evaluation", version=3, section=section, upstream=upstream)


def _digests(corpus: Entry, *parts: str) -> list[str]:
    """Content hashes of parts of the corpus."""
    digests = json.loads((corpus.path / "digests.json").read_text(encoding="utf-8"))
    return [digests[part] for part in parts]


def _encoding(experiment: Experiment) -> dict[str, Any]:
    """What decides the token ids of a pair, and the model."""
    return {"model": experiment.model, "src_lang": experiment.data.src_lang, "tgt_lang": experiment.data.tgt_lang}


def pool_examples(bench: Bench, experiment: Experiment) -> ExampleTable:
    """The pool's token ids, row for row."""
    return ExampleTable(tokens_entry(bench, experiment).path / "examples.arrow")


def _examples(experiment: Experiment, name: str, pairs: Sequence[Pair]) -> list[Example]:
    """As the tokenizer of a model (a folder or hub name) encodes them."""
    return encode_pairs(pairs, load_tokenizer(name), experiment.data, experiment.model, decoder_start(name))


def _usable(experiment: Experiment, pool: ExampleTable) -> NDArray[np.int64]:
    """Rows that fit `model.max_tokens`."""
    rows = np.flatnonzero(pool.lengths <= experiment.model.max_tokens)
    if not len(rows):
        raise DataError(f"no pool row fits model.max_tokens ({experiment.model.max_tokens}): raise it; "
                        f"the shortest row has {pool.lengths.min()} tokens")
    return rows


def _warmup_rows(experiment: Experiment, usable: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = experiment.warmup.rows
    if rows is None:
        return usable
    rng = np.random.default_rng(derive_seed(experiment.seed, "warmup rows"))
    return np.sort(rng.permutation(usable)[:rows])


def candidate_rows(experiment: Experiment, pool: ExampleTable) -> NDArray[np.int64]:
    """Pool rows that can be selected."""
    usable = _usable(experiment, pool)
    if not (experiment.warmup.exclude and experiment.warmup.epochs):
        return usable
    rows = np.setdiff1d(usable, _warmup_rows(experiment, usable))
    if not len(rows):
        raise DataError(f"warmup.exclude leaves no candidate: warmup.rows ({experiment.warmup.rows}) must be below "
                        f"the {len(usable)} usable pool rows: lower it")
    return rows


def _train(bench: Bench, experiment: Experiment, start: str, examples: Sequence[Example], held_out: Sequence[Example],
           config: TrainConfig, n_steps: int, seed: int, name: str, out: Path, on_epoch: OnEpoch | None = None
           ) -> LanguageModel:
    """Train from a folder or hub name on the examples; writes curve.jsonl and cost.json (steps and their seconds)."""
    lora = experiment.model.lora_rank > 0
    lm = _load(bench, experiment, start, getattr(torch, experiment.model.dtype) if lora else torch.float32)
    if lm.decoder_start is not None:
        set_languages(lm.tokenizer, experiment.data)  # it is saved with them
    if lora:
        lm = LanguageModel(model=add_lora(lm.model, experiment.model), tokenizer=lm.tokenizer)
    per_epoch = -(-len(examples) // config.batch_size)
    n_pairs = n_steps // per_epoch * len(examples) + min(n_steps % per_epoch * config.batch_size, len(examples))
    with bench.progress.task(f"{name}: {n_steps:,} steps", n_pairs) as advance:
        trained = finetune(lm, examples, held_out, config, n_steps=n_steps, name=name, seed=seed,
                           dtype=experiment.model.dtype, batch_size=bench.runtime.batch_size,
                           accelerator=bench.runtime.accelerator, advance=advance, on_epoch=on_epoch)
    _write_lines(out / "curve.jsonl", [asdict(point) for point in trained.curve])
    (out / "cost.json").write_text(json.dumps({"steps": n_steps, "seconds": trained.seconds}), encoding="utf-8")
    return lm


def _scored_model(bench: Bench, experiment: Experiment, folder: str) -> LanguageModel:
    """The warm-up's model; its adapters are merged unless they are what is tracked."""
    dtype = getattr(torch, experiment.model.dtype)
    if "lora_" in experiment.attribution.layers and experiment.model.lora_rank and experiment.warmup.epochs:
        adapter = Path(folder).parent / "adapter"
        return _load(bench, experiment, base_entry(bench, experiment)[0], dtype, adapter=str(adapter))
    return _load(bench, experiment, folder, dtype)


def _load(bench: Bench, experiment: Experiment, name: str, dtype: torch.dtype, adapter: str | None = None) -> LanguageModel:
    """A model in 4 bits where the experiment says so, and its adapters apart."""
    return load(name, dtype, adapter=adapter, merge=False, quantize=experiment.model.quantize,
                device=compute_device(bench.runtime.accelerator))


def _fit_curvature(bench: Bench, experiment: Experiment, folder: str) -> Curvature:
    """One pass for K-FAC, and for EK-FAC if its tokens may be kept; else two that see the same drawn targets."""
    lm = _scored_model(bench, experiment, folder)
    attribution = experiment.attribution
    pool = pool_examples(bench, experiment)
    rng = np.random.default_rng(derive_seed(experiment.seed, "curvature rows"))
    sample = pool.take(np.sort(rng.permutation(candidate_rows(experiment, pool))[: attribution.curvature_rows]))
    uniforms = rng.random((len(sample), sample.target_lengths.max())) if attribution.fisher == "sampled" else None
    layers = tracked_layers(lm.model, attribution.layers)
    numbers = int(sample.lengths.sum()) * sum(sum(layer_shape(layer)) for layer in layers.values())
    size = lm.model.dtype.itemsize * numbers
    kept = size <= 1e9 * bench.runtime.record_gb
    passes = 2 if attribution.curvature == "ekfac" and not kept else 1
    with bench.progress.task("curvature", passes * len(sample)) as advance:
        run = partial(run_gradient_pass, lm, layers, sample, batch_size=bench.runtime.batch_size,
                      accelerator=bench.runtime.accelerator, advance=advance, uniforms=uniforms)
        if attribution.curvature == "ekfac" and kept:
            record = Record(_RECORD_MEMORY, Path(bench.runtime.workdir))
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


def _take_gradients(bench: Bench, experiment: Experiment, folder: str, corpus: Entry, curvature: Curvature,
                    recipe: Recipe, out: Path) -> None:
    """One pass over the seeds, then over the candidates shard by shard."""
    start = time.monotonic()
    lm = _scored_model(bench, experiment, folder)
    attribution = experiment.attribution
    layers = tracked_layers(lm.model, attribution.layers)
    shapes = {name: layer_shape(layer) for name, layer in layers.items()}
    pool = pool_examples(bench, experiment)
    rows = candidate_rows(experiment, pool)
    candidates = pool.take(rows)
    seeds = _examples(experiment, folder, load_corpus(corpus.path).seeds)
    generator = torch.Generator().manual_seed(derive_seed(experiment.seed, "sketch"))
    sketch_rank = decided(attribution.sketch_rank)
    projections = random_projections(shapes, sketch_rank, generator) if sketch_rank else None
    run = partial(run_gradient_pass, lm, layers, batch_size=bench.runtime.batch_size,
                  accelerator=bench.runtime.accelerator)
    moves = bool(curvature) and compute_device(bench.runtime.accelerator).type != "cpu"  # on a CPU it is there already
    needed = seed_pass_bytes(len(seeds), shapes, decided(attribution.seed_rank), bench.runtime.batch_size, curved=moves)
    _refuse_too_large(lm, bench.runtime, needed, len(seeds), len(shapes))
    with bench.progress.task("seed gradients", len(seeds)) as advance:
        scorer = _seed_pass(partial(run, seeds, advance=advance), len(seeds), curvature, attribution)
    write_whole(out / "rows.npy", partial(np.save, arr=rows))
    write_whole(out / "layers.json", lambda path: path.write_text(json.dumps(list(layers)), encoding="utf-8"))
    layout = Layout(n_rows=len(rows), width=projections.width if projections else 0, shard_rows=_SHARD_ROWS, content=recipe.key,
                    columns={"benefits": len(seeds), "gradient_norms": len(layers)}, values=["mean", "share", "norm"])
    writer = IndexWriter(out, layout, recipe.content(), time.monotonic() - start)
    with bench.progress.task("pool gradients", sum(map(len, writer.missing()))) as advance:
        for shard in writer.shards():
            norms = {name: shard.columns["gradient_norms"][:, i] for i, name in enumerate(layers)}
            scores = scorer(benefits=shard.columns["benefits"], norms=norms, first=shard.rows.start)
            consumers = [scores] if projections is None else [scores, Sketcher(
                projections, sketches=shard.sketches, sketch_norms=shard.norms, first=shard.rows.start)]
            run(candidates, Both(*consumers), advance=advance, rows=shard.rows)
            benefits = shard.columns["benefits"]
            shard.values["mean"][:] = benefits.mean(1, dtype=np.float64)
            shard.values["share"][:] = benefit_share(benefits)
            shard.values["norm"][:] = np.sqrt(np.square(shard.columns["gradient_norms"], dtype=np.float64).sum(1))
            del scores  # it holds the seeds once more, and the next one is made before this name is bound to it


def _seed_pass(run: Callable[[Any], None], n_seeds: int, curvature: Curvature,
               attribution: AttributionConfig) -> Callable[..., Scorer]:
    """The scorer of these seeds, without its arrays: dense, or of `attribution.seed_rank`."""
    if (rank := decided(attribution.seed_rank)) is not None:
        factored = FactoredSeeds(n_seeds, curvature, attribution.damping, rank)
        run(factored)
        return partial(FactoredScorer, factored.factors)
    dense = SeedGradients(n_seeds, curvature, attribution.damping)
    run(dense)
    return partial(PoolScorer, dense.preconditioned)


def decided(value: int | Literal["auto"] | None) -> Any:
    """A field that `resolve` has decided."""
    assert value != "auto", "an experiment is resolved before its stages run"
    return value


def _refuse_too_large(lm: LanguageModel, runtime: RuntimeConfig, needed: int, n_seeds: int, n_layers: int) -> None:
    """What was planned with may be taken by now. A model that is to move to a GPU is not there yet."""
    device = compute_device(runtime.accelerator)
    free = device_memory(device).free
    if lm.model.device.type != device.type:
        needed += sum(parameter.nbytes for parameter in lm.model.parameters())
    if needed > free:
        raise ConfigError(f"the gradients of {n_seeds} seeds at {n_layers} layers take {1e-9 * needed:.1f} GB, with what is "
                          f"there beside them, of the {1e-9 * free:.1f} GB free on {device_name(device)}: set "
                          "attribution.seed_rank (16 keeps the benefits' order), or track fewer attribution.layers")


def _select_by_gradients(bench: Bench, experiment: Experiment, out: Path) -> None:
    chosen, rows, columns = experiment.selection, candidate_table(bench, experiment), candidate_columns(bench, experiment)
    pool = load_corpus(corpus_entry(bench, experiment).path).pool
    gated = _gated(bench, experiment)
    passed = np.ones(len(rows), bool) if gated is None else _lets_through(gated, chosen)
    index = SketchIndex(gradients_entry(bench, experiment).path)
    found = select(columns, index if index.shape[1] else None, passed, chosen.pairs(len(pool)), chosen)
    pairs = [SelectedPair(**asdict(pair), z=float(columns.z[row]), benefit=float(columns.mean[row]),
                          benefit_share=float(columns.share[row]), cluster=int(cluster),
                          gate=None if gated is None else float(gated.pool[row]))
             for pair, row, cluster in zip(pool.take(rows[found.rows]), found.rows, found.cluster, strict=True)]
    _write_selection(out, pairs, len(rows), found.n_passed, _gate_report(pool, rows, gated, chosen))


def candidate_table(bench: Bench, experiment: Experiment) -> NDArray[np.int64]:
    """Rows in the pool of the candidates whose gradients were taken, [N]."""
    rows: NDArray[np.int64] = np.load(gradients_entry(bench, experiment).path / "rows.npy")
    return rows


def candidate_columns(bench: Bench, experiment: Experiment) -> Columns:
    """What candidates are chosen by; benefits [N, Q] are not read."""
    index, path = SketchIndex(gradients_entry(bench, experiment).path), columns_entry(bench, experiment).path
    return Columns(mean=index.column("mean"), raw_share=index.column("share"), norm=index.column("norm"),
                   z=np.load(path / "z.npy"), share=np.load(path / "share.npy"))


def _select_baseline(bench: Bench, experiment: Experiment, out: Path) -> None:
    chosen = experiment.selection
    pool = load_corpus(corpus_entry(bench, experiment).path).pool
    examples = pool_examples(bench, experiment)
    rows = _usable(experiment, examples) if chosen.method == "pool" else candidate_rows(experiment, examples)
    gated = _gated(bench, experiment)
    passed = np.arange(len(rows)) if gated is None else np.flatnonzero(_lets_through(gated, chosen))
    if chosen.method == "loss":
        index = SketchIndex(losses_entry(bench, experiment).path)
        picked = lowest((index.column("loss") / index.column("tokens"))[passed], chosen.pairs(len(pool)))
    elif chosen.method == "random":
        picked = random_rows(len(passed), chosen.pairs(len(pool)), _draw_seed(experiment))
    else:
        picked = all_rows(len(passed) if chosen.method == "pool" else 0)
    picked = passed[picked]
    scores = [None] * len(picked) if gated is None else gated.pool[picked].tolist()
    pairs = [SelectedPair(**asdict(pair), gate=score) for pair, score in zip(pool.take(rows[picked]), scores, strict=True)]
    _write_selection(out, pairs, len(rows), len(passed), _gate_report(pool, rows, gated, chosen))


def _gated(bench: Bench, experiment: Experiment) -> Gated | None:
    """Scores of the experiment's gate, if it has one."""
    if not _is_gated(experiment.selection):
        return None
    path = gate_entry(bench, experiment).path
    arrays = {name: np.load(path / f"{name}.npy") for name in ("pool", "seeds", "looks")}
    return Gated(**arrays, kinds=tuple(json.loads((path / "kinds.json").read_text(encoding="utf-8"))))


def _lets_through(gated: Gated, chosen: SelectionConfig) -> NDArray[np.bool_]:
    passed: NDArray[np.bool_] = gated.pool >= bound(gated.seeds, chosen.gate_keeps)
    return passed


def _gate_report(pool: PairTable, rows: NDArray[np.int64], gated: Gated | None, chosen: SelectionConfig
                 ) -> dict[str, Any] | None:
    """How many candidates the gate dropped, by what they look like, with the clearest and the closest examples of each."""
    if gated is None:
        return None
    dropped = np.flatnonzero(~_lets_through(gated, chosen))
    looks: dict[str, dict[str, Any]] = {}
    for number, kind in enumerate(gated.kinds):
        here = dropped[gated.looks[dropped] == number]
        if len(here):
            order = here[np.argsort(gated.pool[here], kind="stable")]
            shown = order if len(order) <= 2 * _EXAMPLES else np.concatenate([order[:_EXAMPLES], order[-_EXAMPLES:]])
            looks[kind] = {"rows": len(here), "examples": [{**asdict(pair), "score": float(score)} for pair, score in
                                                           zip(pool.take(rows[shown]), gated.pool[shown], strict=True)]}
    return {"gate": chosen.gate, "keeps": chosen.gate_keeps, "bound": bound(gated.seeds, chosen.gate_keeps),
            "candidates": len(rows), "dropped": len(dropped),
            "looks": dict(sorted(looks.items(), key=lambda item: -int(item[1]["rows"])))}


def _other_rows(n_rows: int, seed: int) -> NDArray[np.int64]:
    """For each of some rows another one, drawn at random: all in one circle."""
    circle = np.random.default_rng(derive_seed(seed, "other sources")).permutation(n_rows)
    others = np.empty(n_rows, dtype=np.int64)
    others[circle] = np.roll(circle, 1)
    return others


def _fill_losses(bench: Bench, lm: LanguageModel, examples: Sequence[Example], with_others: Sequence[Example],
                 values: Mapping[str, NDArray[np.float64]], advance: Advance) -> None:
    """Losses of examples, and of their targets after the sources of others."""
    swapped = [Example(other.prompt, example.target, example.start)
               for example, other in zip(examples, with_others, strict=True)]
    run = partial(example_losses, lm, batch_size=4 * bench.runtime.batch_size, accelerator=bench.runtime.accelerator,
                  advance=advance)
    values["loss"][:], values["other"][:] = run(examples), run(swapped)
    values["tokens"][:] = [len(example.target) for example in examples]


def _loss_gate(bench: Bench, experiment: Experiment, losses: Entry) -> Gated:
    index = SketchIndex(losses.path)
    folder, _ = warmup_entry(bench, experiment)
    seeds = load_corpus(corpus_entry(bench, experiment).path).seeds[:]
    with bench.progress.task("losses of seeds", 2 * len(seeds)) as advance:
        found = _losses_of(bench, experiment, _scored_model(bench, experiment, folder), seeds, advance)
    return by_loss(index.column("loss") / index.column("tokens"), found["loss"] / found["tokens"])


def _learned_gate(bench: Bench, experiment: Experiment, losses: Entry) -> Gated:
    corpus = load_corpus(corpus_entry(bench, experiment).path)
    seeds = corpus.seeds[:]
    texts = [(pair.src, pair.tgt) for pair in seeds]
    wrong = corruptions(texts, derive_seed(experiment.seed, "corruptions"))
    folder, _ = warmup_entry(bench, experiment)
    lm = _scored_model(bench, experiment, folder)

    def seen(some: Sequence[tuple[str, str]], advance: Advance) -> NDArray[np.float64]:
        pairs = [Pair(id="", src=source, tgt=target) for source, target in some]
        return features(some, **_losses_of(bench, experiment, lm, pairs, advance))

    def pool_features() -> Iterator[NDArray[np.float64]]:
        index, rows, begin = SketchIndex(losses.path), np.load(losses.path / "rows.npy"), 0
        for loss, other, tokens in zip(*(index.shards(name) for name in ("loss", "other", "tokens")), strict=True):
            pairs = corpus.pool.take(rows[begin : begin + len(loss)])
            yield features([(pair.src, pair.tgt) for pair in pairs], loss, other, tokens)
            begin += len(loss)

    with bench.progress.task("losses of seeds", 2 * (len(texts) + sum(map(len, wrong.values())))) as advance:
        right = seen(texts, advance)
        shown = {kind: (np.array([row for row, _ in some]), seen([text for _, text in some], advance))
                 for kind, some in wrong.items()}
    return learn(right, shown, pool_features(), derive_seed(experiment.seed, "gate"))


def _losses_of(bench: Bench, experiment: Experiment, lm: LanguageModel, pairs: Sequence[Pair],
               advance: Advance) -> dict[str, NDArray[np.float64]]:
    """loss, other and tokens of some pairs, as the losses stage has them of the pool."""
    examples = encode_pairs(pairs, lm.tokenizer, experiment.data, experiment.model, lm.decoder_start)
    values = {name: np.empty(len(examples)) for name in ("loss", "other", "tokens")}
    others = [examples[other] for other in _other_rows(len(examples), experiment.seed)]
    _fill_losses(bench, lm, examples, others, values, advance)
    return values


def _write_selection(out: Path, pairs: list[SelectedPair], n_candidates: int, n_passed: int,
                     gate: dict[str, Any] | None) -> None:
    _write_lines(out / "selected.jsonl", [asdict(pair) for pair in pairs])
    summary = {"n_candidates": n_candidates, "n_passed": n_passed, "gate": gate}
    (out / "summary.json").write_text(json.dumps(summary, ensure_ascii=False), encoding="utf-8")


def _to_device(lm: LanguageModel, runtime: RuntimeConfig) -> None:
    device = compute_device(runtime.accelerator)
    if lm.model.device.type != device.type:
        lm.model.to(device)


def _decode_and_score(bench: Bench, experiment: Experiment, name: str, adapter: str | None, pairs: list[Pair],
                      split: Split, out: Path) -> None:
    # As it was trained: adapters stay apart, since what they add to a bfloat16 weight is lost in its last digits.
    lm = _load(bench, experiment, name, getattr(torch, experiment.model.dtype), adapter)
    _to_device(lm, bench.runtime)
    sources, references = [pair.src for pair in pairs], [pair.tgt for pair in pairs]
    prompts = encode_prompts(sources, lm.tokenizer, experiment.data, experiment.model, lm.decoder_start)
    with bench.progress.task(f"translate {split}", len(prompts)) as advance:
        hypotheses = decode(lm.model, lm.tokenizer, prompts, experiment.evaluation, pad_id=lm.pad_id,
                            batch_size=4 * bench.runtime.batch_size, dtype=experiment.model.dtype, advance=advance,
                            decoder_start=lm.decoder_start)
    settings, seed = experiment.evaluation, derive_seed(experiment.seed, "bootstrap")
    rows: list[dict[str, Any]] = [{"src": pair.src, "ref": pair.tgt, "hyp": hypothesis}
                                  for pair, hypothesis in zip(pairs, hypotheses, strict=True)]
    scores = []
    for metric in settings.metrics:
        if metric == "comet":
            lm.model.to("cpu")  # COMET's process wants the GPU
            with bench.progress.task(f"COMET on {split}", len(rows)) as advance:
                values = bench.comet.score(settings.comet_model, sources, hypotheses, references, advance=advance)
            rows = [{**row, "comet": value} for row, value in zip(rows, values, strict=True)]
            scores.append(mean_score(metric, values, bootstrap=settings.bootstrap, seed=seed,
                                     signature=_comet_signature(settings)))
        else:
            scores.append(score(metric, sources, hypotheses, references, bootstrap=settings.bootstrap, seed=seed,
                                tgt_lang=experiment.data.tgt_lang))
    decoded = decoding_signature(settings, experiment.model.dtype)
    scores = [replace(one, signature=f"{one.signature}|{decoded}") for one in scores]
    _write_lines(out / "hypotheses.jsonl", rows)
    (out / "scores.json").write_text(json.dumps([asdict(one) for one in scores], indent=1), encoding="utf-8")


def _comet_signature(settings: EvaluationConfig) -> str:
    return f"model:{settings.comet_model}|comet:{comet_version()}"


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
