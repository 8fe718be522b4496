"""N-grams of words that texts share with prompts.

The share of a prompt is that of its distinct n-grams which occur in one text. A prompt of fewer
than n words has one n-gram, all of its words. So a text that holds the prompt has share 1, and one
without n words of it in a row has 0; capitals, punctuation and white space count for nothing.
Chowdhery et al. (2022), PaLM, section 8, call a text contaminated from 70 % of its 8-grams on.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Words = Sequence[str]


class Shared(NamedTuple):
    """A prompt by its index, the share of its n-grams in a text, and where the first of them is."""

    prompt: int
    share: float
    word: int


class SharedNgrams:
    """The n-grams of prompts: all that is kept in memory, however long the texts are."""

    def __init__(self, prompts: Sequence[Words], length: int) -> None:
        """prompts: their words; one without words is found nowhere. length: n, in words."""
        self._short = [len(words) < length for words in prompts]
        self._sizes: list[int] = []
        # By length, because n-grams of short prompts have their own.
        self._holders: dict[int, dict[tuple[str, ...], list[int]]] = defaultdict(dict)
        for prompt, words in enumerate(prompts):
            own = min(length, len(words))
            grams = set(ngrams(words, own)) if own else set()
            self._sizes.append(len(grams))
            for gram in grams:
                self._holders[own].setdefault(gram, []).append(prompt)

    def found_in(self, words: Words) -> list[Shared]:
        """Return the prompts of which a text of these words has any n-gram."""
        places: dict[int, dict[tuple[str, ...], int]] = defaultdict(dict)
        for length, holders in self._holders.items():
            found = [(place, g) for place, g in enumerate(ngrams(words, length)) if g in holders]
            for place, gram in found:
                for prompt in holders[gram]:
                    places[prompt].setdefault(gram, place)
        return [
            Shared(prompt, len(grams) / self._sizes[prompt], min(grams.values()))
            for prompt, grams in places.items()
        ]

    def holds_a_prompt(self, words: Words, least: float) -> bool:
        """Return whether a text has at least the share `least` of a prompt of n words or more.

        Shorter ones stand in many a text by chance.
        """
        found = self.found_in(words)
        return any(one.share >= least and not self._short[one.prompt] for one in found)


def ngrams(words: Words, length: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)
