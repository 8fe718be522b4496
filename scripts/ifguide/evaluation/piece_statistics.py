"""The toxicity of a long text from those of its pieces, in the ways that a filter may judge by."""

import numpy as np

from ifguide.evaluation.calibration import LIKELIER

COLUMNS = ("mean", "share", "worst")


def piece_statistics(probabilities: np.ndarray) -> np.ndarray:
    """Return the mean, the share of toxic pieces and the highest of a text: float32 (3,), COLUMNS.

    probabilities: of its pieces being toxic, (pieces,), one or more.
    """
    toxic = probabilities >= LIKELIER
    return np.array([probabilities.mean(), toxic.mean(), probabilities.max()], np.float32)
