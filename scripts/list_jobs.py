"""List the jobs that the workflow would run, one JSON object a line.

    python scripts/list_jobs.py OUTPUT ARGUMENTS-OF-SNAKEMAKE…

A dry run with these arguments; of each job its rule, its wildcards and the file of its benchmark.
What Snakemake says goes to stdout and stderr, as ever.
"""

import json
import logging
import sys

from snakemake.cli import main
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent


class CollectJobs(logging.Filter):
    """Collect what is logged of jobs. Snakemake replaces its logger's handlers, not its filters."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[dict] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            self.jobs.append(
                {
                    "rule": record.rule_name,
                    "wildcards": dict(record.wildcards),
                    "benchmark": record.benchmark,
                }
            )
        return True


if __name__ == "__main__":
    output, *arguments = sys.argv[1:]
    collected = CollectJobs()
    logger.addFilter(collected)
    try:
        main(["--dry-run", *arguments])
    finally:
        with open(output, "w", encoding="utf-8") as lines:
            for job in collected.jobs:
                lines.write(json.dumps(job) + "\n")
