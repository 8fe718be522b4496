"""How the token ranking changes with the number of blocks that the factors are estimated from.

The factors are estimated again from the first 1/16, 1/8, 1/4 and 1/2 of the sampled blocks, each
part within the next. `loss` scores along the direction of each, on a sample of training blocks, are
compared with those along the direction of all sampled blocks.

settings: {"factors": {"blocks", "labels", "batch_size", ...}, "direction": {"hessian",
"relative_damping", "layers"}, "scores": {"batch_size", "logits_budget_mib"}, "blocks": number of
blocks to score, "share": the highest share of the tokens to compare, null: that of --selection,
"seed": int}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.data.corpus import Corpus, open_corpus
from ifguide.evaluation.ranking_agreement import agreement
from ifguide.files.artifacts import read_json, require_same
from ifguide.files.tables import write_table
from ifguide.files.tensor_files import read_tensors
from ifguide.influence.block_scores import block_scores
from ifguide.influence.direction_files import preconditioned, read_factors, read_query
from ifguide.influence.ekfac import (
    Batch,
    LayerFactors,
    Statistics,
    covariance_sums,
    eigenbases,
    eigenvalue_sums,
    layer_factors,
    merge,
)
from ifguide.influence.factor_blocks import block_batches, sampled_blocks
from ifguide.influence.factor_pass import pass_options
from ifguide.influence.ordered_sums import on_cpu
from ifguide.models.loading import compute_device, load_model, weights_sha256
from ifguide.models.tracked_layers import tracked_layers
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)

DIVISORS = (16, 8, 4, 2)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    share = settings["share"]
    if arguments.selection:
        share = read_json(arguments.selection)["selected_share"]
    weights = weights_sha256(arguments.model)
    corpus = open_corpus(arguments.corpus)
    model = load_model(arguments.model).to(compute_device())
    layers, _ = tracked_layers(model)
    query, _ = read_query(arguments.toxic, arguments.safe, weights)
    _, metadata = read_tensors(arguments.factors)
    require_same("weights", weights, metadata["weights_sha256"], arguments.factors)
    seed = settings["seed"]
    blocks = sampled_blocks(
        len(corpus.tokens), settings["blocks"], derive_seed(seed, "agreement blocks")
    )

    def scores(factors: dict[str, LayerFactors]) -> np.ndarray:
        direction = preconditioned(query, layers, factors, settings["direction"])
        return block_scores(model, direction, corpus, blocks, settings["scores"])

    sample = sampled_blocks(len(corpus.tokens), settings["factors"]["blocks"], seed)
    reference = scores(read_factors(arguments.factors))
    rows = []
    for used, factors in nested_factors(model, layers, corpus, sample, settings["factors"], seed):
        found = agreement(scores(factors), reference, share)
        rows.append({"blocks": used, **found})
        log.info("%s", rows[-1])
    rows.append({"blocks": len(sample), **agreement(reference, reference, share)})
    write_table(arguments.output, pd.DataFrame(rows))


def nested_factors(
    model, layers, corpus: Corpus, sample: np.ndarray, settings: dict, seed: int
) -> Iterator[tuple[int, dict[str, LayerFactors]]]:
    """Yield the number of blocks and the factors of each part of the sample, smallest first.

    A part holds the one before, so its covariances take only the blocks that are new.
    """

    def batches(blocks: np.ndarray) -> Iterator[Batch]:
        return block_batches(
            corpus,
            np.sort(blocks),
            settings["batch_size"],
            model.device,
            positions=settings["positions"],
            seed=seed,
        )

    options = pass_options(settings, seed)
    covariances: list[Statistics] = []
    before = 0
    for divisor in DIVISORS:
        used = len(sample) // divisor
        if used <= before:
            continue
        sums = covariance_sums(model, layers, batches(sample[before:used]), **options)
        covariances.append(on_cpu(sums))
        bases = eigenbases(merge(covariances))
        for basis in bases.values():
            basis.activation, basis.gradient = basis.activation.float(), basis.gradient.float()
        sums = eigenvalue_sums(model, layers, bases, batches(sample[:used]), **options)
        yield used, layer_factors(bases, on_cpu(sums))
        before = used


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--factors", type=Path, required=True)
    parser.add_argument("--toxic", type=Path, required=True)
    parser.add_argument("--safe", type=Path)
    parser.add_argument("--selection", type=Path, help="record of a selection")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
