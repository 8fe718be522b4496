"""Tokenizer directories, loaded without what only models need: importing that takes seconds."""

from pathlib import Path

from transformers import AutoTokenizer

from ifguide.errors import InputError
from ifguide.files.checksums import verify_directory


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
