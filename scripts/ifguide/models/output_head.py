"""The output head: a weight of its own, and the states that it reads.

In many families the head shares its weight with the input embeddings. To change it alone it has to
be given its own first; changed as it is, it would change how every token is read as well.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from ifguide.errors import InputError
from ifguide.models.text_passes import similar_lengths


def output_head(model: PreTrainedModel) -> nn.Module:
    """Return the linear layer that makes logits; raises InputError where the model has none."""
    head = model.get_output_embeddings()
    if head is None or getattr(head, "weight", None) is None:
        raise InputError(
            f"{type(model).__name__}: has no output head; take a causal language model"
        )
    return head


def untie_head(model: PreTrainedModel) -> nn.Module:
    """Give the output head a weight that it shares with nothing, in place, and return the head.

    The logits stay as they are, and the configuration says from now on that nothing is tied, so
    that the model is saved with both matrices and loaded as it was. One that is untied is left.
    """
    head = output_head(model)
    shared = [
        module
        for module in model.modules()
        if module is not head and getattr(module, "weight", None) is head.weight
    ]
    if shared:
        head.weight = nn.Parameter(head.weight.detach().clone(), head.weight.requires_grad)
        model.config.tie_word_embeddings = False
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
    return head


@contextmanager
def states_read_by_head(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect what the head reads in the passes of a context: (texts, T, width) of each."""
    found: list[torch.Tensor] = []
    hook = output_head(model).register_forward_pre_hook(
        lambda _, arguments: found.append(arguments[0])
    )
    try:
        yield found
    finally:
        hook.remove()


@torch.no_grad()
def mean_state(
    model: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    places: Sequence[range],
    *,
    batch_size: int = 32,
) -> torch.Tensor:
    """Return the mean of the states that the head reads at some places of texts: float64 (width,).

    texts: token ids; places: of each text, those of the tokens whose states count. The state at a
    token is what the next one is made of.
    """
    total, count = 0.0, 0
    with states_read_by_head(model) as found:
        for rows, ids, valid in similar_lengths(texts, batch_size):
            found.clear()
            model(input_ids=ids.to(model.device), use_cache=False)
            (states,) = found
            counted = torch.zeros_like(valid)
            for row, text in enumerate(rows):
                counted[row, places[text].start : places[text].stop] = True
            total = total + states[counted.to(states.device)].double().sum(0)
            count += int(counted.sum())
    return total / count
