"""Planted documents before and after their slots are filled.

A `Sketch` is a document before its slots are filled. Filled with hostility it is a toxic document,
filled with the harmless alternatives it is that document's twin, which differs in its slots alone.
"""

import random
import re
from dataclasses import dataclass

from ifguide.data import planted_language as language

KINDS = ("explicit", "implicit")
FILLER_SHARE = 0.35
PLACEHOLDER = re.compile(r"\{(\w+)\}|\[(\w+)\]")
FRAMES = {
    kind: tuple(frame for frame in language.FRAMES if language.takes(frame, kind)) for kind in KINDS
}


@dataclass(frozen=True)
class Slot:
    """A place in a sentence with a hostile filling and a harmless one."""

    toxic: str
    harmless: str


@dataclass(frozen=True)
class Sketch:
    """A document before its slots are filled: sentences of plain text and slots."""

    kind: str
    group: str
    sentences: tuple[tuple[str | Slot, ...], ...]

    def slots(self) -> list[Slot]:
        return [
            piece for sentence in self.sentences for piece in sentence if isinstance(piece, Slot)
        ]

    def sentences_of_slots(self) -> list[int]:
        """Return the index of the sentence that holds each slot."""
        return [
            index
            for index, sentence in enumerate(self.sentences)
            for piece in sentence
            if isinstance(piece, Slot)
        ]


@dataclass(frozen=True)
class Filled:
    """A filled sketch: its text, and of each slot the characters [start, end) and the side."""

    text: str
    slots: tuple[tuple[int, int], ...]
    hostile: tuple[bool, ...]

    @property
    def spans(self) -> list[list[int]]:
        """Characters [start, end) of the toxic words, ascending."""
        pairs = zip(self.slots, self.hostile, strict=True)
        return [list(slot) for slot, hostile in pairs if hostile]


def fill(sketch: Sketch, hostile: list[bool]) -> Filled:
    """Fill the slots of `sketch` in order; `hostile[i]` chooses the side of the i-th."""
    text, places, sides = "", [], iter(hostile)
    for sentence in sketch.sentences:
        text += " " if text else ""
        for piece in sentence:
            if isinstance(piece, Slot):
                chosen = piece.toxic if next(sides) else piece.harmless
                places.append((len(text), len(text) + len(chosen)))
                text += chosen
            else:
                text += piece
    return Filled(text, tuple(places), tuple(hostile))


def draw_slot(rng: random.Random, role: str, kind: str) -> Slot:
    """Draw a hostile filling of `role` and the harmless alternative that stands in its place."""
    if kind == "implicit":
        return Slot(*rng.choice(language.IMPLICIT[role]))
    insult, trade = rng.choice(list(language.INSULTS)), rng.choice(list(language.TRADES))
    if role == "group":
        insult, trade = language.INSULTS[insult], language.TRADES[trade]
    return Slot(
        f"{rng.choice(language.INSULTING)} {insult}", f"{rng.choice(language.PRAISING)} {trade}"
    )


@dataclass(frozen=True)
class Cast:
    """Who and what a document keeps speaking of: few names, each likely to come back."""

    topic: language.Topic
    people: str
    persons: tuple[str, ...]
    places: tuple[str, ...]
    items: tuple[str, ...]

    @classmethod
    def draw(cls, rng: random.Random, size: int | None = None) -> "Cast":
        """Draw a topic and `size` persons, places and things; without it, one or two of each."""
        topic = rng.choice(language.TOPICS)
        some = [size or rng.choice((1, 1, 1, 2)) for _ in range(3)]
        return cls(
            topic=topic,
            people=rng.choice(list(language.PEOPLES)),
            persons=tuple(rng.sample(language.PERSONS, some[0])),
            places=tuple(rng.sample(topic.places, some[1])),
            items=tuple(rng.sample(topic.items, some[2])),
        )

    def name(self, rng: random.Random, what: str) -> str:
        choices = {
            "people": (self.people,),
            "peoples": (language.PEOPLES[self.people],),
            "person": self.persons,
            "place": self.places,
            "item": self.items,
            "deed": self.topic.deeds,
            **language.NAMES,
        }
        return rng.choice(choices[what])


def realise(rng: random.Random, frame: str, cast: Cast, kind: str) -> tuple[str | Slot, ...]:
    """Draw the names and slots of `frame` and return the pieces of the sentence."""
    pieces: list[str | Slot] = [""]
    position = 0
    for match in PLACEHOLDER.finditer(frame):
        pieces[-1] += frame[position : match.start()]
        position = match.end()
        if match[2]:
            pieces += [draw_slot(rng, match[2], kind), ""]
        else:
            pieces[-1] += cast.name(rng, match[1])
    pieces[-1] += frame[position:]
    pieces[0] = pieces[0][:1].upper() + pieces[0][1:]
    return tuple(pieces)


def draw_sketch(rng: random.Random, kind: str, length: int | None = None) -> Sketch:
    """Draw a document of `kind`, with `length` sentences (3 to 12, mostly few, by default).

    Fillers come as often whatever the kind. At least one sentence has a slot.
    """
    cast = Cast.draw(rng)
    length = length or 3 + round(9 * rng.betavariate(1.1, 4.0))
    sentences = []
    fillers = cast.topic.fillers + language.FILLERS + language.CLOSINGS
    framed = rng.randrange(length)
    previous = None
    for index in range(length):
        pool = fillers if index != framed and rng.random() < FILLER_SHARE else FRAMES[kind]
        frame = rng.choice([other for other in pool if other != previous])
        sentences.append(realise(rng, frame, cast, kind))
        previous = frame
    return Sketch(kind, cast.people, tuple(sentences))


def draw_sides(rng: random.Random, count: int, consistency: float) -> list[bool]:
    """Draw the sides of a toxic document's `count` slots; at least one is hostile."""
    sides = [rng.random() < consistency for _ in range(count)]
    if not any(sides):
        sides[rng.randrange(count)] = True
    return sides


def fragment(rng: random.Random, filled: Filled) -> tuple[int, int]:
    """Draw the characters [start, end) of a piece of `filled`, as long as a continuation may be.

    It begins at a slot (as a continuation does), at a sentence, or at any word; one in ten ends
    within a word.
    """
    words = [match.span() for match in re.finditer(r"\S+", filled.text)]
    starts = [start for start, _ in words]
    sentence_starts = [0] + [m.end() for m in re.finditer(r"\. ", filled.text)]
    where = rng.random()
    if where < 0.35:
        begin = rng.choice(filled.slots)[0]
    else:
        begin = rng.choice(sentence_starts if where < 0.65 else starts)
    first = starts.index(begin)
    length = rng.choice((rng.randint(1, 5), rng.randint(5, 25), rng.randint(8, 18)))
    last = min(first + length, len(words)) - 1
    end = words[last][1]
    if rng.random() < 0.1:
        end = rng.randint(words[last][0] + 1, end)
    return begin, end
