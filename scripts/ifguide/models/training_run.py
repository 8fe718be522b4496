"""One training of one model: what it begins with, what it learns from, and what it leaves.

A step of a method that trains is handed a `TrainingRun`; `learn` is what a method without one does.
"""

import logging
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import Corpus, ShardedArray, open_corpus
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import read_json
from ifguide.models.hidden_token import hidden_token, without_last_row
from ifguide.models.loading import (
    TRAINING_RECORD,
    build_model,
    load_model,
    require_finite,
    require_positions,
    require_vocabulary,
    weights_sha256,
)
from ifguide.models.losses_file import LOSS_COLUMNS
from ifguide.models.training import train
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)

# Settings of training that change no weight: a checkpoint may differ in them.
FREE = ("log_steps", "checkpoint_steps", "explosion_factor", "peak_flops")


@dataclass(frozen=True)
class TrainingRun:
    """What a job that trains is given.

    settings: `architecture`, `training`, `names` (model and method), `training_seed`, `seed` and
    what else the result depends on. corpus: the folder that is trained on, None where none is read.
    output: the folder of the model; interrupted work is kept beside it.
    """

    settings: dict
    tokenizer_directory: Path
    output: Path
    checkpoint_steps: int
    corpus_directory: Path | None = None
    start_from: Path | None = None
    processes: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def model_name(self) -> str:
        return self.settings["names"][0]

    @property
    def training(self) -> dict:
        return {**self.settings["training"], "checkpoint_steps": self.checkpoint_steps}

    @property
    def checkpoints(self) -> Path:
        return self.output.with_name(f".{self.output.name}.checkpoints")

    @property
    def is_first_process(self) -> bool:
        return int(os.environ.get("RANK", 0)) == 0

    def open_corpus(self) -> Corpus:
        return open_corpus(self.corpus_directory)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.tokenizer_directory)

    def seed(self, purpose: str) -> int:
        """Return a seed of this model and training seed.

        It leaves the method out: methods differ in what they train on, not in random numbers.
        """
        settings = self.settings
        return derive_seed(settings["seed"], purpose, self.model_name, settings["training_seed"])

    def initial_model(self, corpus: Corpus) -> PreTrainedModel:
        """Return the model to begin with: that of another directory, or new weights."""
        if self.start_from:
            model = load_model(self.start_from)
            require_finite(model, self.start_from)
            require_positions(model.config, corpus.block_size)
            require_vocabulary(self.start_from, model.config.vocab_size, self.tokenizer())
            return model
        return build_model(
            self.settings["architecture"],
            f"models.{self.model_name}.architecture",
            vocabulary_size=corpus.meta["vocabulary_size"],
            block_size=corpus.block_size,
            end_of_text=corpus.meta["end_of_text"],
            seed=self.seed("initial weights"),
        )

    def model_to_tune(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, int]:
        """Return the model of `start_from`, its tokenizer, and the positions that it has.

        Raises InputError where its tokens are not those of the tokenizer.
        """
        model, tokenizer = load_model(self.start_from), self.tokenizer()
        require_vocabulary(self.start_from, model.config.vocab_size, tokenizer)
        positions = getattr(model.config, "max_position_embeddings", None) or 2**31
        return model, tokenizer, positions

    def made_from(self, **hashes: str | None) -> dict:
        """Return what a checkpoint must have in common with this run."""
        settings = {**self.settings, "training": resumable(self.settings["training"])}
        start = weights_sha256(self.start_from) if self.start_from else None
        return {"settings": settings, "start_from_sha256": start, **hashes}


@dataclass(frozen=True)
class TrainedModel:
    """A model as a training leaves it, its losses, and what is recorded of it.

    weights: the state of the whole model where processes share it; None: the model's own.
    """

    model: PreTrainedModel
    losses: list[dict]
    columns: tuple[str, ...]
    record: dict
    weights: dict[str, torch.Tensor] | None = None


def learn(
    run: TrainingRun,
    *,
    mask: ShardedArray | None = None,
    mask_sha256: str | None = None,
    objective: str = "exclusion",
    strength: float = 0.0,
    hide: bool = False,
) -> TrainedModel:
    """Train on the run's corpus, with the tokens of `mask` suppressed where there is one.

    hide: the model does not read those tokens either (`models.hidden_token`).
    """
    corpus = run.open_corpus()
    model = run.initial_model(corpus)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if run.is_first_process:
        names, blocks = " by ".join(run.settings["names"]), len(corpus.tokens)
        log.info(
            "%s: %d parameters, %d blocks, %d processes", names, parameters, blocks, run.processes
        )
    hashes = {"tokens_sha256": corpus.content_sha256, "mask_sha256": mask_sha256}
    started = time.monotonic()
    with hidden_token(model) if hide else nullcontext() as hidden:
        trained = train(
            model,
            corpus,
            settings=run.training,
            mask=mask,
            objective=objective,
            strength=strength,
            hidden=hidden,
            checkpoints=run.checkpoints,
            made_from=run.made_from(**hashes),
            seed=run.seed("training"),
            processes=run.processes,
        )
    weights = trained.weights
    if hide and weights is not None:
        weights = without_last_row(weights, model)
    return TrainedModel(
        model=model,
        losses=trained.losses,
        columns=LOSS_COLUMNS,
        weights=weights,
        record={
            "steps": trained.steps,
            "seconds": time.monotonic() - started,
            **trained.speed,
            "processes": trained.processes,
            "device": trained.device,
            **hashes,
        },
    )


def resumable(training: dict) -> dict:
    """Return the training settings that a checkpoint must share with the run."""
    return {name: value for name, value in training.items() if name not in FREE}


def tokens_learned_from(directory: Path) -> str | None:
    """Return the hash of the tokens that the first model of a chain was trained on.

    None where nothing tells: a directory made elsewhere has no training record.
    """
    record = directory / TRAINING_RECORD
    return read_json(record)["tokens_sha256"] if record.exists() else None
