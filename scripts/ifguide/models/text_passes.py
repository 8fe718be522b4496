"""Texts as a model reads them in batches: of similar length, padded on the right."""

from collections.abc import Iterator, Sequence

import torch

from ifguide.models.activations import padded_right


def similar_lengths(
    texts: Sequence[Sequence[int]], batch_size: int, padding: int = 0
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Yield the indices of the texts of a batch, their ids, and what is no padding.

    Shortest texts first; ids int64 and valid bool, (texts, longest). A model that reads from left
    to right computes the same at valid places whatever the padding is.
    """
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, *padded_right([texts[row] for row in rows], padding)
