"""The tiny experiment on a Slurm of one node, through the profile that clusters use."""

import importlib.util
import os
import re
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from one_node_cluster import OneNodeCluster, why_not

from conftest import (
    TINY,
    copy_repository,
    environment,
    rules_to_run,
    run_snakemake,
    snakemake_command,
)
from ifguide.artifacts import file_sha256

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = "workflow/profiles/slurm"
RESULTS = Path("results/tiny")
LOCAL = {"report_html"}
# Fewer jobs: each costs two starts of Snakemake more than on one machine.
FEWER = {"evaluation": {"methods": ["none", "ifguide"]}, "report": {"study": []}}
# What a cluster without accounting and a hurried test need beside the profile.
TEST_KEYS = [
    *("--slurm-no-account", "--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"),
    # A group asks for all that could run side by side in it, which one node may not have.
    *("--cores", "2"),
]


@pytest.fixture(scope="module")
def cluster():
    if "IFGUIDE_SLURM" not in os.environ:
        pytest.skip("takes about eight minutes on two cores: set IFGUIDE_SLURM=1")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("needs snakemake-executor-plugin-slurm: install the extra `cluster`")
    if missing := why_not():
        pytest.skip(missing)
    with OneNodeCluster() as started:
        yield started


@pytest.fixture(scope="module")
def profile() -> dict:
    return yaml.safe_load((REPOSITORY / PROFILE / "profile.yaml").read_text("utf-8"))


def submit(cluster: OneNodeCluster, directory: Path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        snakemake_command("--workflow-profile", PROFILE, *TEST_KEYS, *arguments),
        cwd=directory,
        env=environment() | cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2400,
        check=False,
    )


def rules_of(job: dict[str, str], profile: dict) -> set[str]:
    """The rules that a Slurm job ran: one, or those of a group, named after its name."""
    name = re.sub(r"^rule_|_wildcards_.*", "", job["Comment"])
    for group in set(profile["groups"].values()):
        if name.startswith(f"{group}_"):
            named = "_" + name.removeprefix(group) + "_"
            return {r for r, own in profile["groups"].items() if own == group and f"_{r}_" in named}
    return {name}


class CancelOnce(threading.Thread):
    """Cancels the first job whose comment begins with `prefix`, once it runs."""

    def __init__(self, cluster: OneNodeCluster, prefix: str) -> None:
        super().__init__(daemon=True)
        self.cluster, self.prefix = cluster, prefix
        self.cancelled: str | None = None
        self.over = threading.Event()

    def run(self) -> None:
        while not self.cancelled and not self.over.is_set():
            for job in self.cluster.jobs():
                if job["JobState"] == "RUNNING" and job["Comment"].startswith(self.prefix):
                    self.cluster.cancel(job["JobId"])
                    self.cancelled = job["JobId"]
                    return
            time.sleep(0.5)


def test_a_run_on_slurm_survives_scancel_and_equals_a_local_run(
    cluster, finished, profile, tmp_path
):
    clone = copy_repository(tmp_path / "clone")
    (clone / "fewer.yaml").write_text(yaml.safe_dump(FEWER), encoding="utf-8")
    config = ["--configfile", TINY, "fewer.yaml"]
    expected = rules_to_run(run_snakemake(clone, *config, "--cores", "1", "--dry-run").stdout)
    killer = CancelOnce(cluster, "rule_train_model")
    killer.start()
    try:
        ran = submit(cluster, clone, *config)
    finally:
        killer.over.set()
        killer.join()
    assert ran.returncode == 0, ran.stdout
    jobs = cluster.jobs()

    submitted = set().union(*(rules_of(job, profile) for job in jobs))
    assert submitted == expected - LOCAL
    for job in jobs:
        wants_gpu = bool(rules_of(job, profile) & set(profile["set-resources"]))
        assert job["Partition"] == ("gpu" if wants_gpu else "cpu"), job
        assert job.get("TresPerJob") == ("gres:gpu:1" if wants_gpu else None), job

    (cancelled,) = [job for job in jobs if job["JobId"] == killer.cancelled]
    assert cancelled["JobState"] == "CANCELLED"
    same = [job for job in jobs if job["Comment"] == cancelled["Comment"]]
    assert [job["JobState"] for job in same] == ["CANCELLED", "COMPLETED"]
    others = Counter(job["Comment"] for job in jobs if job["Comment"] != cancelled["Comment"])
    assert len(jobs) == len(same) + sum(others.values())
    assert all(job["JobState"] == "COMPLETED" for job in jobs if job != cancelled)

    for pattern in ("**/metrics.json", "**/*.npy", "**/model.safetensors", "**/generations.jsonl"):
        found = sorted(path.relative_to(clone) for path in (clone / RESULTS).glob(pattern))
        assert found, pattern
        for path in found:
            assert file_sha256(clone / path) == file_sha256(finished / path), path


def test_a_failed_attempt_gets_more_memory_and_time(cluster, tmp_path):
    clone = copy_repository(tmp_path / "clone")
    # The same rules, but the first attempt of one fails, as one that runs out of memory does.
    (clone / "fails_once.py").write_text(
        "import os, pathlib, sys\n"
        "failed = pathlib.Path('failed')\n"
        "if not failed.exists():\n"
        "    failed.touch()\n"
        "    sys.exit(137)\n"
        "os.execv(sys.executable, [sys.executable, 'scripts/plant.py', *sys.argv[1:]])\n",
        encoding="utf-8",
    )
    (clone / "Snakefile").write_text(
        f"configfile: {TINY!r}\n"
        "module ifguide:\n"
        "    snakefile: 'workflow/Snakefile'\n"
        "    config: config\n"
        "use rule * from ifguide\n"
        "use rule plant from ifguide as plant with:\n"
        "    input: code=['fails_once.py']\n",
        encoding="utf-8",
    )
    earlier = {job["JobId"] for job in cluster.jobs()}
    ran = submit(cluster, clone, RESULTS / "planted/queries.jsonl", "--snakefile", "Snakefile")
    assert ran.returncode == 0, ran.stdout
    first, second = [job for job in cluster.jobs() if job["JobId"] not in earlier]
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


def test_the_profile_is_whole(profile):
    """A workflow profile replaces the default one, so it has to repeat it."""
    default = yaml.safe_load(
        (REPOSITORY / "workflow/profiles/default/profile.yaml").read_text("utf-8")
    )
    assert {key: profile.get(key) for key in default} == default
    rules = "\n".join(
        path.read_text("utf-8") for path in (REPOSITORY / "workflow/rules").glob("*.smk")
    )
    defined = set(re.findall(r"^rule (\w+):|^use rule \w+ as (\w+)", rules, re.M))
    defined = {name for pair in defined for name in pair if name}
    assert set(profile["groups"]) | set(profile["set-resources"]) <= defined
    gpu = set(
        re.findall(r"^rule (\w+):(?:(?!^rule|^use rule).)*?^        gpu=0", rules, re.M | re.S)
    )
    assert set(profile["set-resources"]) == gpu
