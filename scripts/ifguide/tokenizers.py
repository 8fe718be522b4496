"""Tokenizer directories, loaded without what only models need: importing that takes seconds."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ifguide.artifacts import verify_directory
from ifguide.errors import InputError


def local_directory(path: str | Path, config_key: str) -> Path:
    """Return `path` where it is a directory; never let a missing path become a hub look-up."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"config key {config_key}: {path} is not a directory")
    return path


def load_tokenizer(directory: str | Path, config_key: str = "tokenizers"):
    """Load a tokenizer directory, offline. Raises InputError where it is missing or damaged."""
    directory = local_directory(directory, config_key)
    verify_directory(directory, "*.json")
    return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


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
