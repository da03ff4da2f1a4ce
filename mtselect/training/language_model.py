"""Load or build a language model and its tokenizer; name its tracked layers; one forward pass.

A model is always used from a folder or a hub name, which `NAME@COMMIT` pins. `build_small_llama` writes such a folder for the
quickstart.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtselect.config import ModelConfig
from mtselect.data.prompts import Tokenizer
from mtselect.errors import ModelError, UserError
from mtselect.hub import is_local, located, pin
from mtselect.remote import first_line
from mtselect.training.batching import Batch
from mtselect.training.device import device_dtype

# What transformers and peft give: their classes type few of their methods.
Model = Any


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A causal LM or an encoder-decoder, and its tokenizer."""

    model: Model
    tokenizer: Tokenizer

    @property
    def pad_id(self) -> int:
        """Padding is masked everywhere, so any id serves where the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    @property
    def decoder_start(self) -> int | None:
        """Token that an encoder-decoder's decoder begins with; None for a causal LM."""
        return _decoder_start(self.model.config)


def compute_dtype(config: ModelConfig, device: torch.device) -> str:
    """`model.dtype` with `auto` resolved."""
    return device_dtype(device) if config.dtype == "auto" else config.dtype


def pinned(name: str) -> str:
    """A hub name with the commit it stands for now; a folder as it is.

    Raises:
        ModelError: neither the hub nor its cache knows the name. Loading it would say so after half a minute of attempts.
    """
    if is_local(name):
        return name
    found = pin(name, "model")
    if "@" not in found:
        raise _unloadable(name, "it is no folder, and neither the hub nor its cache knows it")
    return found


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a hub name or folder. Raises ModelError if there is none or it has no EOS."""
    from transformers import AutoTokenizer

    with _loading(name):
        tokenizer = AutoTokenizer.from_pretrained(**_place(name))
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model.name {name!r}: its tokenizer has no EOS token: choose a model whose tokenizer has one")
    return tokenizer


def decoder_start(name: str) -> int | None:
    """Token that the decoder of an encoder-decoder begins with; None if the hub name or folder is a causal LM's."""
    with _loading(name):
        return _decoder_start(_read_config(name))


def _read_config(name: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(**_place(name))


def _place(name: str) -> dict[str, str]:
    """Of a hub name or folder, as `from_pretrained` wants it."""
    repository, revision = located(name)
    return {"pretrained_model_name_or_path": repository, "revision": revision or "main"}


@contextmanager
def _loading(name: str | None) -> Iterator[None]:
    """What goes wrong in the block is a ModelError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # no such name or package, damaged files, other shapes or kinds: each library has its classes
        raise _unloadable(name, first_line(error)) from error


def _unloadable(name: str | None, why: str) -> ModelError:
    return ModelError(f"model.name {str(name)!r} cannot be loaded ({why}): give a folder with a causal LM or an "
                      "encoder-decoder, a hub name this machine can reach, or null for the small built-in model")


def _decoder_start(config: Any) -> int | None:
    """As `generate` reads it: BOS stands in where the config has none (the first mBART)."""
    if not config.is_encoder_decoder:
        return None
    start = getattr(config, "decoder_start_token_id", None)
    return int(config.bos_token_id if start is None else start)


def load_model(name: str, dtype: torch.dtype = torch.float32, adapter: str | None = None, quantize: str | None = None,
               device: torch.device | None = None) -> LanguageModel:
    """Load weights from a hub name or folder, and LoRA adapters from another folder, which stay apart.

    Args:
        name: hub name or folder.
        dtype: of the weights; of what is computed from them if they are quantised.
        adapter: folder of the adapters.
        quantize: `nf4`, or null.
        device: it is to compute on; null is the CPU. Quantised weights are put there, others by who uses them.

    Raises:
        ModelError: there is no such model, it is neither a causal LM nor an encoder-decoder, or bitsandbytes is not installed.
    """
    _hush()
    tokenizer, kind = load_tokenizer(name), _kind(name)
    quantization = {} if quantize is None else _four_bits(dtype, device)
    with _loading(name):
        model = kind.from_pretrained(**_place(name), dtype=dtype, **_attention(device), **quantization)
    if quantize is not None:
        _leave_packed_as_saved(model)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return LanguageModel(model=model, tokenizer=tokenizer)


def _kind(name: str | None) -> Any:
    """The class of transformers that a hub name or folder is loaded with; null is the small Llama."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForCausalLM if name is None or decoder_start(name) is None else AutoModelForSeq2SeqLM


def _attention(device: torch.device | None) -> dict[str, str]:
    """On a CPU plain products: torch's fused kernel took two fifths of a training step of sentences there, its backward
    pass in bfloat16 above all."""
    return {"attn_implementation": "eager"} if device is None or device.type == "cpu" else {}


def _four_bits(dtype: torch.dtype, device: torch.device | None) -> dict[str, Any]:
    """What `from_pretrained` is told for QLoRA's 4-bit weights (arXiv 2305.14314)."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig
    if find_spec("bitsandbytes") is None:
        raise ModelError("model.quantize 'nf4' needs bitsandbytes: pip install bitsandbytes, or set it to null")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",  # type: ignore[no-untyped-call]
                                bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": "cpu" if device is None or device.type == "cpu" else 0}}


def _leave_packed_as_saved(model: Model) -> None:
    """Keep bitsandbytes off its fused kernel for processors with avx512_bf16.

    At the first forward pass without a gradient that path packs a layer's weight anew, in place: rows or columns that are no
    multiple of its blocks crash, `dequantize` and saving give other weights afterwards, and scales are rounded to bfloat16, so
    that gradients are off by up to 1 %. Without it a layer multiplies with the dequantised weight on every processor.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def add_lora(model: Model, config: ModelConfig) -> Model:
    """The model with trainable float32 LoRA adapters on all its linear layers but the head."""
    from peft import LoraConfig, get_peft_model

    task = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5 by an old name
        return get_peft_model(model, LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha,
                                                target_modules="all-linear", task_type=task))


