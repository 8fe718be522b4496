"""The benchmark runs: its smallest size, with the peer where it is installed."""

import importlib.util
import subprocess
import sys

import pandas as pd
import pytest

from conftest import environment

pytestmark = pytest.mark.slow


def run_benchmark(repository, *arguments) -> str:
    ran = subprocess.run(
        [sys.executable, repository / "benchmarks/influence.py", *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_small_size_fills_the_table_and_the_results_agree(repository, tmp_path):
    printed = run_benchmark(repository, "--small", "--output", tmp_path)
    table = pd.read_csv(tmp_path / "influence.csv").set_index("row")
    peer = importlib.util.find_spec("kronfluence") is not None
    assert ("kronfluence is not installed" in printed) == (not peer)
    assert table.index.str.startswith("peer").sum() == (3 if peer else 0)
    assert table.loc["training", "ratio"] == 1
    assert (table["seconds"] > 0).all()
    for suffix in ("svg", "png", "md"):
        assert (tmp_path / f"influence.{suffix}").stat().st_size > 500
    differences = [float(line.rpartition(" ")[2]) for line in printed.splitlines() if "e-" in line]
    assert len(differences) == (7 if peer else 3)
    assert max(differences) < 5e-3
    assert printed.count(" 200,000 |") == 5


def test_a_rows_memory_is_measured_in_its_own_process(repository):
    printed = run_benchmark(repository, "--peak-of", "two_forward", "--small")
    assert int(printed.splitlines()[-1]) > 0
