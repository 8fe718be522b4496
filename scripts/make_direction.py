"""The query direction v = H^(-power) (toxic gradient - safe gradient).

settings: one entry of influence.directions: {"hessian", "relative_damping", "layers"}.
"""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from ifguide.files.artifacts import canonical_json, require_same
from ifguide.files.tensor_files import read_tensors, tensors_sha256, write_tensors
from ifguide.files.tensor_metadata import TENSORS
from ifguide.influence.ekfac import LayerFactors
from ifguide.influence.factor_pass import read_bases
from ifguide.influence.query_direction import Direction, difference, precondition, restricted
from ifguide.models.loading import load_model, verified_weights_sha256
from ifguide.models.tracked_layers import TrackedLayer, tracked_layers
from ifguide.workflow.command_line import argument_parser, run

POWERS = {"ekfac": 1.0, "ekfac_square_root": 0.5}


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


def read_query(toxic: Path, safe: Path | None, weights: str) -> tuple[Direction, dict[str, str]]:
    """Return the query q and what it was made from; refuse gradients of another model."""
    gradients, record = [], {"weights_sha256": weights}
    for name, path in (("toxic", toxic), ("safe", safe)):
        if path:
            gradient, metadata = read_tensors(path)
            require_same("weights", weights, metadata["weights_sha256"], path)
            gradients.append(gradient)
            record[f"{name}_records"] = metadata["records"]
            record[f"{name}_queries_sha256"] = metadata["queries_sha256"]
            record["untracked"] = metadata["untracked"]
    return difference(gradients[0], gradients[1] if safe else None), record


def read_factors(path: Path) -> dict[str, LayerFactors]:
    tensors, _ = read_tensors(path)
    bases, _ = read_bases(path)
    return {
        name: LayerFactors(basis, tensors[f"{name}.eigenvalues"]) for name, basis in bases.items()
    }


def preconditioned(
    query: Direction,
    layers: Iterable[TrackedLayer],
    factors: dict[str, LayerFactors],
    settings: dict,
) -> Direction:
    """Return the direction of a query under factors, by an entry of influence.directions."""
    direction = precondition(
        query,
        layers,
        factors,
        relative_damping=settings["relative_damping"],
        power=POWERS[settings["hessian"]],
    )
    return restricted(direction, settings["layers"])


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--toxic", type=Path, required=True)
    parser.add_argument("--safe", type=Path)
    parser.add_argument("--factors", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
