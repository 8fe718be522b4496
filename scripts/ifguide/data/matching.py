"""Matched query records: for each toxic record the most similar harmless one.

What the two sets of a differential query differ in besides toxicity (topic, length, how toxic the
prompt is already) ends in the direction as well. Matching takes it out: for every record r of one
set the candidate c with the smallest sum of the named distances, each in [0, 1],

    prompt_toxicity   |toxicity of r's prompt − toxicity of c's prompt|
    length            |n_r − n_c| / max(n_r, n_c),  n = words of prompt and continuation
    words             1 − |W_r ∩ W_c| / |W_r ∪ W_c|,  W = set of the prompt's words

ties by the candidates' order. A candidate may be taken several times (matching with replacement),
so no record's partner depends on another record, and the matched set is as large as the other.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from ifguide.data.benchmark_formats import PromptRecord
from ifguide.errors import InputError

Distances = Callable[[PromptRecord], np.ndarray]


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def matched(
    records: Sequence[PromptRecord], candidates: Sequence[PromptRecord], by: Sequence[str]
) -> list[PromptRecord]:
    """Return the nearest candidate of each record, in the records' order.

    by: names of DISTANCES. Raises InputError where there is no candidate, or a prompt's toxicity is
    wanted and not known.
    """
    if not candidates:
        raise InputError("config key queries.*.match: no record is left to match with")
    distances = [DISTANCES[name](candidates) for name in by]
    # float64 sums of a few numbers: ties are exact where the parts are equal.
    nearest = [int(np.argmin(sum(each(record) for each in distances))) for record in records]
    return [candidates[index] for index in nearest]


def _toxicity_distances(candidates: Sequence[PromptRecord]) -> Distances:
    known = np.array([_prompt_toxicity(candidate) for candidate in candidates])
    return lambda record: np.abs(known - _prompt_toxicity(record))


def _prompt_toxicity(record: PromptRecord) -> float:
    if record.prompt_toxicity is None:
        raise InputError(
            "config key queries.*.match.by: the toxicity of a prompt is not known; leave out "
            "prompt_toxicity"
        )
    return record.prompt_toxicity


def _length_distances(candidates: Sequence[PromptRecord]) -> Distances:
    lengths = np.array([_length(candidate) for candidate in candidates], np.float64)

    def distances(record: PromptRecord) -> np.ndarray:
        length = _length(record)
        longer = np.maximum(lengths, length)
        return np.divide(
            np.abs(lengths - length), longer, out=np.zeros_like(lengths), where=longer > 0
        )

    return distances


def _length(record: PromptRecord) -> int:
    return len(words_of(f"{record.prompt} {record.continuation or ''}"))


def _word_distances(candidates: Sequence[PromptRecord]) -> Distances:
    vocabularies = [set(words_of(candidate.prompt)) for candidate in candidates]
    sizes = np.array([len(vocabulary) for vocabulary in vocabularies])
    holders: dict[str, list[int]] = defaultdict(list)
    for index, vocabulary in enumerate(vocabularies):
        for word in vocabulary:
            holders[word].append(index)

    def distances(record: PromptRecord) -> np.ndarray:
        own = set(words_of(record.prompt))
        shared = np.zeros(len(candidates))
        for word in own:
            shared[holders.get(word, [])] += 1
        union = sizes + len(own) - shared
        return 1 - np.divide(shared, union, out=np.ones_like(shared), where=union > 0)

    return distances


DISTANCES: dict[str, Callable[[Sequence[PromptRecord]], Distances]] = {
    "prompt_toxicity": _toxicity_distances,
    "length": _length_distances,
    "words": _word_distances,
}
