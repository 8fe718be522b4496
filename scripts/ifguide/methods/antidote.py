"""Prune the weights that toxic text uses most (Antidote, Huang et al., 2024).

With x_j the inputs of a linear layer on toxic texts, weights are scored as Wanda does (Sun et al.,
2023, arXiv 2306.11695), and of each row, which makes one output, those scored highest become zero:

    score_ij = |W_ij| · ‖x_j‖₂,      inputs − int( inputs · (1 − strength) ) of them

(arXiv 2408.09600).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.errors import InputError
from ifguide.methods.step import EditJob, Given, LabelledTexts, Need, Sizes, Step
from ifguide.models.work import Work, reading_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ifguide.models.tracked_layers import TrackedLayer

log = logging.getLogger(__name__)

TEXT_TOKENS = 40  # of a labelled text, where a plan has not read it
BATCH = 32
# The layers that make queries, keys and values, by the last part of their names.
QUERY_KEY_VALUE = ("query_key_value", "q_proj", "k_proj", "v_proj", "c_attn")


class AntidoteOptions(Settings):
    """Set the weights to zero that toxic texts use most."""

    texts: Annotated[
        str, Field(description="Name of an entry of `texts`; its toxic texts are read.")
    ]
    strength: Annotated[
        float,
        Field(ge=0, le=1, description="Share of the weights of each row that become zero."),
    ] = 0.1
    targets: Annotated[
        Literal["qkv", "all"],
        Field(
            description="Which layers: those that make queries, keys and values, as released, or "
            "all linear layers of the blocks."
        ),
    ] = "qkv"
    mask: Annotated[
        Literal["scores", "random"],
        Field(
            description="Which weights of a row: those scored highest, or as many drawn at random, "
            "which is the control."
        ),
    ] = "scores"
    max_length: Annotated[
        int, Field(ge=8, description="Tokens that are read of a text, at most.")
    ] = 128


class Antidote(Step):
    stage = "edit"
    Options = AntidoteOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        if self.options.mask == "random":
            return {}
        return {"texts": LabelledTexts(self.options.texts)}

    def work(self, sizes: Sizes) -> Work:
        """Reading the toxic half of the texts, unless the mask is random, and sorting weights."""
        sorting = Work(kind="gradients", flops=10.0 * sizes.shape.tracked)
        if self.options.mask == "random":
            return sorting
        length = min(TEXT_TOKENS, self.options.max_length)
        tokens = sizes.records("texts") / 2 * length
        return reading_work(sizes.shape, tokens, length, BATCH).then(sorting)

    def require_model(self, model: PreTrainedModel) -> None:
        from ifguide.models.tracked_layers import linear_layers

        targeted(model, linear_layers(model), self.options.targets)

    def edit(self, job: EditJob, given: Given) -> None:
        options = self.options
        if options.strength == 0:
            return
        layers = targets(job.model, options.targets)
        if options.mask == "random":
            scores = {layer.name: random_scores(layer, job.seed) for layer in layers}
        else:
            from ifguide.data.labelled_texts import read_texts
            from ifguide.models.activations import encode_after_end_of_text

            (path,) = given["texts"]
            positions = getattr(job.model.config, "max_position_embeddings", None) or 2**31
            encoded = encode_after_end_of_text(
                job.tokenizer, read_texts(path).toxic, min(options.max_length, positions)
            )
            squares = mean_squares(job.model, layers, encoded)
            # All layers are scored before one of them is changed.
            scores = {layer.name: wanda_scores(layer.rows, squares[layer.name]) for layer in layers}
        zeros = 0
        for layer in layers:
            pruned = highest_of_rows(scores[layer.name], options.strength)
            layer.rows.masked_fill_(pruned, 0)
            zeros += int(pruned.sum())
        log.info("%d weights of %d layers set to zero", zeros, len(layers))


def targets(model: PreTrainedModel, which: Literal["qkv", "all"]) -> list[TrackedLayer]:
    """Return the layers that are pruned. Raises InputError where a family has none of them."""
    from ifguide.models.tracked_layers import tracked_layers

    layers = {layer.name: layer for layer in tracked_layers(model)[0]}
    return [layers[name] for name in targeted(model, layers, which)]


def targeted(
    model: PreTrainedModel, names: Iterable[str], which: Literal["qkv", "all"]
) -> list[str]:
    """Return the names of the layers that are pruned; raises InputError where there is none."""
    found = [name for name in names if which == "all" or name.rpartition(".")[2] in QUERY_KEY_VALUE]
    if not found:
        raise InputError(
            f"{type(model).__name__}: no layer is named {', '.join(QUERY_KEY_VALUE)}; set the "
            "option `targets: all`"
        )
    return found


def mean_squares(
    model: PreTrainedModel, layers: Sequence[TrackedLayer], texts: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """Return the mean square of each input of each layer over all tokens: float64 (inputs,).

    texts: token ids, each after an end of text, whose own inputs are left out: they are the largest
    of many models, and say nothing of the text.
    """
    import torch

    from ifguide.models.text_passes import similar_lengths

    device = model.device
    sums = {
        layer.name: torch.zeros(layer.rows.shape[1], dtype=torch.float64, device=device)
        for layer in layers
    }
    counted = torch.zeros(0, dtype=torch.bool, device=device)

    def add(name: str):
        def hook(_module, arguments):
            inputs = arguments[0].reshape(counted.numel(), -1)[counted.flatten()]
            sums[name] += inputs.double().square().sum(0)

        return hook

    hooks = [layer.module.register_forward_pre_hook(add(layer.name)) for layer in layers]
    tokens = 0
    try:
        with torch.no_grad():
            for _, ids, valid in similar_lengths(texts, BATCH):
                valid[:, 0] = False
                counted = valid.to(device)
                tokens += int(valid.sum())
                model(input_ids=ids.to(device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / tokens for name, total in sums.items()}


def wanda_scores(weight: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """Return |W_ij| √(mean x_j²): float64 (outputs, inputs), weight so too, squares (inputs,)."""
    return weight.double().abs() * squares.sqrt()


def random_scores(layer: TrackedLayer, seed: int) -> torch.Tensor:
    """Return uniform numbers for the weights of a layer: float64 (outputs, inputs)."""
    import torch

    from ifguide.seeds import derive_seed

    weight = layer.rows
    generator = torch.Generator().manual_seed(derive_seed(seed, "random mask", layer.name))
    drawn = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
    return drawn.to(weight.device)


def highest_of_rows(scores: torch.Tensor, share: float) -> torch.Tensor:
    """Mark the highest scores of each row, all but int(inputs · (1 − share)): bool like scores.

    Of equal scores the last inputs of a row are marked first.
    """
    import torch

    kept = int(scores.shape[1] * (1 - share))
    order = scores.argsort(dim=1, stable=True)
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, order[:, :kept], False)
