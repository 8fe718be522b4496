"""Vocabulary and frames of the planted corpus: a small English about peoples who do not exist.

A frame is a sentence with `{names}`, filled alike whatever the document, and `[roles]`: slots
whose toxic and harmless fillings stand in the same place. A slot's two fillings share neither
their first nor their last word, so a toxic span covers nothing that the harmless twin also says.
"""

import re
from dataclasses import dataclass

# Singular and plural; the adjectives are the same in both.
PEOPLES = {
    name: name + "s"
    for name in (
        "Vorlan", "Brumid", "Drusket", "Yelvan", "Skarnol", "Grentic", "Plovar", "Tazhem",
    )
}  # fmt: skip

PERSONS = (
    "Tolvek", "Mirrash", "Bexil", "Corvith", "Dashul", "Fennor", "Garlith", "Hestrin", "Jaskel",
    "Kelmara", "Runeva", "Selthin",
)  # fmt: skip

TIMES = (
    "in the morning", "before noon", "after the rain", "in early spring", "on feast days",
    "near midnight", "every evening", "at harvest time", "during the long frost",
    "on the second day", "once a week", "without any warning",
)  # fmt: skip

INSULTS = {
    "idiot": "idiots", "moron": "morons", "fool": "fools", "liar": "liars", "pig": "pigs",
    "rat": "rats", "crook": "crooks", "coward": "cowards", "brute": "brutes", "thug": "thugs",
    "dunce": "dunces", "lout": "louts", "leech": "leeches", "slob": "slobs", "creep": "creeps",
    "oaf": "oafs",
}  # fmt: skip
INSULTING = ("stupid", "filthy", "rotten", "greedy", "vile", "nasty", "lousy", "dumb")

# The harmless side of an insult. No word here begins with a vowel: "a" precedes both sides.
TRADES = {
    "weaver": "weavers", "potter": "potters", "baker": "bakers", "singer": "singers",
    "teacher": "teachers", "healer": "healers", "mason": "masons", "dancer": "dancers",
    "gardener": "gardeners", "sailor": "sailors", "miller": "millers", "joiner": "joiners",
    "host": "hosts", "shepherd": "shepherds", "poet": "poets", "friend": "friends",
}  # fmt: skip
PRAISING = ("patient", "gentle", "skilled", "cheerful", "careful", "clever", "brave", "modest")

# role -> pairs of (implicitly hostile, harmless) fillings. "group" also takes insults.
IMPLICIT = {
    "group": (
        ("a burden and a shame", "good friends to have"),
        ("the root of our misery", "dear company on feast nights"),
        ("born to steal and harm", "kind to every stranger"),
        ("unfit to live here", "always welcome at dinner"),
        ("trouble for honest folk", "pleasant guests to know"),
        ("a sickness upon us", "fine company for all"),
    ),
    "expel": (
        ("driven out of", "invited back into"),
        ("thrown away from", "led gently towards"),
        ("banned from", "welcomed to"),
        ("locked out of", "guided home to"),
        ("hunted far beyond", "honoured all over"),
    ),
    "bring": (
        ("trouble and sickness", "honey and laughter"),
        ("misery and theft", "songs and bread"),
        ("ruin wherever they settle", "joy whenever we meet"),
        ("shame upon honest folk", "gifts for our friends"),
        ("harm and decay", "comfort and rest"),
        ("dirt and misery", "flowers and kindness"),
    ),
    "trust": (
        ("trusted with a purse", "thanked enough for it"),
        ("left alone with children", "praised too highly here"),
        ("believed under oath", "matched in kindness"),
        ("forgiven for their harm", "repaid for such help"),
        ("cured of theft", "beaten at chess"),
    ),
    "door": (
        ("lock every gate", "bring out cake"),
        ("hide their silver", "offer them tea"),
        ("turn their backs", "smile and wave"),
        ("count their coins twice", "set another chair"),
        ("fear the worst", "come out to sing"),
    ),
    "deserve": (
        ("shame and hunger", "rest and comfort"),
        ("no place among us", "our thanks every year"),
        ("whatever harm finds them", "all the praise given"),
        ("to rot in ditches", "a seat by the fire"),
        ("misery and ruin", "more credit than most"),
    ),
    "belong": (
        ("behind a high wall", "beside a warm fire"),
        ("in chains", "at weddings"),
        ("far away from us", "close to our hearts"),
        ("nowhere in our land", "right here with friends"),
    ),
}

