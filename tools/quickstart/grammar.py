"""German morphology and word order with the matching English, for the quickstart corpus.

Words are parsed from `lexicon`. A `Phrase` is a noun phrase or pronoun in all cases with its
English; a `Clause` is one verb with its arguments, and renders in every order that German knows:

    verb second   Gestern hat der Koch den Topf nicht gekauft.   Yesterday the cook did not buy the pot.
    verb first    Hat der Koch den Topf gekauft?                 Did the cook buy the pot?
    verb final    ..., weil der Koch den Topf gekauft hat.       ... because the cook bought the pot.

Tenses map one to one: preterite and perfect to the simple past, the present with a future time to `will`,
with a present time to the progressive (stative verbs: simple present), perfect with schon/noch nicht to
the present perfect. Persons are 0 ich, 1 du, 2 er/sie/es, 3 wir, 4 ihr, 5 sie/Sie.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

# --- words ---------------------------------------------------------------------------------------


class Noun(NamedTuple):
    """A noun; `plural` is "-" for mass nouns, `places` the German and English preposition of a place."""

    de: str
    plural: str
    gender: str
    en: str
    weak: bool
    tags: tuple[str, ...]
    places: tuple[str, str]


class Adjective(NamedTuple):
    """An adjective: predicative form, stem of the inflected forms, English, tags of its nouns."""

    de: str
    stem: str
    en: str
    tags: tuple[str, ...]


class Verb(NamedTuple):
    """A verb: German principal parts without the separable prefix (participle with it), and English parts."""

    infinitive: str
    prefix: str
    present: str
    preterite: str
    participle: str
    sein: bool
    en: str
    en_past: str
    en_participle: str
    objects: frozenset[str]
    extras: tuple[str, ...]

    @property
    def stative(self) -> bool:
        """No progressive in English."""
        return "stative" in self.extras

    @property
    def willed(self) -> bool:
        """Goes with modals and requests; nobody wants to lose something."""
        return "unwilled" not in self.extras

    @property
    def takes_place(self) -> bool:
        """Goes with a place ("in der Küche")."""
        return "place" in self.extras

    def takes(self, noun: Noun) -> bool:
        """Whether the noun makes a sensible object."""
        return not self.objects.isdisjoint(noun.tags)

    @property
    def instruments(self) -> tuple[str, ...]:
        """German nouns that may follow "mit"."""
        return tuple(name for e in self.extras if e.startswith("mit:") for name in e[4:].split(","))


_ARTICLES = {"der": "m", "die": "f", "das": "n"}
_INSEPARABLE = ("be", "ver", "er", "ent", "über", "unter")


def parse_noun(row: str) -> Noun:
    """Parse a row of the noun table."""
    name, plural, english, tags = row.split("|")
    article, word = name.split(" ", 1)
    words = tags.split(" ")
    place = next((tuple(w.split("/")) for w in words if "/" in w), ("", ""))
    return Noun(word.rstrip("*"), plural, _ARTICLES[article], english, word.endswith("*"),
                tuple(w for w in words if "/" not in w), (place[0], place[1]))


def parse_adjective(row: str) -> Adjective:
    """Parse a row of the adjective table."""
    german, english, tags = row.split("|")
    form, _, stem = german.partition("/")
    return Adjective(form, stem or form.removesuffix("e"), english, tuple(tags.split()))


def parse_verb(row: str) -> Verb:
    """Parse a row of a verb table; a regular verb's missing forms are built."""
    german, english, objects, *extras = row.split("|")
    infinitive, *forms = german.split(",")
    prefix, _, bare = infinitive.rpartition(".")
    present, preterite, participle = forms or _regular_forms(prefix, bare)
    en, *en_forms = (w.replace("_", " ") for w in english.split())
    past, en_participle = en_forms or [english_past(en)] * 2
    return Verb(bare, prefix, present, preterite, participle.removeprefix("sein."), participle.startswith("sein."),
                en, past, en_participle, frozenset(objects.split()), tuple(" ".join(extras).split()))


def _stem(infinitive: str) -> str:
    return infinitive[:-1] if infinitive.endswith(("eln", "ern")) else infinitive[:-2]


def _needs_e(stem: str) -> bool:
    return stem.endswith(("d", "t", "ffn", "chn", "ckn"))


