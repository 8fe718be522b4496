"""The block in which a harmless and a toxic text differ most, as DINM finds it.

    l = argmax_l mean over pairs ‖ h_l(toxic) − h_l(harmless) ‖

with h_l the output of block l at the last token of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from ifguide.models.token_texts import TokenText, stacked
from ifguide.models.tracked_layers import TrackedLayer, tracked_layers, transformer_blocks

TEXTS_AT_ONCE = 64


@contextmanager
def block_outputs(model: PreTrainedModel) -> Iterator[dict[int, torch.Tensor]]:
    """Keep what each block gives in the last pass of a context: (texts, T, width), by its place."""
    _, blocks = transformer_blocks(model)
    kept: dict[int, torch.Tensor] = {}

    def keep(place: int):
        def hook(_module, _arguments, output):
            kept[place] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [block.register_forward_hook(keep(place)) for place, block in enumerate(blocks)]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def last_states(model: PreTrainedModel, texts: Sequence[TokenText]) -> torch.Tensor:
    """Return the output of every block at the last token of texts: (blocks, texts, width)."""
    parts = []
    with block_outputs(model) as outputs:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            model.base_model(input_ids=stacked(some)["input_ids"].to(model.device), use_cache=False)
            rows = torch.arange(len(some))
            ends = torch.tensor([len(text.ids) - 1 for text in some])
            parts.append(torch.stack([outputs[place][rows, ends] for place in sorted(outputs)]))
    return torch.cat(parts, dim=1)


def toxic_block(
    model: PreTrainedModel, harmless: Sequence[TokenText], toxic: Sequence[TokenText]
) -> int:
    """Return the place of the block in which the two sides of pairs differ most."""
    apart = last_states(model, toxic) - last_states(model, harmless)
    return int(apart.norm(dim=-1).mean(1).argmax())


def output_layer(model: PreTrainedModel, block: int) -> TrackedLayer:
    """Return the linear layer that ends a block's MLP: the last tracked one within the block."""
    prefix, _ = transformer_blocks(model)
    layers, _ = tracked_layers(model)
    return [layer for layer in layers if layer.name.startswith(f"{prefix}.{block}.")][-1]
