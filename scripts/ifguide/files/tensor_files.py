"""Safetensors files that carry what they were made from, and verify themselves when read."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ifguide.files.artifacts import atomic_path
from ifguide.files.tensor_metadata import (
    CHECKSUM,
    METADATA_CHECKSUM,
    metadata_sha256,
    opened,
    require_checksum,
    verified_metadata,
)


def tensors_sha256(tensors: dict[str, torch.Tensor]) -> str:
    """Return SHA-256 over names, types, shapes and bytes of `tensors`, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
        checksums = {CHECKSUM: checksum, METADATA_CHECKSUM: metadata_sha256(metadata)}
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
    with opened(path, "pt") as content:
        metadata = verified_metadata(path, content)
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    require_checksum(path, CHECKSUM, metadata, tensors_sha256(tensors))
    return tensors, metadata
