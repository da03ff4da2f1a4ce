"""The whole way with other models than the built-in one: an encoder-decoder, and gradients at LoRA adapters."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mtselect.attribution.index import SketchIndex
from mtselect.config import load, with_fields
from mtselect.errors import ModelError
from mtselect.progress import SilentProgress
from mtselect.stages.gradients import GRADIENTS
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.models import load_scored
from mtselect.stages.trial import run_trial
from mtselect.stages.warmup import WARM_MODEL, WARMUP
from mtselect.store import Store
from mtselect.training.language_model import LanguageModel, tracked_layers


def bench_and_experiment(lab: Any) -> tuple[Bench, Any]:
    sweep = load("sweep.yaml", [])
    return Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress()), sweep.experiment


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A small T5 with a byte-level tokenizer that closes texts with EOS."""
    tokenizer = tiny.tokenizer(["der hund sieht die katze", "the dog sees the cat"])
    folder = tmp_path_factory.mktemp("t5")
    tiny.model("t5", vocab_size=len(tokenizer)).model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("curvature", ["ekfac", "kfac"])
def test_a_trial_of_an_encoder_decoder(curvature: str, t5: Path, make_lab: Callable[..., Any]) -> None:
    lab = make_lab(database=False, experiment__model__name=str(t5), experiment__attribution__curvature=curvature,
                   experiment__selection={"budget": 20, "n_clusters": 4, "threshold": 0.3}, experiment__evaluation__dev_rows=4)
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_and_experiment(lab)
        result = run_trial(bench, experiment)
        entry = Lineage(bench, experiment).entry(GRADIENTS)
        benefits = SketchIndex(entry.path).column("benefits")
    assert len(result.selection.pairs) == 20
    assert len(result.evaluation.hypotheses) == 4
    assert np.isfinite(benefits).all()
    assert (benefits != 0).all()
    layers = json.loads((entry.path / "layers.json").read_text(encoding="utf-8"))
    assert any("EncDecAttention" in name for name in layers)
    assert any(name.startswith("encoder.") for name in layers)


def test_a_tokenizer_of_many_languages_is_saved_with_the_two(make_lab: Callable[..., Any], tiny: SimpleNamespace,
                                                             tmp_path: Path) -> None:
    from transformers import AutoTokenizer, NllbTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = NllbTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tiny.model("m2m_100", vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2,
               decoder_start_token_id=2).model.save_pretrained(tmp_path / "nllb")
    tokenizer.save_pretrained(tmp_path / "nllb")
    lab = make_lab(database=False, experiment__model__name=str(tmp_path / "nllb"), experiment__data__src_lang="deu_Latn",
                   experiment__data__tgt_lang="fra_Latn")
    with contextlib.chdir(lab.folder):
        folder = WARM_MODEL.read(Lineage(*bench_and_experiment(lab))).name
        saved = AutoTokenizer.from_pretrained(folder)
    assert (saved.src_lang, saved.tgt_lang) == ("deu_Latn", "fra_Latn")


def test_gradients_at_the_adapters_of_the_warm_up(make_lab: Callable[..., Any]) -> None:
    """The adapters are kept apart from the base, and give the gradients where the pattern asks for them."""
    lab = make_lab(database=False, experiment__model__lora_rank=2, experiment__attribution__layers="lora_[AB]",
                   experiment__attribution__sketch_rank=2)
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_and_experiment(lab)
        entry = Lineage(bench, experiment).entry(GRADIENTS)
    layers = json.loads((entry.path / "layers.json").read_text(encoding="utf-8"))
    assert len(layers) == 2 * 7
    assert all("lora_" in name for name in layers)
    norms = SketchIndex(entry.path).column("gradient_norms")
    assert (norms > 0).any(0).all(), "A too has a gradient: the warm-up moved B away from zero"
    assert np.isfinite(SketchIndex(entry.path).column("benefits")).all()


