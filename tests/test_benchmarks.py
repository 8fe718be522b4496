"""The benchmarks run; their figures are not judged here."""

import os
import subprocess
import sys

import pandas as pd


def test_scaling_runs_on_a_small_corpus(repository, tmp_path):
    ran = subprocess.run(
        [sys.executable, repository / "benchmarks/scaling.py", "--small", "--output", tmp_path],
        cwd=repository,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = pd.read_csv(tmp_path / "scaling.csv")
    stages = ["corpus preparation", "factors", "scoring", "selection", "generation"]
    assert set(table["stage"]) == set(stages)
    for _, rows in table.groupby("stage"):
        assert rows["scale"].tolist() == [1, 4]
        assert 3 < rows["tokens"].iloc[1] / rows["tokens"].iloc[0] < 5
        assert (rows["peak_mib"] > 20).all() and (rows["cpu_seconds"] > 0).all()
    for name in ("scaling.md", "scaling.png", "scaling.svg"):
        assert (tmp_path / name).stat().st_size > 200
