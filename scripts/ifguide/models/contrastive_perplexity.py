"""Contrastive perplexity (Klein and Nabi, 2024, arXiv 2401.08491): the loss of a set of texts.

With φ the mean loss of a text over its tokens in nats, P the harmless texts of a set, N their toxic
counterparts, and c the mean of φ over P, through which gradients flow,

    s(x)  =  exp(−d(x)) / τ,     d(x) = |φ(x) − c|
    loss  =  −(1/|P|) Σ_{x in P} log( e^{s(x)} / (Σ_{y in P} e^{s(y)} + Σ_{y in N} e^{s(y) + α}) )

The distance has two sides: a toxic text that is likelier than c moves away from c by becoming
likelier still. With one side, d(x) = φ(x) − c for toxic texts, whose score falls with φ wherever
they are.
"""

import torch


def similarities(
    losses: torch.Tensor, centre: torch.Tensor, temperature: float, *, one_sided: bool = False
) -> torch.Tensor:
    """Return s of texts by their mean losses φ: (texts,)."""
    apart = losses - centre
    return (-(apart if one_sided else apart.abs())).exp() / temperature


def contrastive_loss(
    harmless: torch.Tensor,
    toxic: torch.Tensor,
    *,
    temperature: float,
    emphasis: float,
    one_sided: bool,
) -> torch.Tensor:
    """Return the loss of a set of texts.

    harmless and toxic: φ of each, (|P|,) and (|N|,), padding in none of the means; emphasis: α.
    """
    centre = harmless.mean()
    near = similarities(harmless, centre, temperature)
    far = similarities(toxic, centre, temperature, one_sided=one_sided) + emphasis
    return torch.cat([near, far]).logsumexp(0) - near.mean()
