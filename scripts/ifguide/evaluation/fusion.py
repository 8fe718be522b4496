"""Fusion of a second model's state into the logits of the language model.

With z = W h the language model's logits, W its output head, h its state after the final norm, e the
second model's own such state, A a linear map between their widths and LN a layer norm without
weights,

    h' = (1 − a) h + a LN(e A),      z' = (1 − a) z + a W LN(e A)

are one and the same, as W is linear.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from ifguide.errors import InputError
from ifguide.evaluation.generation import Guidance, Rows
from ifguide.evaluation.reading import ReadingRows
from ifguide.models.loading import HiddenStates

Context = Literal["full", "last"]


class Reader(Protocol):
    """What a second model's state comes from."""

    def last_state(self) -> torch.Tensor:
        """Return the state at the last token of every row: (rows, width)."""

    def append(self, token: torch.Tensor) -> None:
        """Take note of the next token (rows,) of every row."""

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows (indices) only."""


class LastTokens:
    """A reader to whom each row's last token is its whole text."""

    def __init__(self, model: PreTrainedModel, tokens: torch.Tensor) -> None:
        self.model = model
        self.tokens = tokens

    @torch.no_grad()
    def last_state(self) -> torch.Tensor:
        states = self.model.base_model(input_ids=self.tokens.unsqueeze(1), use_cache=False)
        return states.last_hidden_state[:, -1]

    def append(self, token: torch.Tensor) -> None:
        self.tokens = token

    def keep(self, rows: torch.Tensor) -> None:
        self.tokens = self.tokens[rows]


@dataclass(frozen=True)
class FusionGuidance(Guidance):
    """The fusion above as guidance.

    head: the language model's output head; alignment: A, (width of e, width of h); context: what
    the second model reads, the row's whole text or its last token.
    """

    head: nn.Module
    second: PreTrainedModel
    alignment: torch.Tensor
    strength: float
    context: Context
    new_tokens: int
    reads_prompts = True

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        if self.context == "last":
            reader = LastTokens(self.second, prompts[:, -1].repeat_interleave(copies))
        else:
            reader = ReadingRows(self.second, prompts, copies, self.new_tokens)
        return FusedRows(self, reader)


class FusedRows(Rows):
    """Rows whose logits the second model's state is fused into."""

    def __init__(self, guidance: FusionGuidance, reader: Reader) -> None:
        self.guidance = guidance
        self.reader = reader
        self.append, self.keep = reader.append, reader.keep

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        share = self.guidance.strength
        aligned = self.reader.last_state() @ self.guidance.alignment
        normed = torch.nn.functional.layer_norm(aligned, aligned.shape[-1:])
        return (1 - share) * logits + share * self.guidance.head(normed).to(logits.dtype)


def linear_head(model: PreTrainedModel) -> nn.Module:
    """Return the output head. Raises InputError where logits are not linear in the states."""
    head = HiddenStates(model).head
    if head is None:
        raise InputError(
            f"a {model.config.model_type} model does more to its logits than one linear output "
            "head, so that a state cannot be fused into them; take a model without caps or scales"
        )
    return head
