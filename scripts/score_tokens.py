"""Token scores of one shard of the corpus; a job that was interrupted goes on where it stopped.

settings: {"attribution": "loss" or "position", "scores": {"route", "precision", "relative_step",
"tolerance", "check_blocks", "batch_size", "logits_budget_mib", "blocks"}, "seed": int}. With
"blocks", the scores of blocks outside that sample are NaN.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ifguide.data.corpus import BLOCKS_PER_GROUP, Corpus, open_corpus
from ifguide.errors import InputError
from ifguide.files.artifacts import require_same, write_json
from ifguide.files.partial_array import PartialArray
from ifguide.files.tensor_files import read_tensors
from ifguide.files.tensor_metadata import TENSORS
from ifguide.influence.factor_blocks import sampled_blocks
from ifguide.influence.query_direction import Direction
from ifguide.influence.token_scores import (
    Scorer,
    backward_scorer,
    forward_mode_scorer,
    position_scorer,
    relative_error,
    two_forward_scorer,
)
from ifguide.models.loading import compute_device, load_model, verified_weights_sha256
from ifguide.models.precision import matrix_products
from ifguide.models.tracked_layers import tracked_layers
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)

SAVES = 64


def main(arguments: Namespace) -> None:
    settings = arguments.settings["scores"]
    corpus = open_corpus(arguments.corpus, arguments.shard)
    first_block = corpus.meta["shards"][arguments.shard]["first_block"]
    weights = verified_weights_sha256(arguments.model)
    direction, metadata = read_tensors(arguments.direction)
    require_same("weights", weights, metadata["weights_sha256"], arguments.direction)
    if "factor_tokens_sha256" in metadata:
        tokens = metadata["factor_tokens_sha256"]
        require_same("tokens", corpus.content_sha256, tokens, arguments.direction)
    device = compute_device()
    source = {
        "tokens_sha256": corpus.content_sha256,
        "weights_sha256": weights,
        "direction_sha256": metadata[TENSORS],
        "settings": arguments.settings,
    }
    rows = len(corpus.tokens)
    made_by = {"first_block": first_block, "torch": torch.__version__, "device": str(device)}
    scores = PartialArray(arguments.output, (rows, corpus.block_size), {**source, **made_by})
    model = load_model(arguments.model).to(device)
    direction = {name: tensor.to(device) for name, tensor in direction.items()}
    score, error = scorer(model, direction, arguments.settings, corpus)

    # Which rows are finished is counted among those that are scored.
    sample = scored_rows(corpus, first_block, settings["blocks"], arguments.settings["seed"])
    batch_size = settings["batch_size"]
    # A record lists all that was saved: few of them, lest a long shard costs more a block.
    between_saves = max(BLOCKS_PER_GROUP, len(sample) // SAVES)
    if scores.finished:
        log.info("going on at block %d of %d", scores.finished, len(sample))
    for start in tqdm(range(scores.finished, len(sample), batch_size), mininterval=10):
        batch = sample[start : start + batch_size]
        tokens = block_tokens(corpus, batch).to(device)
        valid = np.stack([corpus.valid(first_block + row) for row in batch])
        found = score(tokens, torch.from_numpy(valid).to(device)).cpu().numpy()
        if not np.isfinite(found).all():
            scores.discard()
            raise InputError(
                f"{arguments.direction}: some scores are not finite; raise "
                "influence.directions.*.relative_damping, or give a proxy whose training is stable"
            )
        scores.values[batch] = found * valid
        stop = start + len(batch)
        if stop - scores.finished >= between_saves and stop < len(sample):
            scores.save(stop)
    scores.values[np.setdiff1d(np.arange(rows), sample)] = np.nan
    scores.publish()
    write_json(arguments.output.with_suffix(".json"), {**source, "relative_error": error})


def scored_rows(corpus: Corpus, first_block: int, blocks: int | None, seed: int) -> np.ndarray:
    """Return the rows of this shard to score, ascending: all, or those in the corpus's sample."""
    sample = sampled_blocks(corpus.meta["blocks"], blocks, derive_seed(seed, "scored blocks"))
    rows = np.sort(sample) - first_block
    return rows[(rows >= 0) & (rows < len(corpus.tokens))]