def test_adapters_without_a_warm_up_are_refused(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(database=False, experiment__model__lora_rank=2, experiment__attribution__layers="lora_[AB]",
                   experiment__warmup={"epochs": 0})
    with contextlib.chdir(lab.folder), pytest.raises(ModelError, match=r"'lora_\[AB\]' finds no linear layer"):
        Lineage(*bench_and_experiment(lab)).path(GRADIENTS)


def test_merged_and_apart_are_the_same_model(make_lab: Callable[..., Any], tiny: SimpleNamespace, relative: Any) -> None:
    lab = make_lab(database=False, experiment__model__lora_rank=2)
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_and_experiment(lab)
        weights = WARM_MODEL.read(Lineage(bench, experiment))
        apart = with_fields(experiment, {"attribution.layers": "lora_A"})
        models = [load_scored(one, bench.runtime, weights) for one in (experiment, apart)]
    with torch.no_grad():
        one, two = (tiny.logits(lm, tiny.examples(1)[0]) for lm in models)
    assert relative(one, two) < 1e-4


@pytest.fixture(params=[True, False], ids=["avx512_bf16", "plain"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """What bitsandbytes is told of the processor: with avx512_bf16 it would pack weights for a fused kernel."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("layers", ["lora_[AB]", r"\.mlp\."])
def test_a_base_of_four_bits(layers: str, processor: bool, make_lab: Callable[..., Any]) -> None:
    """Adapters train on it, gradients are taken at them or at the quantised layers themselves, and it decodes."""
    lab = make_lab(database=False, experiment__model__lora_rank=2, experiment__model__quantize="nf4",
                   experiment__attribution__layers=layers, experiment__attribution__sketch_rank=2,
                   experiment__selection={"budget": 20, "n_clusters": 4, "threshold": 0.3}, experiment__evaluation__dev_rows=4)
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_and_experiment(lab)
        lm = load_scored(experiment, bench.runtime, WARM_MODEL.read(Lineage(bench, experiment)))
        result = run_trial(bench, experiment)
        index = SketchIndex(Lineage(bench, experiment).path(GRADIENTS))
    quantised = [module for module in lm.model.modules() if type(module).__name__ == "Linear4bit"]
    assert quantised and all(module.weight.dtype == torch.uint8 for module in quantised)
    assert len(result.selection.pairs) == 20
    assert len(result.evaluation.hypotheses) == 4
    assert (index.column("gradient_norms") > 0).any(0).all()
    assert (index.column("benefits") != 0).all()


@pytest.mark.parametrize("width", [32, 192], ids=lambda width: f"width {width}")  # no multiple of its blocks, and one
def test_four_bits_give_what_the_weights_they_stand_for_give(
        width: int, processor: bool, make_lab: Callable[..., Any], tiny: SimpleNamespace, relative: Any) -> None:
    """Logits and gradients, before and after the model has translated; and it holds the same weights all along."""
    lab = make_lab(database=False, experiment__model__lora_rank=2, experiment__model__quantize="nf4",
                   experiment__model__hidden_size=width)
    with contextlib.chdir(lab.folder):
        bench, experiment = bench_and_experiment(lab)
        lm = load_scored(experiment, bench.runtime, WARM_MODEL.read(Lineage(bench, experiment)))
    plain = LanguageModel(model=copy.deepcopy(lm.model).dequantize().float(), tokenizer=lm.tokenizer)
    examples, weights = tiny.examples(5), dict(plain.model.named_parameters())
    for _ in range(2):
        with torch.no_grad():
            assert all(relative(tiny.logits(lm, one), tiny.logits(plain, one)) < 1e-5 for one in examples)
        quantised = tiny.run(lm, tracked_layers(lm.model, experiment.attribution.layers), examples, tiny.Collector())
        layers = tracked_layers(plain.model, experiment.attribution.layers)
        assert all(type(layer) is torch.nn.Linear for layer in layers.values())
        for row, example in enumerate(examples):
            for name, gradient in tiny.loop(plain, layers, example).items():
                assert relative(quantised.gradients[row][name], gradient) < 1e-5
    for name, weight in copy.deepcopy(lm.model).dequantize().float().named_parameters():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_translations_are_made_in_the_models_dtype(lora_rank: int, make_lab: Callable[..., Any],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 7B in float32 are 28 GB. Adapters stay apart, in float32, as they were trained."""
    seen: list[set[torch.dtype]] = [set(), set()]

    def decode(lm: LanguageModel, prompts: Any, *_: Any, **__: Any) -> list[str]:
        for name, weight in lm.model.named_parameters():
            seen["lora_" in name].add(weight.dtype)
        return [""] * len(prompts)

    monkeypatch.setattr("mtselect.stages.evaluation.decode", decode)
    lab = make_lab(database=False, experiment__model__lora_rank=lora_rank, experiment__model__dtype="bfloat16",
                   experiment__selection={"method": "random", "budget": 20}, experiment__warmup={"epochs": 0})
    with contextlib.chdir(lab.folder):
        result = run_trial(*bench_and_experiment(lab))
    assert seen == [{torch.bfloat16}, {torch.float32} if lora_rank else set()]
    assert all("|num_beams:1|" in score.signature and "dtype:bfloat16" in score.signature for score in result.evaluation.scores)


def test_four_bits_want_their_library(make_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab(database=False, experiment__model__lora_rank=2, experiment__model__quantize="nf4")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with contextlib.chdir(lab.folder), pytest.raises(ModelError, match=r"model.quantize 'nf4' needs bitsandbytes: pip install"):
        Lineage(*bench_and_experiment(lab)).path(WARMUP)