@contextmanager
def checkpointed(model: Model) -> Iterator[None]:
    """Layers keep their inputs alone for the backward pass, which computes what else it needs once more.

    Raises:
        ModelError: the architecture has no such layers.
    """
    if not model.supports_gradient_checkpointing:
        raise ModelError(f"runtime.checkpointing is true, and {type(model).__name__} cannot compute its layers once more: set "
                         "it to false and runtime.micro_batch lower")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers 5 has another name for it, of which 5.17 knows nothing
        model.gradient_checkpointing_enable({"use_reentrant": False})
        try:
            yield
        finally:
            model.gradient_checkpointing_disable()


def build_small_llama(config: ModelConfig, texts: Iterable[str], seed: int, out: Path) -> None:
    """Write a small Llama with seeded random weights, and a byte-level BPE trained on the texts, to a folder."""
    from transformers import LlamaForCausalLM

    _hush()
    tokenizer = _train_tokenizer(texts, config.vocab_size)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(_small_llama(config, len(tokenizer), **special)).save_pretrained(out)
    tokenizer.save_pretrained(out)


def empty_model(config: ModelConfig) -> Model:
    """The model without its weights: for its layers and their shapes.

    Raises:
        ModelError: there is no such model.
    """
    kind = _kind(config.name)
    with _loading(config.name), torch.device("meta"):
        return kind.from_config(_small_llama(config, config.vocab_size) if config.name is None else _read_config(config.name))


def n_parameters(model: Model) -> int:
    """Of all its weights, tracked or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def weight_bytes(config: ModelConfig, model: Model) -> int:
    """Of a model's weights in its dtype (4 bytes a parameter where that is not decided); of its linear layers in 4 bits with
    their scales, if they are quantised."""
    size = 2 if config.dtype == "bfloat16" else 4
    linear: int = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear)
                      and module is not model.get_output_embeddings())
    quantised = linear if config.quantize else 0
    return size * (n_parameters(model) - quantised) + quantised * 9 // 16


def _small_llama(config: ModelConfig, vocab_size: int, **special: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(vocab_size=vocab_size, hidden_size=config.hidden_size, num_hidden_layers=config.n_layers,
                       intermediate_size=8 * config.hidden_size // 3 // 16 * 16, num_attention_heads=config.n_heads,
                       max_position_embeddings=max(512, 2 * config.max_tokens), tie_word_embeddings=True, **special)


def tracked_layers(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """The linear layers whose name the pattern finds, without the output head.

    Raises:
        ModelError: the pattern is no regular expression or finds no layer, and names some that there are; or it finds one
            whose weight another module uses too, so that its gradient is not the layer's alone.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    linear = {name: module for name, module in model.named_modules()
              if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not head}
    try:
        found = {name: module for name, module in linear.items() if re.search(pattern, name)}
    except (re.error, OverflowError) as error:
        raise ModelError(f"attribution.layers {pattern!r} is no regular expression: {error}") from error
    if not found:
        some = ", ".join(list(linear)[:4])
        raise ModelError(f"attribution.layers {pattern!r} finds no linear layer: write a pattern that finds some of {some}")
    users: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        users.setdefault(id(weight), []).append(name)
    for name, module in found.items():
        if len(shared := users.get(id(module.weight), [])) > 1:
            raise ModelError(f"layer {name!r} shares its weight with others ({', '.join(shared[:3])}): write an "
                             "attribution.layers pattern without it")
    return found


def target_logits(model: Model, batch: Batch) -> Tensor:
    """Logits [M, V], float32, at the M positions with a target, example by example.

    The output head is given only these positions, whatever the architecture does around it.
    """
    wanted = batch.targets != -100
    with model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0][wanted],)):
        logits: Tensor = model(**batch.inputs(), use_cache=False).logits
    return logits if logits.dtype == torch.float64 else logits.float()


def target_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy [B] of each example, summed over its target tokens and EOS, from logits [M, V] at targets [B, T]."""
    wanted = targets != -100
    losses = nn.functional.cross_entropy(logits, targets[wanted], reduction="none")
    return losses.new_zeros(len(targets)).index_add(0, wanted.nonzero()[:, 0], losses)


def _train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _hush() -> None:
    """Our bars show the stage; transformers' own flash once per file."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
