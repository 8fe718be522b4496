"""Tokenizer directories, loaded without what only models need: importing that takes seconds."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ifguide.errors import InputError
from ifguide.files.artifacts import read_json
from ifguide.files.checksums import verify_directory

# One of these holds the vocabulary of any tokenizer that has one.
VOCABULARIES = ("tokenizer.json", "*vocab*", "*.model")
# What `tokenizer_config.json` calls a tokenizer that is all in its `tokenizer.json`.
PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")


def local_directory(path: str | Path, config_key: str) -> Path:
    """Return `path` where it is a directory; never let a missing path become a hub look-up."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"config key {config_key}: {path} is not a directory")
    return path


def load_tokenizer(directory: str | Path, config_key: str = "tokenizers"):
    """Load a tokenizer directory, offline. Raises InputError where it is missing or damaged."""
    directory = local_directory(directory, config_key)
    require_tokenizer_files(directory)
    verify_directory(directory, "*.json")
    if is_plain(directory):
        return PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    # It knows which model goes with which class, and imports PyTorch to know it.
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def require_tokenizer_files(directory: str | Path) -> None:
    """Refuse a directory that holds nothing from which a tokenizer can be made."""
    if not any(path for pattern in VOCABULARIES for path in Path(directory).glob(pattern)):
        raise InputError(
            f"{directory}: holds no tokenizer; give a directory with a tokenizer.json, or with "
            "vocab.json and merges.txt"
        )


def is_plain(directory: Path) -> bool:
    """Whether the directory says by itself, without a model's configuration, how to load it."""
    settings = directory / "tokenizer_config.json"
    if not settings.is_file() or (directory / "config.json").is_file():
        return False
    described = read_json(settings)
    return described.get("tokenizer_class") in PLAIN_CLASSES and "auto_map" not in described
