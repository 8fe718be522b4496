"""CSV artifacts, written whole and verified when they are read."""

from pathlib import Path

import pandas as pd

from ifguide.artifacts import atomic_path, verify


def write_table(path: str | Path, table: pd.DataFrame, **options) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, **options)


def read_table(path: str | Path, **options) -> pd.DataFrame:
    """Read a CSV artifact of this workflow. Raises InputError where it is damaged."""
    verify(path)
    return pd.read_csv(path, **options)
