"""The outputs of one job that measures many things, and those among them that it keeps.

Such a job runs again when something is added or one of its inputs changes. What it made before from
the same is not made again: beside each output a hidden record says what that was made from (the
settings that matter, hashes of inputs, the code), and the checksum that it had then.

A job that fails loses all that it declares. So outputs get their names when the last of them is
made; until then they lie hidden beside them, and the same job goes on from there.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ifguide.errors import InputError
from ifguide.files import checksums
from ifguide.files.artifacts import canonical_json, read_json, text_sha256, write_json
from ifguide.files.checksums import file_sha256, recorded_sha256

log = logging.getLogger(__name__)


class KeptOutputs:
    """Outputs of one job, by path, and what each is made from: values that JSON has.

    missing: those that have to be made, in the given order.
    """

    def __init__(self, made_from: Mapping[Path, Any]) -> None:
        self._made_from = dict(made_from)
        self.missing = [path for path, own in made_from.items() if not is_made(path, own)]
        for path in made_from:
            if path not in self.missing:
                log.info("%s: kept, it was made from the same", path)

    @property
    def unfinished(self) -> list[Path]:
        """Those of the missing ones that no earlier attempt of the job finished."""
        return [path for path in self.missing if not self.place(path).is_file()]

    def place(self, path: Path) -> Path:
        """Return where to write an output: a hidden file, whose name says what it is made from."""
        digest = text_sha256(canonical_json(self._made_from[path]))[:16]
        return path.with_name(f".{path.name}.{digest}.finished")

    def publish(self) -> None:
        """Give every missing output its name, all of them being finished."""
        for path in self.missing:
            checksums.publish(self.place(path), path)
            self.record(path)
            for stale in path.parent.glob(f".{path.name}.*.finished"):
                stale.unlink()

    def record(self, path: Path) -> None:
        """Record what an output that has its name was made from."""
        content = {"made_from": self._made_from[path], "sha256": recorded_sha256(path)}
        write_json(record_of(path), content)


def record_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.made_from")


def is_made(path: Path, made_from: Any) -> bool:
    """Whether an output is there, made from the same, and as it was written."""
    try:
        record = read_json(record_of(path))
    except (FileNotFoundError, InputError):
        return False
    if canonical_json(record.get("made_from")) != canonical_json(made_from):
        return False
    return path.is_file() and file_sha256(path) == record.get("sha256")


def files_sha256(paths: Iterable[Path]) -> dict[str, str]:
    """Return the hash of each file by its name, wherever its folder lies."""
    return {path.name: file_sha256(path) for path in sorted(paths)}
