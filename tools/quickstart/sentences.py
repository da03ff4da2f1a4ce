"""Sentence patterns of the quickstart corpus: each function draws one German sentence and its English.

A `Scene` holds the words of one domain and the generator that draws; patterns know which word fits which
(verb and object, noun and adjective) by the tags of `lexicon`. Every pattern reports its
combinations, (verb, noun) and (adjective, noun), so that the corpus can keep some for dev and test.
Only `Random.random` is called: its stream is the same in every Python version.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from tools.quickstart import lexicon
from tools.quickstart.grammar import (
    BARE,
    EVERY,
    FORMAL,
    MODALS,
    NO,
    NOT_ANY,
    PRONOUNS,
    THE,
    THIS,
    WHICH,
    A,
    Adjective,
    Clause,
    Noun,
    Phrase,
    Verb,
    both,
    counted,
    join,
    noun_phrase,
    parse_adjective,
    parse_noun,
    parse_verb,
    possessive,
    prepositional,
)

T = TypeVar("T")


class Sentence(NamedTuple):
    """A pair with its pattern and the (word, noun) combinations in it."""

    src: str
    tgt: str
    domain: str
    pattern: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of one domain, parsed, with what goes with what."""

    domain: str
    nouns: tuple[Noun, ...]
    persons: tuple[Noun, ...]
    rooms: tuple[Noun, ...]
    spots: tuple[Noun, ...]
    adjectives: dict[str, tuple[Adjective, ...]]  # German noun -> adjectives
    actions: tuple[Verb, ...]
    giving: tuple[Verb, ...]
    dative: tuple[Verb, ...]
    prepositional: tuple[tuple[str, str, Verb], ...]
    motion: tuple[Verb, ...]
    putting: tuple[Verb, ...]
    staying: tuple[Verb, ...]
    timetable: tuple[Verb, ...]


def _tagged(row: str) -> Noun:
    noun = parse_noun(row)
    groups = (("goods", lexicon.GOODS), ("durable", lexicon.DURABLE), ("small", lexicon.SMALL))
    return noun._replace(tags=noun.tags + tuple(name for name, tags in groups if set(tags) & set(noun.tags)))


def _verbs(rows: Sequence[str], nouns: Sequence[Noun]) -> tuple[Verb, ...]:
    """The verbs that find an object in this domain, or need none."""
    verbs = [parse_verb(row) for row in rows]
    return tuple(v for v in verbs if not v.objects or any(map(v.takes, nouns)))


def _prepositional_verb(row: str) -> tuple[str, str, Verb]:
    head, verb = row.split("|", 1)
    preposition, case = head.split(" ")
    return preposition, case, parse_verb(verb)


def parse_words(domain: str) -> Words:
    """Parse the tables of one domain, with the shared words."""
    nouns = tuple(_tagged(row) for row in lexicon.NOUNS[domain])
    adjectives = [parse_adjective(row) for row in (*lexicon.ADJECTIVES[domain], *lexicon.SHARED_ADJECTIVES)]
    return Words(
        domain=domain, nouns=nouns, persons=_with_tag(nouns, "person"), rooms=_with_tag(nouns, "room"),
        spots=_with_tag(nouns, "spot"),
        adjectives={n.de: tuple(a for a in adjectives if set(a.tags) & set(n.tags)) for n in nouns},
        # a domain's own verbs count twice against the shared ones
        actions=_verbs((*lexicon.VERBS[domain] * 2, *lexicon.SHARED_VERBS), nouns),
        giving=_verbs(lexicon.GIVING_VERBS, nouns), dative=_verbs(lexicon.DATIVE_VERBS, nouns),
        prepositional=tuple(_prepositional_verb(row) for row in lexicon.PREPOSITION_VERBS),
        motion=_verbs(lexicon.MOTION_VERBS, nouns), putting=_verbs(lexicon.PUTTING_VERBS, nouns),
        staying=_verbs(lexicon.STAYING_VERBS, nouns), timetable=_verbs(lexicon.TIMETABLE_VERBS, nouns),
    )


def _with_tag(nouns: Sequence[Noun], tag: str) -> tuple[Noun, ...]:
    return tuple(n for n in nouns if tag in n.tags)


