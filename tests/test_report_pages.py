"""Report pages: escaping, folding, and their behaviour in a real browser where there is one."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import types
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pandas as pd
import pytest
from docutils.core import publish_parts

from ifguide.data.functional_cases import Case
from ifguide.errors import InputError
from ifguide.evaluation.functional_tests import functional_table
from ifguide.evaluation.judge_agreement import agreement_of_judges, disagreements, verdicts
from ifguide.report.report_pages import (
    choose_prompts,
    continuations_page,
    documents_page,
    judges_page,
    results_page,
    tokens_page,
)
from ifguide.report.results_table import Table
from ifguide.report.score_shades import score_scale

HOSTILE = (
    "<script>document.title='broken'</script><img src=http://host.invalid/x onerror=f()> &amp;"
)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def ranking():
    texts = [HOSTILE, "a walk by the zebra", "quiet evening", "x" * 5000]
    return pd.DataFrame(
        {
            "document": [17, 4, 99, 3],
            "rank": [1, 2, 3, 4],
            "s": [1.0, 0.5, 0.0, 0.0],
            "f": [1.0, 0.25, 0.0, 0.0],
            "harmonic_mean": [1.0, 1 / 3, 0.0, 0.0],
            "flagged": [5, 2, 0, 0],
            "selected": [4, 1, 0, 0],
            "first_block": [2, 0, 9, 1],
            "text": texts,
        }
    )


def token_documents():
    return [
        {
            "document": 17,
            "rank": 1,
            "tokens": ["<script>", " & ", "plain", "\n"],
            "scores": [2.0, -1.0, 0.0, 0.1],
            "selected": [True, True, False, False],
            "truth": [True, False, False, False],
        },
        {
            "document": 4,
            "rank": 2,
            "tokens": ["a", "b"],
            "scores": [0.5, -2.0],
            "selected": [False, False],
            "truth": None,
        },
    ]


def generations():
    def record(method, prompt, sample):
        return {
            "prompt_index": prompt,
            "prompt": f"prompt {prompt} {HOSTILE}",
            "split": "toxic" if prompt < 3 else "nontoxic",
            "group": None,
            "sample": sample,
            "seed": 10 * prompt + sample,
            "continuation": f"{method} writes {prompt}.{sample} {HOSTILE}" if sample else " ",
            "tokens": 3,
            "explicit": 0.75,
            "implicit": 0.25,
        }

    return {
        method: [record(method, prompt, sample) for prompt in range(6) for sample in range(3)]
        for method in ("none", "if-guide", "<b>odd</b>")
    }


def judges():
    """A page of two judges of whom one flags everything; the cases are hostile to the page."""
    cases = [Case("insult", True, f"case {n} {HOSTILE}") for n in range(2)]
    cases.append(Case("denied insult", False, "case 2"))
    tested = functional_table(cases, {"explicit": [1, 1, 1], "implicit": [0, 1, 0]}, 0.5, 0.9)
    flagged = verdicts(generations(), ["explicit", "implicit"], 0.5)
    agreement = agreement_of_judges(flagged, resamples=20, seed=0, level=0.9)
    apart = list(disagreements(generations(), flagged, 2, seed=0))
    written = [case._asdict() for case in cases]
    return judges_page(tested, written, agreement, apart, threshold=0.5, level=0.9)


def pages():
    return {
        "judges": judges(),
        "documents": documents_page(ranking()),
        "tokens": tokens_page(token_documents()),
        "continuations": continuations_page(generations(), prompts=2, samples=2),
    }


class Structure(HTMLParser):
    """Collects tags, text by nearest open element, and unbalanced elements."""

    VOID = {"meta", "link", "input", "br", "img"}

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.folded, self.unbalanced = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if "details" in self.open and "summary" not in self.open:
            self.folded.append(data)


@pytest.mark.parametrize("name", ["documents", "tokens", "continuations", "judges"])
def test_pages_are_balanced_offline_and_run_only_their_own_script(name):
    html = pages()[name]
    structure = Structure(html)
    tags = [tag for tag, _ in structure.tags]
    assert not structure.unbalanced and not structure.open
    assert tags.count("script") == 1 and "img" not in tags
    policies = [
        attributes["content"]
        for tag, attributes in structure.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; ") and "unsafe" not in policies[0]
    # Besides the escaped text of the corpus nothing names an address.
    assert not re.search(r'(?:src|href)="(?!data:)', html)


def test_corpus_text_is_whole_escaped_and_folded():
    html = pages()
    assert HOSTILE in "".join(Structure(html["documents"]).folded)
    assert "<script> & plain\n" in "".join(Structure(html["tokens"]).folded)
    folded = "".join(Structure(html["continuations"]).folded)
    assert re.search(r"if-guide writes \d\.1 " + re.escape(HOSTILE), folded)
    assert "<b>odd</b>" in folded and "(empty)" in folded
    for name in ("documents", "tokens", "continuations", "judges"):
        opened = [attributes for tag, attributes in Structure(html[name]).tags if tag == "details"]
        assert opened and not any("open" in attributes for attributes in opened)


def test_the_page_of_judges_tells_tests_agreement_and_disagreements():
    html = pages()["judges"]
    folded = "".join(Structure(html).folded)
    assert f"case 0 {HOSTILE}" in folded and "case 1" not in folded
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert "90 % intervals" in text
    assert re.search(r"insult show case 0 .* toxic 1\.00 \(0\.22 to 1\.00\) 0\.50 ", text)
    assert re.search(r"denied insult show case 2 harmless 0\.00 .* 1\.00 ", text)
    # All methods are alike to both judges: they have no order.
    assert "explicit, implicit 3 – 0.0 % 100.0 % 0.0 %" in text
    assert "toxic to explicit, not to implicit" in text
    assert "toxic to implicit, not to explicit" not in text


def test_warnings_stand_above_the_tables():
    html = results_page({"Results": Table([], [], [], [])}, ["a note"], ["a < b judges nothing"])
    warning = html.index("<strong>Warning:</strong> a &lt; b judges nothing.")
    assert warning < html.index("<h2>Results") < html.index("a note")


def test_long_documents_are_cut_and_the_cut_is_visible():
    html = documents_page(ranking(), total=1234)
    assert "x" * 600 + "…" in html and "x" * 601 not in html
    assert "5,000 characters" in html
    assert "first 4 of 1,234 documents" in html


def test_missing_text_shows_as_nothing():
    table = ranking().assign(text=[None, "b", "c", "d"])
    html = documents_page(table)
    assert "beginning, 0 characters" in html and ">nan<" not in html.lower()
    assert ">none<" not in html.lower()
    with pytest.raises(InputError, match="harmonic_mean"):
        documents_page(ranking().drop(columns="harmonic_mean"))


def test_tokens_are_shaded_by_sign_and_size():
    html = tokens_page(token_documents())
    spans = dict(re.findall(r'<span class="(t[^"]*)" title="([^"]*)"', html))
    assert score_scale(document["scores"] for document in token_documents()) == pytest.approx(2.0)
    assert spans["t p5 sel true"] == "2"
    assert spans["t n2 sel"] == "\u22121"
    assert spans["t n5"] == "\u22122"
    assert "known to be toxic" in html
    unknown = tokens_page(token_documents()[1:])
    assert "known to be toxic" not in unknown


def test_all_zero_scores_have_no_shade():
    document = token_documents()[0] | {"scores": [0.0] * 4}
    assert not re.search(r'class="t [pn]\d', tokens_page([document]))


def test_tokens_of_unequal_lengths_are_refused():
    with pytest.raises(InputError, match="document 17"):
        tokens_page([token_documents()[0] | {"scores": [1.0]}])


def test_prompts_are_drawn_by_seed_from_those_all_methods_share():
    methods = generations()
    methods["if-guide"] = [record for record in methods["if-guide"] if record["prompt_index"] != 1]
    chosen = choose_prompts(methods, prompts=10, seed=3)
    assert chosen == [("toxic", 0), ("toxic", 2), ("nontoxic", 3), ("nontoxic", 4), ("nontoxic", 5)]
    draws = {tuple(choose_prompts(methods, prompts=1, seed=seed)) for seed in range(20)}
    assert len(draws) > 1
    assert choose_prompts(methods, 1, seed=7) == choose_prompts(methods, 1, seed=7)


CAPTIONS = Path(__file__).parents[1] / "workflow" / "report"
CONFIGS = [{}, {"experiment": "planted", "seed": 7, "corpus": {"block_size": 64},
                "generation": {"continuations": 25},
                "evaluation": {"level": 0.9, "threshold": 0.5,
                               "resamples": 500}}]  # fmt: skip


@pytest.mark.parametrize("path", sorted(CAPTIONS.glob("*.rst")), ids=lambda path: path.name)
@pytest.mark.parametrize("config", CONFIGS, ids=["empty config", "config"])
def test_captions_render_without_a_complaint(path, config):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(path.read_text(encoding="utf-8"))
    text = template.render(snakemake=types.SimpleNamespace(config=config))
    # Halts at the first warning about the markup.
    settings = {"halt_level": 2, "report_level": 2}
    html = publish_parts(text, writer="html", settings_overrides=settings)["body"]
    assert len(html) > 200 and "{" not in text
    if config and path.name == "toxicity_by_method.rst":
        assert "25 continuations" in html and "90 % intervals over prompts" in html


# --- in a real browser ---

LISTENERS = """<head><script>
window.failures = [];
addEventListener("error", (event) => failures.push("error: " + event.message));
addEventListener("unhandledrejection", (event) => failures.push("rejection: " + event.reason));
addEventListener("securitypolicyviolation",
  (event) => failures.push("policy: " + event.violatedDirective + " " + event.blockedURI));
