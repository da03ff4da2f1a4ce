"""Logits of padded batches against the plain forward, in several architectures; loading, building, LoRA, layer names."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import ByT5Tokenizer

from mtselect.config import DataConfig, ModelConfig
from mtselect.data.examples import Example
from mtselect.data.pairs import Pair
from mtselect.data.prompts import encode_pairs, encode_prompts, prompt_text
from mtselect.errors import ModelError
from mtselect.training.batching import collate
from mtselect.training.language_model import (
    LanguageModel,
    add_lora,
    build_small_llama,
    compute_dtype,
    load_model,
    load_tokenizer,
    target_logits,
    target_losses,
    tracked_layers,
)

# float32 forward of two layers; a wrong position or mask is off by 0.1 and more. (Not float64: transformers' own softmax
# casts its mask, the least float64, to float32, where it is -inf, and a fully masked row becomes NaN.)
ROUNDING = 1e-5
ARCHITECTURES = ["llama", "mistral", "gpt2", "qwen2", "qwen3", "bloom", "gemma2", "gemma3_text"]
TEXTS = ["Der Hund sieht die Katze.", "The dog sees the cat.", "Ein Haus {steht} dort, weil es alt ist.", "äöü ß € 猫"]
SMALL = ModelConfig(hidden_size=16, n_layers=1, n_heads=2, vocab_size=300, lora_rank=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in Llama, on disk."""
    out = tmp_path_factory.mktemp("llama")
    build_small_llama(SMALL, TEXTS, 3, out)
    return out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_target_logits_equal_the_plain_forward(architecture: str, tiny: SimpleNamespace, relative: Any) -> None:
    """A padded batch at its targets only, against one unpadded example with all its logits."""
    lm, examples = tiny.model(architecture), tiny.examples(6)
    batch = collate(range(6), examples, tiny.pad)
    assert not batch.mask.all()
    with torch.no_grad():
        logits = target_logits(lm.model, batch)
        losses = target_losses(logits, batch.targets)
        each = logits.split([len(example.target) for example in examples])
        for row, example in enumerate(examples):
            plain = lm.model(torch.tensor([example.prompt + example.target])).logits[0]
            expected = plain[len(example.prompt) - 1 : -1]
            ratio = relative(each[row], expected)
            assert ratio < ROUNDING, f"{architecture}, row {row}: relative error {ratio:.1e}"
            loss = -expected.log_softmax(-1).gather(1, torch.tensor(example.target)[:, None]).sum()
            ratio = relative(losses[row], loss)
            assert ratio < ROUNDING, f"{architecture}, loss of row {row}: relative error {ratio:.1e}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_bfloat16_weights_are_finite_and_in_float32(architecture: str, tiny: SimpleNamespace) -> None:
    """Rows of padding see nothing; their NaN, if any, would reach the tokens through 0 * NaN."""
    lm = tiny.model(architecture, dtype=torch.bfloat16)
    logits = target_logits(lm.model, collate(range(6), tiny.examples(6), tiny.pad))
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_default_pattern_finds_attention_and_mlp_and_never_the_head(tiny: SimpleNamespace, pattern: str) -> None:
    found = {kind: len(tracked_layers(tiny.model(kind).model, pattern)) for kind in tiny.architectures}
    assert found == {kind: 8 if kind in ("gpt2", "bloom") else 14 for kind in ARCHITECTURES}
    assert not any("head" in name for name in tracked_layers(tiny.model("llama").model, "."))


def test_a_layer_that_shares_its_weight_raises(tiny: SimpleNamespace, pattern: str) -> None:
    model = tiny.model("llama").model
    one, two = (layer.mlp for layer in model.model.layers)
    two.up_proj.weight = one.up_proj.weight
    with pytest.raises(ModelError, match=r"'model.layers.0.mlp.up_proj' shares its weight with .*layers.1.mlp.up_proj"):
        tracked_layers(model, pattern)


@pytest.mark.parametrize(("wrong", "message"), [
    ("(", r"attribution.layers '\(' is no regular expression: missing \)"),
    ("nothing", "attribution.layers 'nothing' finds no linear layer: write a pattern that finds some of "
                "model.layers.0.self_attn.q_proj"),
    ("embed_tokens", "attribution.layers 'embed_tokens' finds no linear layer"),
])
def test_a_pattern_without_layers_raises(wrong: str, message: str, tiny: SimpleNamespace) -> None:
    with pytest.raises(ModelError, match=message):
        tracked_layers(tiny.model("llama").model, wrong)


@pytest.mark.parametrize("loads", [load_model, load_tokenizer])
def test_a_missing_model_is_named(loads: Any, tmp_path: Path) -> None:
    name = str(tmp_path / "none")
    with pytest.raises(ModelError, match=f"model.name '{name}' cannot be loaded .*: give a folder with a causal LM"):
        loads(name)


