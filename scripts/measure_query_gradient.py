"""Mean gradient of a set of query records over the tracked layers.

settings: {"tokens_per_batch": int, "allow_untrained": bool}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import read_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.files.tensor_files import write_tensors
from ifguide.influence.query_direction import encode_records, mean_gradient
from ifguide.models.loading import compute_device, load_model, require_trained, weights_sha256
from ifguide.models.tracked_layers import tracked_layers

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    if not arguments.settings["allow_untrained"]:
        require_trained(arguments.model)
    model = load_model(arguments.model).to(compute_device())
    layers, untracked = tracked_layers(model)
    pairs = [(r["prompt"], r["continuation"]) for r in read_jsonl(arguments.queries)]
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    records = encode_records(load_tokenizer(arguments.model), pairs, positions=positions)
    if not records:
        raise InputError(f"{arguments.queries}: no record has a prompt and a continuation")
    log.info("%d query records, %d left out", len(records), len(pairs) - len(records))
    gradient = mean_gradient(
        model, layers, records, tokens_per_batch=arguments.settings["tokens_per_batch"]
    )
    metadata = {
        "weights_sha256": weights_sha256(arguments.model),
        "queries_sha256": file_sha256(arguments.queries),
        "records": str(len(records)),
        "mean_over": "records",
        "untracked": ", ".join(untracked),
    }
    write_tensors(arguments.output, gradient, metadata)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
