"""Pairs of a harmless and a toxic text as tokens, and as batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from ifguide.data.corpus import end_of_text_id, tokenize
from ifguide.data.preferences import PreferencePair
from ifguide.files.artifacts import read_jsonl
from ifguide.models.token_texts import TokenText, stacked


class PairTexts(NamedTuple):
    """The two sides of a pair, each after its prompt and the end of the text before."""

    harmless: TokenText
    toxic: TokenText


def pair_texts(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], positions: int
) -> list[PairTexts]:
    """Return both sides of pairs as whole texts: all tokens but the first have a loss.

    A text loses its end where it exceeds a model's `positions`.
    """
    begin = end_of_text_id(tokenizer)
    chosen, rejected = (
        tokenize(tokenizer, [pair.prompt + getattr(pair, side) for pair in pairs])
        for side in ("chosen", "rejected")
    )
    return [
        PairTexts(*(TokenText([begin, *side.ids[: positions - 1].tolist()]) for side in sides))
        for sides in zip(chosen, rejected, strict=True)
    ]


def read_pairs_file(path: Path) -> list[PreferencePair]:
    """Return the pairs of a file that a step is given."""
    return [PreferencePair(**record) for record in read_jsonl(path)]


def stacked_pairs(pairs: Sequence[PairTexts]) -> dict[str, torch.Tensor]:
    """Return a batch of 2 · pairs texts: all harmless sides, then all toxic ones in their order."""
    return stacked([*(pair.harmless for pair in pairs), *(pair.toxic for pair in pairs)])