</script>"""

REPORT = """addEventListener("load", function look() {
  if (!(%s)) { setTimeout(look, 50); return; }
  const outcome = (() => { %s })();
  const found = document.createElement("pre");
  found.id = "outcome";
  found.textContent = JSON.stringify({ outcome, failures, title: document.title,
    requests: performance.getEntriesByType("resource").map((entry) => entry.name)
      .filter((name) => !name.startsWith("data:")) });
  document.body.append(found);
});"""


FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
]


def in_browser(html: str, script: str, folder: Path, ready: str | None = None):
    """Run `script` in the page in headless Chromium; return what it reports and the net log.

    It runs when the page is loaded and, where it draws itself later, the expression `ready` holds.
    """
    path, net_log = folder / "page.html", folder / "net.json"
    report = REPORT % (ready or "true", script)
    # Timers run ahead of the clock, and the page is dumped when this much of their time is over.
    patience = ["--virtual-time-budget=20000"] if ready else []
    # The page's policy, which comes after the listeners, has to admit this one script more.
    digest = hashlib.sha256(report.encode()).digest()
    admitted = f"script-src 'sha256-{base64.b64encode(digest).decode()}' "
    probed = html.replace("<head>", LISTENERS, 1).replace("script-src 'sha", f"{admitted}'sha", 1)
    # The last one: libraries within a page name the tag too.
    before, end, after = probed.rpartition("</body>")
    path.write_text(f"{before}<script>{report}</script>{end}{after}", encoding="utf-8")
    finished = subprocess.run(
        [BROWSER, *FLAGS, *patience, f"--user-data-dir={folder / 'profile'}",
         f"--log-net-log={net_log}", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
        env=os.environ | {"HOME": str(folder)},
    )  # fmt: skip
    console = [line for line in finished.stderr.splitlines() if "CONSOLE" in line]
    outcome = re.search(r'<pre id="outcome">(.*?)</pre>', finished.stdout, re.S)
    assert outcome, finished.stderr[-2000:]
    text = outcome[1]
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, character)
    return json.loads(text), console, net_log.read_text(encoding="utf-8", errors="replace")


needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium (Debian's package chromium) on the PATH"
)

SEARCH = """
  const field = document.getElementById("search");
  const shown = () => [...document.querySelectorAll("[data-entry]")]
    .filter((entry) => entry.getClientRects().length > 0).length;
  const search = (words) => { field.value = words;
    field.dispatchEvent(new Event("input", { bubbles: true })); return shown(); };
  const unfolded = () => document.querySelectorAll("details[open]").length;
