"""One live run in a results folder: a lock that the kernel releases when its holder dies."""

import fcntl
import logging
import os
import socket
import time
from pathlib import Path

from ifguide.errors import InputError

log = logging.getLogger(__name__)


def hold_run_lock(path: str | Path) -> int:
    """Lock `path` until this process ends, however it ends; return the open file descriptor.

    A killed run leaves the file but no lock. Jobs do not inherit the descriptor.
    Raises InputError, naming the process that holds the lock, where another run is alive.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise InputError(
            f"{path.parent}: another run is at work in this folder "
            f"({holder or 'it began this moment'}); wait for it or stop it, then run again"
        ) from error
    except OSError as error:
        log.warning("%s: no lock on this file system (%s); never start two runs", path, error)
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {started}\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    return descriptor
