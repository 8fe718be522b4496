"""CSV artifacts, written whole and verified when they are read."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ifguide.files.artifacts import atomic_path
from ifguide.files.checksums import verify


def write_table(path: str | Path, table: pd.DataFrame, **options) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, **options)


def write_table_in_parts(path: str | Path, parts: Iterable[pd.DataFrame]) -> None:
    """Write a table of which some rows after others are made."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        for number, part in enumerate(parts):
            part.to_csv(file, index=False, header=number == 0)


# Columns that hold names that users choose, or texts: `NA`, `null` and `007` are such names.
NAMES = (
    *("model", "method", "benchmark", "split", "metric", "group", "judge", "classifier"),
    *("variant", "ranking", "question", "label", "source", "text", "phrase", "rule", "subject"),
    "function",
)


def read_table(path: str | Path, **options) -> pd.DataFrame:
    """Read a CSV artifact of this workflow. Raises InputError where it is damaged."""
    verify(path)
    return parse_table(path, **options)


def parse_table(path: str | Path, **options) -> pd.DataFrame:
    """Read a CSV file: only an empty field is missing, and a name is the text that it is."""
    taken = {"keep_default_na": False, "na_values": [""], "dtype": dict.fromkeys(NAMES, str)}
    return pd.read_csv(path, **(taken | options))
