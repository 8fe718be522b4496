"""The pages of docs/results/: their tables are those of a run, and their prose stays."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ifguide.evaluation.summary import over_seeds
from ifguide.files.artifacts import write_text
from ifguide.report.results_table import result_columns
from write_results_page import BEGIN, END, kept_prose

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path("results/tiny")
PAGES = sorted((REPOSITORY / "docs/results").glob("*.md"))
BEFORE, AFTER = "# Tiny\n\nToo small to learn.\n\n", "\nRead with care: 0.50 here.\n"


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "tiny.md"
    path.write_text(f"{BEFORE}{BEGIN}{END}{AFTER}", encoding="utf-8")
    return path


def write_page(finished, page, *options):
    return subprocess.run(
        [sys.executable, REPOSITORY / "scripts/write_results_page.py"]
        + ["--results", finished / RESULTS, "--page", page, *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def table_lines(text):
    return [line for line in text.splitlines() if line.startswith(("|", "**"))]


def test_the_page_has_the_tables_of_the_run_between_its_prose(finished, page):
    written = write_page(finished, page)
    assert written.returncode == 0, written.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith(BEFORE + BEGIN) and text.endswith(END + AFTER)
    table = (finished / RESULTS / "results_table.md").read_text(encoding="utf-8")
    assert table_lines(text) == table_lines(table)
    # The clone of the finished run is no repository.
    made = re.search(r"^Made by `snakemake .*tiny\.yaml.*`, (.*)\.$", text, re.M)[1]
    assert re.fullmatch(
        r"code outside a git repository, started \d{4}-\d\d-\d\dT\d\d:\d\d\+00:00, seed 1, on "
        r".*\d cores, .* GiB, .*",
        made,
    )


def test_an_overlay_has_the_record_of_the_run_that_it_extends(finished, page, tmp_path):
    run = tmp_path / "results"
    overlay = run / "overlays/beside"
    overlay.mkdir(parents=True)
    for source, target in (("summary.csv", overlay), ("run_config.yaml", run)):
        write_text(target / source, (finished / RESULTS / source).read_text(encoding="utf-8"))
    written = subprocess.run(
        [sys.executable, REPOSITORY / "scripts/write_results_page.py"]
        + ["--results", overlay, "--page", page],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert written.returncode == 0, written.stderr
    of_overlay = page.read_text(encoding="utf-8")
    write_page(finished, page)
    assert page.read_text(encoding="utf-8") == of_overlay


def test_its_numbers_are_those_of_the_summary(finished, page):
    write_page(finished, page)
    lines = page.read_text(encoding="utf-8").partition("**Toxicity and fluency**\n\n")[2]
    head, _, *rows = [line.strip("| ").split(" | ") for line in lines.split("\n\n")[0].split("\n")]
    columns = {column.heading: column for column in result_columns()}
    keys = ["model", "method", "benchmark", "metric", "split"]
    values = over_seeds(pd.read_csv(finished / RESULTS / "summary.csv")).set_index(keys)["value"]
    compared = 0
    for method, *cells in rows:
        for heading, cell in zip(head[1:], cells, strict=True):
            if cell != "–":
                column = columns[heading]
                value = values["target", method, column.benchmark, column.metric, column.split]
                shown = float(cell.split(" (")[0].strip("*"))
                assert shown == pytest.approx(value, abs=0.51 * 10**-column.decimals)
                compared += 1
    assert compared > 40


def test_a_second_writing_changes_nothing(finished, page):
    write_page(finished, page)
    first = page.read_bytes()
    assert write_page(finished, page, "--check").returncode == 0
    assert write_page(finished, page).returncode == 0
    assert page.read_bytes() == first


def test_a_number_edited_by_hand_is_refused_and_put_right(finished, page):
    write_page(finished, page)
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("| none | 0.", "| none | 1.", 1), encoding="utf-8")
    checked = write_page(finished, page, "--check")
    assert checked.returncode == 1 and page.read_text(encoding="utf-8") != right
    assert checked.stderr.startswith(f"error: {page}: does not show the run of ")
    assert "run python scripts/write_results_page.py --results" in checked.stderr
    write_page(finished, page)
    assert page.read_text(encoding="utf-8") == right


def test_prose_can_be_changed_at_any_time(finished, page):
    write_page(finished, page)
    changed = page.read_text(encoding="utf-8").replace("Read with care", "Read with much care")
    page.write_text(changed, encoding="utf-8")
    assert write_page(finished, page, "--check").returncode == 0


def test_a_page_that_is_not_there_is_begun(finished, tmp_path):
    page = tmp_path / "docs" / "new.md"
    assert write_page(finished, page, "--check").returncode == 1 and not page.exists()
    assert write_page(finished, page).returncode == 0
    assert page.read_text(encoding="utf-8").startswith(f"# Results: new\n\n{BEGIN}")


@pytest.mark.parametrize("text", ["# Tiny\n", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", BEGIN])
def test_a_page_without_its_marks_is_refused_untouched(finished, page, text):
    page.write_text(text, encoding="utf-8")
    refused = write_page(finished, page)
    assert refused.returncode == 1 and BEGIN.strip() in refused.stderr
    assert page.read_text(encoding="utf-8") == text


def test_a_folder_without_a_finished_run_is_refused(tmp_path, page):
    refused = write_page(tmp_path, page)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1 and "no summary.csv" in refused.stderr


@pytest.mark.parametrize("name", ["planted", "real_text"])
def test_the_pages_here_can_be_written_again(name):
    path = REPOSITORY / f"docs/results/{name}.md"
    before, after = kept_prose(path, path.read_text(encoding="utf-8"))
    assert "|" not in before + after


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        found = path.parent / target if target else path
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8").lower(), re.M)
            assert anchor in [re.sub(r"[^\w -]", "", line).replace(" ", "-") for line in headings]
