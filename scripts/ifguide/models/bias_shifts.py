"""Biases of a model's upper blocks, and passes in which every row of a batch has its own."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from ifguide.errors import InputError
from ifguide.models.activations import norms_of
from ifguide.models.tracked_layers import transformer_blocks


def biased_modules(model: PreTrainedModel, blocks: int) -> dict[str, nn.Module]:
    """Return the modules with a bias in the uppermost `blocks` blocks, and the final norm, by name.

    What such a module gives is a sum whose last term is its bias: a linear layer or a norm.
    Raises InputError where the blocks have no bias.
    """
    prefix, stack = transformer_blocks(model)
    upper = {
        name: module
        for place, block in enumerate(stack)
        if place >= len(stack) - blocks
        for name, module in block.named_modules(prefix=f"{prefix}.{place}")
        if _has_bias(module)
    }
    if not upper:
        raise InputError(
            f"a {model.config.model_type} model has no biases in its blocks, so that none can be "
            "tuned; choose a family with biases, such as gpt_neox or gpt2"
        )
    final = {
        name: norm
        for name, norm in norms_of(model).items()
        if not name.startswith(f"{prefix}.") and _has_bias(norm)
    }
    return {**upper, **final}


def _has_bias(module: nn.Module) -> bool:
    return isinstance(getattr(module, "bias", None), nn.Parameter)


@contextmanager
def shifted(modules: Mapping[str, nn.Module], shifts: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Have every row of the passes of a context its own biases: those of the model and `shifts`.

    shifts: (rows, 1, outputs) by the names of modules. The model's own biases are not touched.
    """
    with ExitStack() as hooks:
        for name, module in modules.items():
            # Adding to what the module gives is adding to its bias.
            hook = module.register_forward_hook(
                lambda _module, _arguments, output, shift=shifts[name]: output + shift
            )
            hooks.callback(hook.remove)
        yield
