"""What a process holds in memory, as Linux tells."""

from pathlib import Path


def process_memory(field: str, process: int | str = "self") -> int:
    """Return a field of a process's status in bytes.

    Raises ValueError where there is none, as of a process that has ended and was not waited for.
    """
    path = Path(f"/proc/{process}/status")
    for line in path.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{path} has no {field}")
