"""Directions of the residual stream that toxic text moves along, and steering away from them.

With x the state after a block, and n the mean of ‖x‖ over the tokens of labelled texts,

    x ← x − α n Σ_f g_f d_f

f are the features of a sparse autoencoder whose largest activation in a text tells toxic texts from
others best, d_f their decoder's directions; or the one direction from the mean state of other
texts to that of toxic ones, the control. A feature fires at a token where its activation is above
zero; the control where x lies beyond the middle between both means. The gate g_f is 1 everywhere,
where the feature has fired in the prompt, or where it fires.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.labelled_texts import Texts
from ifguide.errors import InputError
from ifguide.models.activations import encode_texts_for, outputs_of, states_of, text_batches
from ifguide.models.class_separation import auroc_of_columns
from ifguide.models.folding import add_to_output, make_biases, require_folded, short_logits
from ifguide.models.sparse_autoencoder import (
    SparseAutoencoder,
    describe,
    train_sparse_autoencoder,
)
from ifguide.models.tracked_layers import TrackedLayer, tracked_layers, transformer_blocks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Residuals:
    """States after a block, of the tokens of texts: toxic ones first.

    states: float32 (tokens, width); texts: int64 (tokens,), the place of each token's text; toxic:
    bool (texts,).
    """

    states: torch.Tensor
    texts: torch.Tensor
    toxic: torch.Tensor

    def largest(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the maximum over each text's tokens: activations (tokens, k), (texts, k)."""
        places = self.texts.unsqueeze(1).expand_as(activations)
        empty = activations.new_full((len(self.toxic), activations.shape[1]), -torch.inf)
        return empty.scatter_reduce(0, places, activations, "amax")

    def mean(self, toxic: bool) -> torch.Tensor:
        """Return the mean over texts of one kind of the mean over a text's tokens: (width,)."""
        counts = torch.bincount(self.texts, minlength=len(self.toxic)).unsqueeze(1)
        sums = self.states.new_zeros(len(self.toxic), self.states.shape[1])
        means = sums.index_add(0, self.texts, self.states) / counts
        return means[self.toxic == toxic].mean(0)


