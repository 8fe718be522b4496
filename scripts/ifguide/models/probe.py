"""A linear probe of toxicity on mean hidden states of labelled texts (`models.activations`).

    p(toxic | text) = σ( w · mean h + b ),      with an L2 penalty on w, by scikit-learn

As a softmax over two classes it has the rows −w/2 and w/2: of two rows with one penalty the sum
stays zero. The tensors of a file: `weight` float32 (width,), `bias` float32 (1,).
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from ifguide.data.labelled_texts import TOXIC


def fit_probe(activations: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the probe of the activations of texts of both kinds."""
    states = activations["hidden.mean"].double().numpy()
    toxic = activations["labels"].numpy() >= TOXIC
    # In units of its standard deviation, so that the penalty means the same for every model.
    scale = states.std(0) + np.finfo(np.float32).eps
    fitted = LogisticRegression(max_iter=10_000).fit(states / scale, toxic)
    return {
        "weight": torch.from_numpy(fitted.coef_[0] / scale).float(),
        "bias": torch.from_numpy(fitted.intercept_).float(),
    }
