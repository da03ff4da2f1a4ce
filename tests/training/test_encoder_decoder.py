"""Encoder-decoders: ids, batches, logits, training and decoding against transformers' own, one by one and unpadded."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtselect.config import DataConfig, EvaluationConfig, FinetuneConfig, ModelConfig, RuntimeConfig
from mtselect.data.examples import Example
from mtselect.data.pairs import Pair
from mtselect.data.prompts import encode_pairs, encode_prompts, target_frame
from mtselect.errors import ConfigError
from mtselect.training.batching import collate
from mtselect.training.decode import decode
from mtselect.training.finetune_module import finetune
from mtselect.training.language_model import (
    LanguageModel,
    add_lora,
    decoder_start,
    load_model,
    target_logits,
    target_losses,
    tracked_layers,
)

ROUNDING = 1e-5
ARCHITECTURES = ["marian", "mbart", "m2m_100", "t5"]
SOURCES = ["der hund", "die katze sieht den hund", "ja", "ein haus"]
PAIRS = [Pair(id=str(i), src=source, tgt=target) for i, (source, target)
         in enumerate(zip(SOURCES, ["the dog", "the cat sees", "yes it is", "a house"], strict=True))]
TEXTS = [*SOURCES, *(pair.tgt for pair in PAIRS)]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def nllb_tokenizer() -> Any:
    from transformers import NllbTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS]
    return NllbTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])


def mbart_tokenizer(first: bool) -> Any:
    from transformers import MBart50Tokenizer, MBartTokenizer
    from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES as OF_THE_FIRST
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as OF_50

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS, *(OF_THE_FIRST if first else OF_50), "<mask>"]
    return (MBartTokenizer if first else MBart50Tokenizer)(vocab=[(piece, -2.0) for piece in pieces])


def sentencepiece_files(out: Path) -> tuple[Path, dict[str, int]]:
    """(a model of characters, a vocabulary of its pieces); skips where sentencepiece is not installed."""
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([LETTERS, *SOURCES]), model_prefix=str(out / "spm"),
                                             vocab_size=40, hard_vocab_limit=False, model_type="char", minloglevel=2)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(out / "spm.model"))
    pieces = [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]
    return out / "spm.model", {piece: i for i, piece in enumerate(["</s>", "<pad>", "<unk>", "<s>", *pieces])}


def marian_tokenizer(out: Path) -> Any:
    from transformers import MarianTokenizer

    model, vocabulary = sentencepiece_files(out)
    (out / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return MarianTokenizer(source_spm=str(model), target_spm=str(model), vocab=str(out / "vocab.json"))


def m2m100_tokenizer(out: Path) -> Any:
    from transformers import M2M100Tokenizer

    model, vocabulary = sentencepiece_files(out)
    (out / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return M2M100Tokenizer(vocab_file=str(out / "vocab.json"), spm_file=str(model))


# name -> tokenizer (None: the plain one that closes with EOS), architecture, codes of the two languages, and what the
# model's config lets the decoder begin with
KINDS: dict[str, tuple[Any, str, tuple[str, str], int | None]] = {
    "t5": (None, "t5", ("German", "English"), 0),
    "marian": (None, "marian", ("German", "English"), 0),
    "marian-sentencepiece": (marian_tokenizer, "marian", ("German", "English"), 1),
    "m2m100": (m2m100_tokenizer, "m2m_100", ("de", "en"), 0),
    "nllb": (lambda out: nllb_tokenizer(), "m2m_100", ("deu_Latn", "eng_Latn"), 2),
    "mbart50": (lambda out: mbart_tokenizer(False), "mbart", ("de_DE", "en_XX"), 2),
    "mbart": (lambda out: mbart_tokenizer(True), "mbart", ("de_DE", "en_XX"), None),
}


@pytest.fixture(scope="module", params=list(KINDS))
def made(request: pytest.FixtureRequest, tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`lm` with the tokenizer of its kind, `data`, `start` and `code` (None where targets carry no language code)."""
    make_tokenizer, architecture, codes, configured = KINDS[request.param]
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer")) if make_tokenizer else tiny.tokenizer(TEXTS)
    size = 200 if request.param == "m2m100" else len(tokenizer)  # its language codes lie beyond its length
    model = tiny.model(architecture, vocab_size=size, pad_token_id=tokenizer.pad_token_id, bos_token_id=0,
                       eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=configured).model
    named = {"nllb": "eng_Latn", "mbart50": "en_XX", "mbart": "en_XX", "m2m100": "__en__"}.get(request.param)
    code = tokenizer.convert_tokens_to_ids(named) if named else None
    start = code if request.param == "mbart" else configured
    return SimpleNamespace(lm=LanguageModel(model=model, tokenizer=tokenizer), kind=request.param, start=start, code=code,
                           data=DataConfig(src_lang=codes[0], tgt_lang=codes[1]))


