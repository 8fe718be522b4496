"""Exact scores of a few blocks, to compare one direction or one model with another."""

import numpy as np
import torch

from ifguide.data.corpus import Corpus
from ifguide.influence.factor_blocks import block_batches
from ifguide.influence.query_direction import Direction
from ifguide.influence.token_scores import forward_mode_scorer


def block_scores(
    model, direction: Direction, corpus: Corpus, blocks: np.ndarray, settings: dict
) -> np.ndarray:
    """Return the exact `loss` scores of the label tokens of some blocks, flat."""
    direction = {name: tensor.to(model.device) for name, tensor in direction.items()}
    score = forward_mode_scorer(
        model, direction, logits_budget_bytes=settings["logits_budget_mib"] * 2**20
    )
    found = []
    for batch in block_batches(corpus, np.sort(blocks), settings["batch_size"], model.device):
        kept = batch.valid.clone()
        kept[:, 0] = False
        found.append(score(batch.tokens)[kept].cpu())
    return torch.cat(found).numpy()
