"""The jobs of the factor stage and of the query gradient, on small random models."""

import logging
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import correct_eigenvalues
import decompose_covariances
import measure_query_gradient
import merge_factors
import sum_covariances
from ifguide.errors import InputError
from ifguide.evaluation.ranking_agreement import agreement
from ifguide.files.artifacts import write_json, write_jsonl
from ifguide.files.tensor_files import read_tensors
from ifguide.influence.direction_files import read_factors, read_query
from ifguide.influence.factor_blocks import sampled_blocks
from ifguide.influence.factor_pass import read_total
from ifguide.influence.query_direction import precondition
from ifguide.influence.token_scores import forward_mode_scorer, relative_error
from ifguide.models.loading import load_model, require_trained, weights_sha256
from ifguide.models.tracked_layers import tracked_layers
from small_models import FAMILIES, OTHER_DECODERS, random_tokens, small_model
from small_training import small_corpus

FACTORS = {
    "blocks": 10,
    "shards": 1,
    "positions": 1.0,
    "labels": "sampled",
    "batch_size": 8,
    "logits_budget_mib": 1,
    "allow_untrained": False,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def write_model(folder: Path, corpus, family: str) -> Path:
    model = small_model(family, torch.float32, vocabulary=corpus.meta["vocabulary_size"])
    model.save_pretrained(folder)
    for path in (corpus.directory / "tokenizer").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def model(corpus, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), corpus, "gpt_neox")


def pass_arguments(model, corpus, output, shard=0, **changes) -> Namespace:
    settings = {"factors": FACTORS | changes, "seed": 1}
    return Namespace(
        settings=settings, model=model, corpus=corpus.directory, shard=shard, output=output
    )


def covariances(model, corpus, folder, **changes):
    """The covariances of all shards together, and their metadata."""
    shards = range((FACTORS | changes)["shards"])
    paths = [folder / f"{shard}.safetensors" for shard in shards]
    for shard, path in zip(shards, paths, strict=True):
        sum_covariances.main(pass_arguments(model, corpus, path, shard, **changes))
    return read_total(paths)


@pytest.mark.parametrize("positions", [1.0, 0.5])
def test_covariances_do_not_depend_on_batches(model, corpus, tmp_path, positions):
    whole, metadata = covariances(model, corpus, tmp_path, positions=positions)
    blocks = sampled_blocks(len(corpus.tokens), FACTORS["blocks"], seed=1)
    assert whole["tokens"] == positions * sum(corpus.valid(block).sum() for block in blocks)
    assert metadata["positions"] == str(positions)
    parts, _ = covariances(
        model, corpus, tmp_path, positions=positions, shards=3, batch_size=2, logits_budget_mib=2
    )
    assert parts.keys() == whole.keys()
    for name, tensor in whole.items():
        assert (parts[name] - tensor).norm() <= 1e-5 * tensor.norm(), name


def factors_file(model, corpus, folder, **changes) -> Path:
    """The factors that all jobs of the stage make, each shard in a job of its own."""
    folder.mkdir()
    shards = range((FACTORS | changes)["shards"])
    sums = [folder / f"sums-{shard}.safetensors" for shard in shards]
    values = [folder / f"values-{shard}.safetensors" for shard in shards]
    bases, factors = folder / "bases.safetensors", folder / "factors.safetensors"
    for shard in shards:
        sum_covariances.main(pass_arguments(model, corpus, sums[shard], shard, **changes))
    decompose_covariances.main(Namespace(covariances=sums, output=bases))
    for shard in shards:
        arguments = pass_arguments(model, corpus, values[shard], shard, **changes)
        arguments.eigenbases = bases
        correct_eigenvalues.main(arguments)
    merge_factors.main(Namespace(eigenbases=bases, eigenvalues=values, output=factors))
    return factors


@pytest.mark.parametrize("positions", [1.0, 0.5])
def test_factors_are_the_same_file_for_any_number_of_jobs(model, corpus, tmp_path, positions):
    found = [
        factors_file(
            model, corpus, tmp_path / str(shards), positions=positions, batch_size=1, shards=shards
        ).read_bytes()
        for shards in (1, 3, 16)  # the last of which leaves some jobs without a block
    ]
    assert found[1] == found[0] and found[2] == found[0]


