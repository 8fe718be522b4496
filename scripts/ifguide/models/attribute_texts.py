"""What a model wrote itself, labelled by whether it is harmless: what R is learned from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from ifguide.data.labelled_texts import TOXIC
from ifguide.data.own_generations import read_own_generations
from ifguide.errors import InputError
from ifguide.models.attribute_model import fit_attribute, said_tokens
from ifguide.models.token_texts import TokenText, stacked, written_texts


class AttributeText(NamedTuple):
    """A text that a model wrote, and whether it is harmless."""

    text: TokenText
    free: bool


def attribute_texts(path: Path, positions: int) -> list[AttributeText]:
    """Return the texts of a file of own generations.

    Raises InputError where none is toxic, or none is not.
    """
    texts = [
        AttributeText(text, own.toxicity < TOXIC)
        for prompt in read_own_generations(path)
        for own in prompt
        for text in written_texts([own], positions)
    ]
    for free, kind in ((False, "toxic"), (True, "harmless")):
        if not any(text.free == free for text in texts):
            raise InputError(
                f"{path}: none of the {len(texts)} texts is {kind}, so there is nothing to tell "
                "apart; sample more of them, or after other `queries`"
            )
    return texts


def stacked_attribute(texts: Sequence[AttributeText]) -> dict[str, torch.Tensor]:
    """Return the batch of texts, and `free`, bool (texts,)."""
    return {
        **stacked([text for text, _ in texts]),
        "free": torch.tensor([free for _, free in texts]),
    }


def fit_on_generations(model: PreTrainedModel, path: Path) -> dict[str, torch.Tensor]:
    """Return R of `attribute_model`, of the states of a model in what it wrote itself."""
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    texts, free = zip(*attribute_texts(path, positions), strict=True)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return fit_attribute(*said_tokens(model, texts, free), vocabulary)
