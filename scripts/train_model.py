"""Train one model by one method: from an architecture, or on from another model directory.

settings: {"architecture": {...}, "training": {...}, "suppress": {"tokens", "objective",
"strength"} or null, "names": [model, method], "training_seed": int, "seed": int}. Started by
torchrun, the processes share every step, and the first one writes.
"""

import logging
import os
import shutil
import time
from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from ifguide.data.corpus import Corpus, ShardedArray, open_corpus, shard_name
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import write_json
from ifguide.files.checksums import joined_sha256, recorded_sha256
from ifguide.influence.selection_files import open_mask
from ifguide.models.loading import (
    TRAINING_RECORD,
    build_model,
    load_model,
    require_positions,
    require_vocabulary,
    save_model,
    weights_sha256,
)
from ifguide.models.training import train, write_losses
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    model_name, method = settings["names"]
    # Seeds leave the method out: methods differ in what they train on, not in their random numbers.
    stage = (settings["seed"], model_name, settings["training_seed"])
    corpus = open_corpus(arguments.corpus)
    tokenizer = load_tokenizer(arguments.tokenizer)
    if arguments.start_from:
        model = load_model(arguments.start_from)
        require_positions(model.config, corpus.block_size)
        require_vocabulary(arguments.start_from, model.config.vocab_size, tokenizer)
    else:
        model = build_model(
            settings["architecture"],
            f"models.{model_name}.architecture",
            vocabulary_size=corpus.meta["vocabulary_size"],
            block_size=corpus.block_size,
            end_of_text=corpus.meta["end_of_text"],
            seed=derive_seed(settings["seed"], "initial weights", *stage[1:]),
        )
    suppress = settings["suppress"]
    mask = selection_sha256 = None
    if suppress:
        if suppress["tokens"] == "truth":
            mask, selection_sha256 = true_mask(corpus)
        else:
            mask, selection = open_mask(arguments.mask, corpus)
            selection_sha256 = selection["mask_sha256"]
        require_partial_mask(mask, corpus, arguments.mask or corpus.directory)
    checkpoints = arguments.output.with_name(f".{arguments.output.name}.checkpoints")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    first = int(os.environ.get("RANK", 0)) == 0
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if first:
        names = f"{model_name} by {method}"
        blocks = len(corpus.tokens)
        log.info("%s: %d parameters, %d blocks, %d processes", names, parameters, blocks, processes)
    started = time.monotonic()
    trained = train(
        model,
        corpus,
        settings={**settings["training"], "checkpoint_steps": arguments.checkpoint_steps},
        mask=mask,
        objective=suppress["objective"] if suppress else "exclusion",
        strength=suppress["strength"] if suppress else 0.0,
        checkpoints=checkpoints,
        made_from={
            "settings": {**settings, "training": resumable(settings["training"])},
            "tokens_sha256": corpus.content_sha256,
            "mask_sha256": selection_sha256,
            "start_from_sha256": (
                weights_sha256(arguments.start_from) if arguments.start_from else None
            ),
        },
        seed=derive_seed(settings["seed"], "training", *stage[1:]),
        processes=processes,
    )
    if not first:
        return
    seconds = time.monotonic() - started
    weights = save_model(model, tokenizer, arguments.output, trained.weights)
    write_losses(arguments.output / "losses.csv", trained.losses)
    write_json(
        arguments.output / TRAINING_RECORD,
        {
            "settings": settings,
            "steps": trained.steps,
            "parameters": parameters,
            "seconds": seconds,
            **trained.speed,
            "processes": trained.processes,
            "device": trained.device,
            "tokens_sha256": corpus.content_sha256,
            "mask_sha256": selection_sha256,
            "weights_sha256": weights,
        },
    )
    shutil.rmtree(checkpoints, ignore_errors=True)


def true_mask(corpus: Corpus) -> tuple[ShardedArray, str]:
    """Return the tokens known to be toxic as a mask, and its hash."""
    if corpus.truth is None or corpus.meta["toxic_tokens"] == 0:
        raise InputError(
            f"{corpus.directory}: no token is known to be toxic, so `tokens: truth` suppresses "
            "nothing; name the `spans` of a corpus source, or a selection"
        )
    shards = range(len(corpus.meta["shards"]))
    paths = [corpus.directory / "truth" / shard_name(shard) for shard in shards]
    return corpus.truth, joined_sha256(recorded_sha256(path) for path in paths)


def require_partial_mask(mask: ShardedArray, corpus: Corpus, directory: Path) -> None:
    """Refuse a mask of another shape than the tokens, or one that marks no token or every one."""
    shapes = [shard.shape for shard in mask.shards]
    expected = [shard.shape for shard in corpus.tokens.shards]
    if shapes != expected:
        raise InputError(
            f"{directory}: the mask's shards are {shapes}, but those of the tokens {expected}; "
            "delete it and run again"
        )
    selected = sum(int(shard.sum()) for shard in mask.shards)
    if selected == 0:
        raise InputError(f"{directory}: the mask selects no token, so nothing is suppressed")
    if selected >= corpus.meta["tokens"]:
        raise InputError(
            f"{directory}: the mask selects all {selected} tokens, so nothing is left to learn; "
            "lower influence.selections.*.limit"
        )


def resumable(training: dict) -> dict:
    """The training settings that a checkpoint must share; what is logged changes no weight."""
    free = ("log_steps", "checkpoint_steps", "explosion_factor", "peak_flops")
    return {name: value for name, value in training.items() if name not in free}


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--mask", type=Path, help="folder of a selection")
    parser.add_argument("--start-from", type=Path, help="model directory to fine-tune")
    parser.add_argument("--checkpoint-steps", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser, resumes=True)
