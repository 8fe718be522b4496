"""Training that changes, in each step, only the transformer blocks that it matters most to.

With B the blocks, L the mean loss of the label tokens of texts to learn, p₀ the frozen model that
training began with and p the model, one step is

    S = the blocks b with the largest ‖∂L/∂θ_b‖
    θ_S ← AdamW( ∂/∂θ_S ( L + λ KL(p₀ || p) ) )

and everything outside S stays as it is: all other blocks, embeddings, the final norm and the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn

from ifguide.models.causal_text_training import Batch, TextTrainer, mean_label_loss
from ifguide.models.token_texts import TokenText, mean_divergence, next_token_log_p, stacked
from ifguide.models.tracked_layers import transformer_blocks

REPAIR_COLUMNS = ("step", "epoch", "loss", "divergence", "blocks", "learning_rate")


class RepairTexts(NamedTuple):
    """A text to learn, and one on which the model is to stay as it was."""

    learned: TokenText
    kept: TokenText


def stacked_repair(examples: Sequence[RepairTexts]) -> Batch:
    """Return a batch of 2 · examples texts: all to learn, then all to keep, in their order."""
    return stacked([text for kind in zip(*examples, strict=True) for text in kind])


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return the batch of the texts to learn, and that of those to keep."""
    first, second = {}, {}
    for name, rows in batch.items():
        first[name], second[name] = rows.chunk(2)
    return first, second


def learning_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return L of the texts to learn of a batch: a scalar."""
    return mean_label_loss(model, halves(batch)[0])


def sensitivities(
    blocks: Sequence[nn.Module], measure: Literal["norm", "rms"] = "norm"
) -> torch.Tensor:
    """Return the size of the gradient that each block has: float64 (blocks,).

    norm: ‖g‖; rms: ‖g‖ / √n over the n parameters of a block, so that larger ones come no sooner.
    """
    found = []
    for block in blocks:
        gradients = [own.grad for own in block.parameters() if own.grad is not None]
        square = sum(gradient.double().square().sum() for gradient in gradients)
        count = sum(gradient.numel() for gradient in gradients) if measure == "rms" else 1
        found.append(torch.as_tensor(square / max(count, 1), dtype=torch.float64).sqrt().cpu())
    return torch.stack(found)


def most_sensitive(sizes: torch.Tensor, share: float | None) -> list[int]:
    """Return the blocks of the largest sizes, in model order: one, or a share of them rounded up.

    Of equal ones the earlier come first.
    """
    count = 1 if share is None else math.ceil(share * len(sizes))
    return sorted(sizes.argsort(descending=True, stable=True)[:count].tolist())


def times_chosen(losses: Sequence[dict]) -> list[int]:
    """Return how often each block was chosen, from the log of losses; none of an empty one."""
    counts = [map(int, record["blocks"].split()) for record in losses]
    return [sum(own) for own in zip(*counts, strict=True)]


class RepairTrainer(TextTrainer):
    """Trainer of the most sensitive blocks of each step; its loss is `learning_loss`."""

    def __init__(
        self,
        *arguments,
        start: nn.Module | None,
        weight: float,
        share: float | None,
        measure: Literal["norm", "rms"],
        **settings,
    ) -> None:
        """start: the frozen model that is kept to, by weight λ; None of weight 0."""
        super().__init__(*arguments, **settings)
        self.start, self.weight = start, weight
        self.share, self.measure = share, measure
        self.blocks = list(transformer_blocks(self.model)[1])
        self._forget()

    def _forget(self) -> None:
        # Since the last log: how often each block was chosen, and the sum of divergences.
        self.chosen, self.divergence, self.steps = [0] * len(self.blocks), 0.0, 0

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        self.accelerator.backward(loss)
        chosen = most_sensitive(sensitivities(self.blocks, self.measure), self.share)
        if self.start is not None:
            with self.compute_loss_context_manager():
                divergence = self._divergence(model, halves(inputs)[1])
            self.accelerator.backward(self.weight * divergence)
            self.divergence += float(divergence.detach())
            loss = loss + self.weight * divergence
        self._keep_gradients_of(chosen)
        self.steps += 1
        for block in chosen:
            self.chosen[block] += 1
        return loss.detach()

    def _divergence(self, model: nn.Module, kept: Batch) -> torch.Tensor:
        with torch.no_grad():
            reference = next_token_log_p(self.start, kept["input_ids"])
        return mean_divergence(
            reference, next_token_log_p(model, kept["input_ids"]), kept["labels"]
        )

    def _keep_gradients_of(self, chosen: Sequence[int]) -> None:
        """Without a gradient, a weight has no step: no momentum and no decay moves it either."""
        kept = {id(own) for block in chosen for own in self.blocks[block].parameters()}
        for parameter in self.model.parameters():
            if id(parameter) not in kept:
                parameter.grad = None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["blocks"] = " ".join(map(str, self.chosen))
            logs["divergence"] = self.divergence / max(self.steps, 1)
            self._forget()
        super().log(logs, start_time)
