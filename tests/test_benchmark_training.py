"""The benchmark of training runs to its end; its figures are for whoever runs it in earnest."""

import subprocess
import sys

import pandas as pd
import pytest

from conftest import environment

pytestmark = pytest.mark.slow


def test_the_smoke_run_compares_and_writes(repository, tmp_path):
    ran = subprocess.run(
        [sys.executable, "benchmarks/training.py", "--small", "--output", tmp_path / "out"],
        cwd=repository,
        env=environment() | {"PYTHONPATH": str(repository / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    runs = pd.read_csv(tmp_path / "out/runs.csv")
    assert runs.groupby("kind").size().to_dict() == {"plain": 2, "suppressed": 2}
    assert (runs["tokens_per_second"] > 0).all()
    assert len(pd.read_csv(tmp_path / "out/ratios.csv")) == 2
    line = next(line for line in ran.stdout.splitlines() if "2 processes to 1" in line)
    assert line.endswith("| yes |")
    assert (tmp_path / "out/training.png").stat().st_size > 5000
