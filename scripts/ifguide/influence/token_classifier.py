"""A small bidirectional encoder that labels tokens as toxic, for token filtering.

Token filtering (Rathi and Radford, 2026, arXiv 2601.21571) labels every token of a corpus by a
small bidirectional language model. There the labels come from sparse autoencoders; here they come
from texts that are known to be toxic or not, or from pairs of texts, and the encoder is trained
from scratch. With z_t the logit of a text's t-th token:

    texts    a text is toxic as soon as one token is: P = 1 - Π_t (1 - σ(z_t)), and the loss is the
             cross-entropy of P against the text's label
    pairs    the tokens of words that the toxic side has and the other has not are toxic, all others
             are not; the loss is the mean cross-entropy of σ(z_t)

    S_t = log(1 + exp z_t) = -log(1 - σ(z_t))

is the score of a token: 0 where it is certainly harmless, and without a bound.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForTokenClassification,
    PreTrainedTokenizerBase,
    Trainer,
)

from ifguide.data.corpus import end_of_text_id, token_truth, tokenize
from ifguide.data.preferences import PreferencePair
from ifguide.models.labels import IGNORED_LABEL
from ifguide.models.text_training import train_on_texts
from ifguide.seeds import uniform_hash

DOCUMENTS_AT_ONCE, PARTS_AT_ONCE = 256, 64


def text_loss(logits: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the loss of whole texts, a scalar: logits and valid (texts, positions).

    labels: (texts,), in [0, 1].
    """
    harmless = (torch.nn.functional.softplus(logits) * valid).sum(1)  # -log(1 - P)
    toxic = -torch.log(-torch.expm1(-harmless))
    return (labels * toxic + (1 - labels) * harmless).mean()