def test_a_missing_shard_or_one_of_another_division_is_refused(model, corpus, results):
    files = {}
    for shards in (2, 3):
        for shard in range(shards):
            files[shards, shard] = results / f"{shards}-{shard}.safetensors"
            arguments = pass_arguments(
                model, corpus, files[shards, shard], shard, shards=shards, batch_size=1
            )
            sum_covariances.main(arguments)
    read_total([files[2, 0], files[2, 1]])
    for wrong in ([files[2, 0]], [files[2, 1]], [files[2, 0], files[3, 2]]):
        with pytest.raises(InputError, match="groups? .*of .*blocks.*; delete its files"):
            read_total(wrong)


@pytest.mark.parametrize("positions", [1.0, 0.5])
def test_the_ranking_does_not_depend_on_batches(model, corpus, tmp_path, positions):
    arguments = gradient_arguments(model, tmp_path)
    measure_query_gradient.main(arguments)
    query, _ = read_query(arguments.output, None, weights_sha256(model))
    loaded = load_model(model)
    layers, _ = tracked_layers(loaded)
    tokens = torch.from_numpy(corpus.tokens.rows(range(8)).astype("int64"))
    found = []
    for name, changes in (("whole", {}), ("parts", {"shards": 3, "batch_size": 2})):
        path = factors_file(model, corpus, tmp_path / name, positions=positions, **changes)
        direction = precondition(query, layers, read_factors(path), relative_damping=0.1, power=1.0)
        score = forward_mode_scorer(loaded, direction, logits_budget_bytes=2**20)
        found.append(score(tokens)[:, 1:].flatten())
    assert relative_error(found[1], found[0]) < 1e-4
    agreed = agreement(found[1].numpy(), found[0].numpy(), 0.05)
    assert agreed["spearman"] > 0.99999 and agreed["top_overlap"] == 1


def gradient_arguments(model, folder: Path, **changes) -> Namespace:
    write_jsonl(folder / "queries.jsonl", [{"prompt": "ab", "continuation": " cd ef"}])
    return Namespace(
        settings={"tokens_per_batch": 64, "allow_untrained": False, **changes},
        model=model,
        queries=folder / "queries.jsonl",
        own_generations=None,
        output=folder / "gradient.safetensors",
    )


def test_layers_that_cannot_be_tracked_are_named_in_a_warning_and_in_every_file(
    corpus, tmp_path, caplog
):
    mixture = write_model(tmp_path / "mixture", corpus, "mixtral")
    experts = "model.layers.0.mlp.experts"
    with caplog.at_level(logging.WARNING):
        factors = factors_file(mixture, corpus, tmp_path / "factors")
        assert "not tracked" in caplog.text and experts in caplog.text
        caplog.clear()
        # A direction without a Hessian meets no other stage before.
        arguments = gradient_arguments(mixture, tmp_path)
        measure_query_gradient.main(arguments)
        assert "not tracked" in caplog.text and experts in caplog.text
    assert experts in read_tensors(factors)[1]["untracked"]
    assert experts in read_tensors(arguments.output)[1]["untracked"]
    _, record = read_query(arguments.output, None, weights_sha256(mixture))
    assert experts in record["untracked"]


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_DECODERS])
def test_without_a_record_initial_weights_are_told_from_trained_ones(family, tmp_path):
    model = AutoModelForCausalLM.from_config(small_model(family, torch.float32).config)
    model.save_pretrained(tmp_path / "initial")
    with pytest.raises(InputError, match="never trained"):
        require_trained(tmp_path / "initial")
    tokens = random_tokens(2)
    model(input_ids=tokens, labels=tokens).loss.backward()
    torch.optim.AdamW(model.parameters(), lr=1e-5).step()
    model.save_pretrained(tmp_path / "one step")
    require_trained(tmp_path / "one step")


@pytest.mark.parametrize("recorded", [True, False])
def test_weights_that_were_never_trained_are_refused_unless_allowed(corpus, tmp_path, recorded):
    untrained = write_model(tmp_path / "untrained", corpus, "llama")
    if recorded:
        record = {"steps": 0, "weights_sha256": weights_sha256(untrained)}
        write_json(untrained / "training.json", record)
    else:
        config = AutoConfig.from_pretrained(untrained, local_files_only=True)
        AutoModelForCausalLM.from_config(config).save_pretrained(untrained)
    output = tmp_path / "sums.safetensors"
    jobs = [
        (sum_covariances, lambda **changes: pass_arguments(untrained, corpus, output, **changes)),
        (measure_query_gradient, lambda **c: gradient_arguments(untrained, tmp_path, **c)),
    ]
    for job, arguments in jobs:
        with pytest.raises(InputError, match=r"never trained.*influence\.allow_untrained: true"):
            job.main(arguments())
        assert not arguments().output.exists()
        job.main(arguments(allow_untrained=True))
        assert arguments().output.exists()
