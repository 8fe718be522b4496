"""Steps of a package that is installed beside the workflow, which has no change for them."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from test_every_step import LAYOUT, compare, spoken, tried
from transformers import AutoModelForCausalLM

from conftest import TINY, copy_run, error_line, run_snakemake
from ifguide.files.artifacts import read_json

TOY = Path(__file__).parent / "toy"
EXAMPLES = {
    "keep_long": {"keep_long": {"tokens": 90}},
    "slower": {"slower": {"factor": 0.5}},
    "shrink": {"shrink": {"strength": 0.5}},
    "steer": {"steer": {"strength": 1.0}},
    "avoid": {"avoid": {"strength": 2.0}},
}
OFF = {"shrink": {"strength": 0}, "steer": {"strength": 0}, "avoid": {"strength": 0}}


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """An environment that has all that this one has, and the toy package."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "own", with_pip=False)
    python = folder / "own/bin/python"
    inherited = f"{sysconfig.get_path('purelib')}\n"
    scheme = {"base": str(folder / "own"), "platbase": str(folder / "own")}
    site = Path(sysconfig.get_path("purelib", vars=scheme))
    (site / "inherited.pth").write_text(inherited, encoding="utf-8")
    package = shutil.copytree(TOY, folder / "toy")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", package]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return python


@pytest.fixture(scope="module")
def compared(finished, python, tmp_path_factory) -> Path:
    clone = copy_run(finished, tmp_path_factory.mktemp("toys") / "clone")
    overlay = compare(clone, EXAMPLES, OFF, [f"off_{key}" for key in OFF])
    arguments = [LAYOUT.shown("summary.csv"), "--cores", "2", "--configfile", TINY, overlay]
    ran = run_snakemake(clone, *arguments, python=python)
    assert ran.returncode == 0, ran.stdout
    return clone


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_step_that_a_package_adds_has_its_row(compared, key):
    summary = pd.read_csv(compared / LAYOUT.shown("summary.csv"))
    own = summary[(summary["method"] == tried(key)) & (summary["model"] == "target")]
    assert {"realtoxicityprompts", "heldout", "lambada"} <= set(own["benchmark"])
    perplexity = own[(own["metric"] == "perplexity") & (own["split"] == "all")]
    none = summary[(summary["method"] == "none") & (summary["metric"] == "perplexity")]
    none = none[(none["model"] == "target") & (none["split"] == "all")]
    assert perplexity["value"].item() != none["value"].item()


@pytest.mark.parametrize("key", OFF)
def test_at_strength_zero_it_is_the_model_that_it_began_with(compared, key):
    assert spoken(compared, f"off_{key}") == spoken(compared, "none")
    for benchmark in ("heldout", "lambada"):
        off, none = (
            read_json(
                compared / LAYOUT.evaluation("target", method, "0", benchmark) / "metrics.json"
            )["rows"]
            for method in (f"off_{key}", "none")
        )
        distances = [row["value"] for row in off if row["metric"] == "next_token_kl"]
        assert distances == pytest.approx([0.0] * len(distances), abs=1e-6)
        off = [row for row in off if row["metric"] != "next_token_kl"]
        if key == "avoid":
            # Its logits are read one place after another, and sums are rounded otherwise.
            off, none = ([row["value"] for row in rows] for rows in (off, none))
            none = pytest.approx(none, rel=1e-6)
        assert off == none


def test_an_edit_changes_its_tensors_alone_in_a_plain_directory(compared):
    start, edited, off = (
        compared / LAYOUT.model("target", method, "0")
        for method in ("none", tried("shrink"), "off_shrink")
    )
    before, after = load_file(start / "model.safetensors"), load_file(edited / "model.safetensors")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["embed_out.weight"]
    torch.testing.assert_close(after["embed_out.weight"], before["embed_out.weight"] * 0.5)
    assert (off / "model.safetensors").read_bytes() == (start / "model.safetensors").read_bytes()
    loaded = AutoModelForCausalLM.from_pretrained(edited, local_files_only=True)
    assert torch.equal(loaded.get_output_embeddings().weight, after["embed_out.weight"])
    for name in os.listdir(start):
        if name.startswith("tokenizer"):
            assert (edited / name).read_bytes() == (start / name).read_bytes()


def test_two_steps_of_one_name_are_refused(python, finished, tmp_path):
    package = shutil.copytree(TOY, tmp_path / "toy")
    described = package / "pyproject.toml"
    text = described.read_text(encoding="utf-8").replace("toy-methods", "other-methods")
    described.write_text(text.replace("toy_methods", "other_methods"), encoding="utf-8")
    (package / "toy_methods").rename(package / "other_methods")
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--target", target, package]
    subprocess.run(command, check=True)
    arguments = ["--cores", "1", "--dry-run", "--configfile", TINY]
    ran = run_snakemake(finished, *arguments, python=python, variables={"PYTHONPATH": str(target)})
    message = error_line(ran.stdout)
    assert message.startswith("error: config: the step avoid of ")
    assert message.endswith("rename its module or uninstall its package")
