"""Token scores of one shard of the corpus.

settings: {"attribution": "loss" or "position", "scores": {"route", "relative_step", "tolerance",
"check_blocks", "batch_size", "logits_budget_mib", "blocks"}, "seed": int}. With "blocks", the
scores of blocks outside that sample are NaN.
"""

import logging
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from command_line import argument_parser, run
from ifguide.artifacts import require_same, write_array, write_json
from ifguide.corpus import Corpus, open_corpus
from ifguide.errors import InputError
from ifguide.factor_blocks import sampled_blocks
from ifguide.models import compute_device, load_model, verified_weights_sha256
from ifguide.seeds import derive_seed
from ifguide.tensor_files import CHECKSUM, read_tensors
from ifguide.token_scores import (
    Scorer,
    backward_scorer,
    forward_mode_scorer,
    position_scorer,
    relative_error,
    two_forward_scorer,
)
from ifguide.tracked_layers import tracked_layers

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings["scores"]
    corpus = open_corpus(arguments.corpus, arguments.shard)
    first_block = corpus.meta["shards"][arguments.shard]["first_block"]
    weights = verified_weights_sha256(arguments.model)
    direction, metadata = read_tensors(arguments.direction)
    require_same("weights", weights, metadata["weights_sha256"], arguments.direction)
    device = compute_device()
    model = load_model(arguments.model).to(device)
    direction = {name: tensor.to(device) for name, tensor in direction.items()}
    attribution = arguments.settings["attribution"]
    error = None
    if attribution == "position":
        layers, _ = tracked_layers(model)
        score = position_scorer(model, layers, direction)
    else:
        score, error = loss_scorer(model, direction, settings, corpus, arguments.settings["seed"])

    rows = scored_rows(corpus, first_block, settings["blocks"], arguments.settings["seed"])
    scores = np.full((len(corpus.tokens), corpus.block_size), np.nan, np.float32)
    for start in tqdm(range(0, len(rows), settings["batch_size"]), mininterval=10):
        batch = rows[start : start + settings["batch_size"]]
        tokens = block_tokens(corpus, batch).to(device)
        valid = np.stack([corpus.valid(first_block + row) for row in batch])
        if attribution == "position":
            found = score(tokens, torch.from_numpy(valid).to(device))
        else:
            found = score(tokens)
        scores[batch] = found.cpu().numpy() * valid
    if not np.isfinite(scores[rows]).all():
        raise InputError(
            f"{arguments.direction}: some scores are not finite; retrain the model at a lower "
            "learning rate or raise influence.directions.*.relative_damping"
        )
    checksum = write_array(arguments.output, scores)
    write_json(
        arguments.output.with_suffix(".json"),
        {
            "scores_sha256": checksum,
            "tokens_sha256": corpus.content_sha256,
            "weights_sha256": weights,
            "direction_sha256": metadata[CHECKSUM],
            "relative_error": error,
            "settings": arguments.settings,
        },
    )


def scored_rows(corpus: Corpus, first_block: int, blocks: int | None, seed: int) -> np.ndarray:
    """Return the rows of this shard to score, ascending: all, or those in the corpus's sample."""
    sample = sampled_blocks(corpus.meta["blocks"], blocks, derive_seed(seed, "scored blocks"))
    rows = np.sort(sample) - first_block
    return rows[(rows >= 0) & (rows < len(corpus.tokens))]


def block_tokens(corpus: Corpus, rows) -> torch.Tensor:
    return torch.from_numpy(corpus.tokens.rows(rows).astype(np.int64))


def loss_scorer(
    model, direction: dict, settings: dict, corpus: Corpus, seed: int
) -> tuple[Scorer, float | None]:
    """Return the scorer of the configured route, and its error measured on a few blocks."""
    budget = settings["logits_budget_mib"] * 2**20
    # A step is measured against the weights that it moves: layers left out must not lengthen it.
    direction = {name: tensor for name, tensor in direction.items() if tensor.any()} or direction
    if settings["route"] == "forward_mode":
        return forward_mode_scorer(model, direction, logits_budget_bytes=budget), None
    if settings["route"] == "backward":
        return backward_scorer(model, direction, logits_budget_bytes=budget), None
    count = min(settings["check_blocks"], len(corpus.tokens))
    sample = np.random.default_rng(derive_seed(seed, "checked blocks"))
    checked = block_tokens(corpus, sample.permutation(len(corpus.tokens))[:count])
    checked = checked.to(model.device)
    exact = None
    if count:
        exact = forward_mode_scorer(model, direction, logits_budget_bytes=budget)(checked)
    score = two_forward_scorer(
        model,
        direction,
        relative_step=settings["relative_step"],
        logits_budget_bytes=budget,
    )
    if exact is None:
        return score, None
    error = relative_error(score(checked), exact)
    log.info("relative error of the two-forward scores on %d blocks: %.2e", count, error)
    if error > settings["tolerance"]:
        raise InputError(
            f"config key influence.scores.relative_step: at {settings['relative_step']:g} the "
            f"scores are off by {error:.1e} (tolerance {settings['tolerance']:g}); try a step ten "
            "times larger or smaller, or influence.scores.route: forward_mode"
        )
    return score, error


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--direction", type=Path, required=True)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
