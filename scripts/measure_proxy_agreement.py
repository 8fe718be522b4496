"""How far the token scores of the proxy agree with those of the uncensored target model.

Both are exact `loss` scores of the same sampled blocks, along the same query direction of each.

settings: {"blocks": number of blocks to score, "share": what the selection takes, null:
that of --selection, "scores": {"batch_size", "logits_budget_mib"}, "seed": int, "resamples": int,
"level": float}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

import numpy as np

from ifguide.data.corpus import Corpus, open_corpus
from ifguide.evaluation.ranking_agreement import agreement_intervals, rank_density
from ifguide.files.artifacts import read_json, require_same, write_json
from ifguide.files.tensor_files import read_tensors
from ifguide.influence.block_scores import block_scores
from ifguide.influence.factor_blocks import sampled_blocks
from ifguide.models.loading import compute_device, load_model, weights_sha256
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    share = settings["share"]
    if arguments.selection:
        share = read_json(arguments.selection)["selected_share"]
    corpus = open_corpus(arguments.corpus)
    blocks = np.sort(
        sampled_blocks(
            len(corpus.tokens),
            settings["blocks"],
            derive_seed(settings["seed"], "agreement blocks"),
        )
    )
    proxy, target = (
        scores_of(folder, direction, corpus, blocks, settings["scores"])
        for folder, direction in (
            (arguments.proxy, arguments.proxy_direction),
            (arguments.target, arguments.target_direction),
        )
    )
    # Labels of each block: column 0 has none, padding is none.
    owners = np.concatenate(
        [np.full(int(corpus.valid(int(block)).sum()) - 1, block) for block in blocks]
    )
    shares = sorted({*SHARES, share})
    found = agreement_intervals(
        proxy,
        target,
        owners,
        [share for share in shares if share * len(proxy) >= 1],
        resamples=settings["resamples"],
        seed=derive_seed(settings["seed"], "intervals", "proxy agreement"),
        level=settings["level"],
    )
    log.info("%s", found)
    write_json(
        arguments.output,
        {
            "proxy": arguments.proxy_name,
            "target": arguments.target_name,
            "blocks": len(blocks),
            "tokens": len(proxy),
            **found,
            "density": rank_density(proxy, target).tolist(),
        },
    )


def scores_of(
    folder: Path, direction: Path, corpus: Corpus, blocks: np.ndarray, settings: dict
) -> np.ndarray:
    """Return a model's scores of the blocks' labels, flat; refuse another model's direction."""
    tensors, metadata = read_tensors(direction)
    require_same("weights", weights_sha256(folder), metadata["weights_sha256"], direction)
    model = load_model(folder).to(compute_device())
    return block_scores(model, tensors, corpus, blocks, settings)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    for side in ("proxy", "target"):
        parser.add_argument(f"--{side}", type=Path, required=True, help="model directory")
        parser.add_argument(f"--{side}-name", required=True)
        parser.add_argument(f"--{side}-direction", type=Path, required=True)
    parser.add_argument("--selection", type=Path, help="record of a selection")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
