"""One `SHA256SUMS` a folder: a line for every file that a stage wrote there.

Every reader compares a file with its line, and so does `sha256sum -c SHA256SUMS` in that folder.

A line is written before its file gets its name. A kill between the two leaves a file that is
refused until the killed job runs again, which replaces both; the other order could leave a damaged
file that is taken. Both happen under the lock of the folder, whose jobs write at the same time.
"""

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Self

from ifguide.errors import InputError
from ifguide.files.locks import in_turn

SUMS = "SHA256SUMS"
# The folder, of where a run is at work, below which stages write.
RESULTS = "results"
# The star marks a file that sha256sum was told to read as binary, which is all the same.
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def joined_sha256(checksums: Iterable[str]) -> str:
    """Return the SHA-256 over the checksums of several files, in their order."""
    return hashlib.sha256("".join(checksums).encode()).hexdigest()


def is_result(path: str | Path) -> bool:
    """Whether a file or folder is of the kind that stages write, and no one else."""
    return Path(os.path.abspath(path)).is_relative_to(Path(os.getcwd(), RESULTS))


def remedy(path: str | Path, what: str = "it") -> str:
    """Return what to do about a file that is not what it has to be.

    what: all that has to go, lest it is not made again. Only what stages write is made again, and
    so nothing else is to be deleted: whatever a user gave stays the user's.
    """
    if is_result(path):
        return f"delete {what} and run again"
    return "mend it, or give another"


def publish(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`, its checksum recorded."""
    checksum = file_sha256(temporary)
    with _updated(path.parent, {path.name: checksum}):
        os.replace(temporary, path)


class RecordedTogether:
    """Files of one job, whose lines are written at once when all of them are there.

    One update a file would copy the lines of a folder as often as it has files. What stands at
    `paths` loses its line first, so that a kill leaves files without one, not with a wrong one.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self.checksums: dict[Path, str] = {}

    def __enter__(self) -> Self:
        self._update(dict.fromkeys(self._paths))
        return self

    def publish(self, temporary: Path, path: Path) -> None:
        """Rename `temporary` to `path`, its checksum kept until the end of the block."""
        self.checksums[path] = file_sha256(temporary)
        os.replace(temporary, path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._update(self.checksums)

    def _update(self, checksums: dict[Path, str] | dict[Path, None]) -> None:
        for folder in {path.parent for path in checksums}:
            if folder.is_dir():
                own = {path.name: sha for path, sha in checksums.items() if path.parent == folder}
                with _updated(folder, own):
                    pass


def record_directory(directory: str | Path) -> None:
    """Record the files that a library wrote into a directory of this job, for `verify_directory`.

    They also get the permissions that files of this user have.
    """
    directory = Path(directory)
    checksums = {}
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name != SUMS:
            allow_by_umask(path)
            checksums[path.name] = file_sha256(path)
    with _updated(directory, checksums):
        pass


def allow_by_umask(path: Path) -> None:
    """Give a file the permissions that the umask leaves a new one.

    Libraries that write through a temporary file of their own leave it to its owner alone. Nothing
    is taken away: an access list of the folder may allow more than the umask.
    """
    umask = os.umask(0o077)  # it cannot be read without being set
    os.umask(umask)
    mode = path.stat().st_mode
    if (allowed := mode | (0o666 & ~umask)) != mode:
        path.chmod(allowed)


@contextlib.contextmanager
def _updated(folder: Path, checksums: dict[str, str] | dict[str, None]) -> Iterator[None]:
    """Merge checksums by file name into the lines of a folder, None for none, and hold its lock.

    The lines of other files that are no longer there go: a workflow that removes what a failed job
    wrote does not know of them.
    """
    with in_turn(folder / f".{SUMS}.lock"):
        before = read_checksums(folder)
        present = set(os.listdir(folder))
        lines = {
            name: checksum
            for name, checksum in {**before, **checksums}.items()
            # A listing may be older than what another machine wrote; asking for the file is not.
            if checksum and (name in checksums or name in present or (folder / name).exists())
        }
        if lines != before:
            _write(folder / SUMS, lines)
        yield


def _write(path: Path, lines: dict[str, str]) -> None:
    if not lines:
        path.unlink()
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "w", encoding="utf-8") as written:
            written.writelines(f"{lines[name]}  {name}\n" for name in sorted(lines))
            written.flush()
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checksums(folder: str | Path) -> dict[str, str]:
    """Return the recorded checksums of a folder's files by name; none where nothing is recorded.

    Raises InputError for a line of another form.
    """
    path = Path(folder, SUMS)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        return dict(_parsed(content))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); {remedy(path)}") from error


# By content, as many files of a folder are read one after the other.
@functools.lru_cache(maxsize=8)
def _parsed(content: bytes) -> dict[str, str]:
    lines = {}
    text = content.decode("utf-8").removesuffix("\n")
    for number, line in enumerate(text.split("\n"), start=1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise ValueError(f"line {number} is not a SHA-256 and a file's name")
        lines[parts[2]] = parts[1]
    return lines


def recorded_sha256(path: str | Path) -> str:
    """Return the recorded checksum of a file that only stages write; the file is not read.

    Raises InputError where none is recorded.
    """
    path = Path(path)
    recorded = read_checksums(path.parent).get(path.name)
    if recorded is None:
        raise InputError(
            f"{path}: {path.with_name(SUMS)} has no line for it, so nothing tells whether it is "
            f"what a stage wrote: {remedy(path)}"
        )
    return recorded


def verify(path: str | Path, folder: str | Path | None = None) -> str | None:
    """Compare a file with its recorded checksum, if there is one, and return that.

    folder: what has to go with a damaged file, lest it is not made again. Raises InputError where
    the file is missing or is not what was written.
    """
    path = Path(path)
    recorded = read_checksums(path.parent).get(path.name)
    if recorded is None:
        return None
    rebuild = remedy(path, f"the folder {folder}" if folder else "it")
    if not path.exists():
        alone = is_result(path) and not folder
        raise InputError(f"{path}: missing; {'run again' if alone else rebuild}")
    if (found := file_sha256(path)) != recorded:
        raise InputError(
            f"{path}: checksum {found[:12]} is not the recorded {recorded[:12]}; the file is "
            f"damaged or was changed by hand: {rebuild}"
        )
    return recorded


def verify_own(path: str | Path) -> str:
    """Verify a file that only stages write, and so record, as `verify` does."""
    recorded = recorded_sha256(path)
    verify(path)
    return recorded


def verify_directory(directory: str | Path, pattern: str = "*") -> None:
    """Verify the files of a directory whose checksums are recorded and whose names match.

    The stage that writes it is known to the workflow by some of them, so all have to go.
    """
    for name in sorted(read_checksums(directory)):
        if fnmatchcase(name, pattern):
            verify(Path(directory, name), directory)


def verified_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, compared with the recorded one if there is one."""
    return verify(path) or file_sha256(path)
