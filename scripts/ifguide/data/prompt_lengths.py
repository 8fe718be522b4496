"""Whether every prompt, with the new tokens after it, fits into the model that continues it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.corpus import tokenize
from ifguide.errors import InputError


@dataclass(frozen=True)
class Room:
    """The most tokens that a prompt may have, and the model and config key that say so."""

    tokens: int
    model: str
    positions: int
    max_new_tokens: int
    key: str


def positions_of(architecture: Mapping, model: str, block_size: int) -> int:
    """Return the positions of a model of `architecture`; it has a block's where it names none.

    Raises InputError where a block does not fit.
    """
    for key in ("max_position_embeddings", "n_positions"):
        if key in architecture:
            if architecture[key] < block_size:
                raise InputError(
                    f"config key corpus.block_size: {block_size} is longer than the "
                    f"{architecture[key]} positions of models.{model}"
                )
            return architecture[key]
    return block_size


def room_for_prompts(model: str, positions: int, max_new_tokens: int, key: str) -> Room:
    """Return the room that `model` leaves; `key` is the config key of `max_new_tokens`.

    Raises InputError where no prompt at all would fit.
    """
    room = Room(positions - max_new_tokens, model, positions, max_new_tokens, key)
    if room.tokens < 1:
        raise InputError(
            f"config key {key}: {max_new_tokens} new tokens leave no room for a prompt in the "
            f"{positions} positions of models.{model}; lower it, or raise corpus.block_size or the "
            "model's positions"
        )
    return room


def longest_prompt(
    tokenizer: PreTrainedTokenizerBase, records: Sequence[PromptRecord], room: Room, benchmark: str
) -> int:
    """Return the number of tokens of the longest prompt.

    Raises InputError, with the place of the record, for a prompt without a token or without room.
    """
    encoded = tokenize(tokenizer, [record.prompt for record in records])
    for record, tokens in zip(records, encoded, strict=True):
        where = f"{record.where or f'benchmarks.{benchmark}'}: the prompt {record.prompt[:40]!r}"
        if not len(tokens.ids):
            raise InputError(f"{where} holds no token; remove it from benchmarks.{benchmark}.files")
        if len(tokens.ids) > room.tokens:
            raise InputError(
                f"{where} has {len(tokens.ids)} tokens, but {room.tokens} fit into the "
                f"{room.positions} positions of models.{room.model} before {room.max_new_tokens} "
                f"new ones; shorten or remove it, or lower {room.key}"
            )
    return max(len(tokens.ids) for tokens in encoded)
