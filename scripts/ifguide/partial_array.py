"""An array that is filled from its first row to its last and survives the end of its process.

Two files beside the output hold it until it is whole: the rows, memory-mapped, and a record of
what they are made from and how many are finished. Rows of anything else are thrown away.
"""

from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from ifguide.artifacts import canonical_json, read_json, text_sha256, write_array, write_json
from ifguide.errors import InputError

_BYTES_AT_ONCE = 1 << 24


class PartialArray:
    """Rows of a float32 array (shape) that belong to `output`, made from what `source` names.

    `finished` rows are there already, from a process that ended before its work did.
    """

    def __init__(self, output: Path, shape: tuple[int, int], source: dict) -> None:
        self.output = output
        self.source_sha256 = text_sha256(canonical_json({"shape": shape, **source}))
        self.rows_path = output.with_name(f".{output.stem}.rows.npy")
        self.record_path = self.rows_path.with_suffix(".json")
        self.finished = self._finished_rows()
        output.parent.mkdir(parents=True, exist_ok=True)
        if self.finished:
            self.values = np.load(self.rows_path, mmap_mode="r+", allow_pickle=False)
        elif shape[0]:
            self.record_path.unlink(missing_ok=True)
            self.values = open_memmap(self.rows_path, "w+", np.float32, shape)
            self._reserve()
        else:
            self.values = np.zeros(shape, np.float32)  # a file of no bytes cannot be mapped

    def _finished_rows(self) -> int:
        if not (self.record_path.exists() and self.rows_path.exists()):
            return 0
        try:
            record = read_json(self.record_path)
        except InputError:
            return 0
        return record["finished"] if record["source_sha256"] == self.source_sha256 else 0

    def _reserve(self) -> None:
        """Take the room on the disk now, where its lack is an error: in the map it is a crash."""
        size = self.values.nbytes
        try:
            with open(self.rows_path, "r+b") as file:
                file.seek(self.values.offset)
                for start in range(0, size, _BYTES_AT_ONCE):
                    file.write(bytes(min(_BYTES_AT_ONCE, size - start)))
        except OSError:
            self.discard()
            raise

    def save(self, finished: int) -> None:
        """Record that the first `finished` rows are final."""
        self.values.flush()
        write_json(self.record_path, {"finished": finished, "source_sha256": self.source_sha256})
        self.finished = finished

    def publish(self) -> str:
        """Write the whole array to `output` and return the SHA-256 of the file."""
        checksum = write_array(self.output, self.values)
        self.discard()
        return checksum

    def discard(self) -> None:
        for path in (self.record_path, self.rows_path):
            path.unlink(missing_ok=True)
