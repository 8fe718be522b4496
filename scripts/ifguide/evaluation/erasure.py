"""What a mask erases: the harmless phrases whose first token it suppresses, before and after.

A mask that ranks words suppresses them in harmless sentences too, and no toxicity metric shows
that. A *phrase* is a selected label token in a harmless context with the two tokens after it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from ifguide.data.corpus import Corpus
from ifguide.models.loading import HiddenStates, token_losses

FOLLOWING = 2
Phrase = tuple[int, ...]


def harmless_labels(corpus: Corpus, shard: int) -> np.ndarray:
    """Return which labels of a shard are not known to be toxic, bool (blocks, T).

    Where the corpus has known toxic tokens, only documents whose truth is known count.
    """
    documents = corpus.documents.shards[shard]
    labels = documents >= 0
    labels[:, 0] = False
    if corpus.truth is None:
        return labels
    return labels & corpus.truth_known()[documents] & ~corpus.truth.shards[shard]


def erased_phrases(corpus: Corpus, masks: Sequence[np.ndarray], count: int) -> list[Phrase]:
    """Return the `count` phrases of which most labels are selected, most first; ties by ids.

    masks: bool, shape of the tokens, by shard.
    """
    selected: Counter[Phrase] = Counter()
    for shard, mask in enumerate(masks):
        tokens = corpus.tokens.shards[shard]
        for row, column in zip(*np.nonzero(mask & harmless_labels(corpus, shard)), strict=True):
            selected[phrase_at(tokens[row], column)] += 1
    return [phrase for phrase, _ in sorted(selected.items(), key=lambda item: (-item[1], item[0]))][
        :count
    ]


def phrase_at(block: np.ndarray, column: int) -> Phrase:
    """Return the token of a block, int (T,), with those that follow it within the block."""
    return tuple(int(token) for token in block[column : column + 1 + FOLLOWING])


def occurrences(
    corpus: Corpus, masks: Sequence[np.ndarray], phrases: Sequence[Phrase]
) -> pd.DataFrame:
    """Return where harmless contexts hold the phrases: columns phrase (its place in `phrases`),
    block, column and selected, in the order of the corpus.
    """
    wanted = {phrase: place for place, phrase in enumerate(phrases)}
    firsts = np.unique([phrase[0] for phrase in phrases]) if phrases else np.array([], int)
    found = []
    for shard, mask in enumerate(masks):
        tokens = corpus.tokens.shards[shard]
        first_block = int(corpus.tokens.first_rows[shard])
        candidates = harmless_labels(corpus, shard) & np.isin(tokens, firsts)
        for row, column in zip(*np.nonzero(candidates), strict=True):
            place = wanted.get(phrase_at(tokens[row], column))
            if place is not None:
                found.append((place, first_block + row, column, bool(mask[row, column])))
    return pd.DataFrame(found, columns=["phrase", "block", "column", "selected"])


def some_of_each(found: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return at most `count` occurrences of each phrase, drawn by `seed`, in their order."""
    drawn = found.sample(frac=1, random_state=seed % 2**32).groupby("phrase").head(count)
    return drawn.sort_index()


@torch.no_grad()
def probabilities(
    model: torch.nn.Module, corpus: Corpus, places: pd.DataFrame, batch_size: int = 16
) -> np.ndarray:
    """Return the model's probability of the label at each of `places` (block, column), float64."""
    body = HiddenStates(model)
    result = np.empty(len(places))
    rows, of_row = np.unique(places["block"].to_numpy(), return_inverse=True)
    columns = places["column"].to_numpy()
    for start, blocks in _batches(rows, batch_size):
        tokens = torch.from_numpy(np.stack([corpus.tokens[int(row)] for row in blocks]))
        losses = token_losses(body, tokens.long().to(model.device)).double().cpu().numpy()
        here = (of_row >= start) & (of_row < start + len(blocks))
        result[here] = np.exp(-losses[of_row[here] - start, columns[here]])
    return result


def _batches(rows: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size]
