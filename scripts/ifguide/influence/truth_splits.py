"""Which documents judge token scores: all whose truth is known, and two halves of them.

A setting chosen because it finds the known toxic tokens best must be judged on other documents than
those it was chosen by.
"""

import numpy as np

from ifguide.seeds import derive_seed

HALVES = ("choose", "report")


def half_of(document: int, seed: int) -> str:
    """Return the half of one document: it depends on its number and the seed alone."""
    return HALVES[derive_seed(seed, "half of the documents", document) % 2]


def truth_splits(truth: np.ndarray, documents: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return which tokens belong to each split, by name: bool, the shape of `truth`.

    truth: bool, documents: int, both (tokens,), of documents whose truth is known; harmless and
    annotated documents are divided alike. `choose` and `report` are disjoint and together `all`.
    `toxic`, `choose_toxic` and `report_toxic` keep the documents that hold a toxic token.
    """
    numbers, owners = np.unique(documents, return_inverse=True)
    choosing = np.array([half_of(int(number), seed) == "choose" for number in numbers], bool)
    choosing = choosing[owners]
    in_toxic = np.isin(documents, np.unique(documents[truth]))
    return {
        "all": np.ones(len(truth), bool),
        "toxic": in_toxic,
        "choose": choosing,
        "choose_toxic": choosing & in_toxic,
        "report": ~choosing,
        "report_toxic": ~choosing & in_toxic,
    }
