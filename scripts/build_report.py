"""Build report.html: Snakemake's own report over the finished results.

settings: the whole config, so that the report describes the run that made it. --other-code: of
rules whose finished jobs were made by other code than that of today, how many: {rule: text}.
--result: the text of which the first paragraph says what was reached. --opened: the page of the
report that it opens with.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import logging
import re
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from ifguide.errors import InputError
from ifguide.files.artifacts import atomic_path
from ifguide.files.checksums import verify
from ifguide.report.templating import render

log = logging.getLogger(__name__)

# What draws Snakemake's report, in its last script.
DRAWN = "root.render(e(App));"


def main(arguments: Namespace) -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        atomic_path(arguments.output) as page,
    ):
        config = Path(scratch) / "config.json"
        described = {
            **arguments.settings,
            "made_by_other_code": arguments.other_code,
            "result_sentence": as_rst(first_paragraph(arguments.result)),
        }
        config.write_text(json.dumps(described), encoding="utf-8")
        # The run that this job belongs to holds the lock of the working directory.
        command = [
            *(sys.executable, "-m", "snakemake", "results"),
            *("--snakefile", arguments.snakefile),
            *("--configfile", config),
            *("--report", page),
            "--nolock",
        ]
        if subprocess.run(command, check=False).returncode:
            raise InputError("snakemake --report failed; see the lines above")
        opened = opened_with(page.read_text(encoding="utf-8"), arguments.opened)
        page.write_text(without_requests(opened), encoding="utf-8")


def first_paragraph(path: str) -> str:
    """Return the first paragraph of a text, as one line."""
    verify(path)
    return " ".join(Path(path).read_text(encoding="utf-8").partition("\n\n")[0].split())


def as_rst(text: str) -> str:
    """Return reStructuredText that reads `text`, with what stands between backquotes as code."""
    parts = re.split(r"`([^`]*)`", text)
    parts[::2] = [re.sub(r"([\\*`_|])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def opened_with(html: str, path: str) -> str:
    """Return Snakemake's report with a page of its results, by its path, on the first screen."""
    before, drawn, after = html.rpartition(DRAWN)
    if not drawn:
        log.warning("this version of Snakemake's report opens with the workflow, not with %s", path)
        return html
    return f"{before}{render('report_opening.js', path=path)}{after}"


def without_requests(html: str) -> str:
    """Return Snakemake's report with a content policy that forbids every request."""
    head, tag, rest = html.partition("<head>")
    if not tag:
        raise ValueError("the report has no <head>")
    return f"{head}{tag}\n{render('report_policy.html')}{rest}"


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--snakefile", required=True)
    parser.add_argument("--other-code", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--result", required=True, help="results_table.txt")
    parser.add_argument("--opened", required=True, metavar="PATH", help="of a page of the report")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
