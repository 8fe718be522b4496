"""The log of a training's losses, as a file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from ifguide.files.artifacts import atomic_path

LOSS_COLUMNS = ("step", "epoch", "loss", "selected_loss", "unselected_loss", "learning_rate")


def write_losses(
    path: str | Path, records: list[dict], columns: Sequence[str] = LOSS_COLUMNS
) -> None:
    """Write the log of losses as CSV; a loss that does not exist is an empty field."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as lines:
        writer = csv.DictWriter(lines, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(records)
