"""Which languages a source is in."""

from __future__ import annotations

import pytest

from mtselect.data.languages import guessed_language, language_name, language_tag, named_languages


@pytest.mark.parametrize(("source", "languages"), [
    ("crawl.de-en", ("German", "English")), ("data/x.deu_Latn-zho_Hans", ("German", "Chinese")), ("a.{pt,en}.gz", ("Portuguese",
     "English")), ("m.tmx:en-cs", ("English", "Czech")), ("de-en.txt.zip", ("German", "English")),
    ("crawl.de-en.tsv.gz", ("German", "English")), ("data/all-new", None), ("crawl.x-y.jsonl", None), ("crawl.rc-qq", None),
    ("quickstart:pool", None), ("crawl.jsonl", None)])
def test_a_name_may_say_its_languages(source: str, languages: tuple[str, str] | None) -> None:
    assert named_languages(source) == languages


def test_sentences_tell_their_language() -> None:
    german = ["Das ist ein kleines Haus am Rand der Stadt.", "Wir gehen heute nicht nach Hause.", "12 34"]
    assert guessed_language(german) == "German"
    assert guessed_language(["今天天气很好，我们去公园。"] * 3) == "Chinese"
    assert guessed_language([]) is None
    assert language_name("el") == "Greek" and language_name("nonsense") is None


@pytest.mark.parametrize(("name", "tag"), [
    ("German", "de"), ("de", "de"), ("deu_Latn", "de"), ("Brazilian Portuguese", "pt-BR"), ("zho_Hans", "zh-Hans"),
    ("Mon", "mnw"), ("gibberish", None), ("", None), ("xx_XX", None)])
def test_a_language_has_a_tag(name: str, tag: str | None) -> None:
    assert language_tag(name) == tag
