"""What the tests of the documentation share: the blocks of a page, and a shell to run them in."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from conftest import REPOSITORY, environment

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
MARK = re.compile(r"<!-- (\w+) -->")
FILE = re.compile(r"^`([\w./-]+)`:$")
COMMENT = re.compile(r"(^|\s+)#.*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    `mark` is the word in the comment above it, `file` the file that the line above it names.
    """

    language: str
    text: str
    mark: str | None
    file: str | None
    line: int


def fenced_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        above = text[: match.start()].rstrip().rpartition("\n")[2]
        mark, file = MARK.fullmatch(above), FILE.fullmatch(above)
        found.append(
            Block(
                language=match[1],
                text=match[2],
                mark=mark[1] if mark else None,
                file=file[1] if file else None,
                line=text.count("\n", 0, match.start()) + 1,
            )
        )
    return found


def indented_lines(page: Path) -> list[str]:
    """Return the lines of the indented blocks of a page, without their comments."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    return [line for raw in lines if (line := COMMENT.sub("", raw).strip())]


def run_shell(directory: Path, commands: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run commands as a reader does who has the present environment active."""
    present = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=directory,
        env=environment() | {"PATH": present},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def write_own_texts(clone: Path) -> None:
    """Make the texts and the config of the tutorial."""
    for block in fenced_blocks(TUTORIAL):
        if block.file:
            (clone / block.file).write_text(block.text, encoding="utf-8")
            return
        if block.language == "sh" and block.mark != "installation":
            ran = run_shell(clone, block.text, timeout=600)
            assert ran.returncode == 0, ran.stdout
