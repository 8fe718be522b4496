"""Targets of another tokenizer, models that are given, and several processes, in the workflow."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file

from conftest import TINY, copy_run, rules_to_run, run_snakemake
from ifguide.files.artifacts import read_json

RESULTS = Path("results/tiny")
SELECTION = RESULTS / "influence/proxy/differential/top"


@pytest.fixture
def clone(finished, tmp_path):
    return copy_run(finished, tmp_path / "clone")


def run_overlay(clone: Path, overlay: dict, *arguments: str | Path) -> str:
    (clone / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    ran = run_snakemake(
        clone, *arguments, "--configfile", TINY, "overlay.yaml", "--cores", "2", "--nolock"
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def test_a_target_of_another_tokenizer_gets_the_mask_in_its_own_tokens(clone):
    overlay = {
        "tokenizers": {"other": {"vocabulary_size": 350}},
        "models": {"target": {"tokenizer": "other"}},
        # A model that scores tokens has the tokens of the corpus that it scores.
        "influence": {"directions": {"plain": {"model": "proxy"}}},
        "report": {"proxy_agreement": None},
    }
    model = RESULTS / "models/target/ifguide/0"
    run_overlay(clone, overlay, model / "training.json")
    moved = SELECTION / "transfer/other"
    record, corpus = read_json(clone / moved / "selection.json"), clone / RESULTS / "corpus/other"
    assert read_json(clone / model / "training.json")["mask_sha256"] == record["mask_sha256"]
    assert record["tokens_sha256"] == read_json(corpus / "meta.json")["content_sha256"]
    selection = read_json(clone / SELECTION / "selection.json")
    assert record["moved_from_mask_sha256"] == selection["mask_sha256"]
    assert record["selected_source_tokens"] == selection["selected_tokens"]
    assert 0.5 < record["held_characters"] / record["selected_characters"] <= 1
    masks = [np.load(path) for path in sorted((clone / moved / "mask").glob("*.npy"))]
    tokens = [np.load(path) for path in sorted((corpus / "tokens").glob("*.npy"))]
    assert [mask.shape for mask in masks] == [shard.shape for shard in tokens]
    assert sum(int(mask.sum()) for mask in masks) == record["selected_tokens"] > 0
    # The selection itself stays as it is: only what follows from the tokens is made.
    dry = run_overlay(clone, overlay, model / "training.json", "--dry-run")
    assert rules_to_run(dry) == set()


def test_a_checkpoint_is_its_model_on_the_way(clone):
    overlay = {
        "models": {"early": {"checkpoint": {"of": "proxy", "at": 0.6}}},
        "influence": {"directions": {"identity": {"model": "early"}}},
    }
    early, proxy = (RESULTS / f"models/{name}/none/0" for name in ("early", "proxy"))
    # Losses are logged at every fifth step; the proxy that is there is not trained again.
    run_overlay(clone, overlay, early / "training.json")
    steps = read_json(clone / early / "training.json")["steps"]
    assert steps == round(0.6 * read_json(clone / proxy / "training.json")["steps"])
    losses, whole = (pd.read_csv(clone / folder / "losses.csv") for folder in (early, proxy))
    pd.testing.assert_frame_equal(losses, whole[whole["step"] <= steps], check_exact=True)
    # The record of the run is a config of the same run.
    record = yaml.safe_load((clone / RESULTS / "run_config.yaml").read_text("utf-8"))["config"]
    assert record["models"]["early"]["architecture"] == record["models"]["proxy"]["architecture"]
    assert rules_to_run(run_overlay(clone, record, early / "training.json", "--dry-run")) == set()


@pytest.mark.slow
def test_a_given_model_is_taken_as_it_is_and_fine_tuned_by_two_processes(clone):
    given = RESULTS / "models/target/none/0"
    overlay = {
        "models": {"given": {"tokenizer": "bpe", "path": str(given)}},
        "methods": {"ifguide": {"training": {"epochs": 1, "log_steps": 1}}},
        "evaluation": {"models": ["given"]},
    }
    made = RESULTS / "models/given"
    wanted = [made / "none/0/training.json", made / "ifguide/0/training.json"]
    two = ["--set-resources", "make_model:processes=2"]
    run_overlay(clone, overlay, *wanted, *two)
    taken, tuned = (read_json(clone / path) for path in wanted)
    assert taken["given"] == str(given) and taken["steps"] is None
    before, after = (
        load_file(clone / folder / "model.safetensors") for folder in (given, made / "none/0")
    )
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert tuned["processes"] == 2
    assert tuned["weights_sha256"] != taken["weights_sha256"]
    first = pd.read_csv(clone / made / "ifguide/0/losses.csv")["unselected_loss"].iloc[0]
    trained = pd.read_csv(clone / given / "losses.csv")["unselected_loss"]
    assert abs(first - trained.iloc[-1]) < 0.5 * (trained.iloc[0] - trained.iloc[-1])
    # The number of processes changes no result, so it reruns nothing.
    assert rules_to_run(run_overlay(clone, overlay, *wanted, "--dry-run")) == set()
