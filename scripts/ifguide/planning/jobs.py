"""The jobs of an experiment: those of a dry run of the workflow, each with its stage and work."""

import csv
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ifguide.errors import InputError
from ifguide.files.artifacts import read_jsonl
from ifguide.models.work import Work
from ifguide.planning.experiment import Experiment
from ifguide.planning.rules import STAGES, planned_rule, stage_of


@dataclass(frozen=True)
class PlannedJob:
    """A job: its stage, rule, what it works on, its work, and the seconds that it was measured at.

    remaining: it would run now. measured: None where it has not been run.
    """

    stage: str
    rule: str
    subject: str
    work: Work
    remaining: bool
    measured: float | None


def planned_jobs(experiment: Experiment, list_jobs: Path, snakefile: str) -> list[PlannedJob]:
    """Return every job of the experiment, in the order of the stages.

    list_jobs: the script of that name. Raises InputError for a rule that the plan does not know.
    """
    everything = dry_run(list_jobs, snakefile, experiment.config, "--forceall")
    remaining = {_identity(job) for job in dry_run(list_jobs, snakefile, experiment.config)}
    jobs = [
        PlannedJob(
            stage=stage_of(job["rule"], job["wildcards"], experiment.facts["proxies"]),
            rule=job["rule"],
            subject=subject_of(job["wildcards"]),
            work=planned_rule(job["rule"]).work(experiment, **job["wildcards"]),
            remaining=_identity(job) in remaining,
            measured=measured_seconds(job["benchmark"]),
        )
        for job in everything
    ]
    return sorted(jobs, key=lambda job: (STAGES.index(job.stage), job.rule, job.subject))


def dry_run(list_jobs: Path, snakefile: str, config: dict, *options: str) -> list[dict]:
    """Return the jobs that a run of the whole workflow would have: rule, wildcards, benchmark."""
    with tempfile.TemporaryDirectory() as scratch:
        configfile, jobs = Path(scratch, "config.json"), Path(scratch, "jobs.jsonl")
        configfile.write_text(json.dumps(config), encoding="utf-8")
        command = [sys.executable, str(list_jobs), str(jobs)]
        command += ["all", "--snakefile", snakefile, "--configfile", str(configfile)]
        command += ["--cores", "1", *options]
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if ran.returncode:
            raise InputError(f"the dry run of the workflow failed:\n{ran.stdout}")
        return read_jsonl(jobs)


def subject_of(wildcards: dict[str, str]) -> str:
    """Return what a job works on, less what the jobs of one row differ in."""
    return "/".join(value for key, value in wildcards.items() if key not in ("shard", "seed"))


def measured_seconds(benchmark: str | None) -> float | None:
    """Return the seconds in a job's benchmark file, None where it has not run."""
    if benchmark is None or not Path(benchmark).is_file():
        return None
    with open(benchmark, encoding="utf-8") as lines:
        return sum(float(row["s"]) for row in csv.DictReader(lines, delimiter="\t"))


def _identity(job: dict) -> str:
    return json.dumps([job["rule"], job["wildcards"]], sort_keys=True)
