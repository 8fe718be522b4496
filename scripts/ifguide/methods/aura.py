"""AurA, Damp and Det0 (Suau et al., 2024): neurons that respond to toxic text respond less.

A neuron is one output of a linear layer, its bias included. With R the area under the ROC curve of
its largest response to a text, over texts that are toxic or not,

    y ← (1 − s) y + s α y

    aura     α = 1 − 2 (R − ½) where R > ½, else 1
    damp     α = ½ at the neurons of highest R, a share of all of them, else 1
    det0     α = 0 there, else 1

The row of the weight and the bias take the factor, so that the model stays a plain one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.errors import InputError
from ifguide.methods.step import Activations, EditJob, Given, Need, Sizes, Step
from ifguide.models.work import Work
from ifguide.settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class AuraOptions(Settings):
    """Damp the outputs of linear layers that tell toxic texts from others."""

    texts: Annotated[
        str,
        Field(
            min_length=1, description="Name of an entry of `texts`, whose activations are ranked."
        ),
    ]
    variant: Annotated[
        Literal["aura", "damp", "det0"],
        Field(
            description="Damp every neuron that responds to toxic texts, the more the better it "
            "tells them apart; or halve, or silence, those that tell them apart best."
        ),
    ] = "aura"
    share: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Share of the neurons that `damp` and `det0` act on; not `aura`.",
        ),
    ] = 0.01
    layers: Annotated[
        str,
        Field(
            json_schema_extra={"format": "regex"},
            description="Regular expression that the names of linear layers must contain; the "
            "others stay as they are. The name of a block's feed-forward layers has `mlp` in it.",
        ),
    ] = "mlp"
    strength: Annotated[
        float,
        Field(ge=0, le=1, description="How much of the damping is applied; 0 changes nothing."),
    ] = 1.0


class Aura(Step):
    stage = "edit"
    Options = AuraOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"texts": Activations(self.options.texts)}

    def mistake(self) -> tuple[str, str] | None:
        try:
            re.compile(self.options.layers)
        except re.error as error:
            return "layers", f"is no regular expression: {error}"
        return None

    def work(self, sizes: Sizes) -> Work:
        """Every weight of a linear layer is multiplied; to rank responses is hardly work beside."""
        return Work(kind="training", flops=sizes.shape.tracked)

    def require_model(self, model: PreTrainedModel) -> None:
        from ifguide.models.tracked_layers import linear_layers

        matching(list(linear_layers(model)), self.options.layers)

    def edit(self, job: EditJob, given: Given) -> None:
        from ifguide.data.labelled_texts import TOXIC
        from ifguide.files.tensor_files import read_tensors
        from ifguide.models.class_separation import auroc_of_columns
        from ifguide.models.folding import scale_outputs
        from ifguide.models.tracked_layers import tracked_layers

        options = self.options
        (path,) = given["texts"]
        activations, _ = read_tensors(path)
        toxic = activations["labels"] >= TOXIC
        tracked = {layer.name: layer for layer in tracked_layers(job.model)[0]}
        layers = [tracked[name] for name in matching(list(tracked), options.layers)]
        separation = {
            layer.name: auroc_of_columns(activations[f"linears.{layer.name}.maximum"], toxic)
            for layer in layers
        }
        factors = damping(separation, options.variant, options.share)
        damped = sum(int((factor < 1).sum()) for factor in factors.values())
        neurons = sum(len(factor) for factor in factors.values())
        log.info("%d of %d neurons of %d layers are damped", damped, neurons, len(layers))
        for layer in layers:
            scale_outputs(layer, 1 - options.strength * (1 - factors[layer.name]))


def matching(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that a pattern is found in; raises InputError where it is in none."""
    found = [name for name in names if re.search(pattern, name)]
    if not found:
        raise InputError(
            f"config key methods.*.aura.layers: {pattern!r} is in no name of a linear layer; one "
            f"of them is {names[0]}"
        )
    return found


def damping(
    separation: dict[str, torch.Tensor], variant: str, share: float
) -> dict[str, torch.Tensor]:
    """Return α of every neuron, (outputs,) float64 by layer, of its area under the ROC curve.

    Of equals at the edge of a share, the first in the order of layers and outputs are taken.
    """
    import torch

    areas = torch.cat(list(separation.values()))
    if variant == "aura":
        factors = 1 - 2 * (areas - 0.5).clamp(min=0)
    else:
        factors = torch.ones_like(areas)
        order = areas.argsort(descending=True, stable=True)
        factors[order[: max(1, round(share * len(areas)))]] = 0.5 if variant == "damp" else 0.0
    sizes = [len(part) for part in separation.values()]
    return dict(zip(separation, factors.split(sizes), strict=True))
