"""Fisher's linear discriminant of the last hidden states of labelled texts.

With μ₊ the mean of the states of nontoxic texts, μ₋ that of toxic ones, and Σ the covariance within
the classes, pooled over all texts,

    w = Σ⁺ (μ₊ − μ₋) / 2,   normalised,      margin(h) = w · (h − (μ₊ + μ₋) / 2)

where Σ⁺ inverts Σ in the directions whose variance exceeds SMALLEST_VARIANCE (Ko et al., 2024,
arXiv 2410.03818). The margin is a length in the space of hidden states, above 0 on the nontoxic
side. As tensors: `weight` float64 (width,), w itself, and `bias` float64 (1,).
"""

import torch

from ifguide.errors import InputError

SMALLEST_VARIANCE = 1e-6


def fit_discriminant(states: torch.Tensor, toxic: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the discriminant of hidden states (texts, width), of which `toxic` (texts,) are so.

    Computed in float64. Raises InputError where the two classes do not differ.
    """
    states = states.double()
    means = torch.stack([states[~toxic].mean(0), states[toxic].mean(0)])
    centred = states - means[toxic.long()]
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(states))
    kept = variances > SMALLEST_VARIANCE
    along = directions[:, kept].T @ (means[0] - means[1]) / 2
    weight = directions[:, kept] @ (along / variances[kept])
    length = weight.norm()
    if not length > 0:
        raise InputError(
            "the hidden states of toxic and of nontoxic texts have one mean, so that no direction "
            "tells them apart; give the entry of `texts` more texts, or other ones"
        )
    weight = weight / length
    return {"weight": weight, "bias": -(weight @ means.mean(0)).reshape(1)}


def margins(states: torch.Tensor, discriminant: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the margin of hidden states (…, width): float64 (…)."""
    return states.double() @ discriminant["weight"] + discriminant["bias"]
