"""Decoding from q ∝ p · R^f, where R says how likely a text stays free of an attribute.

`models.attribute_model` has R; the language model reads every row once more for its states.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ifguide.evaluation.generation import Guidance, Rows
from ifguide.evaluation.reading import ReadingRows
from ifguide.models.attribute_model import log_attribute, steered


@dataclass(frozen=True)
class AttributeGuidance(Guidance):
    """attribute: `weight` and `bias` of R, on the model's device; factor: f."""

    model: PreTrainedModel
    attribute: dict[str, torch.Tensor]
    factor: float
    max_new_tokens: int

    reads_prompts = True

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        return AttributeRows(self, ReadingRows(self.model, prompts, copies, self.max_new_tokens))


class AttributeRows(Rows):
    def __init__(self, guidance: AttributeGuidance, reading: ReadingRows) -> None:
        self.guidance = guidance
        self.reading = reading
        self.append, self.keep = reading.append, reading.keep

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        log_r = log_attribute(self.reading.last_state(), self.guidance.attribute)
        return steered(logits, log_r.to(logits), self.guidance.factor)
