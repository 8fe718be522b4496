"""Losses of uncensored models on toxic text, by the compute of their training.

--models: model=directory of each, the one that is compared among them. Toxic text: the tokens of
held-out documents that are known to be toxic.
"""

from ifguide.workflow.command_line import argument_parser, labelled_path, run

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.data.corpus import open_corpus
from ifguide.evaluation.relearning import toxic_text_loss
from ifguide.files.artifacts import read_json, write_json
from ifguide.models.loading import TRAINING_RECORD, compute_device, load_model

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    corpus = open_corpus(arguments.held_out)
    points = []
    for name, folder in map(labelled_path, arguments.models):
        record = read_json(Path(folder) / TRAINING_RECORD)
        point = {
            "model": name,
            "flops": training_compute(record, corpus.block_size),
            "toxic_loss": toxic_text_loss(load_model(folder).to(compute_device()), corpus),
            "weights_sha256": record["weights_sha256"],
        }
        log.info("%(model)s: %(flops).3g FLOPs, loss %(toxic_loss).3f", point)
        points.append(point)
    write_json(
        arguments.output,
        {"model": arguments.model_name, "seed": arguments.training_seed, "points": points},
    )


def training_compute(record: dict, block_size: int) -> float:
    """Return the FLOPs of a training on blocks, from its record."""
    training = record["settings"]["training"]
    blocks = record["steps"] * training["batch_size"] * training["accumulation"]
    return float(blocks * block_size * record["flops_per_token"])


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL=DIRECTORY")
    parser.add_argument("--held-out", type=Path, required=True, help="the held-out documents")
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--training-seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
