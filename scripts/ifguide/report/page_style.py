"""The frame of every report page: one HTML file that needs no network and runs no other script."""

import base64
import hashlib
from html import escape

# Orange and blue differ for every common kind of colour blindness. The five steps of each are
# mixed with the page's own background, so one scale serves light and dark pages.
STYLE = """
:root { color-scheme: light dark; --page: #fdfdfb; --text: #1d1f23; --quiet: #5b6068;
  --line: #d9dade; --raised: #f3f3f0; --positive: #d55e00; --negative: #0072b2; --focus: #7a3db8; }
@media (prefers-color-scheme: dark) { :root { --page: #16181c; --text: #e8e8e4; --quiet: #a4a9b2;
  --line: #3a3e45; --raised: #20242a; --positive: #e8762b; --negative: #3d9be0;
  --focus: #c79bff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 78rem; background: var(--page);
  color: var(--text); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
.note { color: var(--quiet); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; border-radius: 2px; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; align-items: center;
  position: sticky; top: 0; z-index: 1; padding: .75rem 0; background: var(--page);
  border-bottom: 1px solid var(--line); }
input[type=search] { font: inherit; width: min(22rem, 60vw); padding: .35rem .6rem;
  color: inherit; background: var(--raised); border: 1px solid var(--quiet);
  border-radius: .3rem; }
button { font: inherit; padding: .3rem .7rem; color: inherit; background: var(--raised);
  border: 1px solid var(--quiet); border-radius: .3rem; cursor: pointer; }
table { border-collapse: collapse; width: 100%; margin-top: .75rem; }
th { text-align: left; font-size: .85rem; font-weight: 600; color: var(--quiet);
  vertical-align: bottom; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.scroll { overflow-x: auto; }
summary { cursor: pointer; padding: .1rem .2rem; }
.corpus { white-space: pre-wrap; overflow-wrap: anywhere; }
[hidden] { display: none !important; }
@media print { .controls { position: static; } }
"""

FOLD_BUTTONS = (
    '<button type="button" id="unfold">Unfold all</button>'
    '<button type="button" id="fold">Fold all</button>'
)

FOLD_SCRIPT = """
for (const [id, open] of [["unfold", true], ["fold", false]])
  document.getElementById(id)?.addEventListener("click", () => {
    for (const fold of document.querySelectorAll("details"))
      if (!fold.closest("[hidden]")) fold.open = open;
  });
"""

SEARCH_SCRIPT = """
const field = document.getElementById("search");
const only = document.getElementById("only-selected");
const count = document.getElementById("count");
const entries = [...document.querySelectorAll("[data-entry]")].map(
  (entry) => ({ entry, text: entry.textContent.toLowerCase() }));
function filter() {
  const words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const { entry, text } of entries) {
    const keep = words.every((word) => text.includes(word))
      && !(only?.checked && entry.dataset.selected === "0");
    entry.hidden = !keep;
    shown += keep;
  }
  count.textContent = `${shown} of ${entries.length} shown`;
}
field.addEventListener("input", filter);
only?.addEventListener("change", filter);
filter();
"""


def content_policy(style: str, script: str) -> str:
    """Return a policy under which a page can request nothing and run this style and script alone.

    They are named by their SHA-256, so markup that reached the page by mistake stays inert.
    """
    digests = (
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for part in (style, script)
    )
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        "style-src 'sha256-{}'; script-src 'sha256-{}'".format(*digests)
    )


# What Snakemake's report needs: its scripts and styles in the document, Vega, which compiles
# expressions, and results as data. The pages that it embeds inherit this beside their own policy.
REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; frame-src data: blob:; base-uri 'none'; form-action 'none'"
)


def without_requests(html: str) -> str:
    """Return Snakemake's report with a content policy that forbids every request."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{REPORT_POLICY}">'
    head, tag, rest = html.partition("<head>")
    if not tag:
        raise ValueError("the report has no <head>")
    return f"{head}{tag}\n{policy}{rest}"


def page(title: str, introduction: str, body: str, style: str = "", script: str = "") -> str:
    """Return a whole HTML document; `introduction`, `body`, `style`, `script` are trusted markup.

    Everything that comes from a corpus, a model or a config must be escaped by the caller. The
    content policy forbids every request and every other script, so a mistake there stays inert.
    """
    style = STYLE + style
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{content_policy(style, script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Browsers ask for /favicon.ico unless the page names an icon; an empty one costs nothing.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<header>\n<h1>{escape(title)}</h1>\n{introduction}\n</header>\n"
        f"<main>\n{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def paragraph(text: str, note: bool = False) -> str:
    """Return `text`, escaped, as a paragraph."""
    return f"<p{' class=note' if note else ''}>{escape(text)}</p>"


def number(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits and a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "\u2212")
