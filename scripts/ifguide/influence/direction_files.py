"""What a query direction is made of, as files hold it: gradients, factors, and their product."""

from collections.abc import Iterable
from pathlib import Path

from ifguide.files.artifacts import require_same
from ifguide.files.tensor_files import read_tensors
from ifguide.influence.ekfac import LayerFactors
from ifguide.influence.factor_pass import read_bases
from ifguide.influence.query_direction import Direction, difference, precondition, restricted
from ifguide.models.tracked_layers import TrackedLayer

POWERS = {"ekfac": 1.0, "ekfac_square_root": 0.5}


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
        only=settings["layers"],
    )
    return restricted(direction, settings["layers"])
