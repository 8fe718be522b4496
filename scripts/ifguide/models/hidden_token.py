"""Hiding tokens from a model in training: a place in the input that says only that one was there.

In the place of a hidden token the model reads a token of its own kind, one more than its vocabulary
has. It is no output: its logit is left out, so that nothing is learned about it but its embedding,
and after the training its row goes. What remains is a model of the vocabulary as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


@contextmanager
def hidden_token(model: PreTrainedModel) -> Iterator[int]:
    """Give the model one more input token, and yield its id; its logits stay as many as they were.

    Its embedding begins as the mean of all others. On leaving, the model is as large as before.
    """
    rows = model.get_input_embeddings().num_embeddings
    with torch.no_grad():
        mean = model.get_input_embeddings().weight.mean(0)
        _resize(model, rows + 1)
        model.get_input_embeddings().weight[rows] = mean
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _module, _inputs, logits: logits[..., :rows]
    )
    try:
        yield rows
    finally:
        hook.remove()
        _resize(model, rows)


def _resize(model: PreTrainedModel, rows: int) -> None:
    # Another row is not drawn at random: that would take numbers from the training.
    model.resize_token_embeddings(rows, mean_resizing=False)


def without_last_row(
    weights: dict[str, torch.Tensor], model: PreTrainedModel
) -> dict[str, torch.Tensor]:
    """Return weights of a model of one token more as those of `model`, which they are loaded into.

    Tensors whose first axis is one longer lose its last entry: embeddings, the head and its bias.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return {name: tensor[: shapes[name][0]] for name, tensor in weights.items()}
