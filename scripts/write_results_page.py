"""Write the tables of a finished run into a page of docs/results/.

    python scripts/write_results_page.py --results results/planted
    python scripts/write_results_page.py --results results/planted --check

The tables come from summary.csv, what made them from run_config.yaml. They stand between two
markers; the rest of the page is written by hand and kept. With --check, only say whether the page
shows this run.
"""

from ifguide.workflow.command_line import argument_parser, run

import os
import shlex
from argparse import Namespace
from pathlib import Path

import yaml

from ifguide.errors import InputError
from ifguide.evaluation.summary import constant_classifiers
from ifguide.files.artifacts import write_text
from ifguide.files.checksums import verify
from ifguide.files.tables import read_table
from ifguide.report.experiment_tables import (
    control_note,
    experiment_tables,
    reading_note,
    tables_markdown,
)

REPOSITORY = Path(__file__).resolve().parent.parent
BEGIN = "<!-- Written by scripts/write_results_page.py: do not edit before the next mark. -->\n"
END = "<!-- End of the tables. -->\n"


def main(arguments: Namespace) -> None:
    results = arguments.results
    for path in (results / "summary.csv", run_config_of(results)):
        if not path.is_file():
            raise InputError(
                f"{results}: no {path.name}; give results/<experiment> of a finished run, or the "
                "folder of an overlay in it"
            )
    page = arguments.page or REPOSITORY / "docs" / "results" / f"{results.resolve().name}.md"
    written = page.read_text(encoding="utf-8") if page.exists() else None
    before, after = kept_prose(page, written)
    current = before + BEGIN + tables_of(results) + END + after
    if arguments.check and current != written:
        command = shlex.join(["python", "scripts/write_results_page.py", "--results", str(results)])
        raise InputError(f"{page}: does not show the run of {results}; run {command}")
    if not arguments.check:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_text(page, current, publish=os.replace)


def kept_prose(page: Path, written: str | None) -> tuple[str, str]:
    """Return what stands before and after the tables; of a new page, a title and nothing."""
    if written is None:
        return f"# Results: {page.stem}\n\n", ""
    before, begin, rest = written.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise InputError(
            f"{page}: the lines {BEGIN.strip()} and {END.strip()} have to stand there once, in "
            "this order; put them around the tables"
        )
    return before, after


def run_config_of(results: Path) -> Path:
    """Return the record of a run, which an overlay shares with the experiment that it extends."""
    overlay = results.resolve().parent.name == "overlays"
    return (results.parent.parent if overlay else results) / "run_config.yaml"


def tables_of(results: Path) -> str:
    """Return the Markdown between the markers: what made the tables, and these."""
    summary = read_table(results / "summary.csv", float_precision="round_trip")
    run_config = run_config_of(results)
    verify(run_config)
    record = yaml.safe_load(run_config.read_text(encoding="utf-8"))
    config = record["config"]
    benchmark = config["report"]["benchmark"]
    generation = config["generation"] | config["benchmarks"][benchmark].get("generation", {})
    controls = {
        method: config["methods"][method]["compare_with"]
        for method in config["evaluation"]["methods"]
        if "compare_with" in config["methods"][method]
    }
    return (
        f"\n{provenance(record)}\n\n"
        f"{tables_markdown(experiment_tables(summary, benchmark), constant_classifiers(summary))}"
        f"{reading_note(generation['continuations'], config['evaluation']['level'])}"
        f"{control_note(controls)} A dash: not measured.\n\n"
    )


def provenance(record: dict) -> str:
    """Return one paragraph on what made the results, by run_config.yaml."""
    # How the program was found is of no interest elsewhere.
    command = shlex.join(["snakemake", *shlex.split(record["command"])[1:]])
    commit = f"commit {record['commit']}" if record["commit"] else "code outside a git repository"
    changed = " with uncommitted changes" if record["uncommitted_changes"] else ""
    # Runs of earlier commits do not say when.
    started = f", started {record['started']}" if "started" in record else ""
    hardware = record["hardware"]
    machine = [
        f"{hardware['processor']} ({hardware['machine']})",
        f"{hardware['cores']} cores",
        f"{hardware['memory_gib']:g} GiB",
        *(hardware["gpus"] or ["no GPU"]),
    ]
    return (
        f"Made by `{command}`, {commit}{changed}{started}, seed {record['seed']}, on "
        f"{', '.join(machine)}."
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        help="results/<experiment>, or results/<experiment>/overlays/<name>",
    )
    parser.add_argument("--page", type=Path, help="docs/results/<experiment>.md unless given")
    parser.add_argument("--check", action="store_true")
    run(main, parser)
