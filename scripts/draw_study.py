"""The table and the figure of the variants that report.study compares.

settings: {"study": [{"question", "variants"}], "variants": {name: {column: text}}}.
--metrics gives VARIANT=attribution.json, --queries QUERIES=report of that query set.
"""

from ifguide.workflow.command_line import argument_parser, labelled_path, run

from argparse import Namespace
from pathlib import Path

from ifguide.files.artifacts import read_json, write_text
from ifguide.files.tables import write_table
from ifguide.report.figure_style import save_figure
from ifguide.report.study import study_markdown, study_table
from ifguide.report.study_figures import variants_by_question


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    metrics = {variant: read_json(path) for variant, path in map(labelled_path, arguments.metrics)}
    records = {
        name: record_count(read_json(path)) for name, path in map(labelled_path, arguments.queries)
    }
    variants = {
        name: {
            column: counted(text, records) if column in ("toxic", "safe") else text
            for column, text in columns.items()
        }
        for name, columns in settings["variants"].items()
    }
    table = study_table(settings["study"], variants, metrics)
    write_table(arguments.table, table)
    columns = list(next(iter(settings["variants"].values())))
    write_text(arguments.markdown, study_markdown(table, columns))
    save_figure(variants_by_question(table), arguments.figures)


def record_count(report: dict) -> int:
    """Return the number of records of a query set, from its report."""
    return report["matched"]["records"] if "matched" in report else sum(report["kept"].values())


def counted(text: str, records: dict[str, int]) -> str:
    """Name the query sets in a setting with their numbers of records."""
    return " + ".join(
        f"{name} ({records[name]})" if name in records else name for name in text.split(" + ")
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--metrics", nargs="+", required=True, metavar="VARIANT=PATH")
    parser.add_argument("--queries", nargs="+", required=True, metavar="QUERIES=PATH")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    parser.add_argument("--figures", type=Path, nargs="+", required=True)
    run(main, parser)
