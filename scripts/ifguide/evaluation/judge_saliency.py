"""The token saliency of a judge: which tokens of a text make it toxic, by gradient times input.

    s_k = ⟨∂ log-odds of toxicity / ∂e_k, e_k⟩

with e_k the embedding of the judge's k-th token, before positions are added (Simonyan et al., 2014;
Shrikumar et al., 2016). Log-odds, where probabilities have no gradient left once they are near 1.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from ifguide.evaluation.text_batches import piece_spans

TEXTS_AT_ONCE = 256


class WeightedJudge(Protocol):
    """A judge that is a network: its tokenizer, and what its logits say of toxicity."""

    tokenizer: object

    @property
    def network(self) -> PreTrainedModel: ...

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor: ...


class Saliency(NamedTuple):
    """The judge's tokens of a text: characters [start, end), int64 (tokens, 2), and s, float32."""

    offsets: np.ndarray
    values: np.ndarray


def text_saliencies(
    judge: WeightedJudge, texts: Iterable[str], *, batch_size: int
) -> Iterator[Saliency]:
    """Yield the saliency of each text, in order: of all its tokens, special ones apart.

    A long text is read in pieces, as the judge reads one.
    """
    texts = iter(texts)
    while group := list(islice(texts, TEXTS_AT_ONCE)):
        spans = [piece_spans(judge.tokenizer, text) for text in group]
        pieces = [
            text[start:stop] for text, own in zip(group, spans, strict=True) for start, stop in own
        ]
        found = iter(_in_batches(judge, pieces, batch_size))
        for own in spans:
            parts = [(next(found), start) for start, _ in own]
            yield Saliency(
                np.concatenate([part.offsets + start for part, start in parts]),
                np.concatenate([part.values for part, _ in parts]),
            )


def _in_batches(judge: WeightedJudge, pieces: Sequence[str], size: int) -> list[Saliency]:
    """Return the saliency of each piece; those of similar length are read together."""
    order = sorted(range(len(pieces)), key=lambda index: (len(pieces[index]), pieces[index]))
    found: dict[int, Saliency] = {}
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = piece_saliencies(judge, [pieces[row] for row in rows])
        found.update(zip(rows, batch, strict=True))
    return [found[index] for index in range(len(pieces))]


def piece_saliencies(judge: WeightedJudge, pieces: Sequence[str]) -> list[Saliency]:
    """Return the saliency of a batch of texts, each short enough for the judge."""
    encoded = judge.tokenizer(
        list(pieces),
        return_tensors="pt",
        truncation=True,
        padding=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    offsets = encoded.pop("offset_mapping").numpy()
    text = (encoded.pop("special_tokens_mask") == 0).numpy()
    network = judge.network
    embeddings: list[torch.Tensor] = []

    def watch(_module, _inputs, output: torch.Tensor) -> torch.Tensor:
        embeddings.append(output.detach().requires_grad_())
        return embeddings[-1]

    hook = network.get_input_embeddings().register_forward_hook(watch)
    try:
        with torch.enable_grad():
            logits = network(**encoded.to(network.device)).logits
            (gradient,) = torch.autograd.grad(judge.log_odds(logits).sum(), embeddings)
    finally:
        hook.remove()
    values = (gradient * embeddings[0]).sum(-1).detach().float().cpu().numpy()
    text &= offsets[..., 1] > offsets[..., 0]
    return [
        Saliency(own[kept].astype(np.int64), value[kept])
        for own, value, kept in zip(offsets, values, text, strict=True)
    ]
