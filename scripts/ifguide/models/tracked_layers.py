"""The linear layers inside the transformer blocks, found from the model's structure.

A tracked layer maps activations a (…, inputs) to outputs (…, outputs). Its weight W is
(outputs, inputs); a bias counts as one more column of W, on an activation that is always one.
`Conv1D`, which stores its weight transposed, is read and written through the same interface.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ifguide.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackedLayer:
    """One linear layer and the names of its parameters in the model."""

    name: str
    module: nn.Module

    @property
    def transposed(self) -> bool:
        return isinstance(self.module, Conv1D)

    @property
    def has_bias(self) -> bool:
        return self.module.bias is not None

    @property
    def outputs(self) -> int:
        return self.module.weight.shape[1 if self.transposed else 0]

    @property
    def inputs(self) -> int:
        """The number of activations, the one that stands for the bias included."""
        return self.module.weight.shape[0 if self.transposed else 1] + self.has_bias

    @property
    def rows(self) -> torch.Tensor:
        """The weights as (outputs, inputs), without the bias: a view, by which they are changed."""
        weight = self.module.weight.detach()
        return weight.T if self.transposed else weight

    def apply(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Return what this layer would make of `inputs` if `tensors` were its parameters."""
        weight = tensors[f"{self.name}.weight"].to(inputs)
        bias = tensors[f"{self.name}.bias"].to(inputs) if self.has_bias else None
        return nn.functional.linear(inputs, weight.T if self.transposed else weight, bias)

    def matrix(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the (outputs, inputs) matrix of this layer from tensors in parameter shapes."""
        weight = tensors[f"{self.name}.weight"]
        matrix = weight.T if self.transposed else weight
        if self.has_bias:
            matrix = torch.cat([matrix, tensors[f"{self.name}.bias"].unsqueeze(1)], dim=1)
        return matrix

    def parameters(self, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        """Split an (outputs, inputs) matrix into tensors by parameter name and shape."""
        tensors = {}
        if self.has_bias:
            matrix, bias = matrix[:, :-1], matrix[:, -1]
            tensors[f"{self.name}.bias"] = bias.contiguous()
        weight = matrix.T if self.transposed else matrix
        tensors[f"{self.name}.weight"] = weight.contiguous()
        return tensors

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.module.named_parameters(recurse=False):
            yield f"{self.name}.{name}", parameter


def transformer_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the model's list of transformer blocks: the outermost repeated modules that hold most.

    Raises InputError where the model has no repeated modules.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    ]
    if not lists:
        raise InputError(
            f"{type(model).__name__}: no list of transformer blocks was found, so no layer can be "
            "tracked; use a decoder built of repeated blocks"
        )
    return max(lists, key=lambda named: sum(p.numel() for p in named[1].parameters()))


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of the blocks by name: those that may be tracked.

    Of names and shapes alone: a model whose tensors have no values is enough.
    """
    prefix, blocks = transformer_blocks(model)
    return {
        name: module
        for name, module in blocks.named_modules(prefix=prefix)
        if isinstance(module, nn.Linear | Conv1D)
    }


def tracked_layers(model: nn.Module) -> tuple[list[TrackedLayer], list[str]]:
    """Return the tracked layers in model order, and the names of parameters left out.

    Left out are the matrices inside the blocks that no linear layer owns alone (experts stored as
    one tensor, weights shared with another module), and those of a linear layer that does not act
    once on every position (a routed expert, a block that is repeated). Norms are not expected to be
    tracked. One short forward pass tells which layers act so. What is left out is logged.
    """
    prefix, blocks = transformer_blocks(model)
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    layers = [
        TrackedLayer(name, module)
        for name, module in linear_layers(model).items()
        if owners[id(module.weight)] == 1
    ]
    layers = _acting_on_every_position(model, layers)
    tracked = {
        id(parameter) for layer in layers for parameter in layer.module.parameters(recurse=False)
    }
    untracked = [
        name
        for name, parameter in blocks.named_parameters(prefix=prefix)
        if id(parameter) not in tracked and parameter.dim() >= 2
    ]
    if untracked:
        log.warning(
            "not tracked, because no linear layer that acts once on every position owns them: %s",
            ", ".join(untracked),
        )
    return layers, untracked


@torch.no_grad()
def _acting_on_every_position(model: nn.Module, layers: list[TrackedLayer]) -> list[TrackedLayer]:
    """Keep the layers that one forward pass calls once, on inputs of shape (blocks, T, …)."""
    embeddings = model.get_input_embeddings()
    # All tokens differ, so that a router sends them to different experts.
    tokens = torch.arange(32, device=embeddings.weight.device).view(2, 16)
    tokens = tokens % embeddings.num_embeddings
    calls: dict[str, list[tuple[int, ...]]] = {layer.name: [] for layer in layers}
    hooks = [
        layer.module.register_forward_hook(
            lambda _module, arguments, _output, layer=layer: calls[layer.name].append(
                tuple(arguments[0].shape[:-1]) if arguments else ()
            )
        )
        for layer in layers
    ]
    try:
        model(input_ids=tokens, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    # Some mixtures of experts flatten blocks and positions before their linear layers.
    whole = ([tuple(tokens.shape)], [(tokens.numel(),)])
    return [layer for layer in layers if calls[layer.name] in whole]
