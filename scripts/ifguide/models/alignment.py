"""A linear map from the embeddings of one model to those of another, over tokens both know.

With E₁ and E₂ the input embeddings, the map A is fitted by InfoNCE (van den Oord et al., 2018) with
inner products: for a token t and tokens n drawn uniformly,

    loss = −log( exp(E₁[t] A · E₂[t]) / ( exp(E₁[t] A · E₂[t]) + Σ_n exp(E₁[t] A · E₂[n]) ) )

averaged over a batch.
"""

import torch


def contrastive_loss(
    queries: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor
) -> torch.Tensor:
    """Return the loss above: queries E₁[t] A and positives (batch, width), negatives (batch, n, ·).

    A negative that is the positive itself counts as any other.
    """
    right = (queries * positives).sum(-1, keepdim=True)
    wrong = (negatives @ queries.unsqueeze(-1)).squeeze(-1)
    return -torch.cat([right, wrong], dim=-1).log_softmax(-1)[:, 0].mean()


def fit_alignment(
    source: torch.Tensor,
    target: torch.Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    negatives: int,
    seed: int,
) -> torch.Tensor:
    """Return A, (source width, target width), of embeddings (tokens, width) row by row.

    A begins with normal random numbers and is fitted by Adam.
    """
    generator = torch.Generator().manual_seed(seed)
    source, target = source.detach().cpu(), target.detach().cpu()
    tokens = len(source)
    shape = (source.shape[1], target.shape[1])
    alignment = torch.randn(shape, generator=generator, dtype=source.dtype).requires_grad_()
    optimizer = torch.optim.Adam([alignment], lr=learning_rate)
    for _ in range(epochs):
        for batch in torch.randperm(tokens, generator=generator).split(batch_size):
            others = torch.randint(tokens, (len(batch), negatives), generator=generator)
            loss = contrastive_loss(source[batch] @ alignment, target[batch], target[others])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return alignment.detach()
