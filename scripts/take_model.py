"""Take a trained model directory as the uncensored model: its weights, in the workflow's layout."""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.data.tokenizers import load_tokenizer, local_directory
from ifguide.files.artifacts import read_json, write_json
from ifguide.models.loading import (
    TRAINING_RECORD,
    load_model,
    require_finite,
    require_positions,
    require_vocabulary,
    save_model,
    weights_sha256,
)
from ifguide.models.losses_file import write_losses

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    given = local_directory(arguments.given, "models.*.path")
    meta = read_json(arguments.corpus / "meta.json")
    tokenizer = load_tokenizer(arguments.corpus / "tokenizer")
    model = load_model(given, dtype="auto", verify=False)
    require_finite(model, given)
    require_positions(model.config, meta["block_size"])
    require_vocabulary(given, model.config.vocab_size, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log.info("%s: %d parameters, %s", given, parameters, model.dtype)
    weights = save_model(model, tokenizer, arguments.output)
    write_losses(arguments.output / "losses.csv", [])
    write_json(
        arguments.output / TRAINING_RECORD,
        {
            "given": str(given),
            "given_sha256": weights_sha256(given),
            "steps": None,
            "seconds": None,
            "parameters": parameters,
            "tokens_sha256": None,
            "mask_sha256": None,
            "weights_sha256": weights,
        },
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--given", type=Path, required=True, help="model directory")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus of its tokenizer")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
