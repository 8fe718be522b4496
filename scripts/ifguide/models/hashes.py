"""What tells the models and files that a job reads from others, wherever they lie."""

from collections.abc import Mapping
from pathlib import Path

from ifguide.data.file_lists import from_arguments
from ifguide.files.artifacts import text_sha256
from ifguide.files.checksums import file_sha256
from ifguide.models.loading import TRAINING_RECORD, weights_sha256


def model_identity(directory: Path) -> dict[str, str]:
    """Return the hashes of a model directory: its weights, and what else its readers load."""
    described = sorted(path for path in directory.glob("*.json") if path.name != TRAINING_RECORD)
    hashes = {path.name: file_sha256(path) for path in described}
    return {"weights_sha256": weights_sha256(directory), **hashes}


def hashes_of_given(given: Mapping[str, Mapping[str, list[str]]]) -> dict[str, str]:
    """Return the hash of what a method's steps are given, by need, as `<need>_sha256`."""
    hashes = {}
    for needs in given.values():
        for name, paths in needs.items():
            found = [hash_of(Path(path)) for path in from_arguments(paths)]
            hashes[f"{name}_sha256"] = found[0] if len(found) == 1 else text_sha256("".join(found))
    return hashes


def hash_of(path: Path) -> str:
    """Return the hash of a file, of a model's weights, or of the checksums of another folder."""
    if path.is_file():
        return file_sha256(path)
    models = any(path.glob("*.safetensors"))
    return weights_sha256(path) if models else file_sha256(path / "SHA256SUMS")
