"""The query direction v = H^(-power) (toxic gradient - safe gradient).

settings: one entry of influence.directions: {"hessian", "relative_damping", "layers"}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.files.artifacts import canonical_json, require_same
from ifguide.files.tensor_files import read_tensors, tensors_sha256, write_tensors
from ifguide.files.tensor_metadata import TENSORS
from ifguide.influence.direction_files import preconditioned, read_factors, read_query
from ifguide.influence.query_direction import restricted
from ifguide.models.loading import load_model, verified_weights_sha256
from ifguide.models.tracked_layers import tracked_layers


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    weights = verified_weights_sha256(arguments.model)
    direction, record = read_query(arguments.toxic, arguments.safe, weights)
    if settings["hessian"] == "identity":
        direction = restricted(direction, settings["layers"])
    else:
        _, metadata = read_tensors(arguments.factors)
        require_same("weights", weights, metadata["weights_sha256"], arguments.factors)
        layers, _ = tracked_layers(load_model(arguments.model))
        direction = preconditioned(direction, layers, read_factors(arguments.factors), settings)
        record["factor_tokens_sha256"] = metadata["tokens_sha256"]
    record |= {"settings": canonical_json(settings), "mean_over": "records"}
    record[TENSORS] = tensors_sha256(direction)
    write_tensors(arguments.output, direction, record)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--toxic", type=Path, required=True)
    parser.add_argument("--safe", type=Path)
    parser.add_argument("--factors", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
