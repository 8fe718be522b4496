"""The tutorial: every command of it runs, in order, and prints what the page says is stable."""

from pathlib import Path

import pytest

from conftest import copy_repository
from documentation import TUTORIAL, fenced_blocks, run_shell

KNOWN_MARKS = {None, "installation", "stable"}


def squeezed(text: str) -> list[str]:
    """The lines of a text, with runs of blanks as one."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_every_block_is_a_command_a_file_or_an_output():
    for block in fenced_blocks(TUTORIAL):
        assert block.mark in KNOWN_MARKS, f"line {block.line}: {block.mark}"
        known = block.language in ("sh", "text") or block.file
        assert known, f"line {block.line}: name the file of this block, or call it text"


@pytest.mark.slow
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path):
    clone = copy_repository(tmp_path / "clone")
    transcript = tmp_path / "transcript.txt"  # what it printed, to paste into the page
    printed = ""
    for block in fenced_blocks(TUTORIAL):
        if block.file:
            (clone / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "sh" and block.mark != "installation":
            ran = run_shell(clone, block.text, timeout=3600)
            printed = ran.stdout
            with transcript.open("a", encoding="utf-8") as stream:
                stream.write(f"$ {block.text}{printed}\n")
            assert ran.returncode == 0, f"line {block.line}: {block.text}{printed}"
        elif block.mark == "stable":
            missing = set(squeezed(block.text)) - set(squeezed(printed))
            assert not missing, f"line {block.line}: not printed: {missing}\n{printed}"
