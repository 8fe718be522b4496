"""The result first: a sentence that claims no more than its intervals, a short table, a page."""

import base64
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ifguide.evaluation.summary import COLUMNS, OVER_SEEDS, summarize
from ifguide.report.report_pages import result_page
from ifguide.report.result_sentence import result_sentence
from ifguide.report.results_table import leading_table, markdown, plain_text
from test_report_pages import Structure, in_browser, needs_browser
from test_summary import document, heldout

ROOT = Path(__file__).parents[1]
PROMPTS = "realtoxicityprompts"
NAN = math.nan


def row(method, benchmark, split, metric, value, low, high, seed=1, model="target"):
    figures = {"value": value, "ci_low": low, "ci_high": high}
    names = {"model": model, "method": method, "benchmark": benchmark, "split": split}
    return names | {"metric": metric, "n": 120, "seed": seed} | figures


def toxicity(judge, none, mine, ratio, split="toxic"):
    """The rows of one judge: TP of none and of the method, and the ratio with its interval."""
    return [
        row("none", PROMPTS, split, f"{judge}_tp", none, none / 2, 1.0),
        row("guide", PROMPTS, split, f"{judge}_tp", mine, mine / 2, mine + 0.03),
        row("guide", PROMPTS, split, f"{judge}_tp_ratio", *ratio),
    ]


FLUENCY = [
    row("none", "heldout", "nontoxic", "perplexity", 2.44, 2.4, 2.5),
    row("guide", "heldout", "nontoxic", "perplexity", 2.42, 2.4, 2.5),
    row("guide", "heldout", "nontoxic", "perplexity_increase", -0.0089, -0.0141, 0.0004),
]
REMOVED = [row("guide", "removal", "all", "removed_share", 0.0078, NAN, NAN)]
EXPLICIT = toxicity("explicit", 0.7, 0.0, (math.inf, 22.6, math.inf))
IMPLICIT = toxicity("implicit", 0.28, 0.01, (33.6, 8.49, 131.0))


def sentence(rows, **options):
    told = {"model": "target", "method": "guide", "benchmark": PROMPTS} | options
    return result_sentence(pd.DataFrame(rows, columns=COLUMNS), **told)


def test_the_sentence_says_what_was_reached_how_surely_and_at_what_price():
    assert sentence([*EXPLICIT, *IMPLICIT, *FLUENCY, *REMOVED]) == (
        "`guide` takes 0.78 % of the training tokens out: after toxic prompts, explicit toxicity "
        "(TP) falls from 0.70 to 0.00 (at least 22 times lower), implicit toxicity falls from 0.28 "
        "to 0.01 (33 times lower, 8.4 to 131), at \u22120.9 % (\u22121.4 to 0.0) perplexity on "
        "clean text (95 % intervals; one training seed: they leave out the noise of training)."
    )


@pytest.mark.parametrize(
    ("ratio", "values", "said"),
    [
        ((1.1, 0.91, 1.33), (0.3, 0.27), "is not shown to fall, from 0.30 to 0.27 "
         "(the interval of the ratio, 0.91 to 1.33, includes 1)"),
        # A hair's breadth below 1 must not be rounded up to it.
        ((1.2, 0.996, 1.5), (0.3, 0.25), "is not shown to fall, from 0.30 to 0.25 "
         "(the interval of the ratio, 0.99 to 1.50, includes 1)"),
        ((1.0, 0.5, math.inf), (0.01, 0.0), "is not shown to fall, from 0.01 to 0.00 "
         "(the interval of the ratio, 0.50 to ∞, includes 1)"),
        # Nothing to be lowered: 0 / 0.
        ((NAN, 0.0, math.inf), (0.0, 0.0), "is not shown to fall, from 0.00 to 0.00 "
         "(the interval of the ratio, 0.00 to ∞, includes 1)"),
        ((0.5, 0.25, 0.8), (0.2, 0.4), "rises from 0.20 to 0.40 (1.25 to 4.0 times higher)"),
        ((0.0, 0.0, 0.1), (0.0, 0.4), "rises from 0.00 to 0.40 (10 to any number times higher)"),
        # Cut off, never rounded up: at least so many times.
        ((math.inf, 8.99, math.inf), (0.3, 0.0), "falls from 0.30 to 0.00 (at least 8.9 times "
         "lower)"),
        ((40.0, 19.99, math.inf), (0.3, 0.01), "falls from 0.30 to 0.01 (at least 19 times lower)"),
    ],
)  # fmt: skip
def test_a_toxicity_falls_only_where_the_interval_says_so(ratio, values, said):
    assert f"explicit toxicity (TP) {said}, " in sentence(toxicity("explicit", *values, ratio))


