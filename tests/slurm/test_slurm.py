"""A small experiment on a Slurm of one node, through the profile that clusters use."""

import importlib.util
import re
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from one_node_cluster import OneNodeCluster, why_not

from conftest import (
    SUMS,
    TINY,
    content_of,
    copy_repository,
    environment,
    require_whole,
    rules_to_run,
    run_snakemake,
    snakemake_command,
    write_small_config,
)

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = "workflow/profiles/slurm"
RESULTS = Path("results/tiny")
LOCAL = {"build_report"}
# What a cluster without accounting and a hurried test need beside the profile.
TEST_KEYS = [
    *("--slurm-no-account", "--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
    # A group asks for all that could run side by side in it, which one node may not have.
    *("--cores", "2", "--latency-wait", "5"),
]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("needs snakemake-executor-plugin-slurm: install the extra `cluster`")
    if missing := why_not():
        pytest.skip(missing)
    with OneNodeCluster() as started:
        yield started


@pytest.fixture(scope="module")
def profile() -> dict:
    return yaml.safe_load((REPOSITORY / PROFILE / "profile.yaml").read_text("utf-8"))


def submit(
    cluster: OneNodeCluster, directory: Path, *arguments: str | Path, timeout: float = 900
) -> list[dict[str, str]]:
    """Run Snakemake through the profile for clusters, to its end; return its Slurm jobs."""
    earlier = {job["JobId"] for job in cluster.jobs()}
    command = snakemake_command("--workflow-profile", PROFILE, *TEST_KEYS, *arguments)
    log = directory / "submitted.log"
    with open(log, "w") as output:
        running = subprocess.Popen(
            command,
            cwd=directory,
            env=environment() | cluster.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            status = running.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            running.kill()
            status = f"none after {timeout} s"
    assert status == 0, f"status {status}\n{log.read_text('utf-8')}\n{cluster.logs()}"
    return [job for job in cluster.jobs() if job["JobId"] not in earlier]


def rules_of(cluster: OneNodeCluster, job: dict[str, str]) -> set[str]:
    """The rules that a Slurm job ran: one, or those of a group."""
    return set(re.search(r"--allowed-rules ([\w ]+?) --", cluster.script(job["JobId"]))[1].split())


class CancelOnce(threading.Thread):
    """Cancels the first job whose comment begins with `prefix`, once it runs."""

    def __init__(self, cluster: OneNodeCluster, prefix: str) -> None:
        super().__init__(daemon=True)
        self.cluster, self.prefix = cluster, prefix
        self.cancelled: str | None = None
        self.over = threading.Event()

    def run(self) -> None:
        while not self.cancelled and not self.over.wait(0.5):
            for job in self.cluster.jobs():
                if job["JobState"] == "RUNNING" and job["Comment"].startswith(self.prefix):
                    self.cluster.cancel(job["JobId"])
                    self.cancelled = job["JobId"]
                    return


def test_a_run_on_slurm_survives_scancel_and_equals_a_local_run(
    cluster, finished_small, profile, tmp_path
):
    clone = copy_repository(tmp_path / "clone")
    config = ["--configfile", write_small_config(clone)]
    expected = rules_to_run(run_snakemake(clone, *config, "--cores", "1", "--dry-run").stdout)
    default = rules_to_run(run_snakemake(clone, "--cores", "1", "--dry-run").stdout)
    assert default <= expected
    killer = CancelOnce(cluster, "rule_make_model")
    killer.start()
    try:
        jobs = submit(cluster, clone, *config)
    finally:
        killer.over.set()
        killer.join()

    submitted = {job["JobId"]: rules_of(cluster, job) for job in jobs}
    assert set().union(*submitted.values()) == expected - LOCAL
    for job in jobs:
        wants_gpu = bool(submitted[job["JobId"]] & set(profile["set-resources"]))
        assert job["Partition"] == ("gpu" if wants_gpu else "cpu"), job
        assert job.get("TresPerJob") == ("gres:gpu:1" if wants_gpu else None), job

    (cancelled,) = [job for job in jobs if job["JobId"] == killer.cancelled]
    assert cancelled["JobState"] == "CANCELLED"
    same = [job for job in jobs if job["Comment"] == cancelled["Comment"]]
    assert [job["JobState"] for job in same] == ["CANCELLED", "COMPLETED"]
    assert all(job["JobState"] == "COMPLETED" for job in jobs if job != cancelled)

    require_whole(clone / RESULTS)
    # The local run stands in one folder with others, whose files are listed there too.
    there, here = (
        {name: found for name, found in content_of(run, RESULTS).items() if Path(name).name != SUMS}
        for run in (clone, finished_small)
    )
    assert {str(RESULTS / "summary.csv")} <= there.keys() <= here.keys()
    assert {name for name in there if there[name] != here[name]} == set()


def test_a_failed_attempt_gets_more_memory_and_time(cluster, tmp_path):
    clone = copy_repository(tmp_path / "clone")
    # The first attempt of one rule fails, as one that runs out of memory does.
    script = clone / "scripts/plant.py"
    failing_once = (
        "import pathlib, sys\n"
        "if not pathlib.Path('failed').exists():\n"
        "    pathlib.Path('failed').touch()\n"
        "    sys.exit(137)\n"
    )
    script.write_text(failing_once + script.read_text("utf-8"), encoding="utf-8")
    jobs = submit(cluster, clone, RESULTS / "planted/queries.jsonl", "--configfile", TINY)
    first, second = jobs
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    assert megabytes(second) == 2 * megabytes(first) > 0
    assert minutes(second) == 2 * minutes(first) > 0


def megabytes(job: dict[str, str]) -> float:
    number, unit = re.search(r"mem=([\d.]+)([MG])", job["TRES"]).groups()
    return float(number) * (1024 if unit == "G" else 1)


def minutes(job: dict[str, str]) -> float:
    days, clock = re.fullmatch(r"(?:(\d+)-)?([\d:]+)", job["TimeLimit"]).groups()
    hours, minute, second = map(int, clock.split(":"))
    return 1440 * int(days or 0) + 60 * hours + minute + second / 60
