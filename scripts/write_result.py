"""Write what a run has reached: one sentence, the table that leads and, on a page, the front.

--settings: {"benchmark": "realtoxicityprompts", "model": name, "method": of which the sentence
speaks, or null, "controls": {method: the one that its price is told against}, "continuations":
of each prompt, "level": 0.95, "choice": at which strengths methods are shown (arguments of
`evaluation.choice.choose`)}.
"""

from ifguide.workflow.command_line import argument_parser, run

import argparse
import logging
import textwrap
from pathlib import Path

import pandas as pd

from ifguide.evaluation.choice import at_chosen_strengths, choice_note
from ifguide.evaluation.judge import LEADING
from ifguide.evaluation.summary import constant_classifiers
from ifguide.files.artifacts import write_text
from ifguide.files.checksums import verify
from ifguide.files.tables import read_table
from ifguide.report.experiment_tables import leading_note
from ifguide.report.report_pages import result_page
from ifguide.report.result_sentence import result_sentence
from ifguide.report.results_table import leading_table, markdown, plain_text

log = logging.getLogger(__name__)

# A name is never broken.
TERMINAL = textwrap.TextWrapper(100, break_long_words=False, break_on_hyphens=False)


def main(arguments: argparse.Namespace) -> None:
    settings = arguments.settings
    benchmark, method = settings["benchmark"], settings["method"]
    controls, level = settings.get("controls", {}), settings.get("level", 0.95)
    measured, choice = read_table(arguments.summary), settings.get("choice", {})
    summary = at_chosen_strengths(measured, choice)
    for graded, variants in choice.get("curves", {}).items():
        own = [controls[name] for name in variants if name in controls]
        controls |= dict.fromkeys([graded], own[0]) if own else {}
    sentence = result_sentence(
        summary,
        model=settings["model"],
        method=method,
        benchmark=benchmark,
        level=level,
        control=controls.get(method),
    )
    table, marks = leading_table(summary, benchmark, controls)
    notes = [leading_note(settings["continuations"], level)]
    notes += filter(None, [marks, choice_note(measured, choice)])
    warnings = constant_classifiers(of_leading_judges(summary, benchmark))

    said = TERMINAL.fill(sentence)
    marked = "".join(f"{TERMINAL.fill(line)}\n" for line in notes[1:])
    warned = "".join(f"warning: {line}\n" for line in warnings)
    write_text(arguments.text, f"{said}\n\n{plain_text(table)}{marked}{warned}")
    paragraphs = [sentence, markdown(table).rstrip(), " ".join(notes)]
    paragraphs += [f"**Warning:** {line}." for line in warnings]
    write_text(arguments.markdown, "\n\n".join(paragraphs) + "\n")
    verify(arguments.front)
    front = Path(arguments.front).read_bytes()
    write_text(arguments.page, result_page(sentence, front, table, notes, warnings))
    log.info("%s", sentence)


def of_leading_judges(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Return the rows that tell whether a judge of the result measures anything."""
    fractions = summary["metric"].isin([f"{judge}_fraction" for judge in LEADING])
    trained = (summary["benchmark"] == "classifiers") & summary["model"].isin(LEADING)
    return summary[fractions & (summary["benchmark"] == benchmark) | trained]


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--summary", required=True, help="summary.csv")
    parser.add_argument("--front", required=True, help="figure of toxicity and its price (SVG)")
    parser.add_argument("--page", required=True, help="page of the report")
    parser.add_argument("--text", required=True, help="sentence and table for a terminal")
    parser.add_argument("--markdown", required=True, help="the same for a document")
    run(main, parser)
