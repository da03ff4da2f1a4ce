"""The quickstart corpus: German and English forms, truth of the noise labels, disjoint splits, same bytes."""

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mtselect.errors import ConfigError, DataError
from tools.quickstart import grammar, lexicon
from tools.quickstart.corpus import (
    NOISES,
    QuickstartCorpus,
    _change_number,
    generate,
    is_reserved,
    noise_counts,
)
from tools.quickstart.sentences import PATTERNS, Scene, Sentence, draw_sentence, parse_words

SPLITS = ("pool", "seeds", "dev", "test")
SMALL = {"pool_rows": 400, "seed_rows": 20, "dev_rows": 30, "test_rows": 40}
ALL_VERBS = (*sum(lexicon.VERBS.values(), ()), *lexicon.SHARED_VERBS, *lexicon.GIVING_VERBS, *lexicon.DATIVE_VERBS,
             *lexicon.MOTION_VERBS, *lexicon.PUTTING_VERBS, *lexicon.STAYING_VERBS, *lexicon.TIMETABLE_VERBS)


@pytest.fixture(scope="module")
def recorded() -> tuple[QuickstartCorpus, dict[str, str]]:
    """The default corpus, and the right target of every sentence drawn for it."""
    found: dict[str, str] = {}

    def remembering(*args: object) -> Sentence:
        made = draw_sentence(*args)  # type: ignore[arg-type]
        found[made.src] = made.tgt
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.quickstart.corpus.draw_sentence", remembering)
        return generate(), found


@pytest.fixture(scope="module")
def corpus(recorded: tuple[QuickstartCorpus, dict[str, str]]) -> QuickstartCorpus:
    return recorded[0]


@pytest.fixture(scope="module")
def truth(recorded: tuple[QuickstartCorpus, dict[str, str]]) -> dict[str, str]:
    return recorded[1]


def rows_of(corpus: QuickstartCorpus, noise: str) -> list[dict[str, str]]:
    return [row for row in corpus.pool if row["noise"] == noise]


def fingerprint(corpus: QuickstartCorpus) -> str:
    rows = [getattr(corpus, split) for split in SPLITS]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


# --- forms ---------------------------------------------------------------------------------------


def noun(german: str) -> grammar.Noun:
    rows = [grammar.parse_noun(row) for table in lexicon.NOUNS.values() for row in table]
    return next(n for n in rows if n.de == german)


def verb(infinitive: str) -> grammar.Verb:
    return next(v for v in map(grammar.parse_verb, ALL_VERBS) if v.prefix + v.infinitive == infinitive)


NEW = grammar.parse_adjective("neu|new|")
EXPENSIVE = grammar.parse_adjective("teuer/teur|expensive|")