def test_a_folder_with_a_tokenizer_and_no_model_is_named(folder: Path, tmp_path: Path) -> None:
    load_tokenizer(str(folder)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"cannot be loaded .*: give a folder with a causal LM"):
        load_model(str(tmp_path))


def test_a_package_the_tokenizer_wants_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_sentencepiece(**_: str) -> None:
        raise ImportError("\nMarianTokenizer requires the SentencePiece library\nand more")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", without_sentencepiece)
    with pytest.raises(ModelError, match=r"'opus' cannot be loaded \(MarianTokenizer requires the SentencePiece library\): "):
        load_tokenizer("opus")


def test_a_tokenizer_without_eos_is_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="its tokenizer has no EOS token: choose a model"):
        load_tokenizer(str(tmp_path))


def test_pad_id_falls_back_to_eos() -> None:
    for pad, eos, expected in ((0, 2, 0), (None, 2, 2)):
        tokenizer = SimpleNamespace(pad_token_id=pad, eos_token_id=eos)
        assert LanguageModel(model=None, tokenizer=tokenizer).pad_id == expected


BUILD = """
import sys
from pathlib import Path
from mtselect.config import ModelConfig
from mtselect.training.language_model import build_small_llama
small = ModelConfig(hidden_size=16, n_layers=1, n_heads=2, vocab_size=300, lora_rank=2)
for seed in (3, 4):
    build_small_llama(small, sys.argv[2:], seed, Path(sys.argv[1], str(seed)))
"""


def test_a_second_process_builds_the_same_llama(folder: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", BUILD, str(tmp_path), *TEXTS], check=True, capture_output=True)

    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert digest(folder / name) == digest(tmp_path / "3" / name), name
    assert digest(tmp_path / "3/model.safetensors") != digest(tmp_path / "4/model.safetensors")


def test_building_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build_small_llama(SMALL, TEXTS, 3, tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_the_built_tokenizer_gives_any_text_back(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    for text in [*TEXTS, "never  seen\t🙂"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids).removeprefix(" ") == text
    prompt = encode_prompts(["Hund"], tokenizer, DataConfig(), SMALL)[0]
    assert prompt[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in prompt


@pytest.mark.parametrize("kind", ["fast", "framed", "slow"])
def test_prompts_and_targets_have_the_tokens_that_transformers_gives(folder: Path, kind: str) -> None:
    tokenizer = ByT5Tokenizer() if kind == "slow" else load_tokenizer(str(folder))
    pairs = [Pair(id=str(i), src=text, tgt=f"{text} </s> \N{SNOWMAN}") for i, text in enumerate([*TEXTS, "", "{src} <unk>"])]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    want = [Example([*bos, *tokenizer(prompt_text(pair.src, DataConfig(), SMALL), add_special_tokens=False)["input_ids"]],
                    [*tokenizer(pair.tgt, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]) for pair in pairs]
    if kind == "framed":  # as a tokenizer.json may say it
        tokenizer.backend_tokenizer.enable_truncation(3)
        tokenizer.backend_tokenizer.enable_padding(length=99)
    assert encode_pairs(pairs, tokenizer, DataConfig(), SMALL) == want


def randomised_lora(folder: Path) -> Any:
    """Adapters that do something: peft starts them at zero."""
    model = add_lora(load_model(str(folder)).model, SMALL)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    return model


def test_lora_trains_only_adapters_in_float32(folder: Path) -> None:
    model = add_lora(load_model(str(folder), torch.bfloat16).model, SMALL)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name and "lm_head" not in name for name in trained)
    assert len(trained) == 2 * 7, "A and B of the seven linear layers of one block"
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}


def test_saved_adapters_load_to_the_same_logits(folder: Path, tmp_path: Path, tiny: SimpleNamespace,
                                                relative: Any) -> None:
    model = randomised_lora(folder).eval()
    model.save_pretrained(tmp_path)
    batch = collate([0, 1, 2], tiny.examples(3), tiny.pad)
    with torch.no_grad():
        before = target_logits(load_model(str(folder)).model, batch)
        expected = target_logits(model, batch)
        loaded = load_model(str(folder), adapter=str(tmp_path)).model
        ratio = max(relative(target_logits(model, batch), expected) for model in (loaded, loaded.merge_and_unload()))
    assert relative(before, expected) > 0.1
    assert ratio < ROUNDING, f"relative error {ratio:.1e}"


def test_dtype_is_resolved() -> None:
    assert compute_dtype(ModelConfig(dtype="bfloat16"), torch.device("cpu")) == "bfloat16"
    assert compute_dtype(ModelConfig(), torch.device("cpu")) in ("float32", "bfloat16")
