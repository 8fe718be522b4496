"""Decoding with gradients: before each token is drawn, biases take a step away from toxicity.

After the text x₁ … x_t of a row, with p the model, h its last hidden states, E its embeddings, and
σ(w · h + b) the probability of toxicity by a linear probe of mean hidden states, x_t is read again
with a shift δ, zero at first, on every bias of the upper blocks, and after it a soft token:

    e    =  Σ_v p_δ(v | x) E_v
    h̄    =  ( h₁ + … + h_{t−1} + h_t(δ) + h(e; δ) ) / (t + 1)
    g    =  ∇_δ  −log( 1 − σ(w · h̄ + b) )        at δ = 0
    δ    =  −η g / (|g| + ε)                      elementwise: the first step of Adam
    log p'(v | x)  =  α log p_δ(v | x) + (1 − α) log p(v | x) + constant

The next token is drawn from p', and is read without any shift (Yang et al., 2023, arXiv
2210.04492). A continuation whose perplexity under the model itself is too high is written again
with fewer blocks; where no attempt is good enough, that of the lowest perplexity is kept.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from ifguide.errors import InputError
from ifguide.evaluation.generation import Guidance, RetriedGuidance, Rows
from ifguide.models.bias_shifts import biased_modules, shifted
from ifguide.models.loading import HiddenStates, token_losses

ADAM_EPSILON = 1e-8


class BiasTuning(RetriedGuidance):
    """Guidance as above.

    probe: tensors of `models.probe` on the states of `model`; modules: those with a bias that is
    tuned, by name (`models.bias_shifts`); learning_rate: η; tuned_share: α; max_perplexity: of a
    continuation under the model, above which those of `retries` write it, one after another.

    A text that is there already, whose tokens are given, meets the shifts but no retry.
    """

    reads_prompts = True

    def __init__(
        self,
        model: PreTrainedModel,
        probe: Mapping[str, torch.Tensor],
        modules: Mapping[str, nn.Module],
        *,
        learning_rate: float,
        tuned_share: float,
        max_perplexity: float = torch.inf,
        retries: Sequence[Guidance] = (),
    ) -> None:
        self.model = model
        self.body = HiddenStates(model)
        if self.body.head is None:
            raise InputError(
                f"a {model.config.model_type} model does more to its logits than one linear output "
                "head, so that its biases cannot be tuned; choose another family"
            )
        self.probe = {name: tensor.to(model.device, model.dtype) for name, tensor in probe.items()}
        self.modules = modules
        self.learning_rate = learning_rate
        self.tuned_share = tuned_share
        self.max_perplexity = max_perplexity
        self.retries = retries

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        return TunedRows(self, prompts, copies)

    def faults(
        self, prompts: torch.Tensor, continuations: torch.Tensor, end_of_text: int
    ) -> torch.Tensor:
        """Return by how much the perplexity of each continuation exceeds what it may be."""
        losses = token_losses(self.body, torch.cat([prompts, continuations], dim=1))
        written = (continuations == end_of_text).cumsum(-1) == 0
        losses = losses[:, prompts.shape[1] :] * written
        perplexity = (losses.sum(-1) / written.sum(-1).clamp(min=1)).exp()
        return (perplexity - self.max_perplexity).clamp(min=0)


def guidance_of_attempts(
    model: PreTrainedModel,
    probe: Mapping[str, torch.Tensor],
    attempts: Sequence[int],
    *,
    learning_rate: float,
    tuned_share: float,
    max_perplexity: float | None,
) -> BiasTuning:
    """Return the guidance whose attempts tune so many uppermost blocks each.

    max_perplexity: None where no continuation is written again. Raises InputError for a model
    without biases.
    """
    settings = {"learning_rate": learning_rate, "tuned_share": tuned_share}
    modules = [biased_modules(model, blocks) for blocks in attempts]
    if max_perplexity is None:
        return BiasTuning(model, probe, modules[0], **settings)
    retries = [BiasTuning(model, probe, fewer, **settings) for fewer in modules[1:]]
    settings["max_perplexity"] = max_perplexity
    return BiasTuning(model, probe, modules[0], retries=retries, **settings)


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Take no gradient of the model's own parameters in a context: it would cost memory only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class TunedRows(Rows):
    """The rows of a batch: what the model has read of them but for the last token of each.

    `logits` is asked once a token.
    """

    def __init__(self, guidance: BiasTuning, prompts: torch.Tensor, copies: int) -> None:
        self.guidance = guidance
        self.last = prompts[:, -1:].repeat_interleave(copies, dim=0)
        self.cache = DynamicCache(config=guidance.model.config)
        self.length = prompts.shape[1] - 1
        width = guidance.probe["weight"].shape[0]
        self.states = torch.zeros(len(self.last), width).to(guidance.probe["weight"])
        if self.length:
            states = self.read(self.cache, input_ids=prompts[:, :-1])
            self.cache.batch_repeat_interleave(copies)
            self.states = states.sum(1).repeat_interleave(copies, dim=0)

    def read(self, cache: DynamicCache, **tokens: torch.Tensor) -> torch.Tensor:
        """Return the states of tokens (rows, T) after those of the cache, which takes them in."""
        body = self.guidance.model.base_model
        return body(past_key_values=cache, use_cache=True, **tokens).last_hidden_state

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        guidance = self.guidance
        before = detached(self.cache)
        with shifted(guidance.modules, self.steps()):
            states = self.read(before, input_ids=self.last)
        tuned = guidance.model.get_output_embeddings()(states[:, -1]).log_softmax(-1)
        mixed = guidance.tuned_share * tuned
        return mixed + (1 - guidance.tuned_share) * logits.log_softmax(-1)

    @torch.enable_grad()
    def steps(self) -> dict[str, torch.Tensor]:
        """Return δ of every row by module, (rows, 1, outputs); take the last token into the cache.

        The rows of a batch do not see one another, and so the gradient of the sum of their losses
        is that of each.
        """
        guidance = self.guidance
        model, probe = guidance.model, guidance.probe
        shifts = {
            name: module.bias.new_zeros(len(self.last), 1, len(module.bias)).requires_grad_()
            for name, module in guidance.modules.items()
        }
        cache = detached(self.cache)
        with shifted(guidance.modules, shifts):
            state = self.read(cache, input_ids=self.last)
            self.cache = detached(cache)
            probabilities = model.get_output_embeddings()(state).softmax(-1)
            soft = probabilities @ model.get_input_embeddings().weight
            ahead = self.read(cache, inputs_embeds=soft)
        mean = (self.states + (state + ahead).squeeze(1)) / (self.length + 2)
        self.states, self.length = self.states + state.detach().squeeze(1), self.length + 1
        loss = nn.functional.softplus(mean @ probe["weight"] + probe["bias"]).sum()
        gradients = torch.autograd.grad(
            loss, list(shifts.values()), allow_unused=True, materialize_grads=True
        )
        return {
            name: -guidance.learning_rate * gradient / (gradient.abs() + ADAM_EPSILON)
            for name, gradient in zip(shifts, gradients, strict=True)
        }

    def append(self, token: torch.Tensor) -> None:
        self.last = token.unsqueeze(1)

    def keep(self, rows: torch.Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.states = self.states[rows]
        self.last = self.last[rows]


def detached(cache: DynamicCache) -> DynamicCache:
    """Return a cache of the same keys and values, out of any graph, that grows by itself."""
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in found.layers:
        if layer.is_initialized:
            layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
    return found
