"""The rehearsal of benchmarks/gpu.sh: every part on the CPU, with as few packages as there."""

import json
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from conftest import REPOSITORY

pytestmark = pytest.mark.slow

# What this project has beside PyTorch, transformers and accelerate, which a foreign machine lacks.
ABSENT = {
    *("ifguide", "pandas", "pyarrow", "datasets", "matplotlib", "scipy", "scikit-learn", "trl"),
    *("snakemake", "pydantic", "detoxify", "jinja2", "pygments", "kronfluence"),
}
PARTS = {
    *("training", "forward", "covariance", "eigenvalues", "two_forward", "forward_mode"),
    *("position", "suppressed training", "generation"),
}


def few_packages(folder: Path) -> Path:
    """The installed packages but those that are absent on the machine, as links."""
    folder.mkdir()
    needed_by_torch = {"jinja2"}
    for distribution in distributions():
        name = distribution.metadata["Name"].lower()
        if name in ABSENT - needed_by_torch:
            continue
        for file in distribution.files or []:
            top = file.parts[0]
            source = Path(distribution.locate_file(top))
            if top not in ("..", "__pycache__") and source.exists() and not (folder / top).exists():
                (folder / top).symlink_to(source)
    return folder


def test_the_one_call_runs_through_on_the_cpu(tmp_path):
    packages = few_packages(tmp_path / "packages")
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PYTHON": sys._base_executable,
        "PYTHONPATH": str(packages),
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run(
        [REPOSITORY / "benchmarks/gpu.sh", tmp_path / "found", "--small"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "found/gpu.json").read_text("utf-8"))
    assert len(found["checks"]) == 10 and all(check["passed"] for check in found["checks"])
    # The speeds of a rehearsal say nothing, but none is missing.
    assert {row["what"] for row in found["speeds"]} == PARTS
    assert {row["precision"] for row in found["speeds"]} >= {"fp32", "tf32", "bf16"}
    assert all(row["tokens_per_second"] > 0 for row in found["speeds"])
    assert found["left_out"] == [
        f"{route}, bf16: needs float32 losses" for route in ("two_forward", "forward_mode")
    ]
    errors = {(row["route"], row["precision"]): row["relative"] for row in found["errors"]}
    assert 0 < errors["two_forward", "fp32"] < 5e-3
    assert errors["forward_mode", "fp32"] == 0
    table = (tmp_path / "found/gpu.md").read_text("utf-8")
    assert table.count("\n| training |") == 3 and "a rehearsal" in table


def test_without_a_gpu_it_says_how_to_rehearse(tmp_path):
    ran = subprocess.run(
        [REPOSITORY / "benchmarks/gpu.sh", tmp_path / "found"],
        env=os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2 and "give --small to rehearse on the CPU" in ran.stderr
    assert not (tmp_path / "found").exists()
