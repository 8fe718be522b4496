"""The start and the end of a run."""

import contextlib
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ifguide.errors import InputError
from ifguide.files.artifacts import canonical_json, text_sha256, write_text
from ifguide.files.locks import hold_run_lock
from ifguide.files.provenance import (
    code_state,
    data_state,
    machine,
    package_versions,
    thread_settings,
)
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.judges import Judges
from ifguide.workflow.layout import Layout
from ifguide.workflow.sources import CLASSIFIER_FILES, Sources, files_of_directory
from ifguide.workflow.stale import (
    keep_inputs,
    keep_records,
    require_known_inputs,
    require_past,
    restore_records,
)

if TYPE_CHECKING:
    from snakemake.workflow import Workflow


def require_plain_path(source: Path) -> None:
    """Refuse a workflow in a folder whose name Snakemake would fill in. source: its root."""
    if "{" in str(source) or "}" in str(source):
        raise SystemExit(
            f"error: {source}: braces in the path of this workflow, which Snakemake takes for "
            "wildcards; move it to another folder"
        )


def prepare_environment(*, deployed: bool) -> None:
    """Set what jobs inherit; deployed: conda or a container provides the programs that they run.

    A job that parses the workflow again, on another machine perhaps, finds all of it as it is.
    """
    if not deployed:
        # Scripts run with the interpreter that runs Snakemake.
        own = os.path.dirname(sys.executable)
        os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", "")])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Only the fetch rules may use the network; what the user says of the hub is kept for them.
    os.environ.setdefault("FETCH_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
    os.environ["HF_HUB_OFFLINE"] = "1"


def only_looks(workflow: "Workflow") -> bool:
    """Whether nothing is made but a plan or a preflight: no run, which disturbs none."""
    targets = set(workflow.dag_settings.targets)
    return bool(targets) and targets <= {"plan", "preflight"}


def begin_run(
    experiment: Experiment, sources: Sources, judges: Judges, source: Path, cores: int | None
) -> None:
    """Lock the results folder, open what the config names, and write down what a run is made with.

    source: the root of the workflow. cores: None on a cluster, where each job has its own.
    """
    try:
        hold_run_lock(experiment.layout.run_lock)
        preflight(experiment, sources, judges, source / "scripts")
        data = named_data(experiment, sources, judges)
        state = data_state(data)
        record = {
            "config": experiment.config,
            **code_state(source),
            **state,
            "command": shlex.join(sys.argv),
            "started": datetime.now(UTC).isoformat(timespec="minutes"),
            "python": platform.python_version(),
            "packages": package_versions(),
            "seed": experiment.seed,
            "training_seeds": experiment.seeds,
            "cores": cores,
            "threads": thread_settings(),
            "hardware": machine(),
        }
        write_text(experiment.layout.run_config, yaml.safe_dump(record, sort_keys=False))
        keep_inputs(Path(experiment.layout.kept_inputs), data, state["data_sha256"])
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def preflight(experiment: Experiment, sources: Sources, judges: Judges, scripts: Path) -> None:
    """Stop where something that the config names cannot be opened, or is not what it has to be.

    What was found sound and has not changed since is not opened again. Where the libraries of the
    jobs are not installed beside Snakemake, because jobs bring their own, `snakemake preflight`
    opens everything with those.
    """
    if importlib.util.find_spec("transformers") is None:
        return
    # Of repositories of the hub, that they are here tells that they can be opened.
    fetched = {sources.record_of(repository) for repository, _ in sources.repositories.values()}
    named = named_data(experiment, sources, judges) | fetched
    state = _state_of(experiment.config, named, scripts)
    passed = Path(experiment.layout.preflight)
    if passed.is_file() and passed.read_text(encoding="utf-8").strip() == state:
        return
    settings = canonical_json(experiment.config)
    command = [sys.executable, str(scripts / "preflight.py"), "--settings", settings]
    ran = subprocess.run(
        [*command, "--passed", str(passed), "--state", state],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(ran.stdout, end="", file=sys.stderr, flush=True)
    if ran.returncode:
        raise SystemExit(1)


def _state_of(config: dict, paths: set[str], scripts: Path) -> str:
    """Return a digest of a config, and of the size and time of what it names and of the code."""
    files = sorted([*paths, *map(str, scripts.rglob("*.py"))])
    stats = [(path, os.stat(path)) for path in files if os.path.isfile(path)]
    state = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    return text_sha256(canonical_json([config, state]))


def named_data(experiment: Experiment, sources: Sources, judges: Judges) -> set[str]:
    """Return the files that the config names; those below the results folder are made, not given.

    Those of hub repositories are left out, whose revisions tell their content.
    """
    found = [sources.download_path(name) for name in sources.downloads]
    for key, entry in sources.data_entries():
        if "hub" not in entry:
            found += sources.paths(entry, key)
    for entry in experiment.config["models"].values():
        if "file" in entry.get("architecture", {}):
            found.append(entry["architecture"]["file"])
    for directory in named_directories(experiment.config, judges):
        found += files_of_directory(directory, CLASSIFIER_FILES)
    found += [
        given["checkpoint"] for given in judges.given_of(judges).values() if "checkpoint" in given
    ]
    return {path for path in found if not path.startswith(f"{experiment.layout.root}/")}


def named_directories(config: dict, judges: Judges) -> list[str]:
    """Return the directories of models, classifiers and tokenizers that the config names."""
    starts = [entry.get("start_from") for entry in config["methods"].values()]
    entries = [
        *config["tokenizers"].values(),
        *config["models"].values(),
        *(start for start in starts if isinstance(start, dict)),
    ]
    # Of a Detoxify model, the configuration and the tokenizer lie beside its weights.
    opened = [directory for name in judges if (directory := judges.directory(name))]
    return [*opened, *(entry["path"] for entry in entries if "path" in entry)]


def recall(workflow: "Workflow", experiment: Experiment, sources: Sources, judges: Judges) -> None:
    """Let Snakemake know what results were made with that come without its records of them.

    Stops where a file that they were made from is another one, which no date tells.
    """
    if not workflow.is_main_process:
        return
    restore_records(Path(experiment.layout.kept_records))
    try:
        inputs = named_data(experiment, sources, judges)
        require_known_inputs(Path(experiment.layout.kept_inputs), inputs)
        require_past(inputs)
        require_folders(experiment.layout)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def require_folders(layout: Layout) -> None:
    """Refuse folders that cannot be written to. Raises InputError."""
    for folder in (layout.root, layout.logs):
        for part in [*reversed(Path(folder).parents), Path(folder)]:
            if part.exists() and not part.is_dir():
                raise InputError(f"{part}: a file, where a folder has to be; move it away")
            if part.is_dir() and not os.access(part, os.W_OK | os.X_OK):
                raise InputError(f"{part}: cannot be written to; change its permissions")


def end_run(workflow: "Workflow", layout: Layout) -> None:
    """Keep the records of a run with its results, whether it succeeded or not."""
    with contextlib.suppress(OSError, InputError):  # results of another user, or a full disk
        keep_records(Path(layout.kept_records), f"{layout.root}/")


def print_results(workflow: "Workflow", layout: Layout) -> None:
    """Print the table of results where it was asked for and where the rest is; else what was made.

    A run of one stage makes no table: the one that is there may be of another config.
    """
    shown = layout.shown
    table = Path(shown("results_table.txt"))
    if any(str(table) in map(str, job.output) for job in workflow.dag.jobs) and table.exists():
        print(table.read_text(encoding="utf-8"))
        print(
            f"report   {shown('report.html')}\nfigures  {shown('figures')}/\n"
            f"table    {shown('summary.csv')}"
        )
        return
    for job in sorted(workflow.dag.finished_jobs, key=str):
        if job.output:
            print(
                f"made     {os.path.commonpath([os.path.dirname(o) for o in job.output])}/"
                if len(job.output) > 1
                else f"made     {job.output[0]}"
            )
