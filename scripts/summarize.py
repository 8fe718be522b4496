"""Gather the metrics of an experiment into summary.csv and the results table.

--settings: {"seed": int, "resamples": 2000, "level": 0.95, "published_models": [model names of
the published figures whose setting ours matches], "trained_judges": whether classifiers that are
trained here judge, "unmeasured": {method: why some of its figures are missing}, "controls":
{method: the one that it is compared with beside `none`}}.
"""

from ifguide.workflow.command_line import argument_parser, run

import argparse
import logging

from ifguide.evaluation.summary import constant_classifiers, summarize, uncorrected_judges
from ifguide.files.artifacts import read_json, write_text
from ifguide.files.tables import parse_table, write_table
from ifguide.report.experiment_tables import (
    control_note,
    corrected_note,
    experiment_tables,
    reading_note,
    tables_markdown,
)
from ifguide.report.report_pages import results_page
from ifguide.report.results_table import (
    comparison_columns,
    copying_columns,
    latex,
    markdown,
    numbers,
    published_figures,
    removal_columns,
    result_columns,
    results_table,
)

log = logging.getLogger(__name__)

UNMEASURED_NOTE = " A dash: {method} {reason}."


def main(arguments: argparse.Namespace) -> None:
    settings = arguments.settings
    level = settings.get("level", 0.95)
    documents = {path: read_json(path) for path in arguments.metrics}
    controls = settings.get("controls", {})
    summary = summarize(
        documents,
        settings.get("resamples", 2000),
        settings.get("seed", 0),
        level,
        controls=controls,
    )
    write_table(arguments.output, summary)

    counts = {
        document["benchmark"]: document["continuations"]
        for document in documents.values()
        if document.get("continuations")
    }
    main_benchmark = arguments.benchmark if arguments.benchmark in counts else next(iter(counts))
    tables = experiment_tables(summary, main_benchmark)
    note = reading_note(counts[main_benchmark], level) + control_note(controls)
    note += corrected_note(tables, uncorrected_judges(summary))
    for reason, methods in by_reason(settings.get("unmeasured", {})).items():
        note += UNMEASURED_NOTE.format(method=", ".join(methods), reason=reason)
    warnings = constant_classifiers(summary)
    sections = [tables_markdown(tables, warnings), f"{note}\n"]
    notes = [note]
    latex_tables = latex(results_table(summary, result_columns(main_benchmark)))
    if arguments.published:
        published = published_figures(
            parse_table(arguments.published),
            settings.get("published_models", []),
            counts[main_benchmark],
            settings.get("trained_judges", False),
        )
        notes.append(published.note)
        latex_tables += f"\n% {published.note}\n"
        if published.table:
            tables["Published, second-hand"] = published.table
            sections.append(f"\n**Published, second-hand**\n\n{markdown(published.table)}")
            latex_tables += latex(published.table)
        sections.append(f"\n{published.note}\n")

    if arguments.table:
        write_text(arguments.table, "".join(sections))
    if arguments.csv:
        of_methods = result_columns(main_benchmark) + comparison_columns(main_benchmark)
        columns = of_methods + copying_columns() + removal_columns()
        write_table(arguments.csv, numbers(summary, columns))
    if arguments.html:
        write_text(arguments.html, results_page(tables, notes, warnings))
    if arguments.latex:
        write_text(arguments.latex, latex_tables)
    for line in warnings:
        log.warning(line)
    log.info("%d rows in %s", len(summary), arguments.output)


def by_reason(unmeasured: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for method, reason in unmeasured.items():
        found.setdefault(reason, []).append(method)
    return found


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--metrics", required=True, nargs="+", help="metrics.json files")
    parser.add_argument("--benchmark", default="realtoxicityprompts", help="of the main table")
    parser.add_argument("--published", help="CSV of published figures")
    parser.add_argument("--output", required=True, help="summary.csv")
    parser.add_argument("--table", help="results table in Markdown")
    parser.add_argument("--csv", help="the columns of methods as numbers, a row a method")
    parser.add_argument("--html", help="results tables as a page of the report")
    parser.add_argument("--latex", help="results table in LaTeX")
    run(main, parser)
