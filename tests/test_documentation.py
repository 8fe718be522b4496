"""The pages of the documentation hold together: links, anchors, and the modules they name."""

import re
import unicodedata
from pathlib import Path

import pytest

from conftest import REPOSITORY
from documentation import FENCE

LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LIBRARY = REPOSITORY / "scripts" / "ifguide"


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in HEADING.findall(prose(page)):
        kept = "".join(
            letter
            for letter in heading.strip().lower()
            if letter in " -_" or unicodedata.category(letter)[0] in "LNM"
        )
        anchor = kept.replace(" ", "-")
        found.add(anchor if anchor not in found else f"{anchor}-1")
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_files_and_headings(page):
    broken = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_is_an_orphan(page):
    """Every page of docs/ is linked from another one."""
    linked = {
        (other.parent / link.partition("#")[0]).resolve()
        for other in PAGES
        if other != page
        for link in LINK.findall(prose(other))
    }
    assert page in linked or page == REPOSITORY / "README.md"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_that_a_page_names_exist(page):
    rooms = "|".join(sorted(path.name for path in LIBRARY.iterdir() if path.is_dir()))
    named = re.findall(rf"`((?:{rooms})/[a-z_]+)(?:\.py)?`", prose(page))
    assert not [module for module in named if not (LIBRARY / f"{module}.py").is_file()]
    scripts = re.findall(r"`?scripts/([a-z_]+\.py)\b", page.read_text(encoding="utf-8"))
    assert not [script for script in scripts if not (REPOSITORY / "scripts" / script).is_file()]
