"""The stages in order, from an experiment to scores.

    corpus -> base -> tokens -> warm-up -> curvature -> gradients -> selection -> finetune -> evaluation

Each stage is one function: it takes the bench (store, runtime, progress) and the experiment, fetches its upstream
entries, and returns its own. What a sweep does not search is therefore computed once. Finetuning is keyed by the
selected ids: two trials that choose the same set share it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
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
from mtselect.config import AttributionConfig, EvaluationConfig, Experiment, RuntimeConfig, TrainConfig
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
from mtselect.evaluation.metrics import MetricName, PairedResult, Score, mean_score, paired_bootstrap, paired_means, score
from mtselect.hub import is_local
from mtselect.progress import Advance, Progress
from mtselect.selection.baselines import all_rows, random_rows
from mtselect.selection.projection import planar_map
from mtselect.selection.resample import SelectedSet, benefit_share, select
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

Split = Literal["dev", "test"]
# Bytes of a recorded gradient pass that stay in memory; the rest lies in a file under the workdir.
_RECORD_MEMORY = 512 * 2**20
# Candidates of a shard of the gradients stage: what a killed pass loses.
_SHARD_ROWS = 4096
# Pairs that are tokenised at a time.
_TOKENISED = 4096
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
    """One line of `selected.jsonl`. Benefits are null where no gradient was taken (baselines)."""

    id: str
    src: str
    tgt: str
    benefit: float | None = None
    benefit_share: float | None = None
    cluster: int | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selected set, in the pool's order.

    Args:
        pairs: the set.
        n_candidates: rows it was chosen from.
        n_passed: rows that passed the threshold.
    """

    pairs: list[SelectedPair]
    n_candidates: int
    n_passed: int

    @property
    def digest(self) -> str:
        """Hash of the selected ids."""
        return hash_ids(pair.id for pair in self.pairs)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Hypotheses of a split and their scores.

    Args:
        hypotheses: in the order of the split.
        scores: of the whole split.
        curve: of the finetuning.
        comet: COMET's score of each sentence, where it is one of the metrics.
    """

    hypotheses: list[str]
    scores: list[Score]
    curve: list[dict[str, Any]]
    comet: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """All of one trial that is recorded."""

    experiment: Experiment
    selection: Selection
    evaluation: Evaluation
    noise_share: float | None


def run_trial(bench: Bench, experiment: Experiment, on_epoch: OnEpoch | None = None) -> TrialResult:
    """Select, finetune, evaluate on dev.

    Args:
        bench: store, runtime, progress.
        experiment: with everything decided (`resolve.resolve`).
        on_epoch: called with (epoch, dev loss) while finetuning computes; may raise to stop the trial.
    """
    selection = select_pairs(bench, experiment)
    evaluation = evaluate(bench, experiment, selection, "dev", on_epoch)
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
    """The stages before the selection, in order: curvature and gradients only for a selector that reads them."""
    always: dict[str, Callable[[Bench, Experiment], Any]] = {
        "corpus": corpus_entry, "base": base_entry, "tokens": tokens_entry, "warmup": warmup_entry}
    if experiment.selection.method != "gdig":
        return always
    return {**always, "curvature": curvature_entry, "gradients": gradients_entry}


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
    base, base_key = base_entry(bench, experiment)
    tokens_entry(bench, experiment)  # later stages read it; here, so that its minutes count as its own
    if experiment.warmup.epochs == 0:
        return base, base_key
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

    entry = bench.store.fetch(recipe, compute)
    return str(entry.path / "model"), entry.key


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
    """The candidates' index (`attribution/index.py`: sketches [N, R], benefits [N, Q], gradient_norms [N, layers], and their
    mean, share and norm [N], in shards), rows.npy [N] (in the pool) and layers.json.

    Any number of workers write it together, and a killed pass goes on with its first missing shard.
    """
    corpus = corpus_entry(bench, experiment)
    folder, key = warmup_entry(bench, experiment)
    curvature = curvature_entry(bench, experiment)
    section = {**_encoding(experiment), "attribution": experiment.attribution, "seed": experiment.seed}
    upstream = [*_digests(corpus, "pool", "seeds"), key, curvature.key]

    recipe = Recipe(stage="gradients", version=3, section=section, upstream=upstream)

    def write(out: Path) -> None:
        tensors = load_file(curvature.path / "curvature.safetensors")
        _take_gradients(bench, experiment, folder, corpus, from_tensors(tensors), recipe, out)

    return bench.store.share(recipe, write)


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
    """What decides a selection: the gradients, or for a baseline only the candidates."""
    chosen = experiment.selection
    if chosen.method == "gdig":
        return Recipe(stage="selection", version=1, section=chosen, upstream=[gradients_entry(bench, experiment).key])
    section = {"method": chosen.method, "budget": chosen.budget, "seed": chosen.seed, **_encoding(experiment),
               "warmup": experiment.warmup, "experiment_seed": experiment.seed}
    upstream = [*_digests(corpus_entry(bench, experiment), "pool"), base_entry(bench, experiment)[1]]
    return Recipe(stage="selection", version=1, section=section, upstream=upstream)


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
            shutil.copy(entry.path / "curve.jsonl", out)
            adapter = str(entry.path / "adapter") if experiment.model.lora_rank else None
            name = start if adapter else str(entry.path / "model")
        _decode_and_score(bench, experiment, name, adapter, _split(experiment, corpus, split), split, out)
        if selection.pairs and not bench.runtime.keep_models:
            bench.store.discard(_finetune_recipe(bench, experiment, selection))

    path = bench.store.fetch(_evaluation_recipe(bench, experiment, selection, split), compute).path
    scores = json.loads((path / "scores.json").read_text(encoding="utf-8"))
    curve = _read_lines(path / "curve.jsonl") if (path / "curve.jsonl").exists() else []
    rows = _read_lines(path / "hypotheses.jsonl")
    comet = [row["comet"] for row in rows] if "comet" in experiment.evaluation.metrics else None
    return Evaluation(hypotheses=[row["hyp"] for row in rows], scores=[Score(**one) for one in scores], curve=curve,
                      comet=comet)


def compare(bench: Bench, experiment: Experiment, metric: MetricName, system: Evaluation, baseline: Evaluation,
            split: Split) -> PairedResult:
    """Paired bootstrap of two evaluations of one split."""
    settings, seed = experiment.evaluation, derive_seed(experiment.seed, "paired bootstrap")
    if metric == "comet":
        assert system.comet is not None and baseline.comet is not None
        return paired_means("comet", system.comet, baseline.comet, bootstrap=settings.bootstrap, seed=seed,
                            signature=_comet_signature(settings))
    references = [pair.tgt for pair in split_pairs(bench, experiment, split)]
    return paired_bootstrap(metric, system.hypotheses, baseline.hypotheses, references, bootstrap=settings.bootstrap, seed=seed,
                            tgt_lang=experiment.data.tgt_lang)


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
    return Recipe(stage="evaluation", version=2, section=section, upstream=upstream)


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
    projections = random_projections(shapes, attribution.sketch_rank, generator)
    run = partial(run_gradient_pass, lm, layers, batch_size=bench.runtime.batch_size,
                  accelerator=bench.runtime.accelerator)
    moves = bool(curvature) and compute_device(bench.runtime.accelerator).type != "cpu"  # on a CPU it is there already
    _refuse_too_large(lm, bench.runtime, seed_pass_bytes(len(seeds), shapes, _rank(attribution), bench.runtime.batch_size,
                                                         curved=moves), len(seeds), len(shapes))
    with bench.progress.task("seed gradients", len(seeds)) as advance:
        scorer = _seed_pass(partial(run, seeds, advance=advance), len(seeds), curvature, attribution)
    write_whole(out / "rows.npy", partial(np.save, arr=rows))
    write_whole(out / "layers.json", lambda path: path.write_text(json.dumps(list(layers)), encoding="utf-8"))
    layout = Layout(n_rows=len(rows), width=projections.width, shard_rows=_SHARD_ROWS, content=recipe.key,
                    columns={"benefits": len(seeds), "gradient_norms": len(layers)}, values=["mean", "share", "norm"])
    writer = IndexWriter(out, layout, recipe.content(), time.monotonic() - start)
    with bench.progress.task("pool gradients", sum(map(len, writer.missing()))) as advance:
        for shard in writer.shards():
            norms = {name: shard.columns["gradient_norms"][:, i] for i, name in enumerate(layers)}
            sketcher = Sketcher(projections, sketches=shard.sketches, sketch_norms=shard.norms, first=shard.rows.start)
            scores = scorer(benefits=shard.columns["benefits"], norms=norms, first=shard.rows.start)
            run(candidates, Both(scores, sketcher), advance=advance, rows=shard.rows)
            benefits = shard.columns["benefits"]
            shard.values["mean"][:] = benefits.mean(1, dtype=np.float64)
            shard.values["share"][:] = benefit_share(benefits)
            shard.values["norm"][:] = np.sqrt(np.square(shard.columns["gradient_norms"], dtype=np.float64).sum(1))
            del scores  # it holds the seeds once more, and the next one is made before this name is bound to it


def _seed_pass(run: Callable[[Any], None], n_seeds: int, curvature: Curvature,
               attribution: AttributionConfig) -> Callable[..., Scorer]:
    """The scorer of these seeds, without its arrays: dense, or of `attribution.seed_rank`."""
    if (rank := _rank(attribution)) is not None:
        factored = FactoredSeeds(n_seeds, curvature, attribution.damping, rank)
        run(factored)
        return partial(FactoredScorer, factored.factors)
    dense = SeedGradients(n_seeds, curvature, attribution.damping)
    run(dense)
    return partial(PoolScorer, dense.preconditioned)


def _rank(attribution: AttributionConfig) -> int | None:
    assert attribution.seed_rank != "auto", "an experiment is resolved before its stages run"
    return attribution.seed_rank


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
    gradients = gradients_entry(bench, experiment)
    index, rows = SketchIndex(gradients.path), np.load(gradients.path / "rows.npy")
    mean, share, norms = candidate_values(index)
    chosen = select(mean, share, index, norms, experiment.selection)
    pool = load_corpus(corpus_entry(bench, experiment).path).pool
    _write_selection(out, _with_benefits(pool, rows, chosen), len(rows), chosen.n_passed)


def candidate_values(index: SketchIndex) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean benefit [N], benefit share [N] and total gradient norm [N] of the candidates; benefits [N, Q] are not read."""
    return index.column("mean"), index.column("share"), index.column("norm")