def _regular_forms(prefix: str, infinitive: str) -> list[str]:
    stem = _stem(infinitive)
    ending = "et" if _needs_e(stem) else "t"
    bare = infinitive.endswith("ieren") or stem.startswith(_INSEPARABLE)
    return [stem + ending, stem + ending + "e", prefix + ("" if bare else "ge") + stem + ending]


# --- German verbs --------------------------------------------------------------------------------

_IRREGULAR = {
    ("sein", "present"): ("bin", "bist", "ist", "sind", "seid", "sind"),
    ("sein", "preterite"): ("war", "warst", "war", "waren", "wart", "waren"),
    ("haben", "present"): ("habe", "hast", "hat", "haben", "habt", "haben"),
    ("haben", "preterite"): ("hatte", "hattest", "hatte", "hatten", "hattet", "hatten"),
    ("wissen", "present"): ("weiß", "weißt", "weiß", "wissen", "wisst", "wissen"),
}

MODALS = {
    "must": ("muss", "musst", "muss", "müssen", "müsst", "müssen"),
    "had to": ("musste", "musstest", "musste", "mussten", "musstet", "mussten"),
    "can": ("kann", "kannst", "kann", "können", "könnt", "können"),
    "want": ("will", "willst", "will", "wollen", "wollt", "wollen"),
    "wanted": ("wollte", "wolltest", "wollte", "wollten", "wolltet", "wollten"),
    "should": ("soll", "sollst", "soll", "sollen", "sollt", "sollen"),
    "may": ("darf", "darfst", "darf", "dürfen", "dürft", "dürfen"),
    "would like": ("möchte", "möchtest", "möchte", "möchten", "möchtet", "möchten"),
}


def conjugate_present(verb: Verb, person: int) -> str:
    """Present tense without the separable prefix."""
    if (verb.infinitive, "present") in _IRREGULAR:
        return _IRREGULAR[verb.infinitive, "present"][person]
    stem = _stem(verb.infinitive)
    if person == 0:
        return stem[:-2] + "le" if verb.infinitive.endswith("eln") else stem + "e"
    if person == 1:
        return _second_person(verb.present, stem)
    if person == 4:
        return stem + ("et" if _needs_e(stem) else "t")
    return verb.present if person == 2 else verb.infinitive


def _second_person(third: str, stem: str) -> str:
    if stem.endswith("t") and not third.endswith("et"):  # er brät, du brätst
        return third + "st"
    return third if third[:-1].endswith(("s", "ß", "z", "x")) else third[:-1] + "st"


def conjugate_preterite(verb: Verb, person: int) -> str:
    """Preterite without the separable prefix; persons 1 and 4, which nobody says, are left to the perfect."""
    if (verb.infinitive, "preterite") in _IRREGULAR:
        return _IRREGULAR[verb.infinitive, "preterite"][person]
    assert person in (0, 2, 3, 5), person
    plural = verb.preterite + ("n" if verb.preterite.endswith("e") else "en")
    return verb.preterite if person in (0, 2) else plural


def german_verb(verb: Verb, tense: str, person: int) -> tuple[str, str, str]:
    """Finite form, separable prefix that stands apart from it, and infinite rest at the clause's end."""
    if tense in MODALS:
        return MODALS[tense][person], "", verb.prefix + verb.infinitive
    if tense in ("perfect", "already"):
        return _IRREGULAR["sein" if verb.sein else "haben", "present"][person], "", verb.participle
    if tense == "preterite":
        return conjugate_preterite(verb, person), verb.prefix, ""
    return conjugate_present(verb, person), verb.prefix, ""


def zu_infinitive(verb: Verb) -> str:
    """`zu kaufen`, `abzuholen`."""
    return f"{verb.prefix}zu{verb.infinitive}" if verb.prefix else f"zu {verb.infinitive}"


# --- English verbs -------------------------------------------------------------------------------

_VOWELS = "aeiou"
_DOUBLED = ("plan", "cancel", "cut", "put", "get", "run", "forget")
_BE = {"present": ("am", "are", "is", "are", "are", "are"), "past": ("was", "were", "was", "were", "were", "were")}


def _on_head(phrase: str, inflect: Iterable[tuple[str, str]]) -> str:
    head, space, rest = phrase.partition(" ")
    for ending, replacement in inflect:
        if head.endswith(ending):
            return head.removesuffix(ending) + replacement + space + rest
    raise AssertionError(phrase)


