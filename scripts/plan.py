"""Plan an experiment: what every stage of it costs, before and after it has run.

settings: the whole config. facts: where the files of the experiment lie, and the settings that
rules resolve. The jobs are those of a dry run of the whole workflow with this config; a job whose
file of measured time exists is compared with the estimate on the first device.

Written to the output folder: plan.csv (a row for each stage, rule and subject) and plan.md; the
table of stages also goes to stdout.
"""

import csv
import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import pandas as pd

from ifguide.errors import InputError
from ifguide.files.artifacts import read_json, read_jsonl, write_text
from ifguide.files.tables import write_table
from ifguide.models.devices import CALIBRATED, DEVICES, Device, described_device
from ifguide.planning.plan import PlannedJob, markdown, plain, plan_table, shown, stage_table
from ifguide.workflow.command_line import argument_parser, run
from planned_counts import Count, Counts
from planned_stages import STAGES, stage_of, subject_of
from planned_work import PlannedWork

MEANING = (
    "hours are those of one device, all jobs one after another; memory is that of the largest job; "
    "network and report are not reckoned"
)


def main(arguments: Namespace) -> None:
    config = arguments.settings
    devices, start_seconds, assumptions = planned_devices(config["plan"])
    counts = Counts(config, arguments.facts)
    planned = PlannedWork(config, arguments.facts, counts)
    jobs = planned_jobs(planned, arguments.snakefile, config)
    table = plan_table(jobs, devices, start_seconds)
    stages = stage_table(table)
    notes = [*assumptions, *count_notes(counts.found)]
    notes += [note for device in devices for note in memory_notes(stages, device)]
    heading, lines = shown(stages, devices)
    experiment = config["experiment"]
    write_table(arguments.output / "plan.csv", table, float_format="%.6g")
    bullets = "".join(f"- {note}\n" for note in [MEANING, *notes])
    write_text(
        arguments.output / "plan.md",
        f"# Plan of {experiment}\n\n{markdown(heading, lines)}\n## Where the numbers come from\n\n"
        f"{bullets}",
    )
    print(
        f"plan of {experiment}\n\n{plain(heading, lines)}\nwhere the numbers come from\n{bullets}"
    )
    print(f"every rule   {arguments.output}/plan.csv\nthis table   {arguments.output}/plan.md")


# --- devices --------------------------------------------------------------------------------------


def planned_devices(plan: dict) -> tuple[list[Device], float, list[str]]:
    """Return the devices of a plan, the seconds before a job's work, and what both rest on."""
    known = dict(DEVICES)
    for name, description in plan["own_devices"].items():
        known[name] = described_device(name, description)
    start_seconds, source = plan["start_seconds"], "config key plan.start_seconds"
    if plan["calibration"]:
        measured = read_calibration(plan["calibration"])
        known[CALIBRATED] = described_device(CALIBRATED, measured)
        start_seconds, source = measured["start_seconds"], f"measured in {plan['calibration']}"
    devices = [with_utilisation(known[name], plan["utilisation"]) for name in plan["devices"]]
    notes = [f"start of a job: {start_seconds:.3g} s ({source})"]
    for device in devices:
        shares = ", ".join(f"{kind} {share:g}" for kind, share in device.utilisation.items())
        peaks = ", ".join(f"{value:.3g} FLOP/s {name}" for name, value in device.peak.items())
        basis = "measured" if device.name == CALIBRATED else "assumed"
        notes.append(f"{device.name}: {peaks}; {basis} utilisation: {shares}")
    return devices, start_seconds, notes


def with_utilisation(device: Device, changes: dict[str, float]) -> Device:
    utilisation = {**device.utilisation, **changes}
    return Device(device.name, device.peak, device.memory_gib, utilisation, device.reported)


def read_calibration(path: str) -> dict:
    if not Path(path).is_file():
        raise InputError(
            f"config key plan.calibration: {path} does not exist; write it with python "
            f"scripts/measure_device.py --output {path}"
        )
    return read_json(path)


# --- jobs -----------------------------------------------------------------------------------------


def planned_jobs(planned: PlannedWork, snakefile: str, config: dict) -> list[PlannedJob]:
    """Return every job of the experiment, in the order of the stages."""
    everything = dry_run(snakefile, config, "--forceall")
    remaining = {identity(job) for job in dry_run(snakefile, config)}
    order = list(STAGES)
    jobs = [
        PlannedJob(
            stage=stage_of(job["rule"], job["wildcards"], planned.facts["proxies"]),
            rule=job["rule"],
            subject=subject_of(job["wildcards"]),
            work=planned.of(job["rule"], job["wildcards"]),
            remaining=identity(job) in remaining,
            measured=measured_seconds(job["benchmark"]),
        )
        for job in everything
    ]
    return sorted(jobs, key=lambda job: (order.index(job.stage), job.rule, job.subject))


def identity(job: dict) -> str:
    return json.dumps([job["rule"], job["wildcards"]], sort_keys=True)


def dry_run(snakefile: str, config: dict, *options: str) -> list[dict]:
    """Return the jobs that a run of the whole workflow would have."""
    with tempfile.TemporaryDirectory() as scratch:
        configfile, jobs = Path(scratch, "config.json"), Path(scratch, "jobs.jsonl")
        configfile.write_text(json.dumps(config), encoding="utf-8")
        command = [sys.executable, str(Path(__file__).with_name("list_jobs.py")), str(jobs)]
        command += ["all", "--snakefile", snakefile, "--configfile", str(configfile)]
        command += ["--cores", "1", *options]
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if ran.returncode:
            raise InputError(f"the dry run of the workflow failed:\n{ran.stdout}")
        return read_jsonl(jobs)


def measured_seconds(benchmark: str | None) -> float | None:
    """Return the seconds in a job's benchmark file, None where it has not run."""
    if benchmark is None or not Path(benchmark).is_file():
        return None
    with open(benchmark, encoding="utf-8") as lines:
        return sum(float(row["s"]) for row in csv.DictReader(lines, delimiter="\t"))


def memory_notes(stages: pd.DataFrame, device: Device) -> list[str]:
    """Return the stages, but for the total, that need more memory than a device has."""
    if device.memory_gib is None:
        return []
    large = stages[(stages["memory_gib"] > device.memory_gib) & (stages["stage"] != "total")]
    return [
        f"{row['stage']}: {row['memory_gib']:.0f} GiB, more than the {device.memory_gib:.0f} GiB "
        f"of {device.name}; lower the batch size of its largest job, or divide it (training.fsdp)"
        for row in large.to_dict("records")
    ]


def count_notes(found: dict[str, Count]) -> list[str]:
    return [f"{name}: {count.value:,.0f} ({count.source})" for name, count in found.items()]


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--facts", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--snakefile", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    run(main, parser)
