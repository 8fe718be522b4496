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

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import end_of_text_id, tokenize
from ifguide.errors import InputError
from ifguide.models.precision import at_least_float32
from ifguide.models.tracked_layers import tracked_layers

# Of states (texts, T, k) and of what is no padding, bool (texts, T): (texts, k).
Pool = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class TextBatch(NamedTuple):
    """Texts that are read together.

    rows: their places among all texts; ids: int64 (texts, T), padded on the right; valid: bool
    (texts, T), the tokens of the texts themselves.
    """

    rows: list[int]
    ids: torch.Tensor
    valid: torch.Tensor


def encode_after_end_of_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[list[int]]:
    """Return the ids of each text after an end of text, at most `max_length` in all.

    Raises InputError for a text that is empty.
    """
    begin = end_of_text_id(tokenizer)
    encoded = [[begin, *text.ids.tolist()][:max_length] for text in tokenize(tokenizer, texts)]
    for number, ids in enumerate(encoded, start=1):
        if len(ids) < 2:
            raise InputError(
                f"labelled text {number} is empty; remove it from the files of `texts`"
            )
    return encoded


def encode_texts_for(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
) -> list[list[int]]:
    """Return the same, no longer than the model's positions in any case."""
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    return encode_after_end_of_text(tokenizer, texts, min(max_length, positions))


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


def text_batches(
    encoded: Sequence[Sequence[int]], *, batch_size: int, device: torch.device
) -> Iterator[TextBatch]:
    """Yield all texts of `encode_after_end_of_text`, those of similar length together.

    What precedes each text is not valid. What fills a batch stands on the right, where the states
    of a causal model cannot see it.
    """
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        ids, valid = padded_right([encoded[row] for row in rows], padding=encoded[rows[0]][0])
        valid[:, 0] = False
        yield TextBatch(rows, ids.to(device), valid.to(device))


def norms_of(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the norms over the model's width by name, in the order of its modules.

    Norms of another width are left out, such as those of an attention head's queries and keys.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        and getattr(module, "weight", None) is not None
        and module.weight.shape == (model.config.hidden_size,)
    }


def states_of(output) -> torch.Tensor:
    """Return the states that a module gives, which may stand first among other things."""
    return output if isinstance(output, torch.Tensor) else output[0]


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
    states = at_least_float32(states)
    # Whatever stands at other places, infinities included, takes no part.
    states = states.masked_fill(~valid.unsqueeze(-1), 0.0)
    return states.sum(1) / valid.sum(1, keepdim=True)


def pooled_maximum(states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the maximum over valid places: states (texts, T, width), valid bool (texts, T)."""
    return states.masked_fill(~valid.unsqueeze(-1), -torch.inf).amax(1)


def pooled_last(states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the states at the last valid place: states (texts, T, width), valid (texts, T)."""
    last = valid.long().cumsum(1).argmax(1)
    return states[torch.arange(len(states), device=states.device), last]


def pooled_pass(
    model: PreTrainedModel,
    batch: TextBatch,
    pools: dict[str, tuple[nn.Module, Pool]],
) -> dict[str, torch.Tensor]:
    """Read a batch, and return what modules give, pooled: (texts, k) by the names of `pools`.

    The output head does not take part. What a module gives is pooled as it comes, so that the
    outputs of all are never held at once; linear layers may flatten texts and places.
    """
    found: dict[str, torch.Tensor] = {}

    def pooling(name: str, pool: Pool):
        def pool_outputs(_module, _arguments, output) -> None:
            states = states_of(output)
            found[name] = pool(states.reshape(*batch.ids.shape, states.shape[-1]), batch.valid)

        return pool_outputs

    with ExitStack() as hooks:
        for name, (module, pool) in pools.items():
            hooks.callback(module.register_forward_hook(pooling(name, pool)).remove)
        model.base_model(input_ids=batch.ids, use_cache=False)
    return found


@torch.no_grad()
def pooled_over_texts(
    model: PreTrainedModel,
    encoded: Sequence[Sequence[int]],
    pools: dict[str, tuple[nn.Module, Pool]],
    *,
    batch_size: int = 32,
) -> dict[str, torch.Tensor]:
    """Return what `pooled_pass` gives of all texts: (texts, k), of float32 or wider, on the CPU.

    encoded: as `encode_after_end_of_text` gives them. But for the rounding of sums, a row depends
    on its own text alone.
    """
    rows: list[int] = []
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in pools}
    for batch in text_batches(encoded, batch_size=batch_size, device=model.device):
        rows += batch.rows
        for name, values in pooled_pass(model, batch, pools).items():
            parts[name].append(at_least_float32(values).cpu())
    places = torch.tensor(rows).argsort()
    return {name: torch.cat(values)[places] for name, values in parts.items()}


def measure_activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    labels: Sequence[float],
    *,
    max_length: int,
    batch_size: int = 32,
) -> dict[str, torch.Tensor]:
    """Return the tensors above.

    max_length: of a text in tokens, the end of text before it included; no longer than the model's
    positions in any case. Raises InputError for a text that is empty.
    """
    encoded = encode_texts_for(model, tokenizer, texts, max_length)
    pools: dict[str, tuple[nn.Module, Pool]] = {
        "hidden.mean": (model.base_model, pooled_mean),
        "hidden.last": (model.base_model, pooled_last),
    }
    for name, module in norms_of(model).items():
        pools[f"norms.{name}.mean"] = (module, pooled_mean)
    for layer in tracked_layers(model)[0]:
        pools[f"linears.{layer.name}.maximum"] = (layer.module, pooled_maximum)
    pooled = pooled_over_texts(model, encoded, pools, batch_size=batch_size)
    tensors = {name: values.float() for name, values in pooled.items()}
    return {**tensors, "labels": torch.tensor(labels, dtype=torch.float32)}
