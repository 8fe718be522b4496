"""Locks that the kernel releases when their holder dies.

One run in a folder and one job an output, where a second one is refused; and one writer of a file
that many jobs change, where each waits for its turn.
"""

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ifguide.errors import InputError

log = logging.getLogger(__name__)


def hold_run_lock(path: str | Path) -> int:
    """Lock `path` until this process ends, however it ends; return the open file descriptor.

    A killed run leaves the file but no lock. Jobs do not inherit the descriptor.
    Raises InputError, naming the process that holds the lock, where another run is alive.
    """
    path = Path(path)
    return _lock(path, f"{path.parent}: another run is at work in this folder")


@contextlib.contextmanager
def sole_writer(output: Path) -> Iterator[None]:
    """Hold a lock beside `output` while it is made.

    A job can outlive a run that was killed; two that go on from the same unfinished file would
    spoil it. Raises InputError, naming the process, where another one makes this output.
    """
    path = output.with_name(f".{output.name}.lock")
    descriptor = _lock(path, f"{output}: another process is making this")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold a lock at `path` for a moment, after those who came before; it is gone afterwards."""
    descriptor = _wait(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Closing leaves it to a process that was forked meanwhile.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _wait(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            _warn_once(os.fstat(descriptor).st_dev, path.parent, error)
            return descriptor
        if _is_still(descriptor, path):
            return descriptor
        # Its holder has removed it since it was opened.
        os.close(descriptor)


_warned: set[int] = set()


def _warn_once(device: int, folder: Path, error: OSError) -> None:
    if device not in _warned:
        _warned.add(device)
        log.warning(
            "%s: no lock on this file system (%s); run one job at a time, lest checksums of files "
            "that several write get lost",
            folder,
            error,
        )


def _lock(path: Path, refusal: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise InputError(
            f"{refusal} ({holder or 'it began this moment'}); wait for it or stop it, then run "
            "again"
        ) from error
    except OSError as error:
        log.warning("%s: no lock on this file system (%s); never start two runs", path, error)
    if not _is_still(descriptor, path):
        # Its holder has removed it since it was opened.
        os.close(descriptor)
        return _lock(path, refusal)
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {started}\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    return descriptor


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
