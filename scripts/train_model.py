"""Train one model by one method: from an architecture, or on from another model directory.

settings: {"architecture": {...}, "training": {...}, "suppress": {"tokens", "objective",
"strength"} or null, "names": [model, method], "training_seed": int, "seed": int}.
"""

import hashlib
import logging
import shutil
import time
from argparse import Namespace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from command_line import argument_parser, run
from ifguide.artifacts import read_json, write_json
from ifguide.corpus import Corpus, ShardedArray, open_corpus
from ifguide.errors import InputError
from ifguide.models import (
    TRAINING_RECORD,
    build_model,
    load_model,
    load_tokenizer,
    read_architecture,
    require_positions,
    weights_sha256,
)
from ifguide.seeds import derive_seed
from ifguide.selection_files import open_mask
from ifguide.training import train, write_losses

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    model_name, method = settings["names"]
    # Seeds leave the method out: methods differ in what they train on, not in their random numbers.
    stage = (settings["seed"], model_name, settings["training_seed"])
    corpus = open_corpus(arguments.corpus)
    tokenizer = load_tokenizer(arguments.tokenizer)
    if arguments.start_from:
        require_same_tokens(arguments.start_from, tokenizer)
        model = load_model(arguments.start_from)
        require_positions(model.config, corpus.block_size)
        if model.config.vocab_size < corpus.meta["vocabulary_size"]:
            raise InputError(
                f"{arguments.start_from}: vocabulary of {model.config.vocab_size}, but the "
                f"tokenizer has {corpus.meta['vocabulary_size']} tokens; use the model's tokenizer"
            )
    else:
        model = build_model(
            read_architecture(settings["architecture"], f"models.{model_name}.architecture"),
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
    checkpoints = arguments.output.with_name(f".{arguments.output.name}.checkpoints")
    keep_only_own_checkpoints(
        checkpoints,
        {
            "settings": {**settings, "training": resumable(settings["training"])},
            "tokens_sha256": corpus.content_sha256,
            "mask_sha256": selection_sha256,
            "start_from_sha256": (
                weights_sha256(arguments.start_from) if arguments.start_from else None
            ),
        },
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log.info(
        "%s by %s: %d parameters, %d blocks", *settings["names"], parameters, len(corpus.tokens)
    )
    started = time.monotonic()
    losses, steps = train(
        model,
        corpus,
        settings={**settings["training"], "checkpoint_steps": arguments.checkpoint_steps},
        mask=mask,
        objective=suppress["objective"] if suppress else "exclusion",
        strength=suppress["strength"] if suppress else 0.0,
        checkpoints=checkpoints,
        seed=derive_seed(settings["seed"], "training", *stage[1:]),
    )
    seconds = time.monotonic() - started
    model.save_pretrained(arguments.output, max_shard_size="1TB")
    tokenizer.save_pretrained(arguments.output)
    write_losses(arguments.output / "losses.csv", losses)
    write_json(
        arguments.output / TRAINING_RECORD,
        {
            "settings": settings,
            "steps": steps,
            "parameters": parameters,
            "seconds": seconds,
            "tokens_sha256": corpus.content_sha256,
            "mask_sha256": selection_sha256,
            "weights_sha256": weights_sha256(arguments.output),
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
    checksums = "".join(shard["truth_sha256"] for shard in corpus.meta["shards"])
    return corpus.truth, hashlib.sha256(checksums.encode()).hexdigest()


def require_same_tokens(directory: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model whose own tokenizer gives the corpus's token ids another meaning."""
    if (directory / "tokenizer.json").exists():
        own = load_tokenizer(directory).get_vocab()
        if own != tokenizer.get_vocab():
            raise InputError(
                f"{directory}: its tokenizer is not the corpus's; set tokenizers.*.path to this "
                "directory, or start from a model of the same tokenizer"
            )


def resumable(training: dict) -> dict:
    """The training settings that a checkpoint must share; how often to log changes no weight."""
    return {
        name: value
        for name, value in training.items()
        if name not in ("log_steps", "checkpoint_steps")
    }


def keep_only_own_checkpoints(checkpoints: Path, made_from: dict) -> None:
    """Discard checkpoints that an interrupted run with other settings or data left behind."""
    record = checkpoints / "made_from.json"
    if checkpoints.exists() and not (record.exists() and read_json(record) == made_from):
        log.warning("%s: from other settings or another corpus; starting over", checkpoints)
        shutil.rmtree(checkpoints)
    write_json(record, made_from)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--mask", type=Path, help="folder of a selection")
    parser.add_argument("--start-from", type=Path, help="model directory to fine-tune")
    parser.add_argument("--checkpoint-steps", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
