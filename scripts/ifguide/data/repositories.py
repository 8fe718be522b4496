"""Models and data sets of the hub: pinned files of a repository, whole and checked, in a folder.

Only files that hold data are ever taken: tensors without pickles, tables, text. Code is not.
"""

import dataclasses
import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from ifguide.data.compression import without_suffix
from ifguide.errors import InputError
from ifguide.files.artifacts import canonical_json, read_json, text_sha256, write_json
from ifguide.files.checksums import file_sha256

# Weights without pickles, and what a tokenizer or a configuration is written in.
MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model")
DATA_SUFFIXES = (".parquet", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".text")
_REVISION = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True)
class Repository:
    """Files of a hub repository: those that one of the patterns `files` matches at `revision`.

    In a pattern, * and ? do not match a slash, and `**` stands for any number of folders.
    """

    kind: Literal["model", "dataset"]
    hub: str
    revision: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.hub}@{self.revision}"

    @property
    def folder(self) -> str:
        """Its name as that of one folder."""
        return self.hub.replace("/", "--")


def check_patterns(repository: Repository) -> None:
    """Raise InputError for a pattern that could match code or a pickle, or leaves the folder."""
    suffixes = MODEL_SUFFIXES if repository.kind == "model" else DATA_SUFFIXES
    for pattern in repository.files:
        path = PurePosixPath(pattern)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{pattern!r} is not a path within the repository")
        if not without_suffix(pattern).endswith(suffixes):
            raise InputError(
                f"{pattern!r} may match files that are not data; end it with one of "
                f"{', '.join(suffixes)}"
            )


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Return the names of files that a pattern matches, sorted."""
    wanted = [PurePosixPath(pattern).parts for pattern in patterns]
    return sorted(
        name
        for name in names
        if any(_matches(PurePosixPath(name).parts, pattern) for pattern in wanted)
    )


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and _matches(parts[1:], pattern[1:])
    )


def fetch_repository(repository: Repository, directory: str | Path, instead: str) -> dict[str, str]:
    """Bring the files of `repository` below `directory`; return the SHA-256 of each, by name.

    Files that an earlier call brought are verified and taken without any request. A file that is
    there with another content is refused, never overwritten. `instead` says how a user can do
    without the hub; it ends the message where the hub cannot be reached.

    Raises InputError for a revision that is not a full commit hash, a pattern that may match code,
    a repository, revision or file that does not exist, and where the hub cannot be reached.
    """
    if not _REVISION.fullmatch(repository.revision):
        raise InputError(
            f"{repository}: the revision is not a full commit hash of 40 hexadecimal digits; take "
            "it from the repository's history"
        )
    check_patterns(repository)
    directory = Path(directory)
    # A revision never changes, so what was fetched once needs no further question to the hub.
    fetched = record_of(repository, directory)
    if fetched.exists():
        known = read_json(fetched)
        present = {name: directory / name for name in known if (directory / name).exists()}
        for name, path in present.items():
            if file_sha256(path) != known[name]:
                raise _other_content(repository, path)
        if len(present) == len(known):
            return known
    hashes = _download(repository, directory, instead)
    write_json(fetched, hashes)
    return hashes


def record_of(repository: Repository, directory: Path) -> Path:
    """Return the file that says which files of `repository` were brought below `directory`."""
    asked = text_sha256(canonical_json(dataclasses.asdict(repository)))
    return directory / f".fetched-{asked[:12]}.json"


def fetched_files(repository: Repository, directory: str | Path) -> list[Path]:
    """Return the files of `repository` that a call of `fetch_repository` brought: none, or all."""
    record = record_of(repository, Path(directory))
    paths = [Path(directory, name) for name in read_json(record)] if record.is_file() else []
    return paths if all(path.is_file() for path in paths) else []


def _download(repository: Repository, directory: Path, instead: str) -> dict[str, str]:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    where = {"repo_type": repository.kind, "revision": repository.revision}
    try:
        tree = HfApi().list_repo_tree(repository.hub, recursive=True, **where)
        entries = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        names = matching(entries, repository.files)
        if not names:
            raise InputError(_nothing_matches(repository, entries))
        for name in names:
            path = directory / name
            if path.exists() and not _is_published(path, entries[name]):
                raise _other_content(repository, path)
        snapshot_download(
            repository.hub,
            local_dir=directory,
            allow_patterns=[glob.escape(name) for name in names],
            **where,
        )
    except InputError:
        raise
    except RevisionNotFoundError as error:
        raise InputError(
            f"{repository}: the repository has no such revision; copy the full commit hash from "
            "its history"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{repository}: no such {repository.kind} on the hub, or it needs a token (set "
            f"HF_TOKEN); or {instead}"
        ) from error
    # The client reports an unreachable hub in the words of several libraries; to a user they need
    # the same answer.
    except Exception as error:
        raise InputError(
            f"{repository}: cannot be fetched from the hub ({_reason(error)}); try again later, or "
            f"{instead}"
        ) from error
    for name in names:
        if not _is_published(directory / name, entries[name]):
            os.unlink(directory / name)
            raise InputError(f"{repository}: {name} arrived damaged; try again, or {instead}")
    return {name: file_sha256(directory / name) for name in names}


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _is_published(path: Path, entry) -> bool:
    """Whether a file is the one that the hub lists: by SHA-256 where large, by git's hash else."""
    if path.stat().st_size != entry.size:
        return False
    if entry.lfs is not None:
        return file_sha256(path) == entry.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == entry.blob_id


def _other_content(repository: Repository, path: Path) -> InputError:
    return InputError(
        f"{path}: is not the file of {repository}; move it elsewhere to fetch that again, or to "
        "name its new path in the config"
    )


def _nothing_matches(repository: Repository, names: Iterable[str]) -> str:
    if repository.kind == "model":
        pickled = any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names)
        hint = "; its pickled weights are never loaded" if pickled else ""
        return f"{repository}: holds none of {', '.join(repository.files)}{hint}"
    data = sorted(name for name in names if without_suffix(name).endswith(DATA_SUFFIXES))
    there = ", ".join(data[:5]) + (f" and {len(data) - 5} more" if len(data) > 5 else "")
    return (
        f"{repository}: no file matches {', '.join(repository.files)}; its data files are "
        f"{there or 'none'}"
    )
