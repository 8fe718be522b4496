"""How much of a benchmark's prompts stands in texts that models, judges or methods learn from."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifguide.data.matching import words_of
from ifguide.data.near_passages import NearPassages
from ifguide.data.shared_ngrams import SharedNgrams

BATCH_WORDS = 20_000
WORDS_AROUND = 5


@dataclass(frozen=True)
class Thresholds:
    """From where a prompt overlaps with a text: n in words, the share of n-grams, the cosine."""

    ngram: int
    share: float
    cosine: float


class PromptLookup:
    """What is looked up of the prompts of one benchmark."""

    def __init__(self, prompts: Sequence[str], thresholds: Thresholds) -> None:
        self.prompts = prompts
        self.thresholds = thresholds
        words = [words_of(prompt) for prompt in prompts]
        self.compared = [2 * len(own) >= thresholds.ngram for own in words]
        # One or two words stand in many a text: such a prompt is not compared.
        words = [
            own if compared else [] for own, compared in zip(words, self.compared, strict=True)
        ]
        self.ngrams = SharedNgrams(words, thresholds.ngram)
        self.passages = NearPassages(words, thresholds.cosine) if any(words) else None


class Overlap:
    """What texts have in common with test prompts: the best of each prompt over all of them."""

    def __init__(self, prompts: PromptLookup) -> None:
        self.prompts = prompts
        self.texts = self.words = self.overlapping_texts = 0
        self.shares = np.zeros(len(prompts.prompts))
        self.cosines = np.zeros(len(prompts.prompts))
        self._sharing: dict[int, str] = {}
        self._near: dict[int, str] = {}

    def add(self, texts: Sequence[str], words: Sequence[Sequence[str]]) -> None:
        """Compare some texts, whose words are `words`."""
        least = self.prompts.thresholds
        overlapping = set()
        for number, own in enumerate(words):
            for prompt, share, word in self.prompts.ngrams.found_in(own):
                if share >= least.share:
                    overlapping.add(number)
                if share > self.shares[prompt]:
                    self.shares[prompt] = share
                    length = len(words_of(self.prompts.prompts[prompt])) + WORDS_AROUND
                    self._sharing[prompt] = excerpt(texts[number], word, word + length)
        if passages := self.prompts.passages:
            for prompt, number, word, cosine in zip(*passages.near(words), strict=True):
                overlapping.add(int(number))
                if cosine > self.cosines[prompt]:
                    self.cosines[prompt] = cosine
                    self._near[int(prompt)] = excerpt(texts[number], word, word + passages.window)
        self.texts += len(texts)
        self.words += sum(map(len, words))
        self.overlapping_texts += len(overlapping)

    @property
    def _shared(self) -> np.ndarray:
        """Which prompts have at least the share of n-grams in a text, bool (prompts,)."""
        return self.shares >= self.prompts.thresholds.share

    @property
    def _has_near(self) -> np.ndarray:
        """Which prompts have a passage near, bool (prompts,)."""
        return self.cosines > 0

    def counts(self) -> dict[str, int]:
        """Return how many prompts and texts overlap.

        `copied`: prompts that a text holds whole. `shared`: with at least the share of n-grams;
        `near`: with a passage at least as near as the cosine; `overlapping`: either.
        `compared`: the prompts of at least n / 2 words, in which all of these are counted.
        """
        return {
            "texts": self.texts,
            "words": self.words,
            "prompts": len(self.shares),
            "compared": sum(self.prompts.compared),
            "copied": int((self.shares == 1).sum()),
            "shared": int(self._shared.sum()),
            "near": int(self._has_near.sum()),
            "overlapping": int((self._shared | self._has_near).sum()),
            "overlapping_texts": self.overlapping_texts,
        }

    def worst(self, count: int) -> list[dict[str, Any]]:
        """Return at most `count` of the prompts that overlap, the worst first, each with a text."""
        shared = self._shared
        overlapping = shared | self._has_near
        order = np.lexsort((-self.cosines, -self.shares, -np.maximum(self.shares, self.cosines)))
        chosen = [int(prompt) for prompt in order if overlapping[prompt]][:count]
        return [
            {
                "prompt": self.prompts.prompts[prompt],
                "share": float(self.shares[prompt]),
                "cosine": float(self.cosines[prompt]),
                "text": self._sharing[prompt] if shared[prompt] else self._near[prompt],
            }
            for prompt in chosen
        ]


def in_batches(texts: Iterable[str]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield texts and their words, some 20,000 words at once, or one text that has more."""
    batch: list[str] = []
    words: list[list[str]] = []
    size = 0
    for text in texts:
        batch.append(text)
        words.append(words_of(text))
        size += len(words[-1])
        if size >= BATCH_WORDS:
            yield batch, words
            batch, words, size = [], [], 0
    if batch:
        yield batch, words


def excerpt(text: str, start: int, end: int) -> str:
    """Return the part of a text from its word `start` until before its word `end`."""
    places = [match.span() for match in re.finditer(r"\w+", text)]
    start, end = min(start, len(places) - 1), min(end, len(places))
    return text[places[start][0] : places[end - 1][1]] if places else ""
