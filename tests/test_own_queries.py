"""Directions whose queries are a model's own toxic continuations."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import REPOSITORY, TINY, environment, error_line
from ifguide.files.artifacts import write_jsonl
from ifguide.files.tensor_files import read_tensors
from ifguide.influence.query_direction import QueryRecord, mean_gradient
from ifguide.models.loading import load_model
from ifguide.models.tracked_layers import tracked_layers
from small_models import VOCABULARY, small_model

OWN = {
    "influence": {
        "directions": {"own": {"toxic": "own", "model": "target"}},
        "selections": {"own": {"direction": "own", "rank_by": "influence", "documents": "source"}},
    },
    "methods": {
        "against_own": {
            "start_from": "none",
            "lancet": {"selection": "own", "share": 0.1},
        }
    },
    "evaluation": {"methods": ["none", "against_own"]},
    "report": {"study": [], "agreement_blocks": 0, "proxy_agreement": None},
}


def test_what_a_model_writes_is_sampled_before_its_gradient_is_taken(dry_runs):
    rules = dry_runs.rules(TINY, OWN)
    assert {"sample_own_generations", "measure_query_gradient", "select_tokens"} <= rules


def test_a_name_of_neither_kind_is_refused(dry_runs):
    mistaken = {"influence": {"directions": {"differential": {"toxic": "no_such"}}}}
    printed = dry_runs.printed(TINY, mistaken)
    line = error_line(printed)
    assert line.startswith("error: config: influence.directions.differential.toxic: 'no_such' is ")
    assert "own" in line and "toxic" in line


def test_harmless_queries_are_not_a_model_s_own(dry_runs):
    printed = dry_runs.printed(TINY, {"influence": {"directions": {"plain": {"safe": "own"}}}})
    assert "influence.directions.plain.safe: 'own' is none of" in error_line(printed)


def test_one_name_for_a_query_set_and_own_generations_is_refused(dry_runs):
    overlay = {"own_generations": {"toxic": {"judges": ["explicit_literal"]}}}
    printed = dry_runs.printed(TINY, overlay)
    assert error_line(printed).startswith(
        "error: config: own_generations.toxic: is also the name of a query set"
    )


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model("gpt_neox", torch.float32).save_pretrained(folder)
    return folder


def own_generations(path, toxicity):
    generator = np.random.default_rng(0)
    records = [
        {
            "prompt_index": index,
            "sample": 0,
            "prompt": generator.integers(0, VOCABULARY, 2 + index).tolist(),
            "continuation": generator.integers(0, VOCABULARY, 3 + index).tolist(),
            "text": "",
            "toxicity": score,
        }
        for index, score in enumerate(toxicity)
    ]
    write_jsonl(path, records)
    return records


def measure(model, path, output):
    settings = {"tokens_per_batch": 64, "allow_untrained": True}
    command = [sys.executable, str(REPOSITORY / "scripts/measure_query_gradient.py")]
    command += ["--settings", json.dumps(settings), "--model", str(model)]
    command += ["--own-generations", str(path), "--output", str(output)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def test_the_query_is_the_mean_over_the_toxic_ones_of_their_gradients(model_directory, tmp_path):
    """Of the continuation's loss alone; so is the score of a batch the mean of single scores."""
    path, output = tmp_path / "own.jsonl", tmp_path / "gradient.safetensors"
    records = own_generations(path, [0.9, 0.1, 0.5, 0.4, 1.0])
    ran = measure(model_directory, path, output)
    assert ran.returncode == 0, ran.stderr
    found, metadata = read_tensors(output)
    assert metadata["records"] == "3"
    model = load_model(model_directory)
    layers, _ = tracked_layers(model)
    single = [
        mean_gradient(
            model,
            layers,
            [QueryRecord(np.array(own["prompt"] + own["continuation"]), len(own["prompt"]))],
        )
        for own in records
        if own["toxicity"] >= 0.5
    ]
    for name, tensor in found.items():
        expected = sum(gradient[name] for gradient in single) / 3
        assert torch.allclose(tensor, expected, rtol=1e-4, atol=1e-6), name


def test_a_model_that_writes_nothing_toxic_is_one_line(model_directory, tmp_path):
    path = tmp_path / "own.jsonl"
    own_generations(path, [0.1, 0.2])
    ran = measure(model_directory, path, tmp_path / "gradient.safetensors")
    assert ran.returncode == 1
    assert error_line(ran.stderr).startswith(
        f"error: {path}: none of 2 continuations is toxic, so nothing is asked about; "
    )
