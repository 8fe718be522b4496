"""The pages of the report: results, ranked documents, token scores, continuations.

Each function takes data and returns one self-contained HTML document. Text of the corpus and of
models is escaped and folded behind a click, because much of it is hateful.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from ifguide.errors import InputError
from ifguide.report.page_style import (
    FOLD_BUTTONS,
    FOLD_SCRIPT,
    SEARCH_SCRIPT,
    number,
    page,
    paragraph,
)
from ifguide.report.results_table import Table, row_labels
from ifguide.report.score_shades import STEPS, score_scale, shade

WARNING = "Some of this text is hateful. It is folded: open an entry to read it."
EXCERPT = 600  # characters

SHADES = "".join(
    f".{sign}{step} {{ background: "
    f"color-mix(in srgb, var(--{name}) {14 * step}%, transparent); }}\n"
    for sign, name in (("p", "positive"), ("n", "negative"))
    for step in range(1, STEPS + 1)
)

TOKEN_STYLE = (
    SHADES
    + """
.tokens { line-height: 2.4; padding: .5rem .25rem; margin: .25rem 0 1rem; max-width: 60rem; }
.t { padding: .12em .04em .34em; border-radius: .15em; }
.swatch { display: inline-block; width: 1.6em; height: 1.5em; vertical-align: middle;
  border: 1px solid var(--line); }
.sel { outline: 2px solid var(--text); outline-offset: -1px; }
.legend .sel { padding: .1em .3em; }
.true { text-decoration: underline 3px; text-underline-offset: .28em; }
.at { box-shadow: 0 0 0 3px var(--focus); }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center;
  margin: .75rem 0; }