# --- drawing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """The words of one domain and the generator that draws from them."""

    words: Words
    rng: random.Random

    def pick(self, items: Sequence[T]) -> T:
        """One item, uniformly."""
        return items[int(self.rng.random() * len(items))]

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.rng.random() < share

    def number(self, largest: int = 40) -> tuple[str, str]:
        """A number of two or more, as a word (up to twelve) or in digits."""
        if self.chance(0.6):
            index = int(self.rng.random() * len(lexicon.GERMAN_NUMBERS))
            return lexicon.GERMAN_NUMBERS[index], lexicon.ENGLISH_NUMBERS[index]
        digits = str(2 + int(self.rng.random() * (largest - 1)))
        return digits, digits

    def time(self, times: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """A time adverbial, German and English."""
        german, english = self.pick(times)
        number = self.number(12) if "{}" in german else ("", "")
        return german.format(number[0]), english.format(number[1])

    def fitting(self, verb: Verb) -> Noun:
        """An object that makes sense with the verb."""
        return self.pick([n for n in self.words.nouns if verb.takes(n)])


def draw_adjective(scene: Scene, noun: Noun, share: float) -> Adjective | None:
    """An adjective that fits the noun, with this probability."""
    fitting = scene.words.adjectives[noun.de]
    return scene.pick(fitting) if fitting and scene.chance(share) else None


def person_phrase(scene: Scene) -> Phrase:
    """A person as a noun phrase."""
    healthy = [n for n in scene.words.persons if "ill" not in n.tags]  # who examines more often than is examined
    noun = scene.pick(healthy if scene.chance(0.5) else scene.words.persons)
    plural = scene.chance(0.25)
    owner = possessive(scene.pick((0, 4, 2, 3))) if "own" in noun.tags else THE
    determiner = scene.pick((THE, THE, THE, THIS, owner, EVERY if scene.chance(0.3) and not plural else THE))
    return noun_phrase(noun, determiner, draw_adjective(scene, noun, 0.15), plural)


def name_phrase(scene: Scene) -> Phrase:
    """A person by name."""
    return _named(scene.pick(lexicon.NAMES))


def draw_subject(scene: Scene, tense: str = "") -> Phrase:
    """Who acts. The preterite goes with ich, er, wir, sie only."""
    draw = scene.rng.random()
    if draw < 0.42:
        return PRONOUNS[scene.pick((0, 2, 3, 4, 6) if tense == "preterite" else (0, 0, 1, 2, 3, 4, 4, 5, 6))]
    if draw < 0.55:
        return name_phrase(scene)
    if draw < 0.6:
        return both(*_two_names(scene))
    return person_phrase(scene)


def _two_names(scene: Scene) -> tuple[Phrase, Phrase]:
    first = int(scene.rng.random() * len(lexicon.NAMES))
    second = (first + 1 + int(scene.rng.random() * (len(lexicon.NAMES) - 1))) % len(lexicon.NAMES)
    return _named(lexicon.NAMES[first]), _named(lexicon.NAMES[second])


def _named(name: tuple[str, int]) -> Phrase:
    german, _, english = name[0].partition("|")
    nominative, _, oblique = german.partition("/")
    oblique, english = oblique or nominative, english or nominative
    pronoun = PRONOUNS[3 if name[1] else 2]
    return Phrase(nominative, oblique, oblique, english, english, 2, pronoun.again, pronoun.owner)


def object_phrase(scene: Scene, noun: Noun, owner: int, definite: bool = False) -> Phrase:
    """A noun phrase for a thing; possessives belong to the subject (`owner`)."""
    plural = noun.plural != "-" and scene.chance(0.3)
    adjective = draw_adjective(scene, noun, 0.3)
    own = possessive(owner) if _ownable(noun) else THE
    if definite:
        return noun_phrase(noun, scene.pick((THE, THE, THE, THIS, own)), adjective, plural)
    if not plural:
        indefinite = BARE if noun.plural == "-" else A
        return noun_phrase(noun, scene.pick((THE, THE, THE, indefinite, indefinite, THIS, own)), adjective)
    number = THE if {"body", "sore"} & set(noun.tags) else counted(*scene.number())
    return noun_phrase(noun, scene.pick((THE, THE, number, number, BARE, THIS, own)), adjective, True)


def _ownable(noun: Noun) -> bool:
    """Whether a possessive may stand before it."""
    return "own" in noun.tags or not {"room", "sight", "vehicle", "person"} & set(noun.tags)


def without(scene: Scene, noun: Noun) -> Phrase:
    """`keinen Topf`: the object of a negated verb."""
    plural = noun.plural != "-" and scene.chance(0.3)
    return noun_phrase(noun, NOT_ANY, draw_adjective(scene, noun, 0.2), plural)


def room_phrase(scene: Scene) -> tuple[str, str]:
    """`in der Küche`, `in the kitchen`."""
    room = scene.pick(scene.words.rooms)
    phrase = noun_phrase(room, THE)
    return prepositional(room.places[0], "dat", phrase), f"{room.places[1]} {phrase.en}"


def instrument_phrase(scene: Scene, verb: Verb) -> tuple[tuple[str, str], tuple[tuple[str, str], ...]]:
    """`mit dem Messer`, `with the knife`, and its combination."""
    name = scene.pick(verb.instruments)
    noun = next(n for n in scene.words.nouns if n.de == name)
    indefinite = BARE if noun.plural == "-" else A
    phrase = noun_phrase(noun, scene.pick((THE, indefinite)), draw_adjective(scene, noun, 0.4))
    return (prepositional("mit", "dat", phrase), f"with {phrase.en}"), phrase.pair


# --- actions -------------------------------------------------------------------------------------


class Action(NamedTuple):
    """A clause with the combinations in it and its object."""

    clause: Clause
    pairs: tuple[tuple[str, str], ...]
    target: Phrase


def timed(scene: Scene, clause: Clause, time: tuple[str, str], front: float = 0.5) -> Clause:
    """Put the time before the verb, with this probability, or after the subject."""
    if scene.chance(front) and time[0] != "gerade":
        return replace(clause, front=time)
    return replace(clause, early=(time[0], *clause.early), en_end=join(clause.en_end, time[1]))


def draw_verb(scene: Scene, tense: str) -> Verb:
    """A verb with an accusative object; nobody wants to need something."""
    willing = tense in MODALS or tense == "infinitive"
    return scene.pick([v for v in scene.words.actions if v.willed or not willing])


def draw_action(scene: Scene, subject: Phrase, tense: str, negated: bool = False, definite: bool = False) -> Action:
    """A verb with an accusative object, without adverbials of time."""
    verb = draw_verb(scene, tense)
    noun = scene.fitting(verb)
    pairs = (*subject.pair, (verb.prefix + verb.infinitive, noun.de))
    negated = negated and not subject.en.startswith("every")  # "every cook did not" has two meanings
    indefinite = negated and not definite and scene.chance(0.5)
    target = without(scene, noun) if indefinite else object_phrase(scene, noun, subject.owner, definite or negated)
    clause = Clause(subject=subject, verb=verb, tense=tense, early=(target.acc,), en_object=target.en_object,
                    nicht="nicht" if negated and not indefinite else "", negated=negated)
    return Action(clause, pairs + target.pair, target)


def with_adjunct(scene: Scene, action: Action) -> Action:
    """Sometimes add a place or an instrument; `nicht` would then negate that alone."""
    verb = action.clause.verb
    if action.clause.negated:
        return action
    if verb.instruments and scene.chance(0.35):
        (german, english), pair = instrument_phrase(scene, verb)
        clause = replace(action.clause, late=(german,), en_end=english)
        return action._replace(clause=clause, pairs=action.pairs + pair)
    if verb.takes_place and scene.chance(0.25):
        german, english = room_phrase(scene)
        return action._replace(clause=replace(action.clause, late=(german,), en_end=english))
    return action


_TIMES = {"preterite": lexicon.PAST_TIMES, "perfect": lexicon.PAST_TIMES, "future": lexicon.FUTURE_TIMES,
          "present": lexicon.HABIT_TIMES, "now": lexicon.NOW_TIMES}


def statement(scene: Scene) -> Sentence:
    """`Gestern hat der Koch den Topf gespült.`"""
    tense = scene.pick(("preterite", "preterite", "perfect", "perfect", "perfect", "future", "future", "present", "now"))
    action = draw_action(scene, draw_subject(scene, tense), tense, scene.chance(0.12))
    timeless = tense in ("preterite", "perfect", "present") and scene.chance(0.4)
    action = with_adjunct(scene, action) if timeless or scene.chance(0.3) else action
    clause = action.clause if timeless else timed(scene, action.clause, scene.time(_TIMES[tense]))
    return finish(scene, clause, action.pairs)


def finish(scene: Scene, clause: Clause, pairs: tuple[tuple[str, str], ...]) -> Sentence:
    """A main clause as a sentence."""
    return sentence(scene, clause.german_main(), clause.english_main(), pairs)


def sentence(scene: Scene, german: str, english: str, pairs: tuple[tuple[str, str], ...], mark: str = ".") -> Sentence:
    """Capitals and the final mark."""
    return Sentence(german[0].upper() + german[1:] + mark, english[0].upper() + english[1:] + mark,
                    scene.words.domain, "", pairs)


def already(scene: Scene) -> Sentence:
    """`Wir haben den Brief schon geschrieben.`, `... noch nicht ...`"""
    action = draw_action(scene, draw_subject(scene), "already", definite=True)
    negated = scene.chance(0.5) and not action.clause.subject.en.startswith("every")
    clause = replace(action.clause, late=("noch nicht" if negated else "schon",), negated=negated,
                     en_mid="" if negated else "already", en_end="yet" if negated else "")
    if not negated and scene.chance(0.4):
        return sentence(scene, clause.german_question(), clause.english_question(), action.pairs, "?")
    return finish(scene, clause, action.pairs)


def frequency(scene: Scene) -> Sentence:
    """`Der Koch schneidet oft die Zwiebeln.`"""
    tense = scene.pick(("present", "present", "preterite"))
    action = draw_action(scene, draw_subject(scene, tense), tense)
    german, english = scene.pick(lexicon.FREQUENCIES)
    clause = replace(action.clause, early=(german, *action.clause.early), en_mid=english)
    return finish(scene, clause, action.pairs)


_MODAL_TENSES = ("must", "must", "can", "can", "want", "want", "should", "should", "may", "would like", "had to",
                 "wanted")


def modal(scene: Scene) -> Sentence:
    """`Morgen muss ich den Brief schreiben.`"""
    tense = scene.pick(_MODAL_TENSES)
    negated = tense != "would like" and scene.chance(0.2)
    action = draw_action(scene, draw_subject(scene), tense, negated)
    action = with_adjunct(scene, action) if scene.chance(0.5) else action
    times = lexicon.PAST_TIMES if tense in ("had to", "wanted") else (*lexicon.FUTURE_TIMES, *lexicon.NOW_TIMES[:2])
    clause = timed(scene, action.clause, scene.time(times)) if scene.chance(0.5) else action.clause
    return finish(scene, clause, action.pairs)


def pronoun_object(scene: Scene) -> Sentence:
    """`Peter ruft uns morgen an.`: a pronoun stands before the time."""
    verbs = [v for v in scene.words.actions if not v.objects.isdisjoint(("person", "ill")) and not v.stative]
    tense = scene.pick(("perfect", "future", "must", "can", "want"))
    subject = scene.pick((name_phrase(scene), person_phrase(scene)))
    target = scene.pick(PRONOUNS[:6])  # the accusative of sie would be her and them
    clause = Clause(subject=subject, verb=scene.pick(verbs), tense=tense, early=(target.acc,),
                    en_object=target.en_object, nicht="", negated=False)
    german, english = scene.time(lexicon.PAST_TIMES if tense == "perfect" else lexicon.FUTURE_TIMES)
    return finish(scene, replace(clause, early=(target.acc, german), en_end=english), subject.pair)


def giving(scene: Scene) -> Sentence:
    """`Die Kellnerin hat dem Gast einen Teller gebracht.`"""
    tense = scene.pick(("preterite", "perfect", "perfect", "future", "should", "must", "can"))
    verb, subject = scene.pick(scene.words.giving), draw_subject(scene, tense)
    noun = scene.fitting(verb)
    receiver = _receiver(scene, subject)
    target = object_phrase(scene, noun, subject.owner)
    clause = Clause(subject=subject, verb=verb, tense=tense, early=(receiver.dat, target.acc),
                    en_object=f"{receiver.en_object} {target.en_object}")
    if tense == "future" or scene.chance(0.3):
        times = _TIMES.get(tense, lexicon.FUTURE_TIMES)
        clause = timed(scene, clause, scene.time(times), 1.0)
    return finish(scene, clause, (*subject.pair, *receiver.pair, *target.pair, (verb.infinitive, noun.de)))


def _receiver(scene: Scene, subject: Phrase) -> Phrase:
    """Somebody who is not the subject."""
    if scene.chance(0.4):
        return scene.pick([p for p in PRONOUNS if p.person != subject.person and p.en != subject.en])
    receiver = person_phrase(scene) if scene.chance(0.7) else name_phrase(scene)
    return receiver if receiver.en not in subject.en else PRONOUNS[6]


def governed(scene: Scene) -> Sentence:
    """Verbs with a dative object, or with a preposition: `Ich warte auf den Bus.`"""
    tense = scene.pick(("preterite", "perfect", "future", "now", "must", "want"))
    subject = draw_subject(scene, tense)
    negated = scene.chance(0.15) and not subject.en.startswith("every")
    clause = Clause(subject=subject, verb=scene.pick(scene.words.dative), tense=tense,
                    nicht="nicht" if negated else "", negated=negated)
    if scene.chance(0.4):
        target = _receiver(scene, subject)
        clause, pairs = replace(clause, early=(target.dat,)), target.pair
    else:
        preposition, case, verb = scene.pick(scene.words.prepositional)
        noun = scene.fitting(verb)
        target = object_phrase(scene, noun, subject.owner, definite=True)
        clause = replace(clause, verb=verb, late=(prepositional(preposition, case, target),))
        pairs = (*target.pair, (verb.infinitive, noun.de))
    clause = replace(clause, en_object=target.en_object)
    times = _TIMES.get(tense, lexicon.FUTURE_TIMES)
    clause = timed(scene, clause, scene.time(times), 1.0) if tense in ("future", "now") or scene.chance(0.4) else clause
    return finish(scene, clause, subject.pair + pairs)


# --- states and places ---------------------------------------------------------------------------

_SEIN = parse_verb("sein,ist,war,sein.gewesen|be was been||")
_HABEN = parse_verb("haben,hat,hatte,gehabt|have had had||stative")
_KOSTEN = parse_verb("kosten|cost cost cost||stative")
_GEHOEREN = parse_verb("gehören|belong_to||stative")
_DEGREES = (("", ""), ("", ""), ("sehr", "very"), ("zu", "too"))


def draw_degree(scene: Scene, adjective: Adjective) -> tuple[str, str]:
    """Nothing, `sehr` or `zu`."""
    return _DEGREES[0] if adjective.de in lexicon.ABSOLUTE else scene.pick(_DEGREES)


def _described(scene: Scene) -> Noun:
    return scene.pick([n for n in scene.words.nouns if scene.words.adjectives[n.de]])


def description(scene: Scene) -> Sentence:
    """`Die neuen Messer sind sehr scharf.`"""
    noun = _described(scene)
    subject = _thing_subject(scene, noun, 0.0)
    adjective = scene.pick(scene.words.adjectives[noun.de])
    degree = draw_degree(scene, adjective)
    negated = not degree[0] and scene.chance(0.3)
    clause = Clause(subject=subject, verb=_SEIN, tense=scene.pick(("present", "present", "preterite")),
                    late=(join(degree[0], adjective.de),), en_object=join(degree[1], adjective.en),
                    nicht="nicht" if negated else "", negated=negated)
    return finish(scene, clause, (*subject.pair, (adjective.de, noun.de)))


def _thing_subject(scene: Scene, noun: Noun, adjectives: float = 0.15) -> Phrase:
    plural = noun.plural != "-" and scene.chance(0.3)
    own = possessive(scene.pick((0, 1, 2, 3, 4, 5))) if _ownable(noun) else THE
    return noun_phrase(noun, scene.pick((THE, THE, THIS, own)), draw_adjective(scene, noun, adjectives), plural)


def comparison(scene: Scene) -> Sentence:
    """`Mein Koffer ist schwerer als deine Tasche.`"""
    german, comparative, english = scene.pick(lexicon.COMPARATIVES)
    nouns = [n for n in scene.words.nouns if any(a.de == german for a in scene.words.adjectives[n.de])]
    if not nouns:
        return description(scene)
    noun = scene.pick(nouns)
    alike = [n for n in nouns if n != noun and n.tags[0] == noun.tags[0]]
    if not alike:
        return description(scene)
    subject, than = _thing_subject(scene, noun, 0.0), _thing_subject(scene, scene.pick(alike), 0.0)
    clause = Clause(subject=subject, verb=_SEIN, tense="present", late=(f"{comparative} als {than.nom}",),
                    en_object=f"{english} than {than.en}")
    return finish(scene, clause, (*subject.pair, *than.pair, (german, noun.de)))


def location(scene: Scene) -> Sentence:
    """`Der Topf ist nicht im Kühlschrank.`, or what there is in a place."""
    noun, (german, english) = scene.pick(_with_tag(scene.words.nouns, "small")), _spot(scene, "dat")
    if scene.chance(0.5):
        subject = _thing_subject(scene, noun)
        negated = scene.chance(0.25)
        clause = Clause(subject=subject, verb=_SEIN, tense=scene.pick(("present", "preterite")), late=(german,),
                        en_object=english, nicht="nicht" if negated else "", negated=negated)
        return finish(scene, clause, subject.pair)
    return existence(scene, noun, german, english)


def existence(scene: Scene, noun: Noun, german: str, english: str) -> Sentence:
    """`Auf dem Tisch gibt es keine Löffel.`"""
    plural = noun.plural != "-" and scene.chance(0.65)
    options = (NO, counted(*scene.number()), counted(*scene.number())) if plural else (NO, BARE if noun.plural == "-" else A)
    phrase = noun_phrase(noun, scene.pick(options), draw_adjective(scene, noun, 0.25), plural)
    past = scene.chance(0.3)
    finite = "gab" if past else "gibt"
    copula = ("were" if plural else "was") if past else ("are" if plural else "is")
    order = f"{german} {finite} es {phrase.acc}" if scene.chance(0.5) else f"es {finite} {phrase.acc} {german}"
    return sentence(scene, order, f"there {copula} {phrase.en} {english}", phrase.pair)


def _spot(scene: Scene, case: str) -> tuple[str, str]:
    spot = scene.pick(scene.words.spots)
    phrase = noun_phrase(spot, scene.pick((THE, THE, THE, THIS)))
    return prepositional(spot.places[0], case, phrase), f"{spot.places[1]} {phrase.en}"


def putting(scene: Scene) -> Sentence:
    """`Ich lege das Messer in die Schublade.`: a direction takes the accusative."""
    tense = scene.pick(("preterite", "perfect", "perfect", "future", "must", "should"))
    verb, subject = scene.pick(scene.words.putting), draw_subject(scene, tense)
    noun, (german, english) = scene.fitting(verb), _spot(scene, "acc")
    target = object_phrase(scene, noun, subject.owner)
    clause = Clause(subject=subject, verb=verb, tense=tense, early=(target.acc,), late=(german,),
                    en_object=target.en_object, en_end=english)
    clause = timed(scene, clause, scene.time(lexicon.FUTURE_TIMES)) if tense == "future" else clause
    return finish(scene, clause, (*subject.pair, *target.pair, (verb.infinitive, noun.de)))


def motion(scene: Scene) -> Sentence:
    """`Wir sind gestern zum Bahnhof gefahren.`"""
    tense = scene.pick(("preterite", "perfect", "perfect", "future", "must", "want"))
    subject = draw_subject(scene, tense)
    german, english = _direction(scene)
    clause = Clause(subject=subject, verb=scene.pick(scene.words.motion), tense=tense, late=(german,), en_end=english)
    if tense == "future" or scene.chance(0.5):
        past = tense in ("preterite", "perfect")
        clause = timed(scene, clause, scene.time(lexicon.PAST_TIMES if past else lexicon.FUTURE_TIMES))
    return finish(scene, clause, subject.pair)


def _direction(scene: Scene) -> tuple[str, str]:
    room = scene.pick(scene.words.rooms)
    phrase = noun_phrase(room, THE)
    if room.places[0] == "in":
        return prepositional("in", "acc", phrase), f"to {phrase.en}"
    return prepositional("auf", "acc", phrase) if room.places[0] == "auf" else prepositional("zu", "dat", phrase), \
        f"to {phrase.en}"


def staying(scene: Scene) -> Sentence:
    """`Die Ärztin arbeitet jeden Tag im Krankenhaus.`"""
    tense = scene.pick(("preterite", "perfect", "future", "present", "now", "must", "want"))
    subject = draw_subject(scene, tense)
    german, english = room_phrase(scene)
    clause = Clause(subject=subject, verb=scene.pick(scene.words.staying), tense=tense, late=(german,), en_end=english)
    clause = timed(scene, clause, scene.time(_TIMES[tense])) if tense in _TIMES else clause
    return finish(scene, clause, subject.pair)


def price(scene: Scene) -> Sentence:
    """`Der Koffer kostet 45 Euro.`"""
    noun = scene.pick(_with_tag(scene.words.nouns, "goods"))
    subject = _thing_subject(scene, noun)
    number = scene.number(90)
    if scene.chance(0.25):
        cents = scene.pick(("50", "20", "80", "95"))
        whole = 2 + int(scene.rng.random() * 18)
        number = f"{whole},{cents}", f"{whole}.{cents}"
    clause = Clause(subject=subject, verb=_KOSTEN, tense=scene.pick(("present", "present", "preterite")),
                    early=(f"{number[0]} Euro",), en_object=f"{number[1]} euros")
    return finish(scene, clause, (*subject.pair, ("kosten", noun.de)))


def belonging(scene: Scene) -> Sentence:
    """`Die Tasche gehört meinem Kollegen.`"""
    noun = scene.pick(_with_tag(scene.words.nouns, "goods"))
    subject, owner = _thing_subject(scene, noun), scene.pick((person_phrase(scene), name_phrase(scene), scene.pick(PRONOUNS)))
    negated = scene.chance(0.25)
    clause = Clause(subject=subject, verb=_GEHOEREN, tense=scene.pick(("present", "present", "preterite")),
                    early=(owner.dat,), en_object=owner.en_object, nicht="nicht" if negated else "", negated=negated)
    return finish(scene, clause, (*subject.pair, *owner.pair, ("gehören", noun.de)))


def having(scene: Scene) -> Sentence:
    """`Wir haben keinen neuen Drucker.`"""
    tense = scene.pick(("present", "present", "preterite"))
    noun = scene.pick(_with_tag(scene.words.nouns, "goods"))
    subject = draw_subject(scene, tense)
    negated = scene.chance(0.45) and not subject.en.startswith("every")
    target = without(scene, noun) if negated else object_phrase(scene, noun, subject.owner)
    if not negated and target.en.startswith(("the ", "my ", "your ", "his ", "her ", "our ", "their ")):
        target = noun_phrase(noun, BARE if noun.plural == "-" else A, draw_adjective(scene, noun, 0.6))
    clause = Clause(subject=subject, verb=_HABEN, tense=tense, early=(target.acc,), en_object=target.en_object,
                    negated=negated)
    return finish(scene, clause, (*subject.pair, *target.pair, ("haben", noun.de)))


def timetable(scene: Scene) -> Sentence:
    """`Der Zug ist um acht Uhr abgefahren.`"""
    tense = scene.pick(("preterite", "perfect", "perfect", "future", "must"))
    verb = scene.pick(scene.words.timetable)
    noun = scene.fitting(verb)
    plural = scene.chance(0.25)
    subject = noun_phrase(noun, scene.pick((THE, THE, THIS)), draw_adjective(scene, noun, 0.3), plural)
    past = tense in ("preterite", "perfect")
    clause = Clause(subject=subject, verb=verb, tense=tense)
    clause = timed(scene, clause, scene.time(lexicon.PAST_TIMES if past else lexicon.FUTURE_TIMES))
    return finish(scene, clause, (*subject.pair, (verb.prefix + verb.infinitive, noun.de)))


# --- questions and requests ----------------------------------------------------------------------


def question(scene: Scene) -> Sentence:
    """`Hast du den Brief geschrieben?`"""
    tense = scene.pick(("perfect", "perfect", "can", "must", "want", "may", "should", "would like"))
    subject = FORMAL if scene.chance(0.25) else draw_subject(scene, tense)
    tense = _asked_tense(subject, tense)
    action = with_adjunct(scene, draw_action(scene, subject, tense))
    clause = action.clause
    if tense == "perfect" and scene.chance(0.5):
        clause = timed(scene, clause, scene.time(lexicon.PAST_TIMES), 0.0)
    return sentence(scene, clause.german_question(), clause.english_question(), action.pairs, "?")


def _asked_tense(subject: Phrase, tense: str) -> str:
    """Nobody asks what he wants himself, and `may you` is a wish."""
    if subject.person in (0, 3) and tense in ("want", "would like"):
        return "must"
    return "can" if tense == "may" and subject.en == "you" else tense


def why_question(scene: Scene) -> Sentence:
    """`Warum hast du ...?`, `Wann ...?`, `Wo ...?`"""
    german, english = scene.pick((("warum", "why"), ("wann", "when"), ("wo", "where")))
    tense = scene.pick(("perfect", "perfect", "must", "can", "want"))
    subject = FORMAL if scene.chance(0.2) else draw_subject(scene, tense)
    tense = _asked_tense(subject, tense)
    action = draw_action(scene, subject, tense, negated=german == "warum" and scene.chance(0.3), definite=True)
    return sentence(scene, action.clause.german_question(german), action.clause.english_question(english),
                    action.pairs, "?")


def object_question(scene: Scene) -> Sentence:
    """`Welchen Koffer hast du gekauft?`, `Wie viele Koffer ...?`"""
    tense = scene.pick(("perfect", "must", "can", "want", "should"))
    verb = draw_verb(scene, tense)
    noun = scene.fitting(verb)
    subject = FORMAL if scene.chance(0.2) else draw_subject(scene, tense)
    tense = _asked_tense(subject, tense)
    many = noun.plural != "-" and scene.chance(0.5)
    if many:
        asked = noun_phrase(noun, counted("wie viele", "how many"), None, True)
    else:
        asked = noun_phrase(noun, WHICH, draw_adjective(scene, noun, 0.2), noun.plural != "-" and scene.chance(0.3))
    clause = Clause(subject=subject, verb=verb, tense=tense)
    return sentence(scene, clause.german_question(asked.acc), clause.english_question(asked.en),
                    (*subject.pair, *asked.pair, (verb.prefix + verb.infinitive, noun.de)), "?")


_WHO = Phrase("wer", "wen", "wem", "who", "whom", 2, ("er", "he"), 2)


def who_question(scene: Scene) -> Sentence:
    """`Wer hat den Koffer gepackt?`"""
    tense = scene.pick(("perfect", "perfect", "must", "can", "want"))
    action = with_adjunct(scene, draw_action(scene, _WHO, tense, definite=True))
    clause = replace(action.clause, subject=_WHO)
    return sentence(scene, clause.german_main(), clause.english_main(), action.pairs, "?")


def where_question(scene: Scene) -> Sentence:
    """`Wo sind meine Schlüssel?`, `Wie viel kostet der Koffer?`"""
    noun = scene.pick(_with_tag(scene.words.nouns, "goods"))
    subject = _thing_subject(scene, noun)
    cost = scene.chance(0.4)
    clause = Clause(subject=subject, verb=_KOSTEN if cost else _SEIN, tense=scene.pick(("present", "preterite")))
    german, english = ("wie viel", "how much") if cost else ("wo", "where")
    return sentence(scene, clause.german_question(german), clause.english_question(english), subject.pair, "?")


def request(scene: Scene) -> Sentence:
    """`Bitte schneiden Sie die Zwiebel.`"""
    verb = draw_verb(scene, "infinitive")
    noun = scene.fitting(verb)
    negated = scene.chance(0.25)
    target = object_phrase(scene, noun, FORMAL.owner, definite=negated)
    german = join("bitte", verb.infinitive, "Sie", target.acc, "nicht" if negated else "", verb.prefix)
    english = join("please", "do not" if negated else "", verb.en, target.en_object)
    return sentence(scene, german, english, (*target.pair, (verb.prefix + verb.infinitive, noun.de)))


# --- two clauses ---------------------------------------------------------------------------------

_THINKING = tuple(parse_verb(row) for row in (
    "wissen,weiß,wusste,gewusst|know knew known||", "glauben|think||", "sagen|say said said||", "hoffen|hope||"))
_STATES = (("müde", "tired"), ("beschäftigt", "busy"), ("krank", "sick"), ("neugierig", "curious"))
_POSSESSIONS = (("keine Zeit", "no time"), ("wenig Geld", "little money"), ("viel Arbeit", "a lot of work"))


def that_clause(scene: Scene) -> Sentence:
    """`Ich glaube, dass der Koch den Topf gekauft hat.`"""
    thinker = scene.pick((PRONOUNS[0], PRONOUNS[2], PRONOUNS[3], PRONOUNS[4], name_phrase(scene)))
    tense = scene.pick(("perfect", "perfect", "preterite", "can", "must", "want", "future"))
    subject = draw_subject(scene, tense)
    subject = PRONOUNS[4] if thinker.en in subject.en.split(" and ") else subject
    action = draw_action(scene, subject, tense, scene.chance(0.15))
    clause = action.clause
    if tense == "future" or (tense == "perfect" and scene.chance(0.3)):
        clause = timed(scene, clause, scene.time(_TIMES[tense]), 0.0)
    main = Clause(subject=thinker, verb=scene.pick(_THINKING), tense="present")
    return sentence(scene, f"{main.german_main()}, {clause.german_final('dass')}",
                    f"{main.english_main()} that {clause.english_main()}", action.pairs)


def because_clause(scene: Scene) -> Sentence:
    """`Wir verkaufen das Auto, weil es alt ist.`: the pronoun has the noun's gender."""
    tense = scene.pick(("perfect", "perfect", "must", "want", "future"))
    verb = draw_verb(scene, tense)
    noun = scene.fitting(verb)
    adjective = draw_adjective(scene, noun, 1.0)
    if adjective is None:
        return state_clause(scene)
    subject = draw_subject(scene, tense)
    target = noun_phrase(noun, scene.pick((THE, THE, THIS, possessive(subject.owner))), None,
                         noun.plural != "-" and scene.chance(0.3))
    main = Clause(subject=subject, verb=verb, tense=tense, early=(target.acc,), en_object=target.en_object)
    main = timed(scene, main, scene.time(lexicon.FUTURE_TIMES)) if tense == "future" else main
    it = target._replace(nom=target.again[0], en=target.again[1])
    degree = draw_degree(scene, adjective)
    because = Clause(subject=it, verb=_SEIN, tense="preterite" if tense == "perfect" else "present",
                     late=(join(degree[0], adjective.de),), en_object=join(degree[1], adjective.en))
    pairs = (*subject.pair, (verb.prefix + verb.infinitive, noun.de), (adjective.de, noun.de))
    return sentence(scene, f"{main.german_main()}, {because.german_final('weil')}",
                    f"{main.english_main()} because {because.english_main()}", pairs)


def _state(scene: Scene, subject: Phrase, tense: str) -> Clause:
    if scene.chance(0.5):
        german, english = scene.pick(_STATES)
        return Clause(subject=subject, verb=_SEIN, tense=tense, late=(german,), en_object=english)
    german, english = scene.pick(_POSSESSIONS)
    return Clause(subject=subject, verb=_HABEN, tense=tense, late=(german,), en_object=english)


def state_clause(scene: Scene) -> Sentence:
    """`Obwohl sie müde war, hat Anna den Brief geschrieben.`, and with weil."""
    tense = scene.pick(("perfect", "must", "want", "future"))
    negated = scene.chance(0.3)
    subject = draw_subject(scene, tense)
    action = draw_action(scene, subject, tense, negated)
    clause = timed(scene, action.clause, scene.time(lexicon.FUTURE_TIMES), 0.0) if tense == "future" else action.clause
    who = subject._replace(nom=subject.again[0], en=subject.again[1])
    state = _state(scene, who, "preterite" if tense == "perfect" else "present")
    german, english = scene.pick((("weil", "because"), ("obwohl", "although")))
    if scene.chance(0.5):
        return sentence(scene, f"{clause.german_main()}, {state.german_final(german)}",
                        f"{clause.english_main()} {english} {state.english_main()}", action.pairs)
    clause = replace(clause, front=(state.german_final(german) + ",", f"{english} {state.english_main()},"))
    return finish(scene, clause, action.pairs)


def if_clause(scene: Scene) -> Sentence:
    """`Wenn du Zeit hast, können wir die Stadt besuchen.`"""
    tense = scene.pick(("can", "must", "should", "may", "future"))
    action = draw_action(scene, draw_subject(scene), tense, scene.chance(0.15))
    other = scene.pick((PRONOUNS[1], PRONOUNS[2], PRONOUNS[4], PRONOUNS[5], name_phrase(scene)))
    condition = scene.pick((("Zeit", "time", _HABEN), ("genug Geld", "enough money", _HABEN), ("müde", "tired", _SEIN),
                            ("fertig", "ready", _SEIN), ("hier", "here", _SEIN)))
    state = Clause(subject=other, verb=condition[2], tense="present", late=(condition[0],), en_object=condition[1])
    front = (state.german_final("wenn") + ",", f"if {state.english_main()},")
    return finish(scene, replace(action.clause, front=front), action.pairs)


_TRYING = ("versuchen|try||", "planen|plan||", "vergessen,vergisst,vergaß,vergessen|forget forgot forgotten||")
_ASSESSMENTS = (("wichtig", "important"), ("leicht", "easy"), ("schwierig", "difficult"), ("möglich", "possible"))


def infinitive(scene: Scene) -> Sentence:
    """`Es ist wichtig, die Wunde zu reinigen.`, `Er hat versucht, den Zug zu erreichen.`"""
    subject = draw_subject(scene)
    trying = Clause(subject=subject, verb=parse_verb(scene.pick(_TRYING)), tense="perfect")
    german, english = scene.pick(_ASSESSMENTS)
    main = trying.german_main(), trying.english_main()
    if scene.chance(0.5):
        subject, main = PRONOUNS[0], (f"es ist {german}", f"it is {english}")
    action = draw_action(scene, subject, "infinitive", definite=True)
    return sentence(scene, f"{main[0]}, {action.clause.german_infinitive()}",
                    f"{main[1]} {action.clause.english_infinitive()}", action.pairs)


def purpose(scene: Scene) -> Sentence:
    """`Wir gehen in die Küche, um die Suppe zu kochen.`"""
    subject = draw_subject(scene)
    german, english = _direction(scene)
    main = Clause(subject=subject, verb=scene.pick(scene.words.motion), tense="perfect", late=(german,), en_end=english)
    action = draw_action(scene, subject, "infinitive", definite=True)
    return sentence(scene, f"{main.german_main()}, um {action.clause.german_infinitive()}",
                    f"{main.english_main()} {action.clause.english_infinitive()}", action.pairs)


def contrast(scene: Scene) -> Sentence:
    """`Der Teller ist sauber, aber die Tasse ist schmutzig.`"""
    noun = _described(scene)
    alike = [n for n in scene.words.nouns if n != noun and n.tags[0] == noun.tags[0] and scene.words.adjectives[n.de]]
    if not alike:
        return description(scene)
    other = scene.pick(alike)
    first = scene.pick(scene.words.adjectives[noun.de])
    unlike = [a for a in scene.words.adjectives[other.de] if a != first]
    halves = [_quality(scene, noun, first), _quality(scene, other, scene.pick(unlike or [first]))]
    german, english = scene.pick(((", aber", ", but"), (" und", " and")))
    return sentence(scene, f"{halves[0][0].german_main()}{german} {halves[1][0].german_main()}",
                    f"{halves[0][0].english_main()}{english} {halves[1][0].english_main()}",
                    halves[0][1] + halves[1][1])


def _quality(scene: Scene, noun: Noun, adjective: Adjective) -> tuple[Clause, tuple[tuple[str, str], ...]]:
    subject = noun_phrase(noun, scene.pick((THE, THE, THIS)), None, noun.plural != "-" and scene.chance(0.3))
    clause = Clause(subject=subject, verb=_SEIN, tense="present", late=(adjective.de,), en_object=adjective.en)
    return clause, ((adjective.de, noun.de),)


PATTERNS: tuple[tuple[Callable[[Scene], Sentence], int], ...] = (
    (statement, 26), (already, 4), (frequency, 4), (modal, 10), (pronoun_object, 3), (giving, 5), (governed, 6),
    (description, 6), (comparison, 2), (location, 5), (putting, 3), (motion, 3), (staying, 3), (price, 5),
    (belonging, 2), (having, 4), (timetable, 2), (question, 5), (why_question, 3), (object_question, 3),
    (who_question, 2), (where_question, 2), (request, 4), (that_clause, 7), (because_clause, 6), (state_clause, 6),
    (if_clause, 5), (infinitive, 4), (purpose, 3), (contrast, 2),
)


def order_sentence(scene: Scene) -> Callable[[int], Sentence]:
    """A template with one open noun phrase: `Morgen bestellen wir ___.`; its argument is the largest number."""
    verb = parse_verb(scene.pick(lexicon.SHARED_VERBS[:3]))
    start = Clause(subject=PRONOUNS[4], verb=verb, tense="future", front=scene.time(lexicon.FUTURE_TIMES))

    def fill(largest: int) -> Sentence:
        noun = scene.fitting(verb)
        adjective, plural = draw_adjective(scene, noun, 0.7), noun.plural != "-" and scene.chance(0.7)
        number = counted(*scene.number(largest))
        options = (number, number, number, THE, THIS) if plural else (THE, THIS, BARE if noun.plural == "-" else A)
        target = noun_phrase(noun, scene.pick(options), adjective, plural)
        clause = replace(start, early=(target.acc,), en_object=target.en_object)
        return finish(scene, clause, (*target.pair, (verb.infinitive, noun.de)))._replace(pattern="order")

    return fill


def draw_sentence(words: Words, rng: random.Random) -> Sentence:
    """One sentence of a random pattern."""
    scene = Scene(words, rng)
    draw = rng.random() * sum(weight for _, weight in PATTERNS)
    for pattern, weight in PATTERNS:
        draw -= weight
        if draw < 0:
            return pattern(scene)._replace(pattern=pattern.__name__)
    raise AssertionError(draw)