def block_tokens(corpus: Corpus, rows) -> torch.Tensor:
    return torch.from_numpy(corpus.tokens.rows(rows).astype(np.int64))


def scorer(
    model: PreTrainedModel, direction: Direction, settings: dict, corpus: Corpus
) -> tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], float | None]:
    """Return (tokens, valid) -> scores, and the measured error of scores that are not exact."""
    budget = settings["scores"]["logits_budget_mib"] * 2**20
    if settings["attribution"] == "position":
        layers, _ = tracked_layers(model)
        return position_scorer(model, layers, direction, logits_budget_bytes=budget), None
    # A step is measured against the weights that it moves: layers left out must not lengthen it.
    direction = {name: tensor for name, tensor in direction.items() if tensor.any()} or direction
    exact = [] if is_exact(settings["scores"]) else exact_scores(model, direction, settings, corpus)
    score = loss_scorer(model, direction, settings["scores"])
    error = error_on_blocks(score, exact, settings["scores"]) if exact else None
    return lambda tokens, valid: score(tokens), error


def is_exact(settings: dict) -> bool:
    return settings["route"] != "two_forward" and settings["precision"] == "float32"


def loss_scorer(model: PreTrainedModel, direction: Direction, settings: dict) -> Scorer:
    """Return the scorer of the configured route, its products in the configured precision."""
    route = {
        "two_forward": partial(two_forward_scorer, relative_step=settings["relative_step"]),
        "forward_mode": forward_mode_scorer,
        "backward": backward_scorer,
    }[settings["route"]]
    score = route(model, direction, logits_budget_bytes=settings["logits_budget_mib"] * 2**20)

    def in_precision(tokens: torch.Tensor) -> torch.Tensor:
        with matrix_products(settings["precision"], model.device):
            return score(tokens)

    return in_precision


def exact_scores(
    model: PreTrainedModel, direction: Direction, settings: dict, corpus: Corpus
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return a few blocks of the shard, drawn by seed, each with its exact scores.

    Block by block: forward mode takes the memory of more blocks than it is asked for.
    """
    sample = np.random.default_rng(derive_seed(settings["seed"], "checked blocks"))
    checked = sample.permutation(len(corpus.tokens))[: settings["scores"]["check_blocks"]]
    exact = {**settings["scores"], "route": "forward_mode", "precision": "float32"}
    score = loss_scorer(model, direction, exact)
    blocks = [block_tokens(corpus, [row]).to(model.device) for row in checked]
    return [(block, score(block)) for block in blocks]


def error_on_blocks(
    score: Scorer, exact: list[tuple[torch.Tensor, torch.Tensor]], settings: dict
) -> float:
    """Return the scores' error relative to exact ones; refuse it above the tolerance."""
    found = torch.cat([score(block) for block, _ in exact])
    error = relative_error(found, torch.cat([scores for _, scores in exact]))
    log.info("relative error of the scores on %d blocks: %.2e", len(exact), error)
    # Not a number is above any tolerance.
    if not error <= settings["tolerance"]:
        advice = []
        if settings["route"] == "two_forward":
            step = settings["relative_step"]
            advice.append(f"try a relative_step ten times larger or smaller than {step:g}")
            advice.append("influence.scores.route: forward_mode")
        if settings["precision"] != "float32":
            advice.append("influence.scores.precision: float32")
        raise InputError(
            f"config key influence.scores: by route {settings['route']} in {settings['precision']} "
            f"the scores are off by {error:.1e} (tolerance {settings['tolerance']:g}); "
            + ", or ".join(advice)
        )
    return error


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--direction", type=Path, required=True)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser, resumes=True)