def test_sources_and_targets_are_framed_as_the_tokenizer_does(made: SimpleNamespace) -> None:
    tokenizer = made.lm.tokenizer
    examples = encode_pairs(PAIRS, tokenizer, made.data, ModelConfig(), made.lm.decoder_start)
    if made.code is not None:
        tokenizer.src_lang, tokenizer.tgt_lang = made.data.src_lang, made.data.tgt_lang
    for pair, example in zip(PAIRS, examples, strict=True):
        both = tokenizer(pair.src, text_target=pair.tgt)
        assert example.prompt == both["input_ids"]
        behind = [made.code] if made.kind == "mbart" else []  # the first mBART's code: its decoder begins with it
        assert example.target + behind == both["labels"]
        assert example.target[-1] == tokenizer.eos_token_id
        assert example.start == made.start
        _, head = target_frame(tokenizer, made.start)
        assert head == ([made.code] if made.code is not None and made.kind != "mbart" else [])
        assert tokenizer.decode(example.target[len(head) :], skip_special_tokens=True).strip() == pair.tgt


def test_the_decoder_reads_what_transformers_shifts_the_labels_to(made: SimpleNamespace, tiny: SimpleNamespace,
                                                                  relative: Any) -> None:
    examples = encode_pairs(PAIRS, made.lm.tokenizer, made.data, ModelConfig(), made.lm.decoder_start)
    batch = collate(range(4), examples, made.lm.pad_id)
    assert batch.decoder_ids is not None
    assert {tensor.device.type for tensor in vars(batch.to("meta")).values()} == {"meta"}
    for row, example in enumerate(examples):
        size = len(example.target)
        assert batch.targets[row].tolist() == example.target + [-100] * (batch.targets.shape[1] - size)
        assert batch.decoder_ids[row, :size].tolist() == [made.start, *example.target[:-1]]
        assert batch.input_ids[row, batch.mask[row]].tolist() == example.prompt
        labels = made.lm.tokenizer(text_target=PAIRS[row].tgt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            theirs = made.lm.model(input_ids=torch.tensor([example.prompt]), labels=labels).logits[0]
            assert relative(theirs[:size], tiny.logits(made.lm, example)) < ROUNDING


def test_target_logits_equal_the_plain_forward(made: SimpleNamespace, tiny: SimpleNamespace, relative: Any) -> None:
    examples = encode_pairs(PAIRS, made.lm.tokenizer, made.data, ModelConfig(), made.lm.decoder_start)
    batch = collate(range(4), examples, made.lm.pad_id)
    assert not batch.mask.all()
    with torch.no_grad():
        if hasattr(made.lm.model, "final_logits_bias"):
            made.lm.model.final_logits_bias.normal_(generator=torch.Generator().manual_seed(0))
        logits = target_logits(made.lm.model, batch)
        losses = target_losses(logits, batch.targets)
        for row, part in enumerate(logits.split([len(example.target) for example in examples])):
            expected = tiny.logits(made.lm, examples[row])
            assert relative(part, expected) < ROUNDING
            loss = -expected.log_softmax(-1).gather(1, torch.tensor(examples[row].target)[:, None]).sum()
            assert relative(losses[row], loss) < ROUNDING


@pytest.fixture(scope="module")
def learned(made: SimpleNamespace) -> SimpleNamespace:
    """A wider model of the kind, which has all but learned the pairs by heart."""
    examples = encode_pairs(PAIRS, made.lm.tokenizer, made.data, ModelConfig(), made.lm.decoder_start)
    config = copy.deepcopy(made.lm.model.config)
    for name, value in {"d_model": 64, "d_ff": 128, "init_std": 0.1, "dropout": 0.0, "dropout_rate": 0.0,
                        "attention_dropout": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = LanguageModel(model=type(made.lm.model)(config), tokenizer=made.lm.tokenizer)
    finetune(lm, examples, [], FinetuneConfig(learning_rate=1e-2, batch_size=4), RuntimeConfig(accelerator="cpu"),
             n_steps=50 * -(-len(examples) // 4), name="finetune", seed=0, dtype="float32", advance=lambda n: None)
    return SimpleNamespace(**{**vars(made), "lm": LanguageModel(model=lm.model.eval(), tokenizer=lm.tokenizer)})


@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_equals_generation_one_by_one(beams: int, learned: SimpleNamespace) -> None:
    """And gives most of the learned targets back."""
    from transformers import GenerationConfig

    made, tokenizer, model = learned, learned.lm.tokenizer, learned.lm.model
    prompts = encode_prompts(SOURCES, tokenizer, made.data, ModelConfig(), made.lm.decoder_start)
    expected = []
    model.generation_config = GenerationConfig(pad_token_id=made.lm.pad_id, eos_token_id=tokenizer.eos_token_id,
                                               suppress_tokens=[made.lm.pad_id])
    for prompt in prompts:
        extra = {"forced_bos_token_id": made.code} if made.kind in ("nllb", "mbart50", "m2m100") else {}
        ids = model.generate(input_ids=torch.tensor([prompt]), decoder_start_token_id=made.start, num_beams=beams,
                             do_sample=False, max_new_tokens=20, **extra)
        expected.append(" ".join(tokenizer.decode(ids[0, 1 + len(extra) :], skip_special_tokens=True).split()))
        assert ids[0, 0] == made.start
        assert not extra or ids[0, 1] == made.code
    found = decode(made.lm, prompts, EvaluationConfig(num_beams=beams, max_new_tokens=20), batch_size=3, dtype="float32",
                   advance=lambda n: None)
    assert found == expected
    assert sum(one == pair.tgt for one, pair in zip(found, PAIRS, strict=True)) >= 2


def test_a_language_the_tokenizer_does_not_know_is_named() -> None:
    for tokenizer in (nllb_tokenizer(), mbart_tokenizer(True), mbart_tokenizer(False)):
        with pytest.raises(ConfigError, match=r"data.src_lang must be a language of .*, got 'German': write the code"):
            encode_prompts(["ja"], tokenizer, DataConfig(), ModelConfig(), 2)


def test_only_a_changed_prompt_reaches_an_encoder(tiny: SimpleNamespace) -> None:
    tokenizer = tiny.tokenizer(TEXTS)
    bare, prefixed = (encode_prompts(["ja"], tokenizer, DataConfig(), model, 0)[0]
                      for model in (ModelConfig(), ModelConfig(prompt="to {tgt_lang}: {src}")))
    assert bare == tokenizer("ja")["input_ids"]
    assert prefixed == tokenizer("to English: ja")["input_ids"]
    assert target_frame(tokenizer, 0) == (0, [])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_default_pattern_finds_all_of_both_sides(architecture: str, tiny: SimpleNamespace, pattern: str) -> None:
    lm = tiny.model(architecture)
    assert len(tracked_layers(lm.model, pattern)) == 2 * (4 + 2) + 2 * (8 + 2)
    assert lm.decoder_start == tiny.start


@pytest.mark.parametrize("architecture", ["marian", "t5"])
def test_lora_lowers_the_loss(architecture: str, tiny: SimpleNamespace) -> None:
    plain = tiny.model(architecture)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = LanguageModel(model=add_lora(plain.model, ModelConfig(lora_rank=4)), tokenizer=plain.tokenizer)
    assert lm.decoder_start == tiny.start
    examples = tiny.examples(6, start=tiny.start)
    curve = finetune(lm, examples, [], FinetuneConfig(learning_rate=3e-2, batch_size=6), RuntimeConfig(accelerator="cpu"),
                     n_steps=20, name="finetune", seed=0, dtype="float32", advance=lambda n: None).curve
    assert curve[-1].train_loss < 0.95 * curve[0].train_loss


def test_a_saved_model_loads_as_what_it_is(tmp_path: Path, tiny: SimpleNamespace, relative: Any) -> None:
    tokenizer = tiny.tokenizer(TEXTS)
    model = tiny.model("marian", vocab_size=len(tokenizer)).model
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm = load_model(str(tmp_path))
    assert type(lm.model) is type(model)
    assert decoder_start(str(tmp_path)) == lm.decoder_start == tiny.start
    batch = collate([0], [Example([5, 6, 2], [7, 2], tiny.start)], 0)
    with torch.no_grad():
        assert relative(target_logits(lm.model.eval(), batch), target_logits(model, batch)) < ROUNDING
    assert encode_prompts(["ja"], lm.tokenizer, DataConfig(), ModelConfig(), 0) == [tokenizer("ja")["input_ids"]]
