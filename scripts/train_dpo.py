"""Train one model by direct preference optimisation, on from another model directory.

settings: {"training": {...}, "beta": float, "names": [model, method], "training_seed": int,
"seed": int}.
"""

import logging
import shutil
import time
from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from ifguide.data.preferences import PreferencePair
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import read_json, read_jsonl, write_json
from ifguide.files.checksums import file_sha256
from ifguide.models.checkpoints import keep_only_own_checkpoints
from ifguide.models.loading import (
    TRAINING_RECORD,
    load_model,
    require_vocabulary,
    save_model,
    weights_sha256,
)
from ifguide.models.preference_training import LOSS_COLUMNS, tokenize_pairs, train_on_pairs
from ifguide.models.training import write_losses
from ifguide.seeds import derive_seed
from train_model import resumable

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    model_name, method = settings["names"]
    start, output = arguments.start_from, arguments.output
    model = load_model(start)
    tokenizer = load_tokenizer(arguments.tokenizer)
    require_vocabulary(start, model.config.vocab_size, tokenizer)
    pairs = [PreferencePair(**record) for record in read_jsonl(arguments.pairs)]
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    examples = tokenize_pairs(tokenizer, pairs, positions)
    made_from = {
        "pairs_sha256": file_sha256(arguments.pairs),
        "start_from_sha256": weights_sha256(start),
    }
    checkpoints = output.with_name(f".{output.name}.checkpoints")
    keep_only_own_checkpoints(
        checkpoints,
        {"settings": {**settings, "training": resumable(settings["training"])}, **made_from},
    )
    log.info("%s by %s: %d pairs", model_name, method, len(examples))
    started = time.monotonic()
    losses, steps = train_on_pairs(
        model,
        load_model(start),
        load_tokenizer(arguments.tokenizer),
        examples,
        settings={**settings["training"], "checkpoint_steps": arguments.checkpoint_steps},
        beta=settings["beta"],
        checkpoints=checkpoints,
        seed=derive_seed(settings["seed"], "dpo", model_name, settings["training_seed"]),
    )
    seconds = time.monotonic() - started
    weights = save_model(model, tokenizer, output)
    write_losses(output / "losses.csv", losses, LOSS_COLUMNS)
    write_json(
        output / TRAINING_RECORD,
        {
            "settings": settings,
            "steps": steps,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": seconds,
            "pairs": len(examples),
            "tokens_sha256": corpus_of_chain(start),
            **made_from,
            "weights_sha256": weights,
        },
    )
    shutil.rmtree(checkpoints, ignore_errors=True)


def corpus_of_chain(start: Path) -> str | None:
    """Return the hash of the tokens that the first model of the chain was trained on.

    None where nothing tells: a directory made elsewhere has no training record.
    """
    record = start / TRAINING_RECORD
    return read_json(record)["tokens_sha256"] if record.exists() else None


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--start-from", type=Path, required=True, help="model directory")
    parser.add_argument("--tokenizer", type=Path, required=True, help="that of the corpus")
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.jsonl of read_pairs.py")
    parser.add_argument("--checkpoint-steps", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser, resumes=True)