def token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of labelled tokens, a scalar: logits and labels (texts, positions)."""
    known = labels != IGNORED_LABEL
    return torch.nn.functional.binary_cross_entropy_with_logits(
        logits[known], labels[known].to(logits.dtype)
    )


def differing_spans(text: str, other: str) -> list[tuple[int, int]]:
    """Return the words of `text` that `other` has not at that place, as characters [start, end)."""
    words, others = _words(text), _words(other)
    matcher = difflib.SequenceMatcher(
        None,
        [other[start:stop].casefold() for start, stop in others],
        [text[start:stop].casefold() for start, stop in words],
        autojunk=False,
    )
    return [
        span
        for kind, _, _, first, last in matcher.get_opcodes()
        if kind in ("replace", "insert")
        for span in words[first:last]
    ]


def _words(text: str) -> list[tuple[int, int]]:
    spans, place = [], 0
    for word in text.split():
        start = text.index(word, place)
        place = start + len(word)
        spans.append((start, place))
    return spans


class EncoderTexts(Dataset):
    """Token ids after an end of text, and a label of the text, or one of every token.

    Some texts begin with a space, as a continuation does, the others without, as a document does.
    """

    def __init__(self, ids: Sequence[np.ndarray], labels: Sequence) -> None:
        self.ids, self.labels = ids, labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        return {"input_ids": self.ids[index], "labels": self.labels[index]}


def spaced(texts: Iterable[str]) -> list[str]:
    """Return texts of which half begin with a space, by a hash: so no label goes with it."""
    return [" " + text.strip() if uniform_hash(0, text) < 0.5 else text.strip() for text in texts]


def labelled_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    labels: Sequence[float],
    max_length: int,
) -> EncoderTexts:
    """Return texts with a label in [0, 1] each, to train by `text_loss`."""
    begin = end_of_text_id(tokenizer)
    ids = [np.append(begin, text.ids)[:max_length] for text in tokenize(tokenizer, spaced(texts))]
    return EncoderTexts(ids, [float(label) for label in labels])


def labelled_tokens(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], max_length: int
) -> EncoderTexts:
    """Return both sides of pairs with a label of every token, to train by `token_loss`."""
    begin = end_of_text_id(tokenizer)
    ids, labels = [], []
    toxic = spaced(pair.prompt + pair.rejected for pair in pairs)
    harmless = spaced(pair.prompt + pair.chosen for pair in pairs)
    for texts, others in ((toxic, harmless), (harmless, None)):
        for row, tokens in enumerate(tokenize(tokenizer, texts)):
            spans = differing_spans(texts[row], others[row]) if others else []
            own = token_truth(tokens.offsets, spans).astype(np.int64)
            ids.append(np.append(begin, tokens.ids)[:max_length])
            labels.append(np.append(IGNORED_LABEL, own)[:max_length])
    return EncoderTexts(ids, labels)


def padded(texts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask, int64 (texts, positions)."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, own in enumerate(texts):
        ids[row, : len(own)] = torch.from_numpy(own)
        mask[row, : len(own)] = 1
    return ids, mask


def pad(examples: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Return a batch of `EncoderTexts`: labels (texts,), or (texts, positions) of tokens."""
    ids, mask = padded([example["input_ids"] for example in examples])
    given = [example["labels"] for example in examples]
    if isinstance(given[0], float):
        labels = torch.tensor(given)
    else:
        labels = torch.full(ids.shape, IGNORED_LABEL)
        for row, own in enumerate(given):
            labels[row, : len(own)] = torch.from_numpy(own)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class EncoderTrainer(Trainer):
    """The loss of whole texts, or of tokens, by what is labelled."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.logits[..., 0]
        if labels.dim() == 1:
            valid = inputs["attention_mask"].bool()
            valid[:, 0] = False  # the end of the text before
            loss = text_loss(logits, labels, valid)
        else:
            loss = token_loss(logits, labels)
        return (loss, outputs) if return_outputs else loss


def train_encoder(
    tokenizer: PreTrainedTokenizerBase,
    texts: EncoderTexts,
    *,
    settings: dict,
    seed: int,
    scratch: Path,
) -> BertForTokenClassification:
    """Train an encoder from scratch on the tokens of a language model's tokenizer.

    settings: max_length, hidden_size, layers, heads, epochs, batch_size, learning_rate.
    """
    torch.manual_seed(seed)
    encoder = BertForTokenClassification(encoder_config(len(tokenizer), settings))
    return train_on_texts(
        EncoderTrainer, encoder, texts, pad, settings=settings, seed=seed, scratch=scratch
    )


def encoder_config(vocabulary_size: int, settings: dict) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=settings["hidden_size"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        intermediate_size=4 * settings["hidden_size"],
        max_position_embeddings=settings["max_length"],
        type_vocab_size=1,
        pad_token_id=None,  # no id is one: the mask tells
        num_labels=1,
    )


@torch.no_grad()
def encoder_scores(
    encoder: BertForTokenClassification, documents: Iterable[np.ndarray], end_of_text: int
) -> Iterator[np.ndarray]:
    """Yield S of the tokens of each document, in order: float32 (tokens,).

    documents: int64 (tokens,). A long one is read in as few parts as fit the encoder, all about
    equally long, each after an end of text.
    """
    room = encoder.config.max_position_embeddings - 1
    documents = iter(documents)
    while group := list(islice(documents, DOCUMENTS_AT_ONCE)):
        counts = [max(1, -(-len(tokens) // room)) for tokens in group]
        parts = [
            part
            for tokens, count in zip(group, counts, strict=True)
            for part in np.array_split(tokens, count)
        ]
        scores = iter(_part_scores(encoder, parts, end_of_text))
        for count in counts:
            yield np.concatenate([next(scores) for _ in range(count)])


def _part_scores(
    encoder: BertForTokenClassification, parts: Sequence[np.ndarray], end_of_text: int
) -> list[np.ndarray]:
    """Return S of the tokens of each part; those of similar length are read together."""
    order = sorted(range(len(parts)), key=lambda index: len(parts[index]))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), PARTS_AT_ONCE):
        rows = order[start : start + PARTS_AT_ONCE]
        ids, mask = padded([np.append(end_of_text, parts[row]) for row in rows])
        logits = encoder(
            input_ids=ids.to(encoder.device), attention_mask=mask.to(encoder.device)
        ).logits[..., 0]
        scores = torch.nn.functional.softplus(logits.float()).cpu().numpy()
        for row, values in zip(rows, scores, strict=True):
            found[row] = values[1 : 1 + len(parts[row])]
    return [found[row] for row in range(len(parts))]
