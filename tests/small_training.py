"""A small corpus with a mask, and commands that train on them."""

import json
import sys
from pathlib import Path

import numpy as np

from conftest import REPOSITORY
from ifguide.data.corpus import (
    Corpus,
    end_of_text_id,
    open_corpus,
    token_streams,
    tokenizer_sha256,
    train_tokenizer,
    write_blocks,
)
from ifguide.data.documents import Document
from ifguide.files.artifacts import write_json
from ifguide.files.checksums import file_sha256
from ifguide.influence import selection_files

TRAINING = {
    "epochs": 2,
    "max_steps": None,
    "batch_size": 4,
    "accumulation": 2,
    "learning_rate": 3e-3,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 4e-4,
    "betas": [0.9, 0.95],
    "epsilon": 1e-8,
    "clip": 1.0,
    "precision": "float32",
    "gradient_checkpointing": False,
    "compile": False,
    "fsdp": False,
    "explosion_factor": 5.0,
    "peak_flops": None,
    "log_steps": 1,
    "checkpoint_steps": 3,
}
ARCHITECTURE = {
    "model_type": "gpt_neox",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
WITH_DROPOUT = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2}
SUPPRESS = {"objective": "unlikelihood", "strength": 0.5}


def small_corpus(directory: Path, *, documents: int = 60, block_size: int = 24) -> Corpus:
    """Write a corpus of random words, its tokenizer beside it; the last block has padding."""
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefgh"), 4)) for _ in range(40)]
    texts = [" ".join(generator.choice(words, 15)) for _ in range(documents)]
    tokenizer = train_tokenizer(texts, 300)
    tokenizer.save_pretrained(directory / "tokenizer")
    meta = write_blocks(
        token_streams(
            ((number, Document(text, None, "words")) for number, text in enumerate(texts)),
            tokenizer,
        ),
        directory,
        block_size=block_size,
        shards=1,
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=False,
    )
    meta["tokenizer_sha256"] = tokenizer_sha256(directory / "tokenizer")
    write_json(directory / "meta.json", meta)
    return open_corpus(directory)


def random_mask(directory: Path, corpus: Corpus, share: float = 0.1) -> Path:
    """Write a selection of about `share` of the tokens."""
    shape = corpus.tokens.shards[0].shape
    write_mask(directory, corpus, np.random.default_rng(1).random(shape) < share)
    return directory


def write_mask(directory: Path, corpus: Corpus, mask: np.ndarray, **changes) -> None:
    record = {
        "tokens_sha256": corpus.content_sha256,
        **selection_files.write_mask(directory, [mask]),
        "selected_tokens": int(mask.sum()),
    }
    write_json(directory / "selection.json", record | changes)


def training_command(
    corpus: Corpus,
    output: Path,
    *,
    mask: Path | None = None,
    start_from: Path | None = None,
    architecture: dict = ARCHITECTURE,
    suppress: dict = SUPPRESS,
    **changes,
) -> list[str]:
    training = TRAINING | changes
    checkpoint_steps = training.pop("checkpoint_steps")
    settings = {
        "architecture": architecture,
        "training": training,
        "trains": True,
        "steps": {"suppress": {"selection": "top", **suppress}} if mask else {},
        "names": ["target", "ifguide" if mask else "none"],
        "training_seed": 0,
        "seed": 1,
    }
    command = [sys.executable, REPOSITORY / "scripts/make_model.py"]
    command += ["--settings", json.dumps(settings)]
    command += ["--corpus", corpus.directory, "--tokenizer", corpus.directory / "tokenizer"]
    command += ["--output", output, "--checkpoint-steps", checkpoint_steps]
    if mask:
        command += ["--given", json.dumps({"suppress": {"selection": [str(mask)]}})]
    if start_from:
        command += ["--start-from", start_from]
    return list(map(str, command))


def weights_of(output: Path) -> str:
    return file_sha256(output / "model.safetensors")
