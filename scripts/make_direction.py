"""The query direction v = H^(-power) (toxic gradient - safe gradient).

settings: one entry of influence.directions: {"hessian", "relative_damping", …}.
"""

from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from factor_pass import read_bases
from ifguide.artifacts import canonical_json, require_same
from ifguide.ekfac import LayerFactors
from ifguide.models import load_model, weights_sha256
from ifguide.query_direction import difference, precondition, restricted
from ifguide.tensor_files import read_tensors, write_tensors
from ifguide.tracked_layers import tracked_layers

POWERS = {"ekfac": 1.0, "ekfac_square_root": 0.5}


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    weights = weights_sha256(arguments.model)
    toxic, metadata = read_tensors(arguments.toxic)
    require_same("weights", weights, metadata["weights_sha256"], arguments.toxic)
    safe = None
    record = {"weights_sha256": weights, "toxic_records": metadata["records"]}
    if arguments.safe:
        safe, metadata = read_tensors(arguments.safe)
        require_same("weights", weights, metadata["weights_sha256"], arguments.safe)
        record["safe_records"] = metadata["records"]
    direction = difference(toxic, safe)
    if settings["hessian"] != "identity":
        tensors, metadata = read_tensors(arguments.factors)
        require_same("weights", weights, metadata["weights_sha256"], arguments.factors)
        bases, _ = read_bases(arguments.factors)
        factors = {
            name: LayerFactors(basis, tensors[f"{name}.eigenvalues"])
            for name, basis in bases.items()
        }
        layers, _ = tracked_layers(load_model(arguments.model))
        direction = precondition(
            direction,
            layers,
            factors,
            relative_damping=settings["relative_damping"],
            power=POWERS[settings["hessian"]],
        )
        record["factor_tokens_sha256"] = metadata["tokens_sha256"]
    direction = restricted(direction, settings["layers"])
    record |= {"settings": canonical_json(settings), "mean_over": "records"}
    write_tensors(arguments.output, direction, record)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--toxic", type=Path, required=True)
    parser.add_argument("--safe", type=Path)
    parser.add_argument("--factors", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
