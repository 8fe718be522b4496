"""Affine maps after norms, as hooks and folded into weights.

A map T(y) = w y + b acts on every token, dimension by dimension; at strength s it is

    (1 − s) y + s T(y) = (1 + s (w − 1)) y + s b
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from ifguide.models.activations import norms_of
from ifguide.models.folding import make_biases, require_folded, shift_input, short_logits
from ifguide.models.tracked_layers import TrackedLayer, tracked_layers


class AffineMap(NamedTuple):
    """w and b of one norm: (width,) each."""

    scale: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def identity(cls, like: torch.Tensor) -> "AffineMap":
        return cls(torch.ones_like(like), torch.zeros_like(like))

    def at(self, strength: float) -> "AffineMap":
        """Return the map that moves by so much of the way, in proportion."""
        return AffineMap(1 + strength * (self.scale - 1), strength * self.shift)


@dataclass(frozen=True)
class NormSite:
    """A norm that a map may follow.

    readers: the linear layers that a shift goes to, where the norm has no bias that takes it.
    shifts: whether there is a place for a shift at all: not after a norm without a bias that the
    output head reads, which has none either.
    """

    name: str
    module: nn.Module
    readers: tuple[TrackedLayer, ...]
    shifts: bool

    @property
    def has_bias(self) -> bool:
        return getattr(self.module, "bias", None) is not None


@torch.no_grad()
def norm_sites(model: PreTrainedModel) -> list[NormSite]:
    """Return the norms that act once on every position, in the order in which they act.

    One short pass tells the order, and which linear layers read what a norm gives.
    """
    norms, layers = norms_of(model), tracked_layers(model)[0]
    given: list[tuple[str, torch.Tensor]] = []
    read: dict[str, torch.Tensor] = {}

    def keep_output(name: str):
        return lambda _module, _arguments, output: given.append((name, output))

    def keep_input(name: str):
        return lambda _module, arguments: read.__setitem__(name, arguments[0])

    with ExitStack() as hooks:
        for name, module in norms.items():
            hooks.callback(module.register_forward_hook(keep_output(name)).remove)
        for layer in layers:
            hook = layer.module.register_forward_pre_hook(keep_input(layer.name))
            hooks.callback(hook.remove)
        short_logits(model)
    names = [name for name, _ in given]
    sites = []
    for name, output in given:
        if names.count(name) > 1:
            continue
        module = norms[name]
        if getattr(module, "bias", None) is not None:
            sites.append(NormSite(name, module, (), shifts=True))
            continue
        readers = tuple(layer for layer in layers if read[layer.name] is output)
        sites.append(NormSite(name, module, readers, shifts=bool(readers)))
    return sites


@contextmanager
def mapped(sites: Sequence[NormSite], maps: Mapping[str, AffineMap]) -> Iterator[None]:
    """Within, what norms give passes through the maps of `maps`; hooks set later see the result."""

    def through(site: NormSite):
        def apply(_module, _arguments, output: torch.Tensor) -> torch.Tensor:
            own = maps[site.name]
            return own.scale.to(output) * output + own.shift.to(output)

        return apply

    with ExitStack() as hooks:
        for site in sites:
            if site.name in maps:
                hooks.callback(site.module.register_forward_hook(through(site)).remove)
        yield


@torch.no_grad()
def fold_maps(
    model: PreTrainedModel, sites: Sequence[NormSite], maps: Mapping[str, AffineMap]
) -> None:
    """Fold maps into the weights of norms and of the layers that read them.

    Raises InputError where a family has no place for them.
    """
    sites = [site for site in sites if site.name in maps]
    make_biases(model, [layer for site in sites for layer in site.readers])
    with mapped(sites, maps):
        expected = short_logits(model)
    for site in sites:
        scale, shift = (part.to(site.module.weight) for part in maps[site.name])
        site.module.weight.mul_(scale)
        if site.has_bias:
            site.module.bias.mul_(scale).add_(shift)
        for layer in site.readers:
            shift_input(layer, shift)
    require_folded(model, expected)
