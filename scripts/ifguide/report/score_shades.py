"""How strongly a token is shaded by its score, on a page or in a terminal."""

from collections.abc import Iterable, Sequence

import numpy as np

STEPS = 5  # on either side of zero


def score_scale(documents: Iterable[Sequence[float]]) -> float:
    """Return the absolute score that gets the strongest shade: the 99th percentile of all.

    documents: the scores of each document; 0 where there is none.
    """
    magnitudes = [np.abs(np.asarray(scores, dtype=float)) for scores in documents]
    magnitudes = np.concatenate(magnitudes) if magnitudes else np.zeros(0)
    return float(np.quantile(magnitudes, 0.99)) if magnitudes.size else 0.0


def shade(score: float, scale: float) -> int:
    """Return the step of a score's shade, from -STEPS to STEPS; 0 is none."""
    if scale <= 0:
        return 0
    step = min(STEPS, round(STEPS * abs(score) / scale))
    return step if score > 0 else -step
