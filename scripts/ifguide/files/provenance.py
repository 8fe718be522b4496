"""What a run was made with: the state of the code and the data, the packages, and the machine."""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from ifguide.errors import InputError
from ifguide.files.checksums import file_sha256

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def _printed(*command: str) -> str | None:
    """What a command prints, or None where it fails or does not exist."""
    if not shutil.which(command[0]):
        return None
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else None


def code_state(source: Path) -> dict:
    """Return the git commit of `source`, and how its files differ from it.

    `uncommitted_diff_sha256` is the SHA-256 of what `git diff --binary HEAD` prints, None where no
    tracked file differs. `untracked_files` is a number; ignored files do not count.
    All are None where `source` is not itself the root of a repository.
    """
    git = ("git", "-C", str(source))
    root = _printed(*git, "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != Path(source).resolve():
        keys = ("commit", "uncommitted_changes", "uncommitted_diff_sha256", "untracked_files")
        return dict.fromkeys(keys)
    changes = _printed(*git, "status", "--porcelain", "--untracked-files=no")
    untracked = _printed(*git, "ls-files", "--others", "--exclude-standard")
    return {
        "commit": _printed(*git, "rev-parse", "HEAD"),
        "uncommitted_changes": None if changes is None else bool(changes),
        "uncommitted_diff_sha256": _diff_sha256(*git) if changes else None,
        "untracked_files": None if untracked is None else len(untracked.splitlines()),
    }


def _diff_sha256(*git: str) -> str | None:
    # No external program: its output would say more of the user's settings than of the changes.
    ran = subprocess.run(
        [*git, "diff", "--binary", "--no-ext-diff", "HEAD"], capture_output=True, check=False
    )
    return hashlib.sha256(ran.stdout).hexdigest() if ran.returncode == 0 else None


def data_state(paths: Iterable[str], most_bytes: int = 2**30) -> dict:
    """Return what tells the content of those of the files that exist.

    `data_sha256` has their SHA-256, the smallest first, as far as they are `most_bytes` together:
    hashing more would hold up the start of every run. `data_not_hashed` has the size and the time
    of modification of the others.
    Raises InputError for a file that cannot be read.
    """
    state: dict[str, dict] = {"data_sha256": {}, "data_not_hashed": {}}
    sizes = {path: os.path.getsize(path) for path in paths if os.path.isfile(path)}
    read = 0
    for path in sorted(sizes, key=lambda path: (sizes[path], path)):
        read += sizes[path]
        try:
            if read <= most_bytes:
                state["data_sha256"][path] = file_sha256(path)
            else:
                modified = datetime.fromtimestamp(os.path.getmtime(path), UTC)
                state["data_not_hashed"][path] = {
                    "bytes": sizes[path],
                    "modified": modified.isoformat(timespec="seconds"),
                }
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}), but the config names it; make it "
                "readable, or name another file"
            ) from error
    return {key: dict(sorted(found.items())) for key, found in state.items()}


def package_versions() -> dict[str, str]:
    """Return the version of every installed package."""
    found = {
        distribution.metadata["Name"]: distribution.version
        for distribution in importlib.metadata.distributions()
    }
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def machine() -> dict:
    """Return the hardware and system of this machine; GPUs by name, memory in GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = _printed("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "gpus": gpus.splitlines() if gpus else [],
        "system": platform.platform(),
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def thread_settings() -> dict[str, str]:
    """Return the environment variables that set how many threads a job computes with."""
    return {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
