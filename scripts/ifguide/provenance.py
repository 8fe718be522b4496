"""What a run was made with: the state of the code, the packages, and the machine."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def _printed(*command: str) -> str | None:
    """What a command prints, or None where it fails or does not exist."""
    if not shutil.which(command[0]):
        return None
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else None


def code_state(source: Path) -> dict:
    """Return the git commit of `source`, and whether tracked files differ from it.

    Both are None where `source` is not itself the root of a repository.
    """
    git = ("git", "-C", str(source))
    root = _printed(*git, "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != Path(source).resolve():
        return {"commit": None, "uncommitted_changes": None}
    changes = _printed(*git, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _printed(*git, "rev-parse", "HEAD"),
        "uncommitted_changes": None if changes is None else bool(changes),
    }


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
