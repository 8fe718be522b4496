"""The rule of Celadon (Arnett et al., 2024, arXiv 2410.22587) over graded heads of toxicity.

Every head grades a text from 0 to 3. A text is

    toxic    where the grades make 7 or more in all,
    mild     where they make 4 to 6, or 3 that are all of one head,
    kept     else.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

KEPT, MILD, TOXIC = 0, 1, 2
VERDICTS = ("kept", "mild", "toxic")
HIGHEST_GRADE = 3
TOXIC_FROM, MILD_FROM = 7, 4

Verdict = Literal["mild", "toxic"]


def grades(probabilities: np.ndarray, cuts: Sequence[float]) -> np.ndarray:
    """Return the grade of each probability: how many of the three ascending cuts it reaches.

    probabilities: float (texts, heads), of being toxic. int64, of the same shape.
    """
    return np.searchsorted(np.asarray(cuts), np.asarray(probabilities), side="right")


def verdicts(graded: np.ndarray) -> np.ndarray:
    """Return the verdict on each text: KEPT, MILD or TOXIC, int64 (texts,).

    graded: int (texts, heads), from 0 to HIGHEST_GRADE.
    """
    total = graded.sum(1)
    of_one_head = (total == HIGHEST_GRADE) & (graded.max(1) == HIGHEST_GRADE)
    mild = (total >= MILD_FROM) | of_one_head
    return np.where(total >= TOXIC_FROM, TOXIC, np.where(mild, MILD, KEPT))
