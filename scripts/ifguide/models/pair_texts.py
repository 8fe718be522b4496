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


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], positions: int
) -> list[dict[str, list[int]]]:
    """Return `prompt_ids`, `chosen_ids` and `rejected_ids` of each pair, as DPO compares them.

    The prompt is the end of the text before, then all tokens that the two sides share at their
    beginning: their losses are equal on both sides and cancel in the difference of rewards. A side
    has at least one token. What exceeds `positions` tokens is cut, from the beginning of the
    prompt first, then from the end of a side.
    """
    begin = end_of_text_id(tokenizer)
    encoded = [
        tokenize(tokenizer, [pair.prompt + getattr(pair, side) for pair in pairs])
        for side in ("chosen", "rejected")
    ]
    examples = []
    for chosen_text, rejected_text in zip(*encoded, strict=True):
        chosen, rejected = chosen_text.ids.tolist(), rejected_text.ids.tolist()
        shared = 0
        for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
            if one != other:
                break
            shared += 1
        prompt = [begin, *chosen[:shared]]
        sides = [side[shared:][: positions - 1] for side in (chosen, rejected)]
        room = positions - max(map(len, sides))
        examples.append(
            {"prompt_ids": prompt[-room:], "chosen_ids": sides[0], "rejected_ids": sides[1]}
        )
    return examples


def read_pairs_file(path: Path) -> list[PreferencePair]:
    """Return the pairs of a file that a step is given."""
    return [PreferencePair(**record) for record in read_jsonl(path)]


def stacked_pairs(pairs: Sequence[PairTexts]) -> dict[str, torch.Tensor]:
    """Return a batch of 2 · pairs texts: all harmless sides, then all toxic ones in their order."""
    return stacked([*(pair.harmless for pair in pairs), *(pair.toxic for pair in pairs)])
