"""Token filtering: masking is exclusion, and a removed token is nowhere in what a model learns."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ifguide.data.corpus import Corpus, open_corpus
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json, write_array, write_json
from ifguide.influence.selection_files import open_mask
from ifguide.methods.step import step_at
from ifguide.models.hidden_token import hidden_token, without_last_row
from ifguide.models.labels import IGNORED_LABEL
from ifguide.models.loading import load_model, save_model
from ifguide.models.training_blocks import Blocks
from ifguide.models.training_run import TrainingRun, learn
from small_models import FAMILIES, random_tokens, small_model
from small_training import ARCHITECTURE, TRAINING, random_mask, small_corpus

LLAMA_TIED = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "tie_word_embeddings": True,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def mask(corpus, tmp_path_factory) -> Path:
    return random_mask(tmp_path_factory.mktemp("mask"), corpus)


def run_of(corpus: Corpus, output: Path, architecture: dict = ARCHITECTURE) -> TrainingRun:
    settings = {
        "architecture": architecture,
        "training": {**TRAINING, "max_steps": 3},
        "names": ["target", "filtered"],
        "training_seed": 0,
        "seed": 1,
    }
    return TrainingRun(
        settings=settings,
        tokenizer_directory=corpus.directory / "tokenizer",
        output=output,
        checkpoint_steps=100,
        corpus_directory=corpus.directory,
    )


def trained(corpus: Corpus, mask: Path, output: Path, entry: dict, **run):
    (key,) = entry
    step = step_at({key: {"selection": "top", **entry[key]}}, "train")
    return step.train(run_of(corpus, output, **run), {"selection": [mask]})


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_masking_is_exclusion(corpus, mask, tmp_path):
    masked = trained(corpus, mask, tmp_path / "a", {"token_filter": {"mode": "mask"}})
    excluded = trained(corpus, mask, tmp_path / "b", {"suppress": {"objective": "exclusion"}})
    plain = learn(run_of(corpus, tmp_path / "c"))
    assert same(masked.weights, excluded.weights)
    assert masked.losses[-1]["selected_loss"] == excluded.losses[-1]["selected_loss"]
    assert not same(masked.weights, plain.weights)


def with_other_masked_tokens(corpus: Corpus, mask: Path, folder: Path) -> tuple[Corpus, Path]:
    """The corpus and mask again, with other tokens where the mask is."""
    shutil.copytree(corpus.directory, folder / "corpus")
    chosen = open_mask(mask, corpus)[0].shards[0]
    (shard,) = corpus.tokens.shards
    others = (shard.astype(np.int64) + 7) % corpus.meta["vocabulary_size"]
    tokens = np.where(chosen, others, shard).astype(shard.dtype)
    assert (tokens != shard).sum() == chosen.sum()
    write_array(folder / "corpus/tokens/shard-00000.npy", tokens)
    meta = {**corpus.meta, "content_sha256": "0" * 64}
    write_json(folder / "corpus/meta.json", meta)
    shutil.copytree(mask, folder / "mask")
    record = read_json(folder / "mask/selection.json")
    write_json(folder / "mask/selection.json", {**record, "tokens_sha256": "0" * 64})
    return open_corpus(folder / "corpus"), folder / "mask"


@pytest.mark.parametrize("architecture", [ARCHITECTURE, LLAMA_TIED, GPT2])
def test_a_removed_token_teaches_nothing(corpus, mask, tmp_path, architecture):
    other, other_mask = with_other_masked_tokens(corpus, mask, tmp_path)

    def weights(corpus, mask, name, mode):
        entry = {"token_filter": {"mode": mode}}
        return trained(corpus, mask, tmp_path / name, entry, architecture=architecture).weights

    assert same(weights(corpus, mask, "a", "remove"), weights(other, other_mask, "b", "remove"))
    assert not same(weights(corpus, mask, "c", "mask"), weights(other, other_mask, "d", "mask"))


def test_the_input_differs_from_the_corpus_at_the_mask_alone(corpus, mask):
    chosen, _ = open_mask(mask, corpus)
    vocabulary = corpus.meta["vocabulary_size"]
    plain, hiding = Blocks(corpus, chosen), Blocks(corpus, chosen, vocabulary)
    for index in range(len(plain) + 1):
        before, after = plain[index], hiding[index]
        hidden = after["input_ids"] == vocabulary
        if index < len(plain):
            assert hidden.tolist() == chosen[index].astype(bool).tolist()
        else:
            assert not hidden.any()
        assert torch.equal(after["input_ids"][~hidden], before["input_ids"][~hidden])
        assert torch.equal(after["labels"], before["labels"])
    assert (hiding[0]["labels"] != IGNORED_LABEL).any()


def test_a_model_that_hid_tokens_has_the_vocabulary_of_its_tokenizer(corpus, mask, tmp_path):
    for architecture in (ARCHITECTURE, LLAMA_TIED, GPT2):
        output = tmp_path / architecture["model_type"]
        found = trained(
            corpus, mask, output, {"token_filter": {"mode": "remove"}}, architecture=architecture
        )
        run = run_of(corpus, output, architecture)
        save_model(found.model, run.tokenizer(), output, found.weights)
        plain = learn(run_of(corpus, tmp_path / "plain", architecture))
        saved = load_file(output / "model.safetensors")
        save_model(plain.model, run.tokenizer(), tmp_path / "plain", plain.weights)
        expected = load_file(tmp_path / "plain" / "model.safetensors")
        assert {n: t.shape for n, t in saved.items()} == {n: t.shape for n, t in expected.items()}
        config = read_json(output / "config.json")
        assert config["vocab_size"] == corpus.meta["vocabulary_size"]
        tokens = torch.arange(8)[None]
        with torch.no_grad():
            logits = load_model(output)(input_ids=tokens).logits
            own = found.model.eval()(input_ids=tokens).logits
        assert logits.shape[-1] == corpus.meta["vocabulary_size"]
        torch.testing.assert_close(logits, own)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_hiding_no_token_changes_no_logit(family, tied):
    model = small_model(family)
    model.config.tie_word_embeddings = tied
    if tied:
        model.tie_weights()
    tokens = random_tokens(2)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = model(input_ids=tokens).logits
        with hidden_token(model) as hidden:
            assert hidden == before.shape[-1]
            during = model(input_ids=tokens).logits
            read = model(input_ids=torch.full_like(tokens, hidden)).logits
            grown = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        after = model(input_ids=tokens).logits
    assert torch.isfinite(read).all()
    torch.testing.assert_close(during, before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
    assert same(model.state_dict(), weights)
    assert same(without_last_row(grown, model), weights)
    assert model.config.vocab_size == hidden


def test_the_hidden_token_learns_its_embedding_alone():
    """The row of the head that goes with it gets no gradient: it is never an output."""
    model = small_model("gpt_neox")
    with hidden_token(model) as hidden:
        tokens = random_tokens(2)
        tokens[:, 3] = hidden
        model(input_ids=tokens).logits.logsumexp(-1).sum().backward()
        assert model.get_input_embeddings().weight.grad[hidden].any()
        assert not model.get_output_embeddings().weight.grad[hidden].any()


def test_a_mask_of_every_token_is_refused(corpus, tmp_path):
    everything = tmp_path / "everything"
    random_mask(everything, corpus, share=1.1)
    with pytest.raises(InputError, match="selects all"):
        trained(corpus, everything, tmp_path / "a", {"token_filter": {"mode": "remove"}})
