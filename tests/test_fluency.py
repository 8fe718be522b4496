"""Fluency: losses and divergence on documents, and losses of continuations, against definitions."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from transformers import LogitsProcessorList, TemperatureLogitsWarper

from ifguide.data.corpus import train_tokenizer
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation import fluency
from ifguide.evaluation.fluency import (
    continuation_losses,
    document_fluency,
    next_token_fluency,
)
from ifguide.evaluation.generation import ProcessorGuidance
from ifguide.files.tensor_files import write_tensors
from ifguide.methods.step import PREPARED
from ifguide.models.loading import HiddenStates, save_model
from ifguide.models.residual_steering import Steering
from small_models import POSITIONS, random_tokens, small_model
from small_training import small_corpus

SCRIPT = Path(__file__).parents[1] / "scripts" / "measure_fluency.py"


def probabilities(model, text):
    with torch.no_grad():
        return model(torch.tensor([text])).logits[0].double().softmax(-1).numpy()


# The second makes its own logits, by a soft cap, so that they cannot be made in chunks.
@pytest.mark.parametrize("family", ["gpt_neox", "gemma2"])
@pytest.mark.parametrize("budget", [2**26, 1])
def test_divergence_and_losses_are_those_of_the_definition(family, budget, monkeypatch):
    monkeypatch.setattr(fluency, "CHUNK_BYTES", budget)
    model, reference = (small_model(family, torch.float64, seed) for seed in (0, 1))
    tokens = random_tokens(3)
    with torch.no_grad():
        losses, divergences = next_token_fluency(
            HiddenStates(model), tokens, HiddenStates(reference)
        )
    for row, text in enumerate(tokens.tolist()):
        p, q = probabilities(model, text)[:-1], probabilities(reference, text)[:-1]
        np.testing.assert_allclose(divergences[row], entropy(q, p, axis=-1), rtol=1e-9, atol=1e-12)
        expected = -np.log(p[np.arange(len(p)), text[1:]])
        np.testing.assert_allclose(losses[row], expected, rtol=1e-9)
    assert (divergences > 0.01).all()


def test_a_model_does_not_diverge_from_itself_and_batches_change_nothing(tmp_path):
    corpus = small_corpus(tmp_path)
    vocabulary = corpus.meta["vocabulary_size"]
    model, other = (small_model("gpt_neox", torch.float32, s, vocabulary) for s in (0, 1))
    assert not document_fluency(model, corpus, reference=model).divergences.any()
    assert document_fluency(model, corpus).divergences is None
    whole = document_fluency(model, corpus, reference=other)
    singly = document_fluency(model, corpus, reference=other, batch_size=1)
    np.testing.assert_allclose(whole.divergences, singly.divergences, rtol=1e-4)
    np.testing.assert_allclose(whole.losses, singly.losses, rtol=1e-5)
    np.testing.assert_array_equal(whole.labels, singly.labels)
    # Every token but padding and the first of a block is a label of its document.
    documents = np.concatenate(corpus.documents.shards)[:, 1:]
    counts = np.bincount(documents[documents >= 0], minlength=corpus.meta["documents"])
    np.testing.assert_array_equal(whole.labels, counts)


def test_the_divergence_of_guided_logits_is_that_of_what_is_sampled_from(tmp_path):
    """At a temperature of 2, against the distribution that the processor leaves."""
    model = small_model("gpt_neox", torch.float64)
    guidance = ProcessorGuidance(LogitsProcessorList([TemperatureLogitsWarper(2.0)]))
    tokens = random_tokens(2)
    with torch.no_grad():
        body = HiddenStates(model)
        _, found = next_token_fluency(body, tokens, body, guidance)
    for row, text in enumerate(tokens.tolist()):
        q = probabilities(model, text)[:-1]
        p = np.sqrt(q) / np.sqrt(q).sum(-1, keepdims=True)
        np.testing.assert_allclose(found[row], entropy(q, p, axis=-1), rtol=1e-8)


WORDS = "the cook is a friend of the miller and sings"
TEXTS = [
    ("the cook", " is a friend of the miller"),
    ("the miller", " and the cook"),
    ("the miller", ""),
    ("", " sings"),
    ("the cook is a friend", " sings and the miller is a cook"),
    ("sings " * 3 * POSITIONS, " a friend"),
]


def test_the_model_that_it_diverges_from_is_not_steered(tmp_path):
    """A decode step that stands on modules of the model, whose reference is the same directory."""
    corpus = small_corpus(tmp_path)
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    model = small_model("gpt_neox", torch.float32, 0, corpus.meta["vocabulary_size"])
    (tmp_path / "model").mkdir()
    save_model(model, tokenizer, tmp_path / "model")
    direction = torch.arange(1.0, 1 + model.config.hidden_size).unsqueeze(0)
    # A feature that always fires.
    steering = Steering(
        directions=torch.nn.functional.normalize(direction),
        encoder=torch.zeros_like(direction),
        bias=torch.ones(1),
        center=torch.zeros_like(direction[0]),
        norm=torch.tensor(1.0),
    )
    write_tensors(tmp_path / "steering.safetensors", steering.tensors(), {})
    given = {"sae_gating": {PREPARED: [str(tmp_path / "steering.safetensors")]}}
    settings = {
        **{"kinds": {"mine": "perplexity"}, "unmeasured": {}, "seed": 1, "resamples": 10},
        **{"steps": {"sae_gating": {"texts": "labelled"}}, "level": 0.95, "sampling": None},
    }
    command = [
        *(sys.executable, SCRIPT, "--settings", json.dumps(settings), "--benchmarks", "mine"),
        *("--given", json.dumps(given), "--corpus", corpus.directory),
        *("--model", tmp_path / "model", "--reference", tmp_path / "model"),
        *("--model-name", "target", "--method", "steered", "--training-seed", "0"),
        *("--output", tmp_path / "metrics.json"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    rows = json.loads((tmp_path / "metrics.json").read_text("utf-8"))["rows"]
    (divergence,) = (row["value"] for row in rows if row["metric"] == "next_token_kl")
    assert divergence > 1e-3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([WORDS] * 3, 280)


@pytest.mark.parametrize("tokens_per_batch", [1, 40, 8192])
def test_losses_of_continuations_are_those_of_each_read_alone(tokenizer, tokens_per_batch):
    model = small_model("gpt_neox", torch.float64, vocabulary=len(tokenizer))
    found, counts = continuation_losses(model, tokenizer, TEXTS, tokens_per_batch=tokens_per_batch)
    for (prompt, continuation), loss, count in zip(TEXTS, found, counts, strict=True):
        before = tokenizer(prompt)["input_ids"] or [tokenizer.eos_token_id]
        new = tokenizer(continuation)["input_ids"]
        assert count == len(new)
        text = [*before, *new][-POSITIONS:]
        expected = [
            -np.log(probabilities(model, text[:place])[-1][text[place]])
            for place in range(len(text) - len(new), len(text))
        ]
        assert loss == pytest.approx(sum(expected), rel=1e-9)


def test_a_job_measures_the_first_continuations_of_each_prompt(tokenizer, tmp_path):
    model = small_model("gpt_neox", torch.float32, vocabulary=len(tokenizer))
    (tmp_path / "model").mkdir()
    weights = save_model(model, tokenizer, tmp_path / "model")
    records = [
        {"prompt_index": prompt, "sample": sample, "prompt": TEXTS[prompt][0],
         "continuation": TEXTS[(prompt + sample) % 3][1]}
        for prompt in (1, 0) for sample in (2, 0, 1)
    ]  # fmt: skip
    for number, part in enumerate((records[:3], records[3:])):
        lines = "".join(json.dumps(record) + "\n" for record in part)
        (tmp_path / f"{number}.jsonl").write_text(lines, encoding="utf-8")
    settings = {"kinds": {"mine": "prompts"}, "unmeasured": {}, "continuations": 2}
    command = [
        *(sys.executable, SCRIPT, "--settings", json.dumps(settings), "--benchmarks", "mine"),
        *("--texts", f"mine={tmp_path / '0.jsonl'}", f"mine={tmp_path / '1.jsonl'}"),
        *("--model", tmp_path / "model", "--uncensored", tmp_path / "model"),
        *("--model-name", "target", "--method", "none", "--training-seed", "0"),
        *("--output", tmp_path / "losses.json"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    written = json.loads((tmp_path / "losses.json").read_text("utf-8"))
    assert written["weights_sha256"] == weights
    assert [entry["prompt_index"] for entry in written["prompts"]] == [0, 1]
    for entry in written["prompts"]:
        index = entry["prompt_index"]
        texts = [(TEXTS[index][0], TEXTS[(index + sample) % 3][1]) for sample in range(2)]
        losses, counts = continuation_losses(model, tokenizer, texts)
        assert entry["loss_sum"] == pytest.approx(losses.sum(), rel=1e-5)
        assert entry["tokens"] == counts.sum()