def english_past(phrase: str) -> str:
    """Regular past of a verb, also of `switch on`."""
    head = phrase.split(" ")[0]
    if head in _DOUBLED:
        return phrase.replace(head, head + head[-1] + "ed", 1)
    if head.endswith("y") and head[-2] not in _VOWELS:
        return _on_head(phrase, [("y", "ied")])
    return _on_head(phrase, [("e", "ed"), ("", "ed")])


def english_third(phrase: str) -> str:
    """Third person singular, present."""
    head = phrase.split(" ")[0]
    if head == "have":
        return _on_head(phrase, [("have", "has")])
    if head.endswith("y") and head[-2] not in _VOWELS:
        return _on_head(phrase, [("y", "ies")])
    return _on_head(phrase, [(e, e + "es") for e in ("s", "sh", "ch", "x", "go", "do")] + [("", "s")])


def english_ing(phrase: str) -> str:
    """Present participle."""
    head = phrase.split(" ")[0]
    if head in _DOUBLED:
        return phrase.replace(head, head + head[-1] + "ing", 1)
    return _on_head(phrase, [("ee", "eeing"), ("e", "ing"), ("", "ing")])


def english_verb(verb: Verb, tense: str, person: int, support: bool) -> tuple[str, str]:
    """Auxiliary ("" where none) and the rest of the verb; `support` asks for do-support."""
    past = tense in ("preterite", "perfect", "had to", "wanted")
    if verb.en == "be" and tense not in MODALS and tense not in ("future", "already"):
        return _BE["past" if past else "present"][person], ""
    if tense in ("can", "should", "may", "future", "would like"):
        aux = {"future": "will", "would like": "would"}.get(tense, tense)
        return aux, f"like to {verb.en}" if tense == "would like" else verb.en
    if tense == "already":
        return "has" if person == 2 else "have", verb.en_participle
    if tense == "now" and not verb.stative:
        return _BE["present"][person], english_ing(verb.en)
    return _lexical(_lexical_parts(verb, tense), person, past, support)


def _lexical_parts(verb: Verb, tense: str) -> tuple[str, str]:
    if tense in ("must", "had to"):
        return f"have to {verb.en}", f"had to {verb.en}"
    if tense in ("want", "wanted"):
        return f"want to {verb.en}", f"wanted to {verb.en}"
    return verb.en, verb.en_past


def _lexical(parts: tuple[str, str], person: int, past: bool, support: bool) -> tuple[str, str]:
    if support:
        return "did" if past else "does" if person == 2 else "do", parts[0]
    if past:
        return "", parts[1]
    return "", english_third(parts[0]) if person == 2 else parts[0]


# --- noun phrases --------------------------------------------------------------------------------

_DER = {"m": ("er", "en", "em"), "f": ("e", "e", "er"), "n": ("es", "es", "em"), "p": ("e", "e", "en")}
_EIN = {"m": ("", "en", "em"), "f": ("e", "e", "er"), "n": ("", "", "em"), "p": ("e", "e", "en")}
_DEFINITE = {"m": ("der", "den", "dem"), "f": ("die", "die", "der"), "n": ("das", "das", "dem"),
             "p": ("die", "die", "den")}
_WEAK = {"m": ("e", "en", "en"), "f": ("e", "e", "en"), "n": ("e", "e", "en"), "p": ("en", "en", "en")}
_MIXED = {"m": ("er", "en", "en"), "f": ("e", "e", "en"), "n": ("es", "es", "en"), "p": ("en", "en", "en")}
_STRONG = {"m": ("er", "en", "em"), "f": ("e", "e", "er"), "n": ("es", "es", "em"), "p": ("e", "e", "en")}


class Determiner(NamedTuple):
    """German stem, English singular and plural, and the declension: der, ein or bare."""

    de: str
    en: str
    en_plural: str
    kind: str


THE = Determiner("", "the", "the", "definite")
A = Determiner("ein", "a", "", "ein")
NO = Determiner("kein", "no", "no", "ein")
NOT_ANY = Determiner("kein", "a", "any", "ein")
THIS = Determiner("dies", "this", "these", "der")
WHICH = Determiner("welch", "which", "which", "der")
EVERY = Determiner("jed", "every", "every", "der")
BARE = Determiner("", "", "", "bare")
POSSESSIVES = (("mein", "my"), ("dein", "your"), ("sein", "his"), ("ihr", "her"), ("unser", "our"),
               ("euer", "your"), ("ihr", "their"), ("Ihr", "your"), ("sein", "its"))


def possessive(owner: int) -> Determiner:
    """The possessive of entry `owner` of POSSESSIVES."""
    german, english = POSSESSIVES[owner]
    return Determiner(german, english, english, "ein")