def test_what_was_not_measured_is_said_or_left_out():
    alone = [row("guide", PROMPTS, "toxic", "explicit_tp", 0.05, 0.02, 0.1)]
    assert sentence(alone) == (
        "`guide`: after toxic prompts, explicit toxicity (TP) is 0.05 (0.02–0.10), at a price in "
        "perplexity that was not measured (95 % intervals; one training seed: they leave out the "
        "noise of training)."
    )
    assert sentence(alone, method="other") == (f"Of `other` no toxicity is measured on {PROMPTS}.")
    assert sentence(alone, method=None).startswith("No compared method suppresses a selection")
    assert ": after all prompts, " in sentence(
        toxicity("explicit", 0.7, 0.1, (7.0, 3.0, 12.0), split="all")
    )
    # Held-out text of which it is not known what is toxic; one document, and so no interval.
    everything = [entry | {"split": "all", "ci_low": NAN, "ci_high": NAN} for entry in FLUENCY]
    assert "at \u22120.9 % perplexity on held-out text (90 % intervals;" in sentence(
        [*EXPLICIT, *everything], level=0.9
    )
    several = [entry | {"model": "larger"} for entry in EXPLICIT]
    assert sentence([*EXPLICIT, *several]).startswith("`guide` with `target`: ")


def test_the_price_is_told_against_the_control():
    rise = row("guide", "heldout", "nontoxic", "perplexity_increase_from_control", 0.02, 0.01, 0.03)
    rows = [*EXPLICIT, *FLUENCY, rise]
    told = "at +2.0 % (+1.0 to +3.0) perplexity on clean text against its control `continued`"
    assert told in sentence(rows, control="continued")
    assert "control" not in sentence(rows)
    # Of a control that is not compared, nothing is known.
    assert "control" not in sentence(rows[:-1], control="continued")


def test_several_training_seeds_are_counted_and_the_worst_is_told():
    documents = {}
    for seed, none, mine, losses in ((1, 8, 2, 21.0), (2, 9, 0, 20.0), (3, 8, 1, 22.0)):
        for method, toxic in (("none", none), ("guide", mine)):
            documents[f"{method} {seed}"] = document(method, toxic, seed=seed)
            spent = 20.0 if method == "none" else losses
            documents[f"{method} {seed} heldout"] = heldout(method, [spent] * 3, seed=seed)
    summary = summarize(documents, resamples=200)
    assert set(summary["seed"]) == {1, 2, 3, OVER_SEEDS}
    said = result_sentence(summary, model="target", method="guide", benchmark=PROMPTS)
    assert "(TP) falls from 0.83 to 0.10 (" in said
    worst = 100 * math.expm1(2 / 10)
    assert said.endswith(
        "(95 % intervals over 3 training seeds; the worst seed of each: "
        f"0.20, 0.20, +{worst:.1f} %)."
    )


def test_a_summary_that_was_written_and_read_says_the_same(tmp_path):
    rows = pd.DataFrame([*EXPLICIT, *IMPLICIT, *FLUENCY, *REMOVED], columns=COLUMNS)
    rows.to_csv(tmp_path / "summary.csv", index=False)
    told = {"model": "target", "method": "guide", "benchmark": PROMPTS}
    read = pd.read_csv(tmp_path / "summary.csv")
    assert result_sentence(read, **told) == result_sentence(rows, **told)


# --- the table ---


def controlled():
    """Three methods, of which one was trained on after `none`, as its control was."""
    documents = {
        f"{method} {kind}": made
        for method, toxic, losses in (
            ("none", 8, 20.0), ("continued", 8, 18.0), ("fine_tuned", 1, 19.0), ("guide", 0, 20.5)
        )
        for kind, made in (
            ("prompts", document(method, toxic)), ("text", heldout(method, [losses] * 3))
        )
    }  # fmt: skip
    return summarize(documents, resamples=100, controls={"fine_tuned": "continued"})


