"""What a model computes on labelled texts, pooled over the tokens of each.

With h the states after the final norm, which the output head reads, the tensors of a file are, all
float32 and a row a text,

    hidden.mean, hidden.last        mean of h over the tokens, h at the last one: (texts, width)
    norms.<module>.mean             mean of what a norm gives: (texts, width)
    linears.<module>.maximum        maximum of what a linear layer gives, its bias included, before
                                    any activation function: (texts, outputs)
    labels                          toxicity in [0, 1]: (texts,)

A text is read after an end of text, whose own activations are left out: they say nothing of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import end_of_text_id, tokenize
from ifguide.errors import InputError
from ifguide.models.tracked_layers import tracked_layers


def encode_after_end_of_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[list[int]]:
    """Return the ids of each text after an end of text, at most `max_length` in all.

    Raises InputError for a text that is empty.
    """
    begin = end_of_text_id(tokenizer)
    encoded = [[begin, *text.ids.tolist()][:max_length] for text in tokenize(tokenizer, texts)]
    if any(len(ids) < 2 for ids in encoded):
        raise InputError("a labelled text is empty; remove it from the files of `texts`")
    return encoded


def padded_right(
    encoded: Sequence[Sequence[int]], padding: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids int64 and what is no padding, bool: both (texts, longest)."""
    ids = torch.full((len(encoded), max(map(len, encoded))), padding)
    valid = torch.zeros(ids.shape, dtype=torch.bool)
    for row, text in enumerate(encoded):
        ids[row, : len(text)] = torch.tensor(text)
        valid[row, : len(text)] = True
    return ids, valid


def norms_of(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the norms over the model's width, in the order in which they stand, by name.

    Those of heads are left out, and embeddings' own.
    """
    width = model.get_output_embeddings().weight.shape[1]
    return {
        name: module
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        and getattr(module, "weight", None) is not None
        and module.weight.shape == (width,)
    }


@contextmanager
def outputs_of(modules: dict[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Keep what modules give in the passes of a context, by name; the last pass counts."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str):
        return lambda _module, _arguments, output: found.__setitem__(name, output)

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def pooled_mean(states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean over valid places: states (texts, T, width), valid bool (texts, T)."""
    weights = valid.unsqueeze(-1).to(states)
    return (states * weights).sum(1) / weights.sum(1)


def pooled_maximum(states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return states.masked_fill(~valid.unsqueeze(-1), -torch.inf).amax(1)


@torch.no_grad()
def measure_activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    labels: Sequence[float],
    *,
    max_length: int,
    batch_size: int = 32,
) -> dict[str, torch.Tensor]:
    """Return the tensors above; the texts of a batch are of similar length."""
    encoded = encode_after_end_of_text(tokenizer, texts, max_length)
    norms, head = norms_of(model), model.get_output_embeddings()
    linears = {layer.name: layer.module for layer in tracked_layers(model)[0]}
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    found: dict[str, list[torch.Tensor]] = {}
    states: list[torch.Tensor] = []
    reading = head.register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
    try:
        with outputs_of({**norms, **linears}) as outputs:
            for start in range(0, len(order), batch_size):
                rows = [encoded[row] for row in order[start : start + batch_size]]
                ids, valid = padded_right(rows, end_of_text_id(tokenizer))
                ids, valid = ids.to(model.device), valid.to(model.device)
                states.clear()
                model(input_ids=ids, use_cache=False)
                (hidden,) = states
                last = valid.sum(1) - 1
                valid[:, 0] = False
                pooled = {
                    "hidden.mean": pooled_mean(hidden, valid),
                    "hidden.last": hidden[torch.arange(len(rows), device=last.device), last],
                }
                for name in norms:
                    pooled[f"norms.{name}.mean"] = pooled_mean(outputs[name], valid)
                for name in linears:
                    flat = outputs[name].view(*ids.shape, -1)
                    pooled[f"linears.{name}.maximum"] = pooled_maximum(flat, valid)
                for name, values in pooled.items():
                    found.setdefault(name, []).append(values.float().cpu())
    finally:
        reading.remove()
    places = torch.empty(len(order), dtype=torch.int64)
    places[torch.tensor(order)] = torch.arange(len(order))
    tensors = {name: torch.cat(parts)[places] for name, parts in found.items()}
    return {**tensors, "labels": torch.tensor(labels, dtype=torch.float32)}
