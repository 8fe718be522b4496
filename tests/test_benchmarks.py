"""The benchmarks run; their figures are not judged here."""

import os
import subprocess
import sys

import pandas as pd
import pytest

import scaling


@pytest.mark.slow
def test_scaling_runs_on_a_small_corpus(repository, tmp_path):
    ran = subprocess.run(
        [
            *(sys.executable, repository / "benchmarks/scaling.py"),
            *("--small", "--scales", "1", "--repetitions", "1", "--output", tmp_path),
        ],
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
    assert (table["tokens"] > 0).all()
    assert (table["peak_mib"] > 20).all() and (table["cpu_seconds"] > 0).all()
    for name in ("scaling.md", "scaling.png", "scaling.svg"):
        assert (tmp_path / name).stat().st_size > 200


def test_growth_is_what_the_added_tokens_cost():
    rows = [
        {"stage": "factors", "scale": 16, "tokens": 1600, "cpu_seconds": 4.1, "peak_mib": 220.0},
        {"stage": "factors", "scale": 1, "tokens": 100, "cpu_seconds": 2.0, "peak_mib": 200.0},
        {"stage": "factors", "scale": 4, "tokens": 400, "cpu_seconds": 2.3, "peak_mib": 200.0},
    ]
    grown = scaling.with_growth(pd.DataFrame(rows))
    assert grown["scale"].tolist() == [1, 4, 16]
    assert grown["marginal_microseconds"].tolist()[1:] == pytest.approx([1000.0, 1500.0])
    assert grown["time_growth"].tolist()[1:] == pytest.approx([1.0, 1.5])
    assert grown["memory_growth"].tolist() == pytest.approx([1.0, 1.0, 1.1])
