"""Edits of activations that are folded into weights, so that the model stays a plain directory.

In exact arithmetic, with W and c the weight and bias of a linear layer, and γ and β of a norm,

    scale a linear layer's output by a              W ← diag(a) W,   c ← a c
    an affine map (w, b) after a norm               γ ← w γ,         β ← w β + b
      where the norm has no β (RMSNorm)             γ ← w γ,         c ← c + W b of all that read it
    add v to what a linear layer gives              c ← c + v

A bias that a layer lacks is made, of zeros, where the family's configuration has a place for it.
Other layers that the same setting gives one keep it at zero.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ifguide.errors import InputError
from ifguide.models.tracked_layers import TrackedLayer

# Settings of configurations that give linear layers a bias.
BIAS_SETTINGS = ("attention_bias", "mlp_bias")


@torch.no_grad()
def scale_outputs(layer: TrackedLayer, factors: torch.Tensor) -> None:
    """Scale what a linear layer gives, its bias included, by factors (outputs,)."""
    for parameter in layer.module.parameters(recurse=False):
        factor = factors.to(parameter)
        if parameter.dim() == 2 and not layer.transposed:
            factor = factor.unsqueeze(1)
        parameter.mul_(factor)


@torch.no_grad()
def add_to_output(layer: TrackedLayer, constant: torch.Tensor) -> None:
    """Add a constant (outputs,) to what a linear layer with a bias gives."""
    layer.module.bias.add_(constant.to(layer.module.bias))


@torch.no_grad()
def shift_input(layer: TrackedLayer, shift: torch.Tensor) -> None:
    """Have a linear layer with a bias give what it would of its input plus a shift (inputs,)."""
    weight = layer.module.weight
    matrix = weight.T if layer.transposed else weight
    layer.module.bias.add_(matrix @ shift.to(weight))


def make_biases(model: PreTrainedModel, layers: Sequence[TrackedLayer]) -> None:
    """Give layers that have no bias one of zeros, and the configuration what loads it again.

    Raises InputError, the model unchanged, where the configuration of the family has no such place.
    """
    wanted = {layer.name for layer in layers if layer.module.bias is None}
    switched: dict[str, bool] = {}
    made: set[str] = set()
    for setting in BIAS_SETTINGS:
        if wanted and getattr(model.config, setting, True) is False:
            biases = _biases_with(model, setting)
            if biases & wanted:
                switched[setting] = True
                made |= biases
    if missing := sorted(wanted - made):
        raise InputError(
            f"{type(model).__name__}: {missing[0]} has no bias, and the configuration of the "
            "family none to switch on, so that nothing can be added to what it gives and the "
            "model saved as a plain directory; choose a step that scales weights only, or "
            "another family"
        )
    for setting, value in switched.items():
        setattr(model.config, setting, value)
    for name in sorted(made):
        linear = model.get_submodule(name)
        weight = linear.weight
        linear.bias = nn.Parameter(torch.zeros(weight.shape[0], dtype=weight.dtype).to(weight))


def _biases_with(model: PreTrainedModel, setting: str) -> set[str]:
    """Return the layers without a bias that a setting of the configuration would give one."""
    config = copy.deepcopy(model.config)
    setattr(config, setting, True)
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config)
    own = {name for name, _ in model.named_parameters()}
    new = {name for name, _ in fresh.named_parameters()} - own
    return {name.removesuffix(".bias") for name in new}


def require_folded(model: PreTrainedModel, expected: torch.Tensor) -> None:
    """Refuse a model that does not compute what it did with the edit as hooks.

    expected: `short_logits` of the model with these. Raises InputError where they differ by more
    than rounding: the family does something else between its layers.
    """
    found = short_logits(model)
    # Half of the digits may be lost to rounding.
    tolerance = torch.finfo(found.dtype).eps ** 0.5 * expected.norm()
    if not (found - expected).norm() <= tolerance:
        raise InputError(
            f"{type(model).__name__}: the edit is another one in its weights than in its "
            "activations, so that it cannot be saved as a plain directory; use another family"
        )


@torch.no_grad()
def short_logits(model: PreTrainedModel) -> torch.Tensor:
    """Return the logits of a short text of different tokens, to compare models by."""
    tokens = torch.arange(16, device=model.device).unsqueeze(0) % model.config.vocab_size
    return model(input_ids=tokens, use_cache=False).logits