"""

ACTIONS = {
    "documents": SEARCH
    + """
  const before = shown(), found = search("ZEBRA walk"), none = search("absent");
  const tag = search("<script>document.title"), all = search("");
  document.getElementById("only-selected").click();
  const selected = shown();
  const folded = unfolded();
  document.getElementById("unfold").click();
  const opened = unfolded();
  document.getElementById("fold").click();
  return { before, found, none, tag, all, selected, folded, opened, again: unfolded(),
    count: document.getElementById("count").textContent };""",
    "tokens": """
  document.getElementById("unfold").click();
  const block = document.querySelector(".tokens");
  block.focus();
  const press = (key) => block.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  press("ArrowRight");
  const first = document.getElementById("readout").textContent;
  press("ArrowRight");
  return { focused: document.activeElement === block, first,
    second: document.getElementById("readout").textContent, text: block.textContent,
    outline: getComputedStyle(document.querySelector(".tokens .sel")).outlineStyle,
    shaded: getComputedStyle(document.querySelector(".p5")).backgroundColor };""",
    "judges": SEARCH
    + """
  const shut = unfolded();
  document.getElementById("unfold").click();
  return { shut, opened: unfolded(), rows: document.querySelectorAll("tbody tr").length };""",
    "continuations": SEARCH
    + """
  const before = shown(), found = search("if-guide writes 1.1"), folded = unfolded();
  document.querySelector("[data-entry]:not([hidden]) summary").click();
  return { before, found, folded, opened: unfolded(),
    columns: document.querySelector("thead tr").cells.length };""",
}

EXPECTED = {
    "documents": {
        "before": 4, "found": 1, "none": 0, "tag": 1, "all": 4, "selected": 2,
        "folded": 0, "opened": 2, "again": 0, "count": "2 of 4 shown",
    },
    "tokens": {
        "focused": True,
        "first": '"<script>" · score 2 · selected · marked toxic',
        "second": '" & " · score \u22121 · selected',
        "text": "<script> & plain\n",
        "outline": "solid",
    },
    "judges": {"shut": 0, "opened": 3, "rows": 5},
    "continuations": {"before": 6, "found": 1, "folded": 0, "opened": 1, "columns": 4},
}  # fmt: skip


def test_continuations_have_the_scores_of_the_judges_that_are_asked_for():
    judged = {
        method: [record | {"strict": 0.625} for record in records]
        for method, records in generations().items()
    }
    page = continuations_page(judged, judges=["explicit", "strict"], prompts=1, samples=1)
    scores = re.findall(r"(\w+) <span(?: class=\"toxic\")?>([\d.]+)</span>", page)
    assert {judge for judge, _ in scores} == {"explicit", "strict"}
    assert {score for judge, score in scores if judge == "strict"} == {"0.62"}
    assert '>strict <span class="toxic">' in page.replace(" · ", ">")


@needs_browser
@pytest.mark.parametrize("name", list(ACTIONS))
def test_page_works_in_chromium_without_errors_or_requests(name, tmp_path):
    html = pages() | {"continuations": continuations_page(generations(), prompts=5, samples=3)}
    reported, console, net_log = in_browser(html[name], ACTIONS[name], tmp_path)
    assert reported["failures"] == [] and console == []
    assert reported["requests"] == []
    assert "host.invalid" not in net_log
    assert reported["title"] != "broken"
    outcome = reported["outcome"]
    if name == "tokens":
        shade = outcome.pop("shaded")
        assert shade not in ("rgba(0, 0, 0, 0)", "transparent")
    assert outcome == EXPECTED[name]


@needs_browser
def test_the_browser_check_sees_a_page_that_breaks_the_rules(tmp_path):
    html = documents_page(ranking()).replace(
        "<main>", "<main><img src='http://host.invalid/x'><script>absent()</script>"
    )
    reported, console, _ = in_browser(html, "return null;", tmp_path)
    assert any("script-src" in failure for failure in reported["failures"])
    assert any("img-src" in failure for failure in reported["failures"])
    assert console
