"""What safetensors files were made from, read without PyTorch, which takes seconds to load."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ifguide.errors import InputError
from ifguide.files.artifacts import canonical_json, text_sha256

CHECKSUM = "tensors_sha256"
METADATA_CHECKSUM = "metadata_sha256"


def metadata_sha256(metadata: dict[str, str]) -> str:
    own = (CHECKSUM, METADATA_CHECKSUM)
    return text_sha256(canonical_json({k: v for k, v in metadata.items() if k not in own}))


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a file, the tensors' checksum among them; no tensor is read.

    Raises InputError where the file is missing, truncated, or its metadata do not match.
    """
    with opened(path, "np") as content:
        return verified_metadata(path, content)


def verified_metadata(path: str | Path, content) -> dict[str, str]:
    metadata = content.metadata() or {}
    require_checksum(path, METADATA_CHECKSUM, metadata, metadata_sha256(metadata))
    return metadata


@contextlib.contextmanager
def opened(path: str | Path, framework: str) -> Iterator:
    """Open a safetensors file. Raises InputError where it is missing or damaged."""
    if not Path(path).exists():
        raise InputError(f"{path}: missing; run the stage that writes it again")
    try:
        with safe_open(path, framework) as content:
            yield content
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run again") from error


def require_checksum(path: str | Path, name: str, metadata: dict[str, str], found: str) -> None:
    if metadata.get(name) != found:
        raise InputError(
            f"{path}: {name} {found[:12]} is not the recorded {str(metadata.get(name))[:12]}; "
            "the file is damaged: delete it and run again"
        )
