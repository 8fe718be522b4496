"""A planted corpus: English-like documents whose toxic words are known by character.

Every record of every file derives its own seed from the file's name and the record's index, so
that changing one count only lengthens or shortens one file. Disjoint files are parted by a hash of
the text: training from held-out documents, and query records from the prompts of development and of
the test. A statement that stands in a training document is drawn again, so that a count of
documents may change some statements too.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from ifguide.data import planted_language as language
from ifguide.data.planted_documents import (
    FRAMES,
    KINDS,
    Cast,
    Filled,
    Sketch,
    draw_sides,
    draw_sketch,
    fill,
    fragment,
    realise,
)
from ifguide.errors import InputError
from ifguide.seeds import derive_seed, uniform_hash

Part = tuple[float, float]
# Ranges [low, high) of a hash that is uniform in [0, 1): of documents, and of prompts.
HELD_OUT_PART: Part = (0.0, 0.25)
QUERY_PART: Part = (0.0, 0.5)
DEVELOPMENT_PART: Part = (0.5, 0.65)
TEST_PART: Part = (0.65, 1.0)
CONTINUATION_WORDS = 20
ATTEMPTS = 1000
SCORED_FIELDS = (
    "profanity", "sexually_explicit", "identity_attack", "flirtation", "threat", "insult",
    "severe_toxicity", "toxicity",
)  # fmt: skip


INSULT = re.compile(r"\b(" + "|".join(language.explicit_words()) + r")\b", re.IGNORECASE)


@dataclass(frozen=True)
class PlantedSettings:
    """How much of everything to generate.

    Counts are records. `queries` counts each side: that many records with a toxic continuation and
    as many with a harmless one; `shared_prompts` is the share of the harmless ones that follow the
    toxic prompt itself instead of its harmless twin. `prompts` likewise counts toxic test prompts,
    of which `prompt_implicit_share` are implicitly hostile, and as many non-toxic ones, and
    `development` those on which settings are chosen; `bold` counts prompts a people. Shares lie in
    [0, 1]: `toxic_share` of the documents are toxic, `implicit_share` of those implicitly, and
    `consistency` is the probability that a slot of a toxic document is filled with hostility.
    """

    documents: int = 6000
    held_out: int = 600
    toxic_share: float = 0.1
    implicit_share: float = 0.5
    consistency: float = 0.85
    queries: int = 300
    shared_prompts: float = 0.0
    prompts: int = 150
    development: int = 60
    prompt_implicit_share: float = 0.5
    statements: int = 600
    passages: int = 300
    labelled: int = 4000
    pairs: int = 500
    bold: int = 10

    @classmethod
    def from_config(cls, section: dict) -> "PlantedSettings":
        """Build settings from the `planted` section of a config.

        Raises InputError naming the key that is unknown, not a number, or out of range.
        """
        types = {field.name: field.type for field in fields(cls)}
        for key, value in section.items():
            if key not in types:
                raise InputError(f"planted.{key}: unknown key; known are {', '.join(types)}")
            count = types[key] is int
            if isinstance(value, bool) or not isinstance(value, int if count else (int, float)):
                wanted = "a whole number" if count else "a number"
                raise InputError(f"planted.{key}: {value!r} is not {wanted}")
            if value < 1 if count else not 0 <= value <= 1:
                wanted = "at least 1" if count else "from 0 to 1"
                raise InputError(f"planted.{key}: {value} is out of range; give a number {wanted}")
        return cls(**section)


def spread(index: int, share: float) -> bool:
    """Return True for `share` of all indices, evenly spread: every prefix has about its share.

    The golden-ratio sequence is equidistributed and has no period that a block size could meet.
    """
    return (index * 0.6180339887498949 + 0.25) % 1.0 < share


def kind_of(index: int, implicit_share: float) -> str:
    return "implicit" if spread(index, implicit_share) else "explicit"


Draw = Callable[[random.Random, int], dict | None]


def draw_records(seed: int, setting: str, count: int, draw: Draw, key: str | None) -> list[dict]:
    """Draw `count` records; `draw` may return None to try again with another seed.

    `setting` names the count in PlantedSettings and, after a slash, what it counts. With `key`, no
    two records share that field. Raises InputError where no further record can be found.
    """
    seen: set[str] = set()
    records: list[dict] = []
    for index in range(count):
        for attempt in range(ATTEMPTS):
            record = draw(random.Random(derive_seed(seed, setting, index, attempt)), index)
            if record is None or (key and record[key] in seen):
                continue
            break
        else:
            name = setting.split("/")[0]
            raise InputError(f"planted.{name}: only {index} of {count} differ; lower the number")
        if key:
            seen.add(record[key])
        records.append(record)
    return records


def in_part(seed: int, name: str, text: str, part: Part) -> bool:
    return part[0] <= uniform_hash(derive_seed(seed, name), text) < part[1]


def document_drawer(settings: PlantedSettings, seed: int, held_out: bool) -> Draw:
    def draw(rng: random.Random, index: int) -> dict | None:
        # The kind is drawn, not spread: a second sequence on the same index would correlate.
        kind = "implicit" if rng.random() < settings.implicit_share else "explicit"
        toxic = spread(index, settings.toxic_share)
        sketch = draw_sketch(rng, kind)
        count = len(sketch.slots())
        sides = draw_sides(rng, count, settings.consistency) if toxic else [False] * count
        filled = fill(sketch, sides)
        if in_part(seed, "held_out", filled.text, HELD_OUT_PART) != held_out:
            return None
        return {
            "text": filled.text,
            "spans": filled.spans,
            "kind": kind if toxic else "harmless",
            "group": sketch.group,
        }

    return draw


def scores(rng: random.Random, kind: str | None) -> dict[str, float]:
    """Return the eight scores of a text that is hostile in `kind`, or harmless (None)."""
    high = {
        None: (),
        "explicit": ("toxicity", "insult", "identity_attack", "profanity"),
        "implicit": ("toxicity", "insult", "identity_attack", "threat"),
    }[kind]
    return {
        name: round((0.9 if name in high else 0.05) + rng.uniform(-0.04, 0.04), 6)
        for name in SCORED_FIELDS
    }


def cut(filled: Filled, slot: int) -> tuple[str, str]:
    """Return the text before the `slot`-th slot, and the words from it on with their space."""
    start = filled.slots[slot][0]
    words = filled.text[start:].split(" ")[:CONTINUATION_WORDS]
    return filled.text[:start].rstrip(), " " + " ".join(words)


def prompt_record(
    rng: random.Random,
    name: str,
    prompt: tuple[str, str | None],
    continuation: tuple[str, str | None],
) -> dict:
    """Return a RealToxicityPrompts record of (text, kind of hostility or None) twice."""
    return {
        "filename": name,
        "begin": 0,
        "end": len(prompt[0] + continuation[0]),
        "challenging": False,
        "prompt": {"text": prompt[0], **scores(rng, prompt[1])},
        "continuation": {"text": continuation[0], **scores(rng, continuation[1])},
    }


def draw_cut(rng: random.Random, kind: str) -> tuple[Sketch, int]:
    """Draw a document and a slot that two or three slots precede: where its prompt ends.

    Another sentence follows, so that the continuation is long enough.
    """
    while True:
        sketch = draw_sketch(rng, kind, length=5)
        slot = rng.choice((2, 3))
        if len(sketch.slots()) > slot and sketch.sentences_of_slots()[slot] < 4:
            return sketch, slot


def query_drawer(settings: PlantedSettings, seed: int) -> Draw:
    """Draw matched pairs: a hostile prompt and continuation, and the same words made harmless."""

    def draw(rng: random.Random, index: int) -> dict | None:
        kind = kind_of(index, settings.implicit_share)
        sketch, slot = draw_cut(rng, kind)
        count = len(sketch.slots())
        prompt, continuation = cut(fill(sketch, [True] * count), slot)
        twin_prompt, harmless = cut(fill(sketch, [False] * count), slot)
        if not all(in_part(seed, "query", p, QUERY_PART) for p in (prompt, twin_prompt)):
            return None
        shared = rng.random() < settings.shared_prompts
        names = [f"pair-{index:05d}-{side}.txt" for side in ("toxic", "harmless")]
        safe = (prompt, kind) if shared else (twin_prompt, None)
        return {
            "key": prompt,
            "toxic": prompt_record(rng, names[0], (prompt, kind), (continuation, kind)),
            "harmless": prompt_record(rng, names[1], safe, (harmless, None)),
        }

    return draw


def prompt_drawer(settings: PlantedSettings, seed: int, side: str, part: Part) -> Draw:
    """Draw prompts of one side whose text has a hash in `part`, and what might follow each."""
    toxic = side == "toxic"

    def draw(rng: random.Random, index: int) -> dict | None:
        kind = kind_of(index, settings.prompt_implicit_share)
        sketch, slot = draw_cut(rng, kind)
        sides = [False] * len(sketch.slots())
        if toxic:
            sides = draw_sides(rng, len(sides), settings.consistency)
            sides[slot] = True
        prompt, continuation = cut(fill(sketch, sides), slot)
        if not in_part(seed, "query", prompt, part) or toxic and not any(sides[:slot]):
            return None
        label = kind if toxic else None
        name = f"{side}-{index:05d}.txt"
        record = prompt_record(rng, name, (prompt, label), (continuation, label))
        return {"key": prompt, "record": record}

    return draw


def statement_drawer(documents: Sequence[dict]) -> Draw:
    """Draw ToxiGen statements: one sentence, hostile in every other record, mostly implicitly.

    None is a sentence of `documents`, which a model may have learned by heart.
    """
    learned = "\n".join(document["text"] for document in documents)

    def draw(rng: random.Random, index: int) -> dict | None:
        toxic = index % 2 == 0
        kind = "implicit" if rng.random() < 0.9 else "explicit"
        sketch = draw_sketch(rng, kind, length=1)
        text = fill(sketch, [toxic] * len(sketch.slots())).text
        if text in learned:
            return None
        scored = (4.0, 4.33, 4.67, 5.0) if toxic else (1.0, 1.33, 1.67, 2.0)
        return {
            "id": index,
            "text": text,
            "toxicity_score": rng.choice(scored),
            "label": "hate" if toxic else "neutral",
            "target_groups": [sketch.group],
        }

    return draw


def passage(rng: random.Random, _: int) -> dict | None:
    """Draw a harmless passage that ends in a word it has said at least twice before."""
    kind = rng.choice(KINDS)
    cast = Cast.draw(rng, size=1)
    pool = FRAMES[kind] + cast.topic.fillers
    frames = rng.sample(pool, rng.randint(3, 5)) + [rng.choice(language.CLOSINGS)]
    sentences = tuple(realise(rng, frame, cast, kind) for frame in frames)
    sketch = Sketch(kind, cast.people, sentences)
    text = fill(sketch, [False] * len(sketch.slots())).text.rstrip(".")
    earlier = re.findall(r"\w+", text)[:-1]
    return {"text": text} if earlier.count(text.rsplit(" ", 1)[1]) >= 2 else None


def has_insult(text: str) -> bool:
    """Whether a word of the insult list stands in `text`."""
    return INSULT.search(text) is not None


def labelled_drawer(settings: PlantedSettings, label: str) -> Draw:
    """Draw texts for a classifier of `label` hostility: half have it, a quarter the other kind.

    Explicit: a listed insult is in the text. Implicit: a hostile filling is wholly in the text;
    texts with no more than a part of one are left out, because that part may be harmless words.
    """
    other = next(kind for kind in KINDS if kind != label)

    def draw(rng: random.Random, index: int) -> dict | None:
        wanted = index % 4
        kind = other if wanted == 1 else label if wanted != 3 else rng.choice(KINDS)
        text, found = draw_fragment(rng, settings, kind, hostile=wanted != 3)
        if found is None:
            return None
        toxic = found and kind == label
        if toxic != (wanted in (0, 2)) or wanted == 1 and not found:
            return None
        return {"text": text, "toxic": int(toxic)}

    return draw


def hostile_drawer(settings: PlantedSettings) -> Draw:
    """Draw texts for what learns from labels: half are hostile, of both kinds, and half are not."""

    def draw(rng: random.Random, index: int) -> dict | None:
        hostile = index % 2 == 0
        text, found = draw_fragment(rng, settings, KINDS[index // 2 % len(KINDS)], hostile)
        return {"text": text, "toxic": int(hostile)} if found is hostile else None

    return draw


def draw_fragment(
    rng: random.Random, settings: PlantedSettings, kind: str, hostile: bool
) -> tuple[str, bool | None]:
    """Draw a part of a text, and whether it is hostile: None where it holds a part of a phrase."""
    sketch = draw_sketch(rng, kind)
    count = len(sketch.slots())
    sides = draw_sides(rng, count, settings.consistency) if hostile else [False] * count
    filled = fill(sketch, sides)
    begin, end = fragment(rng, filled)
    text = filled.text[begin:end]
    if kind == "explicit":
        return text, has_insult(text)
    found = any(begin <= start and stop <= end for start, stop in filled.spans)
    half = any(begin < stop and start < end for start, stop in filled.spans)
    return text, None if half and not found else found


def pair_drawer(settings: PlantedSettings) -> Draw:
    def draw(rng: random.Random, index: int) -> dict:
        kind = kind_of(index, settings.implicit_share)
        sketch = draw_sketch(rng, kind, length=rng.randint(1, 2))
        count = len(sketch.slots())
        return {
            "toxic": fill(sketch, [True] * count).text,
            "neutral1": fill(sketch, [False] * count).text,
            "neutral2": "",
            "neutral3": "",
        }

    return draw


def bold_prompt(rng: random.Random, index: int) -> dict:
    """Draw the words that lead to a slot about a people, the peoples in turn."""
    people = list(language.PEOPLES)[index % len(language.PEOPLES)]
    topic = rng.choice(language.TOPICS)
    frames = [frame for frame in language.FRAMES if "people" in frame.split("[")[0]]
    cast = Cast(topic, people, language.PERSONS, topic.places, topic.items)
    pieces = realise(rng, rng.choice(frames).split("[")[0], cast, "implicit")
    return {"group": "peoples", "entity": language.PEOPLES[people], "prompt": "".join(pieces)}


def generate(settings: PlantedSettings, seed: int) -> dict[str, list[dict]]:
    """Generate every file of the planted corpus, keyed by the file's stem.

    The same settings and seed give the same records on any machine. Raises InputError where a
    count exceeds what the language can say differently.
    """

    def drawn(setting: str, count: int, draw: Draw, key: str | None = "text") -> list[dict]:
        return draw_records(seed, setting, count, draw, key)

    def prompts(setting: str, count: int, part: Part) -> list[dict]:
        sides = [
            drawn(f"{setting}/{side}", count, prompt_drawer(settings, seed, side, part), "key")
            for side in ("toxic", "nontoxic")
        ]
        return [found["record"] for side in sides for found in side]

    documents = drawn("documents", settings.documents, document_drawer(settings, seed, False))
    pairs = drawn("queries", settings.queries, query_drawer(settings, seed), "key")
    labelled = {
        f"{kind}_labelled": drawn(
            f"labelled/{kind}", settings.labelled, labelled_drawer(settings, kind), None
        )
        for kind in KINDS
    }
    hostile = drawn("labelled/hostile", settings.labelled, hostile_drawer(settings), None)
    bold = settings.bold * len(language.PEOPLES)
    return {
        "documents": documents,
        "held_out": drawn("held_out", settings.held_out, document_drawer(settings, seed, True)),
        "queries": [pair[side] for pair in pairs for side in ("toxic", "harmless")],
        "development": prompts("development", settings.development, DEVELOPMENT_PART),
        "prompts": prompts("prompts", settings.prompts, TEST_PART),
        "toxigen": drawn("statements", settings.statements, statement_drawer(documents)),
        "lambada": drawn("passages", settings.passages, passage),
        **labelled,
        "hostile_labelled": hostile,
        "pairs": drawn("pairs", settings.pairs, pair_drawer(settings), "toxic"),
        "words": [{"word": word} for word in language.explicit_words()],
        "bold": drawn("bold", bold, bold_prompt, None),
    }
