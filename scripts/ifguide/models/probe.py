"""A linear probe of toxicity on mean hidden states of labelled texts (`models.activations`).

With h_i the mean state of text i, each dimension in units of its standard deviation over the texts,
and y_i = 1 for a toxic text and −1 for another one, the probe p(toxic | text) = σ( w · h + b ) has

    w, b = argmin  ½ ‖w‖² + Σ_i log( 1 + exp( −y_i ( w · h_i + b ) ) )

by scikit-learn; w is then expressed for h as it is. As a softmax over two classes it has the rows
−w/2 and w/2: of two rows with one penalty the sum stays zero. The tensors of a file: `weight`
float32 (width,), `bias` float32 (1,).
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from ifguide.data.labelled_texts import TOXIC
from ifguide.errors import InputError


def fit_probe(activations: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the probe of the activations of texts of both kinds.

    Raises InputError where all texts are of one kind.
    """
    states = activations["hidden.mean"].double().numpy()
    toxic = activations["labels"].numpy() >= TOXIC
    if toxic.all() or not toxic.any():
        raise InputError(
            f"all {len(toxic)} labelled texts are {'toxic' if toxic.all() else 'nontoxic'}, so "
            "that no probe can tell them apart; add a source of the other kind to the entry of "
            "`texts`"
        )
    # In units of its standard deviation, so that the penalty means the same for every model; a
    # dimension that is the same for all texts says nothing, and gets no weight.
    center, scale = states.mean(0), states.std(0) + np.finfo(np.float32).eps
    fitted = LogisticRegression(max_iter=10_000, tol=1e-8).fit((states - center) / scale, toxic)
    weight = fitted.coef_[0] / scale
    return {
        "weight": torch.from_numpy(weight).float(),
        "bias": torch.from_numpy(fitted.intercept_ - center @ weight).float(),
    }