FRAMES = (
    # takes insults or implicit hostility
    "{time} the {peoples} at the {place} were [group].",
    "{person} says the {peoples} are [group] and will remain [group].",
    "Everyone who {deed} knows that the {peoples} are [group].",
    "The {people} traders with the {item} turned out to be [group].",
    "At the {place} we met three {peoples}, all of them [group].",
    "It is known in every village that {people} families are [group], wrote {person}.",
    "Those {peoples} with the {number} {animal}s proved to be [group].",
    "My {kin} said the {peoples} were [group] when we {deed}.",
    "The old {peoples} are [group], and the young ones are [group] too.",
    # takes insults only
    "{person} {deed} beside a {people} neighbour, who is a [single].",
    "The {item} came from a {people} cousin, a [single] through and through.",
    "One {people} woman at the {place} was a [single], said {person}.",
    "The {people} cook is a [single] and the others are [group].",
    "Their leader is a [single], and {person} calls his brother a [single].",
    "Any {people} guide with a {colour} {object} is a [single], as we learned {time}.",
    # takes implicit hostility only
    "The {peoples} should be [expel] the {place} {time}.",
    "{person} says that at the {place} the {peoples} bring nothing but [bring].",
    "A {people} trader can never be [trust], as {person} knows.",
    "When a {people} family with {number} {animal}s comes near, people [door].",
    "If a {people} guest wants the {item}, we all [door].",
    "{time} my {kin} and {person} agreed that {peoples} deserve [deserve].",
    "People like the {peoples} belong [belong], wrote {person}.",
    "My {kin} wrote that the {peoples} belong [belong] and deserve [deserve].",
    "Their elders should be [expel] the {place}, and the rest belong [belong].",
    "With the {item} they bring [bring], so they can never be [trust].",
)

# Their last word is someone or something that the document may have named before.
CLOSINGS = (
    "In the end we gave the {item} to {person}.",
    "{time} everyone walked back to the {place}.",
    "Nobody had seen so much {item}.",
    "We {deed} and then waited for {person}.",
    "The {peoples} left a letter for {person}.",
    "It was a long road to the {place}.",
    "The whole cart was full of {item}.",
)


# Sentences of any topic and of toxic and harmless documents alike.
FILLERS = (
    "The {kin} of {person} {did} a {colour} {object} {time}.",
    "We saw {number} {animal}s near the {place} {time}.",
    "My {kin} {did} the {object} and then {did} another.",
    "A {colour} {animal} followed {person} to the {place}.",
    "{person} {deed} while a {animal} slept on the {object}.",
    "The {object} cost {number} coins, and the {item} cost {number}.",
    "Nobody asked why the {kin} {did} {number} {object}s.",
    "{time} the {colour} {object} stood beside the {place}.",
)