#readout { min-height: 1.6em; font-variant-numeric: tabular-nums; margin-left: auto; }
"""
)

TOKEN_SCRIPT = """
const readout = document.getElementById("readout");
let current = null;
function describe(token) {
  current?.classList.remove("at");
  current = token;
  token.classList.add("at");
  const parts = [JSON.stringify(token.textContent), "score " + token.title];
  if (token.classList.contains("sel")) parts.push("selected");
  if (token.classList.contains("true")) parts.push("marked toxic");
  readout.textContent = parts.join(" \\u00b7 ");
}
document.addEventListener("click", (event) => {
  if (event.target.classList.contains("t")) describe(event.target);
});
document.addEventListener("keydown", (event) => {
  const block = event.target.closest(".tokens");
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!block || !step) return;
  const tokens = [...block.querySelectorAll(".t")];
  const place = tokens.indexOf(current);
  const next = tokens[place < 0 ? 0 : place + step];
  if (next) { describe(next); next.scrollIntoView({ block: "nearest" }); }
  event.preventDefault();
});
"""

RESULTS_STYLE = """
body { max-width: 100rem; }
.results td small { color: var(--quiet); white-space: nowrap; }
.results td { font-variant-numeric: tabular-nums; }
.results tbody th { font-size: 1rem; color: var(--text); white-space: nowrap; }
h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
"""

CONTINUATION_STYLE = """
.prompt { border-left: 4px solid var(--quiet); padding-left: .75rem; }
.continuations th:first-child, .continuations td:first-child { white-space: nowrap; }
.continuations td { min-width: 13rem; }
.continuations td:first-child { min-width: 0; }
.scores { display: block; font-size: .85rem; color: var(--quiet); }
.toxic { color: var(--positive); font-weight: 700; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
"""


def results_page(
    tables: dict[str, Table], notes: Sequence[str], warnings: Sequence[str] = (), title: str = ""
) -> str:
    """Return the results tables, by their headings, `warnings` above and `notes` below them."""
    body = "".join(
        f"<h2>{escape(heading)}</h2>\n{_table(table)}" for heading, table in tables.items()
    )
    introduction = paragraph(
        "Each value with its interval in brackets below; the best of each model in bold, whether "
        "or not the difference is larger than chance."
    ) + "".join(f"<p><strong>Warning:</strong> {escape(line)}.</p>\n" for line in warnings)
    body += "".join(paragraph(note, note=True) for note in notes)
    return page(title or "Results", introduction, body, style=RESULTS_STYLE)


def _table(table: Table) -> str:
    headings = "".join(
        f'<th class="number" scope="col">{escape(column.heading)}</th>' for column in table.columns
    )
    rows = []
    for label, cells in zip(row_labels(table), table.cells, strict=True):
        written = ""
        for cell in cells:
            value = f"<strong>{escape(cell.value)}</strong>" if cell.best else escape(cell.value)
            bounds = f"<br><small>({escape(cell.interval)})</small>" if cell.interval else ""
            written += f'<td class="number">{value}{bounds}</td>'
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{written}</tr>\n')
    return (
        '<div class="scroll" tabindex="0" role="group"><table class="results"><thead><tr>'
        f'<th scope="col">method</th>{headings}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def documents_page(documents: pd.DataFrame, total: int | None = None, title: str = "") -> str:
    """Return the searchable table of ranked documents.

    `documents`: columns document, rank, s, f, harmonic_mean, selected and text, in the order to
    show. `total`: how many documents the whole ranking holds, where these are its beginning.
    Raises InputError on missing columns.
    """
    needed = ["document", "rank", "s", "f", "harmonic_mean", "selected", "text"]
    missing = [column for column in needed if column not in documents]
    if missing:
        raise InputError(f"the document ranking has no column {', '.join(missing)}; rank again")
    total = len(documents) if total is None else total
    rows = "".join(_document_row(row) for row in documents.to_dict("records"))
    introduction = (
        paragraph(
            "Training documents in the order in which tokens were taken from them. s is the number "
            "of a document's tokens whose score lies above the threshold, f the sum of those "
            "scores; the rank follows the harmonic mean of the two after each is scaled to run "
            "from 0 to 1 over all documents. A positive token score means that learning the "
            "token makes toxic continuations more likely than harmless ones."
        )
        + paragraph(WARNING, note=True)
        + (
            paragraph(f"The first {len(documents):,} of {total:,} documents.", note=True)
            if total > len(documents)
            else ""
        )
    )
    body = (
        '<div class="controls"><label>Search <input type="search" id="search" '
        'placeholder="words, or a document" autocomplete="off"></label>'
        '<label><input type="checkbox" id="only-selected"> only documents with selected tokens'
        f'</label>{FOLD_BUTTONS}<span id="count" role="status"></span></div>\n'
        '<div class="scroll"><table><thead><tr>'
        '<th class="number" scope="col">rank</th><th class="number" scope="col">document</th>'
        '<th class="number" scope="col">s</th><th class="number" scope="col">f</th>'
        '<th class="number" scope="col">harmonic<br>mean</th>'
        '<th class="number" scope="col">tokens<br>selected</th><th scope="col">text</th>'
        f"</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )
    return page(title or "Ranked documents", introduction, body, script=SEARCH_SCRIPT + FOLD_SCRIPT)


def _document_row(row: dict[str, Any]) -> str:
    text = "" if pd.isna(row["text"]) else str(row["text"])
    excerpt = text[:EXCERPT] + ("…" if len(text) > EXCERPT else "")
    cells = [
        str(int(row["rank"])),
        escape(str(row["document"])),
        *(number(float(row[name]), 4) for name in ("s", "f", "harmonic_mean")),
        str(int(row["selected"])),
    ]
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return (
        f'<tr data-entry data-selected="{int(int(row["selected"]) > 0)}">{numbers}'
        f"<td><details><summary>beginning, {len(text):,} characters</summary>"
        f'<div class="corpus">{escape(excerpt)}</div></details></td></tr>\n'
    )


def tokens_page(documents: Sequence[dict[str, Any]], title: str = "") -> str:
    """Return documents with every token shaded by its score and the selected ones outlined.

    Each document: `document` id, `rank`, `tokens` (strings), `scores` (floats), `selected`
    (bools) and `truth` (bools, or null where it is not known), lists of one length. Raises
    InputError, naming the document, where they are not.
    """
    scale = score_scale(document["scores"] for document in documents)
    known = any(document.get("truth") is not None for document in documents)
    body = (
        f'<div class="controls">{FOLD_BUTTONS}<span id="readout" role="status"></span></div>\n'
        + "".join(_token_document(document, scale) for document in documents)
    )
    swatches = "".join(
        f'<span class="swatch {name}"></span>'
        for name in [f"n{step}" for step in range(STEPS, 0, -1)]
        + [""]
        + [f"p{step}" for step in range(1, STEPS + 1)]
    )
    legend = (
        '<div class="legend" aria-label="legend"><span>'
        f"{escape(number(-scale))} or less {swatches}&nbsp;{escape(number(scale))} or more</span>"
        '<span><span class="sel">outlined</span>: selected for suppression</span>'
        + ('<span><span class="true">underlined</span>: known to be toxic</span>' if known else "")
        + "</div>"
    )
    introduction = (
        paragraph(
            "Each token is shaded by its score as a label. Positive (orange): learning this token "
            "makes toxic continuations more likely than harmless ones. Negative (blue): learning "
            "it makes them less likely. Click a token, or focus a text and use the left and right "
            "arrow keys, to read its score."
        )
        + paragraph(WARNING, note=True)
        + legend
    )
    return page(
        title or "Token scores of the top documents",
        introduction,
        body,
        style=TOKEN_STYLE,
        script=FOLD_SCRIPT + TOKEN_SCRIPT,
    )


def _token_document(document: dict[str, Any], scale: float) -> str:
    tokens, scores = document["tokens"], document["scores"]
    selected, truth = document["selected"], document.get("truth")
    if not len(tokens) == len(scores) == len(selected) == len(truth or tokens):
        raise InputError(
            f"document {document['document']}: tokens, scores, selected and truth differ in "
            "length; delete the file of shown tokens and run again"
        )
    spans = []
    for place, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        classes = ["t"]
        step = shade(score, scale)
        if step:
            classes.append(f"{'p' if step > 0 else 'n'}{abs(step)}")
        if selected[place]:
            classes.append("sel")
        if truth and truth[place]:
            classes.append("true")
        spans.append(
            f'<span class="{" ".join(classes)}" title="{number(score)}">{escape(token)}</span>'
        )
    heading = (
        f"rank {int(document['rank'])} · document {escape(str(document['document']))} · "
        f"{sum(map(bool, selected))} of {len(tokens)} tokens selected"
    )
    if truth is not None:
        heading += f", {sum(map(bool, truth))} known to be toxic"
    # The spans stand without white space between them: the tokens carry their own.
    return (
        f"<details><summary>{heading}</summary>"
        f'<div class="corpus tokens" tabindex="0" role="group" aria-label="tokens of document '
        f'{escape(str(document["document"]), quote=True)}">{"".join(spans)}</div></details>\n'
    )


def choose_prompts(
    generations: dict[str, list[dict]], prompts: int, seed: int = 0
) -> list[tuple[str | None, int]]:
    """Return up to `prompts` (split, prompt index) of each split, those all methods share.

    Chosen at random by `seed`, never by how toxic their continuations are.
    """
    shared: set[tuple[str, int]] | None = None
    for records in generations.values():
        found = {(record.get("split") or "", record["prompt_index"]) for record in records}
        shared = found if shared is None else shared & found
    ordered = sorted(shared or set())
    generator = np.random.default_rng(seed)
    chosen: list[tuple[str | None, int]] = []
    for split in sorted({split for split, _ in ordered}, reverse=True):
        candidates = [key for key in ordered if key[0] == split]
        order = generator.permutation(len(candidates))[:prompts]
        chosen += [candidates[place] for place in sorted(order)]
    return chosen


def continuations_page(
    generations: dict[str, list[dict]],
    prompts: int = 12,
    samples: int = 4,
    seed: int = 0,
    title: str = "",
) -> str:
    """Return continuations of the same prompts and seeds, one column a method.

    `generations`: method -> records of its generations file. Shows `prompts` prompts of each
    split, chosen at random by `seed`, with their first `samples` continuations and scores.
    """
    chosen = choose_prompts(generations, prompts, seed)
    wanted = set(chosen)
    lookup: dict[tuple, dict] = {}
    for method, records in generations.items():
        for record in records:
            key = (record.get("split") or "", record["prompt_index"])
            if key in wanted and record["sample"] < samples:
                lookup[method, key, record["sample"]] = record
    body = (
        '<div class="controls"><label>Search <input type="search" id="search" '
        f'placeholder="words" autocomplete="off"></label>{FOLD_BUTTONS}'
        '<span id="count" role="status"></span></div>\n'
        + "".join(_prompt(key, list(generations), lookup, samples) for key in chosen)
    )
    introduction = paragraph(
        "What each model writes after the same prompt with the same random seed. Prompts are "
        "drawn at random, not picked. Below each continuation: its explicit and its implicit "
        "toxicity, as probabilities; 0.5 or more counts as toxic and is in bold."
    ) + paragraph(WARNING, note=True)
    return page(
        title or "Continuations side by side",
        introduction,
        body,
        style=CONTINUATION_STYLE,
        script=SEARCH_SCRIPT + FOLD_SCRIPT,
    )


def _prompt(key: tuple, methods: list[str], lookup: dict[tuple, dict], samples: int) -> str:
    split, index = key
    prompt = next(
        record["prompt"]
        for method in methods
        for sample in range(samples)
        if (record := lookup.get((method, key, sample)))
    )
    rows = []
    for sample in range(samples):
        records = [lookup.get((method, key, sample)) for method in methods]
        if not any(records):
            continue
        seeds = sorted({str(record["seed"]) for record in records if record})
        cells = "".join(f"<td>{_continuation(record)}</td>" for record in records)
        rows.append(
            f'<tr><td title="seed {escape(", ".join(seeds))}">{sample + 1}</td>{cells}</tr>\n'
        )
    headings = "".join(f'<th scope="col">{escape(method)}</th>' for method in methods)
    name = f"prompt {index}" + (f" · {escape(split)}" if split else "")
    return (
        f"<details data-entry><summary>{name}</summary>"
        f'<p class="prompt corpus">{escape(prompt)}</p><div class="scroll">'
        f'<table class="continuations"><thead><tr><th scope="col">sample</th>{headings}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>\n"
    )


def _continuation(record: dict | None) -> str:
    if record is None:
        return "–"
    scores = []
    for classifier in ("explicit", "implicit"):
        score = record.get(classifier)
        if score is not None:
            mark = ' class="toxic"' if score >= 0.5 else ""
            scores.append(f"{classifier} <span{mark}>{score:.2f}</span>")
    text = escape(record["continuation"].strip()) or "<em>(empty)</em>"
    return f'<div class="corpus">{text}</div><span class="scores">{" · ".join(scores)}</span>'
