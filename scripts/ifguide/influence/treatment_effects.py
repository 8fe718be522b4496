"""The average treatment effect of a word on a judge of toxicity.

    ATE(w) = mean over occurrences x of w and replacements w' of max(0, p(x) - p(x with w' for w))

with p the judge's toxicity (Madhavan et al., "CFL: Causally Fair Language Models Through
Token-level Attribute Controlled Generation", 2023, arXiv 2306.00374). A masked language model
proposes the replacements there; here they are drawn by the frequencies of the corpus's words.
An occurrence x is judged with some words on each side, because one word hardly moves the judgement
of a long document. Words are compared without regard to case.
"""

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ifguide.seeds import derive_seed

# Letters, digits and underscores, with apostrophes between them.
_WORD = re.compile(r"\w+(?:['’]\w+)*")
WORDS_AT_ONCE = 64

Toxicity = Callable[[Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class EffectSettings:
    """How effects are measured.

    At most `occurrences` of a word are judged, with `context` words on each side, each with so many
    `replacements`; words that are there less than `fewest_occurrences` times have no effect.
    """

    occurrences: int
    replacements: int
    fewest_occurrences: int
    context: int


def word_spans(text: str) -> np.ndarray:
    """Return where the words of a text begin and end, in characters: int64 (words, 2)."""
    spans = [found.span() for found in _WORD.finditer(text)]
    return np.array(spans, np.int64).reshape(-1, 2)


def words_of(text: str) -> list[str]:
    """Return the words of a text, without regard to case, in their order."""
    return [found[0].casefold() for found in _WORD.finditer(text)]


class Occurrence(NamedTuple):
    """A word of a document with what stands around it; the smallest `key`s are a sample."""

    key: int
    before: str
    word: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.word + self.after

    def replaced(self, word: str) -> str:
        """Return the text with another word, which begins with a capital if the word does."""
        if self.word[0].isupper():
            word = word[0].upper() + word[1:]
        return self.before + word + self.after


def word_effects(
    texts: Callable[[], Iterable[tuple[int, str]]],
    toxicity: Toxicity,
    settings: EffectSettings,
    seed: int,
) -> dict[str, float]:
    """Return ATE(w) of every word that the texts hold often enough.

    texts: every document's number and text, in any order; it is called twice. toxicity: of each of
    some texts, in [0, 1]. What is sampled depends on the seed, a document's number and the place of
    a word in it alone.
    """
    counts = Counter(word for _, text in texts() for word in words_of(text))
    if len(counts) < 2:
        return {}
    samples = sampled_occurrences(texts(), counts, settings, seed)
    draw = replacement_drawer(counts, seed)
    effects = {}
    frequent = sorted(samples)
    for start in range(0, len(frequent), WORDS_AT_ONCE):
        words = frequent[start : start + WORDS_AT_ONCE]
        judged = []
        for word in words:
            for occurrence, others in zip(
                samples[word],
                draw(word, (len(samples[word]), settings.replacements)),
                strict=True,
            ):
                judged.append(occurrence.text)
                judged += [occurrence.replaced(other) for other in others]
        scores = iter(toxicity(judged))
        for word in words:
            gains = []
            for _ in samples[word]:
                own = next(scores)
                gains += [max(0.0, own - next(scores)) for _ in range(settings.replacements)]
            effects[word] = float(np.mean(gains))
    return effects


def sampled_occurrences(
    texts: Iterable[tuple[int, str]],
    counts: Mapping[str, int],
    settings: EffectSettings,
    seed: int,
) -> dict[str, list[Occurrence]]:
    """Return a sample of the occurrences of every word that is frequent enough, by their keys."""
    # The largest key first, so that a smaller one takes its place.
    heaps: dict[str, list[tuple[int, Occurrence]]] = {}
    for document, text in texts:
        spans = word_spans(text)
        for place, word in enumerate(words_of(text)):
            if counts[word] < settings.fewest_occurrences:
                continue
            heap = heaps.setdefault(word, [])
            key = derive_seed(seed, "occurrence", document, place)
            if len(heap) == settings.occurrences and -heap[0][0] < key:
                continue
            start, stop = spans[place]
            first = spans[max(0, place - settings.context), 0]
            last = spans[min(len(spans) - 1, place + settings.context), 1]
            found = Occurrence(key, text[first:start], text[start:stop], text[stop:last])
            if len(heap) < settings.occurrences:
                heapq.heappush(heap, (-key, found))
            else:
                heapq.heapreplace(heap, (-key, found))
    return {word: sorted(found for _, found in heap) for word, heap in heaps.items()}


def replacement_drawer(
    counts: Mapping[str, int], seed: int
) -> Callable[[str, tuple[int, int]], list[list[str]]]:
    """Return word, shape -> other words, drawn by their frequencies, never the word itself."""
    vocabulary = sorted(counts)
    numbers = {word: number for number, word in enumerate(vocabulary)}
    cumulative = np.cumsum([counts[word] for word in vocabulary])

    def draw(word: str, shape: tuple[int, int]) -> list[list[str]]:
        generator = np.random.default_rng(derive_seed(seed, "replacements", word))
        before = int(cumulative[numbers[word]]) - counts[word]
        drawn = generator.integers(0, int(cumulative[-1]) - counts[word], size=shape)
        # The word's own place among the occurrences is stepped over.
        drawn += np.where(drawn >= before, counts[word], 0)
        places = np.searchsorted(cumulative, drawn, side="right")
        return [[vocabulary[place] for place in row] for row in places]

    return draw
