"""A special token that is written in a text is text, and never the token."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, normalizers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]


def break_special_tokens(backend: Tokenizer, special: Iterable[str]) -> None:
    """Put a space into special tokens that a text holds, where the model would take them whole.

    BPE never does with `encode_special_tokens`; others look up pieces of the vocabulary, and to
    Unigram special tokens are the likeliest of all.
    """
    if isinstance(backend.model, models.BPE):
        return
    broken = [normalizers.Replace(token, f"{token[0]} {token[1:]}") for token in special]
    before = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([*before, *broken])


@lru_cache(maxsize=4)
def plain_text_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return a copy of a fast tokenizer's backend to which a text holds no special token."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.encode_special_tokens = True
    break_special_tokens(backend, special_tokens(tokenizer))
    backend.no_truncation()
    backend.no_padding()
    return backend
