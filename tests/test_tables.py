"""Tables that are written and read: names that a reader of tables takes for something else."""

import ast
from pathlib import Path

import pandas as pd
import pytest

from ifguide.files.tables import NAMES, parse_table, read_table, write_table

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
# What pandas takes for missing, for numbers and for truth values.
TAKEN = [
    *("NA", "N/A", "nan", "NaN", "null", "NULL", "None", "n/a", "-nan", "inf", "-inf", "#NA"),
    *("007", "1e5", "1_000", "0x1", "True", "false", "yes", "2024-01-01", "<NA>"),
]


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("column", NAMES)
def test_a_name_stays_the_text_that_it_is(tmp_path, name, column):
    table = pd.DataFrame({column: [name, name], "value": [0.5, None], "n": [1, 2]})
    write_table(tmp_path / "t.csv", table)
    found = read_table(tmp_path / "t.csv")
    assert list(found[column]) == [name, name]
    assert found["value"].isna().tolist() == [False, True]
    assert list(found["n"]) == [1, 2] and found["n"].dtype == int


def test_only_an_empty_field_is_missing(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("group,value,low\n,inf,\nnull,-inf,1\n", encoding="utf-8")
    found = parse_table(path)
    assert found["group"].isna().tolist() == [True, False] and found["group"][1] == "null"
    assert list(found["value"]) == [float("inf"), float("-inf")]


def test_every_table_is_read_in_one_way():
    for path in SCRIPTS.rglob("*.py"):
        if path.name == "tables.py" and path.parent.name == "files":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Attribute) and node.attr in ("read_csv", "read_table")
            assert not (called and ast.unparse(node.value) == "pd"), f"{path}, line {node.lineno}"