def test_the_table_that_leads_has_six_columns_and_rises_from_controls():
    table, note = leading_table(controlled(), PROMPTS, {"fine_tuned": "continued"})
    assert len(table.columns) <= 5  # beside the method
    headings = [column.heading for column in table.columns]
    place = headings.index("rise of clean perplexity, %")
    rises = {label[1]: cells[place].value for label, cells in zip(table.labels, table.cells,
                                                                  strict=True)}  # fmt: skip
    assert rises == {
        "none": "–",
        "continued": f"\u2212{abs(100 * math.expm1(-0.2)):.1f}",
        "fine_tuned": f"+{100 * math.expm1(0.1):.1f}†",
        "guide": f"+{100 * math.expm1(0.05):.1f}",
    }
    assert "of fine_tuned from continued" in note and note.startswith("† ")
    table, note = leading_table(controlled(), PROMPTS, {})
    assert note == "" and "†" not in plain_text(table)
    assert all("†" not in cell.value for cells in table.cells for cell in cells)


def test_the_table_is_short_enough_for_a_terminal():
    table, _ = leading_table(controlled(), PROMPTS, {"fine_tuned": "continued"})
    assert max(map(len, plain_text(table).splitlines())) <= 80
    assert {line.count(" | ") for line in markdown(table).splitlines()} == {len(table.columns)}


# --- the page ---

SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='40' height='30'><rect style='fill:#f00' " \
      b"width='40' height='30'/></svg>"  # fmt: skip


def page():
    table, note = leading_table(controlled(), PROMPTS, {"fine_tuned": "continued"})
    return result_page("`<b>guide</b>` falls & stays.", SVG, table, [note], ["a < b"])


def test_the_page_leads_with_the_sentence_and_holds_the_figure_and_the_table():
    html = page()
    structure = Structure(html)
    assert not structure.unbalanced and not structure.open
    said = html.index("<code>&lt;b&gt;guide&lt;/b&gt;</code> falls &amp; stays.")
    assert said < html.index("a &lt; b") < html.index("<img") < html.index("<table")
    (image,) = (attributes["src"] for tag, attributes in structure.tags if tag == "img")
    assert base64.b64decode(image.removeprefix("data:image/svg+xml;base64,")) == SVG
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    assert "fine_tuned" in html and "†" in html


@needs_browser
def test_the_page_shows_its_figure_and_breaks_no_policy(tmp_path):
    look = """const image = document.querySelector("img");
      const canvas = Object.assign(document.createElement("canvas"), { width: 4, height: 4 });
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0, 4, 4);
      return [image.naturalWidth, [...context.getImageData(1, 1, 1, 1).data]];"""
    ready = "document.querySelector('img').complete"
    reported, _, _ = in_browser(page(), look, tmp_path, ready)
    assert reported["failures"] == [] and reported["requests"] == []
    # The style within the figure is followed too.
    assert reported["outcome"] == [40, [255, 0, 0, 255]]


def test_the_script_writes_the_sentence_before_the_table(tmp_path):
    rows = [*EXPLICIT, *IMPLICIT, *FLUENCY, *REMOVED]
    # A judge that measures nothing is told of where the result rests on it.
    rows += [
        row(method, PROMPTS, "all", f"{judge}_fraction", 0.0, 0.0, 0.1)
        for method in ("none", "guide")
        for judge in ("implicit", "word_list")
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(tmp_path / "summary.csv", index=False)
    (tmp_path / "front.svg").write_bytes(SVG)
    settings = {"benchmark": PROMPTS, "model": "target", "method": "guide", "continuations": 25}
    command = [sys.executable, ROOT / "scripts/write_result.py", "--settings", json.dumps(settings)]
    for name in ("summary.csv", "front.svg", "page.html", "text.txt", "markdown.md"):
        option = {"front.svg": "front"}.get(name, name.partition(".")[0])
        command += [f"--{option}", tmp_path / name]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    said = sentence(rows)
    text = (tmp_path / "text.txt").read_text(encoding="utf-8")
    first, _, table = text.partition("\n\n")
    assert " ".join(first.split()) == said and table.count("guide") == 1
    assert max(map(len, text.splitlines())) <= 100
    assert [line for line in text.splitlines() if line.startswith("warning: ")] == [
        f"warning: the implicit classifier calls every continuation of {PROMPTS} harmless"
    ]
    document = (tmp_path / "markdown.md").read_text(encoding="utf-8")
    assert document.startswith(f"{said}\n\n| method | ") and "of 25;" in document
    assert "takes 0.78 % of the training tokens out" in (tmp_path / "page.html").read_text("utf-8")