@pytest.mark.parametrize(("german", "determiner", "adjective", "plural", "forms", "english"), [
    ("Topf", grammar.THE, NEW, False, ("der neue Topf", "den neuen Topf", "dem neuen Topf"), "the new pot"),
    ("Pfanne", grammar.THE, NEW, False, ("die neue Pfanne", "die neue Pfanne", "der neuen Pfanne"), "the new pan"),
    ("Messer", grammar.THE, NEW, False, ("das neue Messer", "das neue Messer", "dem neuen Messer"), "the new knife"),
    ("Topf", grammar.THE, NEW, True, ("die neuen Töpfe", "die neuen Töpfe", "den neuen Töpfen"), "the new pots"),
    ("Topf", grammar.A, NEW, False, ("ein neuer Topf", "einen neuen Topf", "einem neuen Topf"), "a new pot"),
    ("Pfanne", grammar.A, NEW, False, ("eine neue Pfanne", "eine neue Pfanne", "einer neuen Pfanne"), "a new pan"),
    ("Messer", grammar.A, EXPENSIVE, False,
     ("ein teures Messer", "ein teures Messer", "einem teuren Messer"), "an expensive knife"),
    ("Messer", grammar.NOT_ANY, NEW, True,
     ("keine neuen Messer", "keine neuen Messer", "keinen neuen Messern"), "any new knives"),
    ("Käse", grammar.BARE, EXPENSIVE, False,
     ("teurer Käse", "teuren Käse", "teurem Käse"), "expensive cheese"),
    ("Milch", grammar.BARE, EXPENSIVE, False, ("teure Milch", "teure Milch", "teurer Milch"), "expensive milk"),
    ("Mehl", grammar.NOT_ANY, None, False, ("kein Mehl", "kein Mehl", "keinem Mehl"), "any flour"),
    ("Apfel", grammar.counted("drei", "three"), NEW, True,
     ("drei neue Äpfel", "drei neue Äpfel", "drei neuen Äpfeln"), "three new apples"),
    ("Kollege", grammar.THE, None, False, ("der Kollege", "den Kollegen", "dem Kollegen"), "the colleague"),
    ("Patient", grammar.possessive(4), None, False,
     ("unser Patient", "unseren Patienten", "unserem Patienten"), "our patient"),
    ("Tasche", grammar.possessive(5), None, False, ("eure Tasche", "eure Tasche", "eurer Tasche"), "your bag"),
    ("Koffer", grammar.possessive(5), NEW, False,
     ("euer neuer Koffer", "euren neuen Koffer", "eurem neuen Koffer"), "your new suitcase"),
    ("Kind", grammar.THIS, None, True, ("diese Kinder", "diese Kinder", "diesen Kindern"), "these children"),
    ("E-Mail", grammar.THE, None, True, ("die E-Mails", "die E-Mails", "den E-Mails"), "the emails"),
    ("Röntgenbild", grammar.A, None, False,
     ("ein Röntgenbild", "ein Röntgenbild", "einem Röntgenbild"), "an X-ray"),
])
def test_noun_phrases_are_inflected(german: str, determiner: grammar.Determiner, adjective: grammar.Adjective | None,
                                    plural: bool, forms: tuple[str, str, str], english: str) -> None:
    phrase = grammar.noun_phrase(noun(german), determiner, adjective, plural)
    assert (phrase.nom, phrase.acc, phrase.dat) == forms
    assert phrase.en == english


@pytest.mark.parametrize(("infinitive", "present", "preterite", "participle", "zu"), [
    ("schneiden", "schneide schneidest schneidet schneiden schneidet schneiden", "schnitten", "geschnitten",
     "zu schneiden"),
    ("braten", "brate brätst brät braten bratet braten", "brieten", "gebraten", "zu braten"),
    ("lesen", "lese liest liest lesen lest lesen", "lasen", "gelesen", "zu lesen"),
    ("wechseln", "wechsle wechselst wechselt wechseln wechselt wechseln", "wechselten", "gewechselt", "zu wechseln"),
    ("speichern", "speichere speicherst speichert speichern speichert speichern", "speicherten", "gespeichert",
     "zu speichern"),
    ("einladen", "lade lädst lädt laden ladet laden", "luden", "eingeladen", "einzuladen"),
    ("abtrocknen", "trockne trocknest trocknet trocknen trocknet trocknen", "trockneten", "abgetrocknet",
     "abzutrocknen"),
    ("reparieren", "repariere reparierst repariert reparieren repariert reparieren", "reparierten", "repariert",
     "zu reparieren"),
    ("besuchen", "besuche besuchst besucht besuchen besucht besuchen", "besuchten", "besucht", "zu besuchen"),
    ("übersetzen", "übersetze übersetzt übersetzt übersetzen übersetzt übersetzen", "übersetzten", "übersetzt",
     "zu übersetzen"),
    ("vorbereiten", "bereite bereitest bereitet bereiten bereitet bereiten", "bereiteten", "vorbereitet",
     "vorzubereiten"),
])
def test_german_verbs_are_conjugated(infinitive: str, present: str, preterite: str, participle: str, zu: str) -> None:
    word = verb(infinitive)
    assert " ".join(grammar.conjugate_present(word, person) for person in range(6)) == present
    assert grammar.conjugate_preterite(word, 5) == preterite
    assert word.participle == participle
    assert grammar.zu_infinitive(word) == zu


@pytest.mark.parametrize(("word", "third", "past", "ing"), [
    ("carry", "carries", "carried", "carrying"), ("cancel", "cancels", "cancelled", "cancelling"),
    ("switch on", "switches on", "switched on", "switching on"), ("plan", "plans", "planned", "planning"),
    ("bake", "bakes", "baked", "baking"), ("X-ray", "X-rays", "X-rayed", "X-raying"),
    ("care for", "cares for", "cared for", "caring for"), ("reach", "reaches", "reached", "reaching"),
])
def test_english_verbs_are_conjugated(word: str, third: str, past: str, ing: str) -> None:
    assert (grammar.english_third(word), grammar.english_past(word), grammar.english_ing(word)) == (third, past, ing)


