"""The README: short, and every command of it does what it says."""

import re
from pathlib import Path

import pytest

from conftest import REPOSITORY, copy_repository
from documentation import indented_lines, run_shell, write_own_texts

README = REPOSITORY / "README.md"
COMMANDS = indented_lines(README)
MOST_LINES = 120
MOST_COLUMNS = 6


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone with the texts and the config that the tutorial makes."""
    clone = copy_repository(tmp_path_factory.mktemp("readme") / "clone")
    write_own_texts(clone)
    return clone


def test_it_is_short():
    assert len(README.read_text("utf-8").splitlines()) <= MOST_LINES


def test_it_has_one_picture_and_no_wide_or_long_table():
    text = README.read_text("utf-8")
    assert text.count("![") == 1
    for table in re.findall(r"(?:^\|.*\|$\n)+", text, re.M):
        rows = table.splitlines()
        assert rows[0].count("|") - 1 <= MOST_COLUMNS, rows[0]
        assert len(rows) <= 20, rows[0]


def test_it_says_the_two_commands():
    assert {"make reproduce", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(command, clone):
    """`make` by what it would do, `snakemake` by a dry run; there are no others."""
    program, *arguments = command.split()
    if program == "make":
        ran = run_shell(REPOSITORY, f"make -n {' '.join(arguments)}", timeout=60)
    else:
        assert program == "snakemake"
        ran = run_shell(clone, f"{command} --cores 1 --dry-run", timeout=120)
    assert ran.returncode == 0, ran.stdout
