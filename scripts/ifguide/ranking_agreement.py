"""How well two rankings of the same tokens agree."""

import numpy as np
from scipy.stats import kendalltau, spearmanr


def agreement(scores: np.ndarray, reference: np.ndarray, share: float) -> dict[str, float]:
    """Return `spearman`, `kendall` (tau-b) and `top_overlap` of two rankings, each at most 1.

    scores, reference: float (tokens,). `top_overlap` is the part of the highest `share` of the
    tokens (at least one) that both have in common; of tied tokens the first count as higher.
    """
    taken = max(1, round(share * len(scores)))
    tops = [np.argsort(-ranking, kind="stable")[:taken] for ranking in (scores, reference)]
    return {
        "spearman": float(spearmanr(scores, reference).statistic),
        "kendall": float(kendalltau(scores, reference).statistic),
        "top_overlap": len(np.intersect1d(*tops)) / taken,
    }
