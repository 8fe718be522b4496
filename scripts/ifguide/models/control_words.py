"""A class-conditional language model: a control word before a text says of which class it is.

With c one of two classes, x a text of T tokens and α a scale,

    l(c) = α/T Σ_t log p( x_t | word of c, x_1 … x_{t-1} ),      p(c | x) = softmax over c of l(c)

and the model is trained by a mixture of two losses (Krause et al., 2021): the generative one, the
mean of −log p(x_t | …) after the word of a text's own class, and the discriminative −log p(c | x).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import tokenize
from ifguide.errors import InputError
from ifguide.models.causal_text_training import Batch, label_losses, padded_batch
from ifguide.models.labels import IGNORED_LABEL

# What the configuration of such a model calls what a reader has to know.
RECORD = "control_words"


class ControlWords(NamedTuple):
    """Token ids of the word of each class, and α."""

    nontoxic: list[int]
    toxic: list[int]
    scale: float


def encode_control_words(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[str], scale: float
) -> ControlWords:
    """Tokenize the words of the nontoxic and of the toxic class.

    Raises InputError where they are the same tokens, or one has none.
    """
    nontoxic, toxic = (text.ids.tolist() for text in tokenize(tokenizer, list(words)))
    if not nontoxic or not toxic or nontoxic == toxic:
        raise InputError(
            f"control words {words[0]!r} and {words[1]!r} are empty or of the same tokens; give "
            "each class a word of its own"
        )
    return ControlWords(nontoxic, toxic, scale)


def record_control_words(model: PreTrainedModel, words: ControlWords) -> None:
    setattr(model.config, RECORD, words._asdict())


def recorded_control_words(model: PreTrainedModel, where: str) -> ControlWords:
    """Return what the configuration records. Raises InputError where it records nothing."""
    found = getattr(model.config, RECORD, None)
    if found is None:
        raise InputError(
            f"{where}: its configuration names no control words, so this is no class-conditional "
            "model; name a method that trains one"
        )
    return ControlWords(**found)


def both_classes(words: ControlWords, texts: Sequence[tuple[list[int], bool]]) -> Batch:
    """Return a batch in which each text stands after both words: row 2i nontoxic, 2i + 1 toxic.

    texts: token ids and whether they are toxic. The words have no label; `toxic` is int64 (texts,).
    """
    rows = [[*word, *ids] for ids, _ in texts for word in (words.nontoxic, words.toxic)]
    batch = padded_batch(rows)
    batch["labels"][0::2, : len(words.nontoxic)] = IGNORED_LABEL
    batch["labels"][1::2, : len(words.toxic)] = IGNORED_LABEL
    return {**batch, "toxic": torch.tensor([int(toxic) for _, toxic in texts])}


@dataclass(frozen=True)
class ClassConditionalLoss:
    """The mixture of losses above, averaged over tokens and over texts."""

    scale: float
    generative: float

    def __call__(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        toxic = batch["toxic"]
        tokens = (batch["labels"][:, 1:] != IGNORED_LABEL).sum(-1).view(-1, 2)
        losses = label_losses(model, batch).sum(-1).view(-1, 2)
        own = losses.gather(1, toxic[:, None]).sum() / tokens[:, 0].sum()
        classified = torch.nn.functional.cross_entropy(-self.scale * losses / tokens, toxic)
        return self.generative * own + (1 - self.generative) * classified
