"""Checkpoints of an interrupted training: which of them are whole, and whose they are."""

import logging
import shutil
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from ifguide.errors import InputError
from ifguide.files.artifacts import read_json, write_json
from ifguide.files.checksums import SUMS, allow_by_umask, file_sha256

log = logging.getLogger(__name__)

CONTENTS = "contents.json"
MADE_FROM = "made_from.json"


def keep_only_own_checkpoints(checkpoints: Path, made_from: dict) -> None:
    """Discard checkpoints that an interrupted run with other settings or data left behind."""
    record = checkpoints / MADE_FROM
    if checkpoints.exists() and not (record.exists() and read_json(record) == made_from):
        log.warning("%s: from other settings or another corpus; starting over", checkpoints)
        shutil.rmtree(checkpoints)
    write_json(record, made_from)


class ListContents(TrainerCallback):
    """Write the checksums of a checkpoint's files into it, last of all: only then it is whole."""

    def on_save(self, arguments, state, control, **_):
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(arguments.output_dir) / f"checkpoint-{state.global_step}"
            for path in _files(folder):
                allow_by_umask(path)
            write_json(folder / CONTENTS, _checksums(folder))


def _files(folder: Path) -> list[Path]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path.name not in (CONTENTS, SUMS))


def _checksums(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in _files(folder)}


def last_whole_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that holds all that was written to it, or None.

    One that is interrupted or damaged gets another name, and the one before is taken.
    """
    while checkpoints.is_dir() and (newest := get_last_checkpoint(str(checkpoints))):
        folder = Path(newest)
        try:
            whole = read_json(folder / CONTENTS) == _checksums(folder)
        except (InputError, FileNotFoundError):
            whole = False
        if whole:
            return newest
        log.warning("%s is incomplete; going back to the one before", folder)
        shutil.rmtree(folder)
    return None
