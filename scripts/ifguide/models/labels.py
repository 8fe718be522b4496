"""Labels of which no loss is taken, and labels that say of themselves that they are suppressed.

A suppressed label is written as `IGNORED_LABEL - 1 - token id`, which no other label is. One column
then says both, and what cuts, packs, pads and collates labels carries the selection along; what
counts labels that are not ignored counts suppressed ones too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike

IGNORED_LABEL = -100


def mark_labels(labels: ArrayLike, selected: ArrayLike) -> np.ndarray:
    """Return labels of which the selected ones are marked as suppressed: int64, of their shape.

    labels: token ids, or `IGNORED_LABEL`, which stays; selected: bool, of the same shape.
    """
    ids, marked = np.asarray(labels, dtype=np.int64), np.asarray(selected, dtype=bool)
    return np.where(marked & (ids != IGNORED_LABEL), IGNORED_LABEL - 1 - ids, ids)


def unmark_labels(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the labels as token ids, and which are suppressed: int64 and bool, of their shape."""
    selected = labels < IGNORED_LABEL
    return labels.where(~selected, IGNORED_LABEL - 1 - labels), selected
