"""The query direction: which way the weights move when toxic continuations become likelier.

    f(record) = Σ over the continuation's tokens of -log p
    q = mean over toxic records of ∇f  −  mean over safe records of ∇f
    v = H^(-power) q,   H from EK-FAC; the identity where power is 0; of all layers or some

Means are over records, not tokens: a long continuation weighs more, as in the published method.
"""

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import end_of_text_id, tokenize
from ifguide.errors import InputError
from ifguide.influence.ekfac import LayerFactors, inverse_hessian_product
from ifguide.influence.label_gradients import hidden_gradient
from ifguide.models.labels import IGNORED_LABEL
from ifguide.models.loading import HiddenStates
from ifguide.models.precision import at_least_float32
from ifguide.models.tracked_layers import TrackedLayer

log = logging.getLogger(__name__)

Direction = dict[str, torch.Tensor]


@dataclass(frozen=True)
class QueryRecord:
    """Token ids of a prompt followed by its continuation; only the continuation has labels."""

    ids: np.ndarray
    continuation_start: int


def encode_records(
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[tuple[str, str]],
    *,
    positions: int,
) -> list[QueryRecord]:
    """Tokenize (prompt, continuation) pairs; a prompt loses its beginning where it is too long.

    The two parts are tokenized apart, as they are at generation. An empty prompt is the end of
    text, after which documents begin. A continuation without a token is left out; one that is
    longer than the model's `positions` is cut.
    """
    prompts = tokenize(tokenizer, [prompt for prompt, _ in records])
    continuations = tokenize(tokenizer, [continuation for _, continuation in records])
    encoded = []
    for prompt, continuation in zip(prompts, continuations, strict=True):
        tail = continuation.ids[: positions - 1]
        head = prompt.ids[-(positions - len(tail)) :]
        if not len(head):
            head = np.array([end_of_text_id(tokenizer)])
        if len(tail):
            encoded.append(QueryRecord(np.concatenate([head, tail]), len(head)))
    return encoded


def length_batches(
    records: Sequence[QueryRecord], tokens_per_batch: int
) -> Iterator[list[QueryRecord]]:
    """Yield records sorted by length, in batches of at most `tokens_per_batch` padded tokens."""
    ordered = sorted(records, key=lambda record: len(record.ids))
    batch: list[QueryRecord] = []
    for record in ordered:
        if batch and len(record.ids) * (len(batch) + 1) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


def mean_gradient(
    model: PreTrainedModel,
    layers: Sequence[TrackedLayer],
    records: Sequence[QueryRecord],
    *,
    tokens_per_batch: int = 8192,
    logits_budget_bytes: int = 2**26,
) -> Direction:
    """Return the mean over records of ∇f, by parameter name, in the parameters' shapes.

    Records are padded on the right, where a causal model's losses cannot see the padding. The sum
    is float32, or float64 where the model is.
    Raises ValueError where there is no record.
    """
    if not records:
        raise ValueError("there are no query records")
    body = HiddenStates(model)
    parameters = dict(parameter for layer in layers for parameter in layer.named_parameters())
    total = {
        name: torch.zeros_like(at_least_float32(parameter.detach()))
        for name, parameter in parameters.items()
    }
    with only_gradients_of(model, parameters.values()):
        for batch in length_batches(records, tokens_per_batch):
            tokens, labels = _padded(batch, model.device)
            labels = labels[:, 1:].flatten()
            kept = labels != IGNORED_LABEL
            hidden = body(tokens)[:, :-1].flatten(0, 1)[kept]
            gradient = hidden_gradient(
                body.head, hidden, labels[kept], logits_budget_bytes=logits_budget_bytes
            )
            gradients = torch.autograd.grad(hidden, list(parameters.values()), gradient)
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += gradient
    return {name: tensor / len(records) for name, tensor in total.items()}


@contextlib.contextmanager
def only_gradients_of(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Compute the gradients of these parameters and of no others."""
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, value in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(value)


def _padded(
    batch: Sequence[QueryRecord], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(record.ids) for record in batch)
    tokens = torch.zeros(len(batch), length, dtype=torch.long)
    labels = torch.full_like(tokens, IGNORED_LABEL)
    for row, record in enumerate(batch):
        ids = torch.from_numpy(record.ids)
        tokens[row, : len(ids)] = ids
        labels[row, record.continuation_start : len(ids)] = ids[record.continuation_start :]
    return tokens.to(device), labels.to(device)


def difference(toxic: Direction, safe: Direction | None) -> Direction:
    """Return the differential query q, or the one-sided one where there are no safe records."""
    if safe is None:
        return toxic
    return {name: tensor - safe[name] for name, tensor in toxic.items()}


def precondition(
    query: Direction,
    layers: Iterable[TrackedLayer],
    factors: dict[str, LayerFactors],
    *,
    relative_damping: float,
    power: float,
    only: str = "",
) -> Direction:
    """Return v = H^(-power) q, by parameter name, unnormalised.

    only: as `layers` of `restricted`; a layer of which nothing is kept is zero, and its factors are
    not asked. So is one of which nothing that the model says depends, as pruning leaves it: its
    gradients are all zero, those of the query as well as those that made the factors.
    Raises InputError where the factors of a layer have no inverse at this damping.
    """
    direction: Direction = {}
    for layer in layers:
        matrix = layer.matrix(query)
        kept = any(re.search(only, name) for name, _ in layer.named_parameters())
        if kept and not matrix.any():
            log.warning(
                "%s: no gradient reaches it, so it is left out of the direction", layer.name
            )
        if not kept or not matrix.any():
            direction |= layer.parameters(torch.zeros_like(matrix))
            continue
        try:
            product = inverse_hessian_product(
                factors[layer.name],
                matrix,
                relative_damping=relative_damping,
                power=power,
            )
        except ValueError as error:
            raise InputError(
                f"config key influence.directions.*.relative_damping: {relative_damping:g} for "
                f"layer {layer.name}: {error}; raise it, train the model first, or leave the layer "
                "out by `layers`"
            ) from error
        direction |= layer.parameters(product)
    return direction


def restricted(direction: Direction, layers: str) -> Direction:
    """Return the direction with zeros for parameters whose names do not contain `layers`.

    layers: a regular expression; the empty one keeps all. Zeros keep the direction complete, so
    that every attribution can use it.
    Raises InputError where no name matches.
    """
    kept = {name for name in direction if re.search(layers, name)}
    if not kept:
        raise InputError(
            f"config key influence.directions.*.layers: {layers!r} is in no name of a tracked "
            f"layer; they are called like {min(direction)}"
        )
    return {
        name: tensor if name in kept else torch.zeros_like(tensor)
        for name, tensor in direction.items()
    }