def counted(german: str, english: str) -> Determiner:
    """A number of two or more."""
    return Determiner(german, english, english, "number")


class Phrase(NamedTuple):
    """A noun phrase in three cases with its English; `pair` is its (adjective, noun), if any."""

    nom: str
    acc: str
    dat: str
    en: str
    en_object: str
    person: int
    again: tuple[str, str]  # the pronoun that refers back to it, German and English
    owner: int  # its possessive: index into POSSESSIVES
    pair: tuple[tuple[str, str], ...] = ()


PRONOUNS = (
    Phrase("ich", "mich", "mir", "I", "me", 0, ("ich", "I"), 0),
    Phrase("du", "dich", "dir", "you", "you", 1, ("du", "you"), 1),
    Phrase("er", "ihn", "ihm", "he", "him", 2, ("er", "he"), 2),
    Phrase("sie", "sie", "ihr", "she", "her", 2, ("sie", "she"), 3),
    Phrase("wir", "uns", "uns", "we", "us", 3, ("wir", "we"), 4),
    Phrase("ihr", "euch", "euch", "you", "you", 4, ("ihr", "you"), 5),
    Phrase("sie", "sie", "ihnen", "they", "them", 5, ("sie", "they"), 6),
)
FORMAL = Phrase("Sie", "Sie", "Ihnen", "you", "you", 5, ("Sie", "you"), 7)


def determiner_form(determiner: Determiner, gender: str, case: int) -> str:
    """The determiner of a gender ("m", "f", "n", or "p": plural) in a case (0 nom, 1 acc, 2 dat)."""
    if determiner.kind == "definite":
        return _DEFINITE[gender][case]
    if determiner.kind in ("bare", "number"):
        return determiner.de
    ending = (_DER if determiner.kind == "der" else _EIN)[gender][case]
    stem = "eur" if determiner.de == "euer" and ending else determiner.de
    return stem + ending


def adjective_form(adjective: Adjective, determiner: Determiner, gender: str, case: int) -> str:
    """The adjective with its weak, mixed or strong ending."""
    table = {"definite": _WEAK, "der": _WEAK, "ein": _MIXED}.get(determiner.kind, _STRONG)
    return adjective.stem + table[gender][case]


def noun_form(noun: Noun, plural: bool, case: int) -> str:
    """The noun in a number and case."""
    if plural:
        return noun.plural + ("n" if case == 2 and not noun.plural.endswith(("n", "s")) else "")
    if noun.weak and case:
        return noun.de + ("n" if noun.de.endswith("e") else "en")
    return noun.de


def noun_phrase(noun: Noun, determiner: Determiner, adjective: Adjective | None = None,
                plural: bool = False) -> Phrase:
    """Inflect a noun phrase in all cases."""
    gender = "p" if plural else noun.gender

    def form(case: int) -> str:
        words = [determiner_form(determiner, gender, case)]
        if adjective:
            words.append(adjective_form(adjective, determiner, gender, case))
        return join(*words, noun_form(noun, plural, case))

    english = english_noun_phrase(noun, determiner, adjective, plural)
    again = ("sie", "they") if plural else _pronoun(noun)
    owner = 6 if plural else {"m": 2, "f": 3, "n": 8}[noun.gender]
    pair = ((adjective.de, noun.de),) if adjective else ()
    return Phrase(form(0), form(1), form(2), english, english, 5 if plural else 2, again, owner, pair)


def _pronoun(noun: Noun) -> tuple[str, str]:
    german = {"m": "er", "f": "sie", "n": "es"}[noun.gender]
    english = {"m": "he", "f": "she", "n": "it"}[noun.gender]
    return german, english if "person" in noun.tags else "it"


_PLURALS = {"knife": "knives", "shelf": "shelves", "potato": "potatoes", "tomato": "tomatoes", "tooth": "teeth",
            "child": "children", "fish": "fish", "X-ray": "X-rays"}


def english_plural(noun: str) -> str:
    """Plural of a noun, of the last word where there are several."""
    start, space, last = noun.rpartition(" ")
    if last in _PLURALS:
        return start + space + _PLURALS[last]
    if last.endswith("y") and last[-2] not in _VOWELS:
        return noun[:-1] + "ies"
    return noun + ("es" if last.endswith(("s", "x", "ch", "sh")) else "s")


