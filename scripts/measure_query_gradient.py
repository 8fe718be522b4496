"""Mean gradient of a set of query records over the tracked layers.

settings: {"tokens_per_batch": int, "allow_untrained": bool}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

import numpy as np

from ifguide.data.labelled_texts import TOXIC
from ifguide.data.own_generations import read_own_generations
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import read_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.files.tensor_files import write_tensors
from ifguide.influence.query_direction import QueryRecord, encode_records, mean_gradient
from ifguide.models.loading import compute_device, load_model, require_trained, weights_sha256
from ifguide.models.token_texts import written_texts
from ifguide.models.tracked_layers import tracked_layers

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    if not arguments.settings["allow_untrained"]:
        require_trained(arguments.model)
    model = load_model(arguments.model).to(compute_device())
    layers, untracked = tracked_layers(model)
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    if arguments.own_generations:
        queries = arguments.own_generations
        records = own_records(queries, positions)
    else:
        queries = arguments.queries
        pairs = [(r["prompt"], r["continuation"]) for r in read_jsonl(queries)]
        records = encode_records(load_tokenizer(arguments.model), pairs, positions=positions)
        log.info("%d left out", len(pairs) - len(records))
    if not records:
        raise InputError(f"{queries}: no record has a prompt and a continuation")
    log.info("%d query records", len(records))
    gradient = mean_gradient(
        model, layers, records, tokens_per_batch=arguments.settings["tokens_per_batch"]
    )
    metadata = {
        "weights_sha256": weights_sha256(arguments.model),
        "queries_sha256": file_sha256(queries),
        "records": str(len(records)),
        "mean_over": "records",
        "untracked": ", ".join(untracked),
    }
    write_tensors(arguments.output, gradient, metadata)


def own_records(path: Path, positions: int) -> list[QueryRecord]:
    """Return the toxic ones of a model's own continuations, after the prompts that they follow.

    Raises InputError where none is toxic.
    """
    written = [own for prompt in read_own_generations(path) for own in prompt]
    toxic = [own for own in written if own.toxicity >= TOXIC]
    if not toxic:
        raise InputError(
            f"{path}: none of {len(written)} continuations is toxic, so nothing is asked about; "
            "sample more of them, or after other `queries`"
        )
    return [
        QueryRecord(np.array(text.ids), text.context) for text in written_texts(toxic, positions)
    ]


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--queries", type=Path, help="query records: prompts and continuations")
    kind.add_argument("--own-generations", type=Path, help="of which the toxic ones are queries")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
