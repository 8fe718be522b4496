"""Safetensors files that carry what they were made from, verified when they are read."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ifguide.files.artifacts import atomic_path
from ifguide.files.tensor_metadata import opened


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
) -> None:
    """Write tensors with text metadata, atomically."""
    # A contiguous clone each: safetensors refuses tensors that share memory, and strided ones.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)
        _sort_metadata(temporary)


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

    Raises InputError where it is missing, damaged, or has no recorded checksum.
    """
    with opened(path, "pt") as content:
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        return tensors, content.metadata() or {}
