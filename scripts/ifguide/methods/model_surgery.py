"""Push gates away from what a probe of toxicity reads (Model Surgery, Wang et al., 2024).

With v the direction of a linear probe of toxicity on hidden states, and r the rows of the layer
that gates each block's MLP, those K rows of all blocks with the lowest cos(r, v) become

    r + strength · v

(arXiv 2407.08770).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.errors import InputError
from ifguide.methods.step import EditJob, Given, Need, Probe, Sizes, Step
from ifguide.models.work import Work
from ifguide.settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ifguide.models.tracked_layers import TrackedLayer

log = logging.getLogger(__name__)

# The layer whose outputs an activation function gates, by the last part of its name.
GATES = ("gate_proj", "dense_h_to_4h", "c_fc")


class ModelSurgeryOptions(Settings):
    """Add the direction of a probe of toxicity to the rows of MLPs that are most opposed to it."""

    texts: Annotated[
        str,
        Field(
            description="Name of an entry of `texts`, on whose hidden states the probe is fitted."
        ),
    ]
    strength: Annotated[
        float, Field(ge=0, description="How much of the direction is added to a row.")
    ] = 1.0
    scale: Annotated[
        Literal["relative", "raw"],
        Field(
            description="What a strength of 1 adds: the direction, as long as a row is on average; "
            "or, as published, the weights of the probe, whose length is a matter of how it was "
            "fitted."
        ),
    ] = "relative"
    share: Annotated[
        float,
        Field(
            gt=0, le=1, description="Share of the rows of all blocks that are changed, rounded up."
        ),
    ] = 0.0465


class ModelSurgery(Step):
    stage = "edit"
    Options = ModelSurgeryOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"texts": Probe(self.options.texts)}

    def work(self, sizes: Sizes) -> Work:
        """A cosine of every row; the probe is made by a job of its own."""
        return Work(kind="gradients", flops=4.0 * sizes.shape.tracked)

    def require_model(self, model: PreTrainedModel) -> None:
        from ifguide.models.tracked_layers import linear_layers

        gating(model, linear_layers(model))

    def edit(self, job: EditJob, given: Given) -> None:
        from ifguide.files.tensor_files import read_tensors

        options = self.options
        if options.strength == 0:
            return
        (path,) = given["texts"]
        # Of a softmax over two classes, the row of the toxic one.
        direction = read_tensors(path)[0]["weight"].double() / 2
        layers = gates(job.model)
        require_width(layers, len(direction), path)
        direction = direction.to(job.model.device)
        rows = [layer.rows.double() for layer in layers]
        if options.scale == "relative":
            import torch

            length = torch.cat([own.norm(dim=1) for own in rows]).mean()
            direction = length * direction / direction.norm()
        chosen = most_opposed(rows, direction, options.share)
        for layer, own, mask in zip(layers, rows, chosen, strict=True):
            if mask.any():
                changed = own[mask] + options.strength * direction
                weights = layer.rows
                weights[mask] = changed.to(weights.dtype)
        log.info(
            "%d of %d rows of %d layers changed",
            *(sum(int(mask.sum()) for mask in chosen), sum(map(len, rows)), len(layers)),
        )


def gates(model: PreTrainedModel) -> list[TrackedLayer]:
    """Return the layers that gate the MLPs, in model order; raises InputError as `gating`."""
    from ifguide.models.tracked_layers import tracked_layers

    layers = {layer.name: layer for layer in tracked_layers(model)[0]}
    return [layers[name] for name in gating(model, layers)]


def gating(model: PreTrainedModel, names: Iterable[str]) -> list[str]:
    """Return the names of gates; raises InputError where the family has none of those known."""
    found = [name for name in names if name.rpartition(".")[2] in GATES]
    if not found:
        raise InputError(
            f"{type(model).__name__}: no layer is named {', '.join(GATES)}, so which one gates an "
            "MLP is not known; use a model of another family"
        )
    return found


def require_width(layers: list[TrackedLayer], width: int, path: Path) -> None:
    """Raise InputError where the probe of a file has another width than what the layers read."""
    widths = {layer.rows.shape[1] for layer in layers}
    if widths != {width}:
        raise InputError(
            f"{path}: a probe of {width} numbers, but the layers of the model read {min(widths)}; "
            "make it with the model that is edited"
        )


def most_opposed(
    rows: list[torch.Tensor], direction: torch.Tensor, share: float
) -> list[torch.Tensor]:
    """Mark the share of all rows, rounded up, with the lowest cosine with a direction.

    rows: float64 (outputs, width) of each layer; returns bool (outputs,) of each. Of equal ones
    those of earlier layers and rows come first; the cosine of a row of zeros is 0.
    """
    import torch

    flat = torch.cat(rows)
    lengths = (flat.norm(dim=1) * direction.norm()).clamp(min=torch.finfo(flat.dtype).tiny)
    order = (flat @ direction / lengths).argsort(stable=True)
    marked = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    marked[order[: math.ceil(share * len(flat))]] = True
    return list(marked.split([len(own) for own in rows]))
