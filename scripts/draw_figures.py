"""Draw the figures of an experiment, each as SVG and PNG, into one folder.

--settings: {"benchmark": "realtoxicityprompts", "group_benchmark": "toxigen", "categories": whether
the explicit judge tells categories of toxicity apart, "judges": [names], "continuations": how many
of each prompt, by benchmark, "choice": at which strengths methods are shown (arguments of
`evaluation.choice.choose`), "field": what the figure of the whole field is told, if it is drawn}. A
figure whose data are not given is not drawn; one whose data are empty says so.
"""

from ifguide.workflow.command_line import argument_parser, labelled_path, run

import argparse
import logging
from pathlib import Path

import pandas as pd

from ifguide.errors import InputError
from ifguide.evaluation.choice import at_chosen_strengths, choose
from ifguide.evaluation.judge import LEADING
from ifguide.files.artifacts import read_json
from ifguide.files.checksums import remedy, verify
from ifguide.files.tables import parse_table
from ifguide.report import figures, score_figures
from ifguide.report.field_figure import toxicity_against_fluency
from ifguide.report.figure_style import save_figure

log = logging.getLogger(__name__)


def read_columns(path: str, columns: list[str]) -> pd.DataFrame:
    """Read a CSV or JSON-lines table that must have `columns`."""
    verify(path)
    try:
        table = pd.read_json(path, lines=True) if path.endswith(".jsonl") else parse_table(path)
    except pd.errors.EmptyDataError:
        table = pd.DataFrame(columns=columns)
    missing = [column for column in columns if column not in table]
    if missing and not table.empty:
        raise InputError(f"{path}: no column {', '.join(missing)}; {remedy(path)}")
    return table


def main(arguments: argparse.Namespace) -> None:
    benchmark = arguments.settings.get("benchmark", "realtoxicityprompts")
    drawn = {}
    if arguments.summary:
        measured = read_columns(arguments.summary, ["model", "method", "benchmark", "value"])
        choice = arguments.settings.get("choice", {})
        summary = at_chosen_strengths(measured, choice)
        groups = arguments.settings.get("group_benchmark", "toxigen")
        judges = arguments.settings.get("judges", LEADING)
        counts = arguments.settings.get("continuations", {})
        drawn["toxicity_by_method"] = figures.toxicity_by_method(summary, benchmark, judges, counts)
        drawn["toxicity_against_perplexity"] = figures.toxicity_against_perplexity(
            summary, benchmark, continuations=counts
        )
        drawn["toxicity_by_group"] = figures.toxicity_by_group(
            summary, groups, continuations=counts
        )
        drawn["toxicity_against_share"] = figures.toxicity_against_share(
            summary, benchmark, continuations=counts
        )
        if field := arguments.settings.get("field"):
            drawn["toxicity_against_fluency"] = toxicity_against_fluency(
                measured, benchmark, chosen=choose(measured, **choice) if choice else {}, **field
            )
        if arguments.settings.get("categories", False):
            drawn["toxicity_by_category"] = figures.toxicity_by_category(
                summary, benchmark, judges=judges
            )
    if arguments.losses is not None:
        runs = dict(labelled_path(argument) for argument in arguments.losses)
        logs = {label: read_columns(path, ["step", "loss"]) for label, path in runs.items()}
        drawn["training_losses"] = figures.training_losses(logs)
    if arguments.curves is not None:
        columns = ["ranking", "recall", "precision", "base_rate"]
        tables = [read_columns(path, columns) for path in arguments.curves]
        points = pd.concat(tables) if tables else pd.DataFrame(columns=columns)
        removed = score_figures.removed_tokens(summary) if arguments.summary else None
        drawn["precision_recall"] = score_figures.precision_recall(points, removed)
    if arguments.agreement:
        drawn["ranking_agreement"] = score_figures.ranking_agreement(
            read_columns(arguments.agreement, ["blocks", "spearman", "top_overlap"])
        )
    if arguments.proxy_agreement:
        drawn["proxy_agreement"] = score_figures.proxy_agreement(
            read_json(arguments.proxy_agreement)
        )
    if arguments.decoys:
        drawn["decoys"] = score_figures.false_discoveries(
            read_columns(arguments.decoys, ["share", "rate", "false_share"]),
            read_json(arguments.selection),
        )
    for name, figure in drawn.items():
        paths = [Path(arguments.output_dir) / f"{name}.{suffix}" for suffix in ("svg", "png")]
        save_figure(figure, paths)
        log.info("drawn: %s", ", ".join(map(str, paths)))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--summary", help="summary.csv")
    parser.add_argument(
        "--losses", nargs="*", metavar="LABEL=PATH", help="logs of losses (CSV or JSONL)"
    )
    parser.add_argument("--curves", nargs="*", metavar="PATH", help="precision-recall points (CSV)")
    parser.add_argument("--agreement", help="ranking agreement by number of blocks (CSV)")
    parser.add_argument("--proxy-agreement", help="agreement of proxy and target (JSON)")
    parser.add_argument("--decoys", help="decoy curve of a selection (CSV)")
    parser.add_argument("--selection", help="record of that selection (JSON)")
    parser.add_argument("--output-dir", required=True)
    run(main, parser)