@pytest.mark.parametrize(("preposition", "case", "german", "expected"), [
    ("in", "dat", "Keller", "im Keller"), ("in", "acc", "Büro", "ins Büro"), ("zu", "dat", "Bahnhof", "zum Bahnhof"),
    ("an", "dat", "Strand", "am Strand"), ("in", "acc", "Keller", "in den Keller"), ("auf", "acc", "Bett", "auf das Bett"),
    ("zu", "dat", "Apotheke", "zur Apotheke"),
])
def test_prepositions_govern_and_contract(preposition: str, case: str, german: str, expected: str) -> None:
    assert grammar.prepositional(preposition, case, grammar.noun_phrase(noun(german), grammar.THE)) == expected


def clause(tense: str, infinitive: str = "aufwärmen", **changes: object) -> grammar.Clause:
    fields: dict[str, object] = {
        "subject": grammar.noun_phrase(noun("Koch"), grammar.THE), "verb": verb(infinitive), "tense": tense,
        "early": ("die Suppe",), "en_object": "the soup"} | changes
    return grammar.Clause(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("tense", "main", "question", "final", "english", "asked"), [
    ("present", "der Koch wärmt die Suppe auf", "wärmt der Koch die Suppe auf", "weil der Koch die Suppe aufwärmt",
     "the cook warms up the soup", "does the cook warm up the soup"),
    ("preterite", "der Koch wärmte die Suppe auf", "wärmte der Koch die Suppe auf",
     "weil der Koch die Suppe aufwärmte", "the cook warmed up the soup", "did the cook warm up the soup"),
    ("perfect", "der Koch hat die Suppe aufgewärmt", "hat der Koch die Suppe aufgewärmt",
     "weil der Koch die Suppe aufgewärmt hat", "the cook warmed up the soup", "did the cook warm up the soup"),
    ("must", "der Koch muss die Suppe aufwärmen", "muss der Koch die Suppe aufwärmen",
     "weil der Koch die Suppe aufwärmen muss", "the cook has to warm up the soup",
     "does the cook have to warm up the soup"),
    ("future", "der Koch wärmt die Suppe auf", "wärmt der Koch die Suppe auf", "weil der Koch die Suppe aufwärmt",
     "the cook will warm up the soup", "will the cook warm up the soup"),
    ("now", "der Koch wärmt die Suppe auf", "wärmt der Koch die Suppe auf", "weil der Koch die Suppe aufwärmt",
     "the cook is warming up the soup", "is the cook warming up the soup"),
])
def test_clause_has_three_orders(tense: str, main: str, question: str, final: str, english: str, asked: str) -> None:
    made = clause(tense)
    assert (made.german_main(), made.german_question(), made.german_final("weil")) == (main, question, final)
    assert (made.english_main(), made.english_question()) == (english, asked)


def test_fronted_time_inverts_and_nicht_follows_the_object() -> None:
    made = clause("perfect", front=("gestern", "yesterday"), nicht="nicht", negated=True)
    assert made.german_main() == "gestern hat der Koch die Suppe nicht aufgewärmt"
    assert made.english_main() == "yesterday the cook did not warm up the soup"


def test_motion_takes_sein() -> None:
    made = clause("perfect", "gehen", early=(), en_object="", late=("in die Küche",), en_end="to the kitchen")
    assert made.german_main() == "der Koch ist in die Küche gegangen"
    assert made.english_main() == "the cook went to the kitchen"


def test_every_pattern_gives_whole_sentences() -> None:
    for domain in lexicon.DOMAINS:
        scene = Scene(parse_words(domain), random.Random(3))
        for pattern, _ in PATTERNS:
            for made in (pattern(scene) for _ in range(10)):
                assert not made.src[0].islower() and not made.tgt[0].islower(), made
                assert made.src[-1] in ".?" and made.src[-1] == made.tgt[-1], made
                assert "  " not in made.src + made.tgt and " ." not in made.src + made.tgt, made


