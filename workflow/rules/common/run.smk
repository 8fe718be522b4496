# The start and the end of a run.

import glob
import os
import platform
import shlex
import sys
from pathlib import Path

from ifguide.files.artifacts import write_text
from ifguide.errors import InputError
from ifguide.files.provenance import (
    code_state,
    data_state,
    machine,
    package_versions,
    thread_settings,
)
from ifguide.files.locks import hold_run_lock


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
        **data_state(named_data()),
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


def named_data():
    """The files that the config names; those below the results folder are made, not given.

    Those of hub repositories are left out, whose revisions tell their content.
    """
    found = [os.path.join(config["data_dir"], entry["path"]) for entry in DOWNLOADS.values()]
    for key, entry in data_entries():
        if "hub" not in entry:
            found += paths_of(entry, key)
    for method, entry in FILTERED.items():
        if "words" in entry:
            found += paths_of(entry, f"methods.{method}.filter", "words")
    for entry in config["models"].values():
        if "file" in entry.get("architecture", {}):
            found.append(entry["architecture"]["file"])
    for directory in named_directories():
        for pattern in CLASSIFIER_FILES:
            found += glob.glob(os.path.join(glob.escape(directory), pattern))
    found.append(EXPLICIT_CHECKPOINT)
    return {path for path in found if not path.startswith(f"{RESULTS}/")}


def named_directories():
    """The directories of models, classifiers and tokenizers that the config names."""
    starts = [entry.get("start_from") for entry in config["methods"].values()]
    entries = [
        *config["tokenizers"].values(),
        *config["models"].values(),
        *(start for start in starts if isinstance(start, dict)),
        config["classifiers"]["implicit"],
    ]
    # The configuration and the tokenizer of the explicit classifier lie beside its weights.
    beside = os.path.dirname(EXPLICIT_CHECKPOINT)
    return [beside, *(entry["path"] for entry in entries if "path" in entry)]


def print_results():
    table = Path(TABLES, "results_table.txt")
    if table.exists() and not only_plans():
        print(table.read_text(encoding="utf-8"))
        print(
            f"report   {TABLES}/report.html\nfigures  {TABLES}/figures/\ntable    {TABLES}/summary.csv"
        )
