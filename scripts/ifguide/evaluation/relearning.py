"""Relearning: a model is tuned on toxic texts, as who has its weights can do, and is measured.

A step is one of AdamW at a constant learning rate on the mean loss of a batch of toxic texts. What
is measured is the loss of toxic text that no model has seen,

    L  =  mean over the toxic label tokens of held-out documents of  −log p(x_t | x_<t)

in nats, which a method raises and an attacker lowers again.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from ifguide.data.corpus import Corpus
from ifguide.errors import InputError
from ifguide.models.labels import IGNORED_LABEL
from ifguide.models.loading import HiddenStates, token_losses
from ifguide.models.token_texts import TokenText, next_token_log_p, stacked


@torch.no_grad()
def toxic_text_loss(model: PreTrainedModel, corpus: Corpus, *, batch_size: int = 32) -> float:
    """Return the mean loss of the label tokens that are known to be toxic, nats a token.

    A token's context is its block. Raises InputError where no token of `corpus` is.
    """
    body = HiddenStates(model)
    total, count = 0.0, 0
    for start in range(0, len(corpus.tokens), batch_size):
        rows = range(start, min(start + batch_size, len(corpus.tokens)))
        toxic = corpus.truth.rows(rows).copy()
        toxic[:, 0] = False  # a block's first token has no context
        held = toxic.any(axis=1)
        if not held.any():
            continue
        tokens = torch.from_numpy(corpus.tokens.rows(rows)[held].astype(np.int64))
        losses = token_losses(body, tokens.to(model.device)).double().cpu().numpy()
        total += losses[toxic[held]].sum()
        count += int(toxic.sum())
    if not count:
        raise InputError(
            "config key lasting: no token of the held-out documents is known to be toxic; add a "
            "source with `spans` to corpus.sources and hold out a part of it, or remove the section"
        )
    return float(total / count)


def relearn(
    model: PreTrainedModel,
    texts: Sequence[TokenText],
    *,
    learning_rate: float,
    batch_size: int,
    measured_steps: Sequence[int],
    seed: int,
) -> Iterator[int]:
    """Tune `model` in place; yield 0 and each of `measured_steps`, ascending, when it is reached.

    The caller measures the model in between. Texts come in an order drawn by `seed`, each once
    before any comes again. The model stays in evaluation mode: dropout is off.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    batches = endless_batches(len(texts), min(batch_size, len(texts)), seed)
    done = 0
    yield done
    for target in measured_steps:
        for _ in range(target - done):
            batch = stacked([texts[place] for place in next(batches)])
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            loss = torch.nn.functional.nll_loss(
                next_token_log_p(model, batch["input_ids"]).flatten(0, 1),
                batch["labels"][:, 1:].flatten(),
                ignore_index=IGNORED_LABEL,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        done = target
        yield done


def endless_batches(count: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield places below `count`, `size` at once, in one permutation after another.

    What is left of a permutation and fills no batch is left out.
    """
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