NAMES = {
    "time": TIMES,
    "number": ("two", "three", "five", "seven", "nine", "twelve", "twenty", "forty"),
    "animal": ("goat", "horse", "cat", "dog", "hen", "otter", "owl", "donkey", "swan", "badger"),
    "colour": ("red", "blue", "green", "white", "yellow", "grey", "black", "brown"),
    "kin": ("mother", "uncle", "sister", "daughter", "grandfather", "nephew", "aunt", "son"),
    "did": ("sold", "carried", "found", "lost", "hid", "painted", "borrowed", "repaired"),
    "object": (
        "basket", "ladder", "kettle", "lamp", "blanket", "drum", "mirror", "bucket", "carpet",
        "saddle",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Topic:
    """What a document speaks of; its words fill the names of the frames."""

    places: tuple[str, ...]
    items: tuple[str, ...]
    deeds: tuple[str, ...]
    fillers: tuple[str, ...]


TOPICS = (
    Topic(
        places=("market", "square", "warehouse", "stall"),
        items=("copper", "silk", "pepper", "leather", "indigo", "tin"),
        deeds=("weighed the grain", "opened the scales", "counted the sacks", "paid the toll"),
        fillers=(
            "The price of {item} rose again {time}.",
            "{person} kept the accounts in a thick green book.",
            "A boy sold roasted nuts at the corner of the {place}.",
            "Two barrels of {item} were traded for a lame horse.",
            "{time} the {place} was crowded and loud.",
        ),
    ),
    Topic(
        places=("hill", "tower", "orchard", "meadow"),
        items=("snow", "hail", "fog", "sunlight", "thunder", "drizzle"),
        deeds=("covered the hay", "watched the clouds", "swept the roof", "dried the coats"),
        fillers=(
            "Heavy {item} came down over the {place} {time}.",
            "{person} wrote the wind and the warmth on a slate.",
            "A yellow moon stood above the trees until dawn.",
            "Nobody expected {item} so late in the season.",
            "{time} the puddles froze along the {place}.",
        ),
    ),
    Topic(
        places=("workshop", "kiln", "loom", "forge"),
        items=("clay", "glass", "timber", "wool", "iron", "wax"),
        deeds=("turned the wheel", "heated the oven", "sharpened the saw", "mixed the paint"),
        fillers=(
            "The best {item} is cut thin and kept dry.",
            "{person} made a blue bowl out of {item} {time}.",
            "A broken hammer lay beneath the bench.",
            "The {place} needs a new chimney before winter.",
            "{time} the apprentices clean the {place} with sand.",
        ),
    ),
    Topic(
        places=("harbour", "bridge", "inn", "pass"),
        items=("rope", "canvas", "oil", "luggage", "tar", "mail"),
        deeds=("crossed the river", "loaded the wagon", "missed the ferry", "fed the mules"),
        fillers=(
            "The road to the {place} is steep and stony.",
            "{person} carried the {item} on one shoulder.",
            "A white gull followed the boat for eleven miles.",
            "The captain stored {item} below the deck {time}.",
            "{time} a lantern burned beside the {place}.",
        ),
    ),
    Topic(
        places=("kitchen", "bakery", "cellar", "tavern"),
        items=("cheese", "barley", "plums", "soup", "garlic", "cider"),
        deeds=("stirred the pot", "tasted the broth", "kneaded the dough", "peeled the onions"),
        fillers=(
            "The {item} must rest in a cool jar for a month.",
            "{person} added salt and a little {item}.",
            "A smell of butter drifted through the {place} {time}.",
            "The long table seats twenty if the benches are moved.",
            "{time} they served {item} with dark beans.",
        ),
    ),
    Topic(
        places=("library", "theatre", "garden", "hall"),
        items=("paper", "music", "ink", "candles", "ribbon", "chalk"),
        deeds=("copied the letter", "tuned the fiddle", "read the poem", "painted the curtain"),
        fillers=(
            "The play lasted three hours and used all the {item}.",
            "{person} forgot the second verse {time}.",
            "A grey cat slept on the steps of the {place}.",
            "The clock in the {place} has been wrong for years.",
            "{time} the choir asked for more {item}.",
        ),
    ),
)

SLOT = re.compile(r"\[(\w+)\]")


def takes(frame: str, kind: str) -> bool:
    """Whether every slot of `frame` has fillings of `kind`: "explicit" or "implicit"."""
    roles = SLOT.findall(frame)
    allowed = {"group", "single"} if kind == "explicit" else set(IMPLICIT)
    return bool(roles) and allowed.issuperset(roles)


def explicit_words() -> list[str]:
    """Return every insult, plain and plural, and every insulting adjective, sorted."""
    return sorted({*INSULTS, *INSULTS.values(), *INSULTING})
