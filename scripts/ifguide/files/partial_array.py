"""An array that is filled from its first row to its last and survives the end of its process.

Two files beside the output hold it until it is whole: the rows, memory-mapped, and a record of
what they are made from, how many are finished, and their checksums. Rows of anything else, and
those from the first damaged one on, are thrown away.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from ifguide.errors import InputError
from ifguide.files.artifacts import canonical_json, read_json, text_sha256, write_array, write_json

_BYTES_AT_ONCE = 1 << 20


class PartialArray:
    """Rows of a float32 array (shape) that belong to `output`, made from what `source` names.

    `finished` rows are there already, from a process that ended before its work did.
    """

    def __init__(self, output: Path, shape: tuple[int, int], source: dict) -> None:
        self.output = output
        self.source_sha256 = text_sha256(canonical_json({"shape": shape, **source}))
        self.rows_path = output.with_name(f".{output.stem}.rows.npy")
        self.record_path = self.rows_path.with_suffix(".json")
        # The end of each piece that was saved, and the checksum of its rows.
        self._saved: list[tuple[int, str]] = []
        output.parent.mkdir(parents=True, exist_ok=True)
        if self._take_over(shape):
            return
        if shape[0]:
            self.record_path.unlink(missing_ok=True)
            self.values = open_memmap(self.rows_path, "w+", np.float32, shape)
            self._reserve()
        else:
            self.values = np.zeros(shape, np.float32)  # a file of no bytes cannot be mapped

    @property
    def finished(self) -> int:
        return self._saved[-1][0] if self._saved else 0

    def _take_over(self, shape: tuple[int, int]) -> bool:
        """Open the rows that another process left, as far as they are what it saved."""
        try:
            record = read_json(self.record_path)
            values = np.load(self.rows_path, mmap_mode="r+", allow_pickle=False)
        except (FileNotFoundError, InputError, ValueError, EOFError):
            return False
        if record.get("source_sha256") != self.source_sha256 or values.shape != shape:
            return False
        for stop, checksum in record["saved"]:
            if _rows_sha256(values[self.finished : stop]) != checksum:
                break
            self._saved.append((stop, checksum))
        self.values = values
        return bool(self._saved)

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
        self._saved.append((finished, _rows_sha256(self.values[self.finished : finished])))
        record = {"saved": self._saved, "source_sha256": self.source_sha256}
        write_json(self.record_path, record)

    def publish(self) -> None:
        """Write the whole array to `output`."""
        write_array(self.output, self.values)
        self.discard()

    def discard(self) -> None:
        for path in (self.record_path, self.rows_path):
            path.unlink(missing_ok=True)


def _rows_sha256(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows)).hexdigest()
