"""Means of token scores over directions: other proxies, checkpoints, queries or preconditioners.

    S_ij = mean over directions d of S_ij^(d) / c_d,   c_d = 1, or the root mean square of S^(d)

With c_d = 1 and H = identity it is the sum over checkpoints of TracIn (Pruthi et al., "Estimating
Training Data Influence by Tracing Gradient Descent", arXiv 2002.08484) for equal learning rates.
"""

import math
from collections.abc import Sequence

import numpy as np

from ifguide.errors import InputError


def root_mean_square(shards: Sequence[np.ndarray]) -> float:
    """Return √mean(S²) over the scored tokens of all shards, in float64.

    A score that is NaN belongs to a block that was not scored. Column 0, which scores 0 for every
    direction, is counted: it scales all alike.
    Raises InputError where every score is 0.
    """
    total, count = 0.0, 0
    for shard in shards:
        known = shard[~np.isnan(shard)].astype(np.float64)
        total += float(np.square(known).sum())
        count += known.size
    if total == 0:
        raise InputError("all scores of a direction are 0; leave it out of influence.averages")
    return math.sqrt(total / count)


def mean_scores(scores: Sequence[np.ndarray], scales: Sequence[float]) -> np.ndarray:
    """Return the mean over directions of scores / scale: float32, the shape of each of `scores`."""
    total = np.zeros(scores[0].shape, np.float64)
    for own, scale in zip(scores, scales, strict=True):
        total += own / np.float64(scale)
    return (total / len(scores)).astype(np.float32)
