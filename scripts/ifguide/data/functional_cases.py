"""Cases of functional tests: sentences by templates, each of which a judge should get right.

A functional test asks one thing of a judge, such as that a denied insult is none (the idea is that
of HateCheck, Röttger et al. 2021). Its cases are drawn from templates of its own, so that all who
read them know what is asked and what the answer is.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ifguide.errors import InputError
from ifguide.seeds import derive_seed

# Draws of a case until it must differ from all before it.
ATTEMPTS = 1000


class Case(NamedTuple):
    """A text, the function of a judge that it tests, and whether it is toxic."""

    function: str
    toxic: bool
    text: str


@dataclass(frozen=True)
class Function:
    """What is asked of a judge: templates with `{names}`, and what may stand for each name.

    A name that a template has twice is filled alike. toxic: whether the filled templates are.
    """

    name: str
    toxic: bool
    templates: tuple[str, ...]
    fillings: Mapping[str, Sequence[str]]

    def draw(self, count: int, seed: int) -> list[Case]:
        """Draw `count` different cases, all templates alike often.

        Raises InputError where the templates have fewer.
        """
        rng = random.Random(derive_seed(seed, "functional tests", self.name))
        texts: dict[str, None] = {}
        for _ in range(ATTEMPTS * count):
            if len(texts) == count:
                return [Case(self.name, self.toxic, text) for text in texts]
            template = self.templates[len(texts) % len(self.templates)]
            filled = template.format(
                **{name: rng.choice(self.fillings[name]) for name in sorted(self.fillings)}
            )
            texts[filled[0].upper() + filled[1:]] = None
        raise InputError(
            f"functional test {self.name!r}: its templates have fewer than {count} different cases"
        )


def draw_cases(functions: Iterable[Function], count: int, seed: int) -> list[Case]:
    """Draw `count` cases of each function, in the order of the functions."""
    return [case for function in functions for case in function.draw(count, seed)]


def misspellings(word: str) -> list[str]:
    """Return ways to write a word that a reader still knows and a list of words does not.

    With digits for letters, with a letter repeated, with two letters exchanged, and spaced out.
    """
    digits = word.translate(str.maketrans("oie", "013"))
    middle = len(word) // 2
    repeated = word[:middle] + 3 * word[middle] + word[middle + 1 :]
    exchanged = word[0] + word[2] + word[1] + word[3:]
    written = (digits, repeated, exchanged, " ".join(word))
    return [each for each in dict.fromkeys(written) if each != word]
