"""The published experiment: the settings of the paper, and a plan for every job of it."""

import pandas as pd
import pytest
import yaml

from conftest import copy_repository, jobs_to_run, run_snakemake

PAPER, ABLATIONS = "config/paper.yaml", "config/overlays/paper_ablations.yaml"
ONE_GPU = "config/one_gpu.yaml"


def test_a_step_and_a_selection_are_those_of_the_paper(repository):
    config = yaml.safe_load((repository / PAPER).read_text("utf-8"))
    training, selection = config["training"], config["influence"]["selections"]["top"]
    blocks = training["batch_size"] * training["accumulation"]
    assert (blocks, config["corpus"]["block_size"]) == (256, 2048)
    assert (training["learning_rate"], training["epochs"]) == (6e-4, 4)
    assert config["methods"]["ifguide-tuned"]["training"]["learning_rate"] == 6e-5
    assert (selection["quantile"], selection["window"], selection["limit"]) == (0.99, 1, 0.02)


@pytest.mark.parametrize(
    "configs, models", [([PAPER], 4 * 6), ([PAPER, ABLATIONS], 15), ([ONE_GPU], 6)]
)
def test_every_job_is_planned_without_a_file_of_the_hub(tmp_path, configs, models):
    clone = copy_repository(tmp_path / "clone")
    ran = run_snakemake(clone, "--configfile", *configs, "--cores", "1", "--dry-run")
    assert ran.returncode == 0, ran.stdout
    assert jobs_to_run(ran.stdout)["make_model"] == models


def test_one_gpu_of_24_gb_finishes_within_a_day(tmp_path):
    """As planned: by assumed utilisation, on each of the devices that it names."""
    clone = copy_repository(tmp_path / "clone")
    ran = run_snakemake(clone, "plan", "--configfile", ONE_GPU, "--cores", "1")
    assert ran.returncode == 0, ran.stdout
    plan = pd.read_csv(clone / "results/one_gpu/plan.csv")
    hours = plan.filter(like="hours_").sum()
    assert set(hours.index) == {"hours_l4", "hours_l40s", "hours_a100", "hours_h100"}
    assert (hours > 1).all() and (hours < 24).all()
    assert plan["memory_gib"].max() < 24 - 1  # the allocator's own, and the driver's


def test_a_revision_that_is_not_a_commit_is_refused(tmp_path):
    clone = copy_repository(tmp_path / "clone")
    overlay = clone / "overlay.yaml"
    overlay.write_text("tokenizers: {pythia: {revision: main}}", encoding="utf-8")
    ran = run_snakemake(clone, "--configfile", PAPER, "overlay.yaml", "--cores", "1", "--dry-run")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-1] == (
        "error: config: tokenizers.pythia.revision: 'main' is not a full commit hash of 40 "
        "hexadecimal digits"
    )
