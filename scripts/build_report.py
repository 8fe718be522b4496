"""Build report.html: Snakemake's own report over the finished results.

settings: the whole config, so that the report describes the run that made it. --other-code: of
rules whose finished jobs were made by other code than that of today, how many: {rule: text}.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from ifguide.errors import InputError
from ifguide.files.artifacts import atomic_path
from ifguide.report.templating import render


def main(arguments: Namespace) -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        atomic_path(arguments.output) as page,
    ):
        config = Path(scratch) / "config.json"
        described = {**arguments.settings, "made_by_other_code": arguments.other_code}
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
        page.write_text(without_requests(page.read_text(encoding="utf-8")), encoding="utf-8")


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
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