@dataclass(frozen=True)
class Steering:
    """Features, (features, …) each but for the center, and how long the states are.

    A feature fires at x where encoder · (x − center) + bias > 0.
    """

    directions: torch.Tensor
    encoder: torch.Tensor
    bias: torch.Tensor
    center: torch.Tensor
    norm: torch.Tensor

    def fires(self, states: torch.Tensor) -> torch.Tensor:
        """Return bool (…, features) of states (…, width)."""
        encoder, center, bias = (part.to(states) for part in (self.encoder, self.center, self.bias))
        return (states - center) @ encoder.T + bias > 0

    def step(self, strength: float) -> torch.Tensor:
        """Return −α n d_f of each feature: (features, width)."""
        return -strength * self.norm * self.directions

    def tensors(self) -> dict[str, torch.Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class AutoencoderSettings:
    """How a sparse autoencoder is trained.

    expansion: features a dimension of the states; the rest as `train_sparse_autoencoder` has it.
    """

    expansion: int
    l1: float
    steps: int
    batch_size: int
    learning_rate: float


def steered_block(model: PreTrainedModel, number: int | None) -> int:
    """Return the place of a block by its number from one on; None: that in the middle.

    Raises InputError where the model has no such block.
    """
    _, blocks = transformer_blocks(model)
    if number is None:
        return (len(blocks) - 1) // 2
    if number > len(blocks):
        raise InputError(
            f"config key methods.*.*.block: {number}, but {type(model).__name__} has "
            f"{len(blocks)} blocks"
        )
    return number - 1


@torch.no_grad()
def residuals_after(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    block: int,
    *,
    max_length: int,
    batch_size: int = 32,
) -> Residuals:
    """Return the states after a block at the tokens of labelled texts, text by text."""
    encoded = encode_texts_for(model, tokenizer, [*texts.toxic, *texts.nontoxic], max_length)
    found: list[torch.Tensor | None] = [None] * len(encoded)
    with outputs_of({"block": transformer_blocks(model)[1][block]}) as outputs:
        for batch in text_batches(encoded, batch_size=batch_size, device=model.device):
            model.base_model(input_ids=batch.ids, use_cache=False)
            states = states_of(outputs["block"])
            for row, own, valid in zip(batch.rows, states, batch.valid, strict=True):
                found[row] = own[valid].float()
    lengths = torch.tensor([len(own) for own in found])
    return Residuals(
        torch.cat(found),
        torch.arange(len(found)).repeat_interleave(lengths).to(model.device),
        (torch.arange(len(found)) < len(texts.toxic)).to(model.device),
    )


def feature_steering(
    residuals: Residuals, features: int, settings: AutoencoderSettings, seed: int
) -> Steering:
    """Train a sparse autoencoder on all states; return its features that tell toxic texts best."""
    states = residuals.states
    autoencoder = train_sparse_autoencoder(
        states,
        features=settings.expansion * states.shape[1],
        l1=settings.l1,
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
    )
    described = describe(autoencoder, states)
    log.info(
        "sparse autoencoder of %d features: explained variance %.3f, %.1f features at a token, "
        "%.1f %% are dead",
        *(len(autoencoder.encoder), described["explained_variance"], described["active"]),
        100 * described["dead"],
    )
    areas = feature_areas(autoencoder, residuals)
    best = areas.argsort(descending=True, stable=True)[:features]
    log.info("areas under ROC curves: %s", ", ".join(f"{area:.3f}" for area in areas[best]))
    best = best.to(states.device)
    return Steering(
        directions=autoencoder.decoder.T[best],
        encoder=autoencoder.encoder[best],
        bias=autoencoder.encoder_bias[best],
        center=autoencoder.decoder_bias,
        norm=states.norm(dim=-1).mean(),
    )


@torch.no_grad()
def feature_areas(autoencoder: SparseAutoencoder, residuals: Residuals) -> torch.Tensor:
    """Return of each feature how well its largest activation tells toxic texts: (features,)."""
    parts = residuals.states.split(4096)
    activations = torch.cat([autoencoder.activations(part) for part in parts])
    return auroc_of_columns(residuals.largest(activations), residuals.toxic)


def mean_difference_steering(residuals: Residuals) -> Steering:
    """Return the one direction from the mean state of other texts to that of toxic texts."""
    toxic, nontoxic = residuals.mean(True), residuals.mean(False)
    direction = torch.nn.functional.normalize(toxic - nontoxic, dim=0).unsqueeze(0)
    return Steering(
        directions=direction,
        encoder=direction,
        bias=direction.new_zeros(1),
        center=(toxic + nontoxic) / 2,
        norm=residuals.states.norm(dim=-1).mean(),
    )


def fit_steering(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    direction: str,
    block: int,
    features: int,
    max_length: int,
    settings: AutoencoderSettings,
    seed: int,
) -> Steering:
    """Return what to steer away from after a block.

    direction: `feature` or `mean_difference`; features: how many of the former.
    """
    residuals = residuals_after(model, tokenizer, texts, block, max_length=max_length)
    log.info("%d states after block %d", len(residuals.states), block + 1)
    if direction == "mean_difference":
        return mean_difference_steering(residuals)
    return feature_steering(residuals, features, settings, seed)


# --- everywhere: folded ---------------------------------------------------------------------------


@contextmanager
def added_after(module: nn.Module, constant: torch.Tensor) -> Iterator[None]:
    """Within, a constant is added to the states that a module gives."""

    def add(_module, _arguments, output):
        states = states_of(output)
        changed = states + constant.to(states)
        return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

    hook = module.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def fold_constant(model: PreTrainedModel, block: int, constant: torch.Tensor) -> None:
    """Add a constant (width,) to the residual stream after a block, by a bias of its last layer.

    Raises InputError where a family has no place for it.
    """
    layer = last_layer_of(model, block)
    make_biases(model, [layer])
    with added_after(transformer_blocks(model)[1][block], constant):
        expected = short_logits(model)
    add_to_output(layer, constant)
    require_folded(model, expected)


def last_layer_of(model: PreTrainedModel, block: int) -> TrackedLayer:
    """Return the last linear layer of a block that is as wide as the residual stream.

    Raises InputError where a block has none.
    """
    prefix, _ = transformer_blocks(model)
    own: Sequence[TrackedLayer] = [
        layer
        for layer in tracked_layers(model)[0]
        if layer.name.startswith(f"{prefix}.{block}.") and layer.outputs == model.config.hidden_size
    ]
    if not own:
        raise InputError(
            f"{type(model).__name__}: no linear layer of block {block + 1} acts once on every "
            "position and writes to the residual stream, so that nothing can be added there by "
            "its bias; use another family, or a decode step"
        )
    return own[-1]