def test_tags_and_instruments_name_words_that_exist() -> None:
    for domain, rows in lexicon.VERBS.items():
        nouns = [grammar.parse_noun(row) for row in lexicon.NOUNS[domain]]
        tags = {tag for n in nouns for tag in n.tags}
        for word in map(grammar.parse_verb, rows):
            assert set(word.objects) <= tags, word
            assert set(word.instruments) <= {n.de for n in nouns}, word


# --- splits --------------------------------------------------------------------------------------


def test_sizes_and_domains(corpus: QuickstartCorpus) -> None:
    assert [len(getattr(corpus, split)) for split in SPLITS] == [12000, 128, 200, 500]
    assert all(set(row) == {"src", "tgt", "domain", "noise"} for row in corpus.pool)
    counts = Counter(row["domain"] for row in corpus.seeds)
    assert set(counts) == set(lexicon.DOMAINS) and max(counts.values()) - min(counts.values()) <= 1


def test_sentences_are_short(corpus: QuickstartCorpus) -> None:
    clean = rows_of(corpus, "")
    mean = sum(len(row["src"].split()) for row in clean) / len(clean)
    assert 6 < mean < 9


@pytest.mark.parametrize("side", ["src", "tgt"])
def test_no_sentence_is_in_two_splits(corpus: QuickstartCorpus, side: str) -> None:
    seen: Counter[str] = Counter()
    for split in SPLITS:
        seen.update({row[side] for row in getattr(corpus, split)})
    assert max(seen.values()) == 1, seen.most_common(3)


def test_pool_pairs_are_distinct(corpus: QuickstartCorpus) -> None:
    assert len({(row["src"], row["tgt"]) for row in corpus.pool}) == len(corpus.pool)


def test_reserved_combinations_stay_out_of_pool_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Sentence] = {}

    def remembering(*args: object) -> Sentence:
        made = draw_sentence(*args)  # type: ignore[arg-type]
        known[made.src] = made
        return made

    monkeypatch.setattr("tools.quickstart.corpus.draw_sentence", remembering)
    small = generate(**SMALL)

    def reserved(row: dict[str, str]) -> bool:
        return any(is_reserved(*pair) for pair in known[row["src"]].pairs)

    assert not any(reserved(row) for row in small.pool if row["noise"] != "near_duplicate")
    assert not any(map(reserved, small.seeds))
    assert all(map(reserved, small.dev[1::2])) and all(map(reserved, small.test[1::2]))


def test_reserved_words_do_not_stand_together_in_the_pool(corpus: QuickstartCorpus) -> None:
    # read from the surface, whatever the patterns report: "einen neuen Topf" and its like
    for domain in lexicon.DOMAINS:
        words = parse_words(domain)
        pool = " ".join(row["src"] for row in corpus.pool if row["domain"] == domain and row["noise"] != "untranslated")
        for name, adjectives in words.adjectives.items():
            for adjective in adjectives:
                if is_reserved(adjective.de, name):
                    for ending in ("e", "en", "er", "es", "em"):
                        assert f" {adjective.stem}{ending} {name} " not in pool, (adjective, name)


def test_second_process_gives_the_same_bytes() -> None:
    root = Path(__file__).resolve().parents[2]
    code = f"""
import hashlib, json
from tools.quickstart.corpus import generate
c = generate(**{SMALL!r})
print(hashlib.sha256(json.dumps([c.pool, c.seeds, c.dev, c.test], ensure_ascii=False).encode()).hexdigest())
"""
    found = {subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
                            capture_output=True, text=True, check=True).stdout.strip() for hash_seed in ("1", "2")}
    assert found == {fingerprint(generate(**SMALL))}


def test_another_seed_gives_another_corpus() -> None:
    first, second = generate(**SMALL), generate(**SMALL, seed=1)
    assert fingerprint(first) != fingerprint(second)
    assert len({r["src"] for r in first.pool} & {r["src"] for r in second.pool}) < 20


# --- noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 1.0])
def test_noise_share_is_met(share: float) -> None:
    small = generate(**SMALL, noise_share=share)
    counts = Counter(row["noise"] for row in small.pool)
    assert sum(counts.values()) - counts[""] == round(400 * share)
    assert {kind: counts[kind] for kind in NOISES} == noise_counts(400, share)


