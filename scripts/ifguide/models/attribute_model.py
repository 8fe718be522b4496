"""How likely a text is to stay free of an attribute, for every next token, and a model steered so.

With s a text so far, v its next token, h the state after the final norm of a frozen language model,

    log R / (1 − R) (s, v)  =  a_v · h(s) + b_v
    log q(v | s)  =  log p(v | s) + f log R(s, v) − log Σ_u p(u | s) R(s, u)^f

R is learned from whole texts, each of whose prefixes has the label of the text (1: free of it), by
cross-entropy, as the auxiliary network of NADO is (Meng et al., 2022, arXiv 2205.14219). It is one
linear layer here: every token has weights of its own, drawn by an L2 penalty to weights that all
tokens share, so that a token that was never said follows from the text before it alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, embedding, logsigmoid
from transformers import PreTrainedModel

from ifguide.models.causal_text_training import Batch
from ifguide.models.labels import IGNORED_LABEL
from ifguide.models.token_texts import TokenText, stacked

PENALTY = 1e-4
STEPS = 200
TEXTS_AT_ONCE = 64


@torch.no_grad()
def said_tokens(
    model: PreTrainedModel, texts: Sequence[TokenText], free: Sequence[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return of every label token of texts: the state before it, its id, and its text's label.

    states: float32 (tokens, width); ids: int64 (tokens,); labels: float32 (tokens,), 1 where the
    text is free of the attribute. All are on the processor.
    """
    states, ids, labels = [], [], []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        batch = stacked(texts[start : start + TEXTS_AT_ONCE])
        hidden = model.base_model(input_ids=batch["input_ids"].to(model.device), use_cache=False)
        said = batch["labels"][:, 1:] != IGNORED_LABEL
        states.append(hidden.last_hidden_state[:, :-1].cpu().float()[said])
        ids.append(batch["labels"][:, 1:][said])
        own = torch.tensor(free[start : start + TEXTS_AT_ONCE], dtype=torch.float32)
        labels.append(own.repeat_interleave(said.sum(1)))
    return torch.cat(states), torch.cat(ids), torch.cat(labels)


def fit_attribute(
    states: torch.Tensor,
    ids: torch.Tensor,
    labels: torch.Tensor,
    vocabulary: int,
    *,
    penalty: float = PENALTY,
) -> dict[str, torch.Tensor]:
    """Return `weight` float32 (vocabulary, width) and `bias` float32 (vocabulary,) of R.

    states, ids and labels: as of `said_tokens`. Minimised is the mean cross-entropy and, in units
    of the states' standard deviations, `penalty` / 2 times the squared difference of every token's
    weights from the shared ones; the shared ones have the same penalty.
    """
    scale = states.std(0) + torch.finfo(torch.float32).eps
    given = torch.cat([states / scale, torch.ones(len(states), 1)], dim=1)
    shared = torch.zeros(given.shape[1], requires_grad=True)
    own = torch.zeros(vocabulary, given.shape[1], requires_grad=True)
    search = torch.optim.LBFGS(
        [shared, own], max_iter=STEPS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        odds = given @ shared + (given * embedding(ids, own)).sum(1)
        loss = binary_cross_entropy_with_logits(odds, labels)
        loss = loss + penalty / 2 * (own.square().sum() + shared.square().sum())
        loss.backward()
        return loss

    search.step(closure)
    weight = (shared + own).detach()
    return {"weight": weight[:, :-1] / scale, "bias": weight[:, -1].contiguous()}


def log_attribute(states: torch.Tensor, attribute: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return log R of every next token: states (…, width) to (…, vocabulary)."""
    odds = torch.nn.functional.linear(
        states, attribute["weight"].to(states), attribute["bias"].to(states)
    )
    return logsigmoid(odds)


def steered(logits: torch.Tensor, log_r: torch.Tensor, factor: float) -> torch.Tensor:
    """Return logits of q: log p + f log R, which softmax normalises; all (…, vocabulary)."""
    return logits + factor * log_r


@torch.no_grad()
def steered_log_q(
    model: PreTrainedModel,
    attribute: dict[str, torch.Tensor],
    input_ids: torch.Tensor,
    factor: float,
) -> torch.Tensor:
    """Return log q of every next token of texts: (texts, T − 1, vocabulary), float32 or wider."""
    output = model(input_ids=input_ids, use_cache=False, output_hidden_states=True)
    states = output.hidden_states[-1][:, :-1]
    logits = steered(output.logits[:, :-1], log_attribute(states, attribute), factor)
    return logits.log_softmax(-1)


def harmless_label_loss(log_p: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean loss over the labels of the texts of a batch that are free of the attribute.

    log_p: (texts, T − 1, vocabulary); batch: `labels` int64 (texts, T) and `free` bool (texts,). It
    is 0 where no text is.
    """
    following = batch["labels"][:, 1:]
    counted = (following != IGNORED_LABEL) & batch["free"].unsqueeze(1)
    losses = -log_p.gather(-1, following.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (losses * counted).sum() / counted.sum().clamp(min=1)
