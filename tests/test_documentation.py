"""The pages of the documentation hold together: links, anchors, and the modules they name."""

import re
import unicodedata
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY
from documentation import FENCE, fenced_blocks
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.config.overlays import merged

LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
READMES = [REPOSITORY / folder / "README.md" for folder in ("", "config", "results", "benchmarks")]
PAGES = [
    *READMES,
    *(REPOSITORY / name for name in ("SECURITY.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
DESCRIBING = [
    *PAGES,
    *sorted((REPOSITORY / "config").rglob("*.yaml")),
    *sorted((REPOSITORY / "workflow").rglob("*.rst")),
]
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


@pytest.mark.parametrize("page", DESCRIBING, ids=name_of)
def test_files_that_a_page_names_exist(page):
    kinds = r"scripts/[a-z_]+\.py|tests/[a-z_/]+\.(?:py|yaml)|config/[\w/]+\.yaml|docs/[\w/]+\.md"
    named = rf"(?<![\w/])(?:{kinds})\b"
    found = set(re.findall(named, page.read_text(encoding="utf-8")))
    assert not {path for path in found if not (REPOSITORY / path).is_file()}


EXAMPLES = [
    pytest.param(block.text, id=f"{name_of(page)}:{block.line}")
    for page in [
        REPOSITORY / "config/README.md",
        *sorted((REPOSITORY / "docs/how_to").glob("*.md")),
    ]
    for block in fenced_blocks(page)
    # Not what stands for something: `<commit>`, a step that is not installed.
    if block.language == "yaml" and block.mark != "unchecked"
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_an_overlay_of_the_default_config(example):
    default = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text(encoding="utf-8"))
    with_defaults(Config, merged(default, yaml.safe_load(example)))
