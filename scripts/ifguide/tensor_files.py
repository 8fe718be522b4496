"""Safetensors files that carry what they were made from, and verify themselves when read."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ifguide.artifacts import atomic_path, canonical_json, text_sha256
from ifguide.errors import InputError

CHECKSUM = "tensors_sha256"
METADATA_CHECKSUM = "metadata_sha256"


def tensors_sha256(tensors: dict[str, torch.Tensor]) -> str:
    """Return SHA-256 over names, types, shapes and bytes of `tensors`, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _metadata_sha256(metadata: dict[str, str]) -> str:
    own = (CHECKSUM, METADATA_CHECKSUM)
    return text_sha256(canonical_json({k: v for k, v in metadata.items() if k not in own}))


def write_tensors(
    path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> str:
    """Write tensors with text metadata, atomically; return their checksum."""
    # A contiguous clone each: safetensors refuses tensors that share memory, and strided ones.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    checksum = tensors_sha256(tensors)
    with atomic_path(path) as temporary:
        checksums = {CHECKSUM: checksum, METADATA_CHECKSUM: _metadata_sha256(metadata)}
        save_file(tensors, temporary, {**metadata, **checksums})
        _sort_metadata(temporary)
    return checksum


def _sort_metadata(path: Path) -> None:
    """Give the metadata one order: the library's changes from call to call."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(ordered.ljust(length))


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and metadata of a file that `write_tensors` wrote.

    Raises InputError where it is missing, truncated, or does not match its checksum.
    """
    with _opened(path) as content:
        metadata = content.metadata() or {}
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    _require_checksum(path, METADATA_CHECKSUM, metadata, _metadata_sha256(metadata))
    _require_checksum(path, CHECKSUM, metadata, tensors_sha256(tensors))
    return tensors, metadata


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata alone, the tensors' checksum among them, without reading the tensors.

    Raises InputError where the file is missing, truncated, or its metadata do not match.
    """
    with _opened(path) as content:
        metadata = content.metadata() or {}
    _require_checksum(path, METADATA_CHECKSUM, metadata, _metadata_sha256(metadata))
    return metadata


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator:
    if not Path(path).exists():
        raise InputError(f"{path}: missing; run the stage that writes it again")
    try:
        with safe_open(path, "pt") as content:
            yield content
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run again") from error


def _require_checksum(path: str | Path, name: str, metadata: dict[str, str], found: str) -> None:
    if metadata.get(name) != found:
        raise InputError(
            f"{path}: {name} {found[:12]} is not the recorded {str(metadata.get(name))[:12]}; "
            "the file is damaged: delete it and run again"
        )
