# The start and the end of a run.

import platform
import shlex
import sys
from pathlib import Path

from ifguide.artifacts import write_text
from ifguide.errors import InputError
from ifguide.provenance import code_state, machine, package_versions, thread_settings
from ifguide.run_lock import hold_run_lock


def begin_run():
    """Lock the results folder and write down what the run is made with; no dry run gets here."""
    if only_plans():
        return
    try:
        hold_run_lock(f"{RESULTS}/.run.lock")
        write_run_config()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def only_plans():
    """Whether nothing but a plan is made, which is no run: it disturbs none, and is not recorded."""
    return set(workflow.dag_settings.targets) == {"plan"}


def write_run_config():
    record = {
        "config": config,
        **code_state(SOURCE),
        "command": shlex.join(sys.argv),
        "python": platform.python_version(),
        "packages": package_versions(),
        "seed": SEED,
        "training_seeds": SEEDS,
        # None on a cluster, where each job has its own.
        "cores": workflow.resource_settings.cores,
        "threads": thread_settings(),
        "hardware": machine(),
    }
    write_text(f"{RESULTS}/run_config.yaml", yaml.safe_dump(record, sort_keys=False))


def print_results():
    table = Path(RESULTS, "results_table.txt")
    if table.exists() and not only_plans():
        print(table.read_text(encoding="utf-8"))
        print(
            f"report   {RESULTS}/report.html\nfigures  {RESULTS}/figures/\ntable    {RESULTS}/summary.csv"
        )