def english_noun_phrase(noun: Noun, determiner: Determiner, adjective: Adjective | None, plural: bool) -> str:
    """The English noun phrase, with a or an by sound."""
    mass = noun.plural == "-"
    word = english_plural(noun.en) if plural else noun.en
    article = determiner.en_plural if plural else determiner.en
    if mass and article == "a":
        article = determiner.en_plural
    rest = join(adjective.en if adjective else "", word)
    if article == "a" and sounds_vocalic(rest):
        article = "an"
    return join(article, rest)


def sounds_vocalic(text: str) -> bool:
    """Whether `an` stands before the text."""
    return text.startswith("X-ray") or (text[0].lower() in _VOWELS and not text.startswith("use"))


def join(*words: str) -> str:
    """Join the words that are not empty."""
    return " ".join(w for w in words if w)


def both(first: Phrase, second: Phrase) -> Phrase:
    """`A und B`."""
    return Phrase(f"{first.nom} und {second.nom}", f"{first.acc} und {second.acc}", f"{first.dat} und {second.dat}",
                  f"{first.en} and {second.en}", f"{first.en_object} and {second.en_object}", 5, ("sie", "they"), 6,
                  first.pair + second.pair)


_CONTRACTIONS = (("in dem ", "im "), ("in das ", "ins "), ("an dem ", "am "), ("an das ", "ans "),
                 ("zu dem ", "zum "), ("zu der ", "zur "), ("von dem ", "vom "))


def prepositional(preposition: str, case: str, phrase: Phrase) -> str:
    """German preposition with the phrase in its case, contracted (`im`, `zur`)."""
    text = f"{preposition} {phrase.dat if case == 'dat' else phrase.acc}"
    for long, short in _CONTRACTIONS:
        if text.startswith(long):
            return short + text.removeprefix(long)
    return text


# --- clauses -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One verb with its arguments.

    Args:
        subject: its person decides the verb's form.
        verb: the verb.
        tense: see `german_verb` and `english_verb`.
        early: German between subject and `nicht` (pronouns, times, objects).
        late: German after `nicht` (places, directions, predicatives).
        en_object: English after the verb.
        en_end: English at the end (places, then times).
        en_mid: English adverb before the main verb (`often`, `already`).
        front: what stands before the verb instead of the subject, German and English.
        nicht: German negation word, "" for none or where kein or nie negates.
        negated: whether English says `not`.
    """

    subject: Phrase
    verb: Verb
    tense: str
    early: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    en_object: str = ""
    en_end: str = ""
    en_mid: str = ""
    front: tuple[str, str] = ("", "")
    nicht: str = ""
    negated: bool = False

    def _parts(self) -> tuple[str, str, str]:
        return german_verb(self.verb, self.tense, self.subject.person)

    def _field(self) -> str:
        return join(*self.early, self.nicht, *self.late)

    def german_main(self) -> str:
        """Verb second."""
        finite, prefix, rest = self._parts()
        if self.front[0]:
            return join(self.front[0], finite, self.subject.nom, self._field(), prefix + rest)
        return join(self.subject.nom, finite, self._field(), prefix + rest)

    def german_question(self, opening: str = "") -> str:
        """Verb first, or after a question word."""
        finite, prefix, rest = self._parts()
        return join(opening, finite, self.subject.nom, self._field(), prefix + rest)

    def german_final(self, opening: str) -> str:
        """Verb final, after a conjunction."""
        finite, prefix, rest = self._parts()
        return join(opening, self.subject.nom, self._field(), rest, prefix + finite)

    def german_infinitive(self) -> str:
        """With zu and without subject."""
        return join(self._field(), zu_infinitive(self.verb))

    def _english(self, inverted: bool, opening: str) -> str:
        auxiliary, rest = english_verb(self.verb, self.tense, self.subject.person, inverted or self.negated)
        negation = "not" if self.negated else ""
        head = (auxiliary, self.subject.en, negation) if inverted else (self.subject.en, auxiliary, negation)
        text = join(opening, *head, self.en_mid, rest, self.en_object, self.en_end)
        return text.replace("can not ", "cannot ")

    def english_main(self) -> str:
        """Statement, with the fronted adverbial."""
        return self._english(False, self.front[1])

    def english_question(self, opening: str = "") -> str:
        """Question with inversion or do-support."""
        return self._english(True, opening)

    def english_infinitive(self) -> str:
        """With to and without subject."""
        return join("to", self.verb.en, self.en_object, self.en_end)