def _with_benefits(pool: PairTable, rows: NDArray[Any], chosen: SelectedSet) -> list[SelectedPair]:
    pairs = pool.take(rows[chosen.rows])
    return [SelectedPair(**asdict(pair), benefit=float(benefit), benefit_share=float(share), cluster=int(cluster))
            for pair, benefit, share, cluster
            in zip(pairs, chosen.benefit, chosen.benefit_share, chosen.cluster, strict=True)]


def _select_baseline(bench: Bench, experiment: Experiment, out: Path) -> None:
    chosen = experiment.selection
    examples = pool_examples(bench, experiment)
    rows = _usable(experiment, examples) if chosen.method == "pool" else candidate_rows(experiment, examples)
    picked = {"random": lambda: random_rows(len(rows), chosen.budget, chosen.seed), "pool": lambda: all_rows(len(rows)),
              "untuned": lambda: all_rows(0)}[chosen.method]()
    pool = load_corpus(corpus_entry(bench, experiment).path).pool
    _write_selection(out, [SelectedPair(**asdict(pair)) for pair in pool.take(rows[picked])], len(rows), len(rows))


def _write_selection(out: Path, pairs: list[SelectedPair], n_candidates: int, n_passed: int) -> None:
    _write_lines(out / "selected.jsonl", [asdict(pair) for pair in pairs])
    summary = {"n_candidates": n_candidates, "n_passed": n_passed}
    (out / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


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
