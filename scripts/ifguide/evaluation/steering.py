"""Steering the residual stream while text is written, where features fire (`residual_steering`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from ifguide.evaluation.generation import Guidance, Rows
from ifguide.models.activations import states_of
from ifguide.models.residual_steering import Steering


@contextmanager
def steered_where_firing(module: nn.Module, steering: Steering, strength: float) -> Iterator[None]:
    """Within, the states after a module move away from each feature where it fires."""
    with _moved(module, steering, strength, steering.fires):
        yield None


@contextmanager
def steered_after_firing(
    model: PreTrainedModel, module: nn.Module, steering: Steering, strength: float
) -> Iterator[Guidance]:
    """Within, the states move away from each feature from where it first fires in the prompt on.

    Gives the guidance that tells which rows belong to which prompt.
    """
    guidance = FiredInPrompt()

    def look(_module, _arguments, options: dict) -> None:
        cache = options.get("past_key_values")
        guidance.begins = cache is None or cache.get_seq_length() == 0

    hook = model.base_model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with _moved(module, steering, strength, lambda x: guidance.gates(steering.fires(x))):
            yield guidance
    finally:
        hook.remove()


class FiredInPrompt(Guidance):
    """Whether a feature has fired in the prompt, for each row of a batch.

    A pass that begins a text decides for the whole text: at each of its places whether the feature
    has fired by then, and at all that are written after it whether it has at the end of it. Texts
    that are read in one pass, without a continuation, count as prompts all the way.
    """

    reads_prompts = True

    def __init__(self) -> None:
        self.rows: RowsOfPrompts | None = None
        self.begins = True  # of the pass that is on its way: without a cache of what came before

    def begin(self, prompts: torch.Tensor, copies: int) -> "RowsOfPrompts":
        self.rows = RowsOfPrompts(copies)
        return self.rows

    def gates(self, fires: torch.Tensor) -> torch.Tensor:
        """Return where the states of a pass are moved: both bool (rows, T, features)."""
        if not self.begins:
            return self.rows.fired.unsqueeze(1).expand_as(fires)
        fired = fires.cummax(1).values
        if self.rows is not None and self.rows.fired is None:
            self.rows.fired = fired[:, -1].repeat_interleave(self.rows.copies, dim=0)
        return fired


class RowsOfPrompts(Rows):
    """fired: bool (rows, features), None before the prompts are read."""

    def __init__(self, copies: int) -> None:
        self.copies = copies
        self.fired: torch.Tensor | None = None

    def keep(self, rows: torch.Tensor) -> None:
        self.fired = self.fired[rows]


@contextmanager
def _moved(module: nn.Module, steering: Steering, strength: float, gates) -> Iterator[None]:
    """Within, the states x after a module are x + Σ_f gates(x)_f step_f."""
    step = steering.step(strength)

    def move(_module, _arguments, output):
        states = states_of(output)
        changed = states + gates(states).to(states) @ step.to(states)
        return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

    hook = module.register_forward_hook(move)
    try:
        yield
    finally:
        hook.remove()
