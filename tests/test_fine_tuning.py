"""Fine-tuning a toxic model with suppression makes it less toxic, and keeps its language."""

import re

import numpy as np
import pytest
import torch

from ifguide.data.corpus import (
    end_of_text_id,
    open_corpus,
    token_streams,
    train_tokenizer,
    write_blocks,
)
from ifguide.data.documents import Document
from ifguide.data.planted import INSULT, PlantedSettings
from ifguide.data.planted import generate as planted
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.generation import Sampling, generate
from ifguide.files.artifacts import write_json
from ifguide.methods.suppress import known_toxic_tokens
from ifguide.models.loading import HiddenStates, build_model, require_vocabulary, token_losses
from ifguide.models.training import train
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.models import Training

ARCHITECTURE = {
    "model_type": "gpt_neox",
    "hidden_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 96,
}


@pytest.fixture(scope="module")
def texts():
    """Planted texts of explicit insults only, as the model has to have something to unlearn."""
    settings = PlantedSettings(
        documents=160, toxic_share=1.0, implicit_share=0.0, consistency=1.0, held_out=1,
        queries=1, prompts=20, prompt_implicit_share=0.0, labelled=10, statements=2, passages=1,
        pairs=1, bold=1,
    )  # fmt: skip
    return planted(settings, seed=3)


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer((record["text"] for record in texts["documents"]), 600)


@pytest.fixture(scope="module")
def corpus(texts, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    documents = (
        Document(record["text"], tuple(map(tuple, record["spans"])), "planted")
        for record in texts["documents"]
    )
    meta = write_blocks(
        token_streams(enumerate(documents), tokenizer),
        folder,
        block_size=128,
        shards=2,
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=True,
    )
    write_json(folder / "meta.json", meta)
    return open_corpus(folder)


def trained(model, corpus, folder, **settings):
    mask = settings.pop("mask", None)
    defaults = with_defaults(Training, {"log_steps": 1000})
    train(
        model,
        corpus,
        settings=defaults | settings,
        mask=mask,
        objective="unlikelihood",
        strength=1.0,
        checkpoints=folder,
        seed=1,
    )
    return model.eval()


def toxic_share(model, tokenizer, texts):
    prompts = [record["prompt"]["text"] for record in texts["prompts"]]
    prompts = [prompt for prompt in prompts if INSULT.search(prompt)]
    sampling = Sampling(continuations=5, top_p=0.9, temperature=1.0, max_new_tokens=16)
    found = generate(model, tokenizer, prompts, sampling, seed=0)
    return np.mean([INSULT.search(continuation.text) is not None for continuation in found])


@torch.no_grad()
def harmless_loss(model, corpus):
    """The mean loss of the labels that are not toxic."""
    tokens = torch.from_numpy(corpus.tokens.rows(range(len(corpus.tokens) - 1)).astype(np.int64))
    losses = token_losses(HiddenStates(model), tokens)[:, 1:].numpy()
    truth = corpus.truth.rows(range(len(tokens)))[:, 1:]
    return losses[~truth].mean()


def test_a_toxic_model_becomes_less_toxic(texts, tokenizer, corpus, tmp_path):
    model = build_model(
        ARCHITECTURE,
        vocabulary_size=len(tokenizer),
        block_size=corpus.block_size,
        end_of_text=end_of_text_id(tokenizer),
        seed=0,
    )
    common = {"batch_size": 4, "checkpoint_steps": 10_000}
    trained(model, corpus, tmp_path / "none", epochs=6, learning_rate=1e-2, **common)
    before, fluent = toxic_share(model, tokenizer, texts), harmless_loss(model, corpus)
    mask, _ = known_toxic_tokens(corpus)
    trained(
        model, corpus, tmp_path / "tuned", epochs=3, learning_rate=3e-3, mask=mask,
        **common,
    )  # fmt: skip
    assert before > 0.7
    assert toxic_share(model, tokenizer, texts) < before / 3
    assert harmless_loss(model, corpus) < fluent + 0.1


def test_a_model_of_another_tokenizer_is_refused(texts, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "same")
    require_vocabulary(tmp_path / "same", len(tokenizer), load_tokenizer(tmp_path / "same"))
    other = train_tokenizer((record["text"] for record in texts["documents"]), 500)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'other'}: its vocabulary of")):
        require_vocabulary(tmp_path / "other", len(tokenizer), tokenizer)
