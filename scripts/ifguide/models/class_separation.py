"""How well single numbers tell toxic texts from others."""

import numpy as np
import torch
from scipy.stats import rankdata

from ifguide.errors import InputError


def auroc_of_columns(values: torch.Tensor, toxic: torch.Tensor) -> torch.Tensor:
    """Return the area under the ROC curve of each column: float64 (columns,).

    values: (texts, columns); toxic: bool (texts,), of both kinds. It is the probability that a
    toxic text has the higher value of two, a tie counting half (Mann and Whitney, 1947):
    (sum of the toxic texts' ranks − P (P + 1) / 2) / (P N), with P toxic texts and N others.
    Raises InputError where all texts are of one kind.
    """
    ranks = rankdata(values.cpu().numpy(), axis=0)
    chosen = toxic.cpu().numpy()
    positive = int(chosen.sum())
    negative = len(chosen) - positive
    if not positive or not negative:
        raise InputError(
            f"all {len(chosen)} labelled texts are {'toxic' if positive else 'nontoxic'}, so that "
            "nothing can tell them apart; add a source of the other kind to the entry of `texts`"
        )
    above = ranks[chosen].sum(0) - positive * (positive + 1) / 2
    return torch.from_numpy(np.asarray(above / (positive * negative)))