def test_every_kind_occurs_and_near_duplicates_are_a_twelfth(corpus: QuickstartCorpus) -> None:
    counts = Counter(row["noise"] for row in corpus.pool)
    assert set(counts) == {"", *NOISES}
    assert 0.08 <= counts["near_duplicate"] / 12000 <= 0.10


def test_clean_rows_are_right(corpus: QuickstartCorpus, truth: dict[str, str]) -> None:
    assert all(truth[row["src"]] == row["tgt"] for row in rows_of(corpus, ""))


def test_misaligned_rows_have_another_pool_sentences_target(corpus: QuickstartCorpus, truth: dict[str, str]) -> None:
    rows = rows_of(corpus, "misaligned")
    others = {truth[row["src"]] for row in rows + rows_of(corpus, "")}
    assert all(row["tgt"] != truth[row["src"]] and row["tgt"] in others for row in rows)


def test_untranslated_rows_are_german(corpus: QuickstartCorpus, truth: dict[str, str]) -> None:
    rows = rows_of(corpus, "untranslated")
    assert all(row["tgt"] == row["src"] or row["tgt"] in truth for row in rows)
    assert 0.5 < sum(row["tgt"] == row["src"] for row in rows) / len(rows) < 0.9


def test_truncated_rows_are_a_prefix(corpus: QuickstartCorpus, truth: dict[str, str]) -> None:
    for row in rows_of(corpus, "truncated"):
        whole, cut = truth[row["src"]].split(" "), row["tgt"].split(" ")
        assert whole[: len(cut)] == cut
        assert 0.3 <= len(cut) / len(whole) <= 0.6, row


def test_wrong_numbers_differ_in_one_word(corpus: QuickstartCorpus, truth: dict[str, str]) -> None:
    for row in rows_of(corpus, "wrong_number"):
        right, wrong = truth[row["src"]].split(" "), row["tgt"].split(" ")
        changed = [(a, b) for a, b in zip(right, wrong, strict=True) if a != b]
        assert len(changed) == 1, row
        for word in changed[0]:
            bare = word.strip(".,?").lower()
            assert bare in lexicon.ENGLISH_NUMBERS or bare.replace(".", "").isdigit(), row


def test_wrong_number_needs_a_number() -> None:
    plain = Sentence("Ich warte.", "I am waiting.", "office", "", ())
    assert _change_number(random.Random(0), plain, ()) == ""


def test_shuffled_rows_are_a_permutation(corpus: QuickstartCorpus, truth: dict[str, str]) -> None:
    for row in rows_of(corpus, "shuffled"):
        assert row["tgt"] != truth[row["src"]]
        assert sorted(row["tgt"].split(" ")) == sorted(truth[row["src"]].split(" "))


def test_near_duplicates_share_a_frame(corpus: QuickstartCorpus) -> None:
    rows = rows_of(corpus, "near_duplicate")
    assert len({row["domain"] for row in rows}) == 1
    for side in ("src", "tgt"):
        sentences = [row[side].split(" ") for row in rows]
        fixed = next(i for i in range(20) if len({tuple(s[: i + 1]) for s in sentences}) > 1)
        assert fixed >= 3, sentences[:2]
        assert max(len(s) for s in sentences) - fixed <= 8


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "message"), [
    ({"pool_rows": 3}, "quickstart pool_rows must be at least 10, got 3"),
    ({"seed_rows": 0}, "quickstart seed_rows must be at least 1, got 0"),
    ({"dev_rows": -1}, "quickstart dev_rows must be at least 1, got -1"),
    ({"test_rows": 0}, "quickstart test_rows must be at least 1, got 0"),
    ({"noise_share": 1.5}, "quickstart noise_share must be between 0 and 1, got 1.5"),
])
def test_bad_arguments_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(**arguments)  # type: ignore[arg-type]


def test_exhausted_grammar_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Sentence("Ja.", "Yes.", "office", "", ())
    monkeypatch.setattr("tools.quickstart.corpus.draw_sentence", lambda *_: one)
    with pytest.raises(DataError, match="quickstart dev_rows asks for more sentences than the grammar has"):
        generate(**SMALL)
