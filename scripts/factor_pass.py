"""What both passes of the factor stage share: their inputs, and the files between the steps."""

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ifguide.artifacts import canonical_json, require_same, text_sha256
from ifguide.corpus import open_corpus
from ifguide.ekfac import Batch, Eigenbasis
from ifguide.factor_blocks import block_batches, sampled_blocks, shard_of_sample
from ifguide.models import compute_device, load_model, require_trained, weights_sha256
from ifguide.seeds import derive_seed
from ifguide.tensor_files import read_tensors, write_tensors
from ifguide.tracked_layers import TrackedLayer, tracked_layers

log = logging.getLogger(__name__)


@dataclass
class FactorPass:
    """One shard of a pass: model, tracked layers, batches, and the options of both passes."""

    model: PreTrainedModel
    layers: Sequence[TrackedLayer]
    batches: Iterator[Batch]
    options: dict
    metadata: dict[str, str]

    def write(self, path: Path, sums: dict[str, torch.Tensor]) -> None:
        write_tensors(path, sums, self.metadata)


def add_pass_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--shard", type=int, required=True)


def pass_options(factors: dict, seed: int) -> dict:
    """Return what both passes are given by name, by the section influence.factors."""
    return {
        "labels": factors["labels"],
        "seed_of_block": lambda index: derive_seed(seed, "sampled labels", index),
        "logits_budget_bytes": factors["logits_budget_mib"] * 2**20,
    }


def open_pass(arguments: Namespace) -> FactorPass:
    settings, seed = arguments.settings["factors"], arguments.settings["seed"]
    if not settings["allow_untrained"]:
        require_trained(arguments.model)
    model = load_model(arguments.model).to(compute_device())
    corpus = open_corpus(arguments.corpus)
    layers, untracked = tracked_layers(model)
    blocks = sampled_blocks(len(corpus.tokens), settings["blocks"], seed)
    shard = shard_of_sample(blocks, arguments.shard, settings["shards"])
    log.info("%d of %d sampled blocks, %d tracked layers", len(shard), len(blocks), len(layers))
    batches = block_batches(
        corpus,
        shard,
        settings["batch_size"],
        model.device,
        positions=settings["positions"],
        seed=seed,
    )
    total = -(-len(shard) // settings["batch_size"])
    return FactorPass(
        model,
        layers,
        iter(tqdm(batches, total=total, mininterval=10)),
        pass_options(settings, seed),
        {
            "weights_sha256": weights_sha256(arguments.model),
            "tokens_sha256": corpus.content_sha256,
            "settings_sha256": text_sha256(canonical_json(arguments.settings)),
            "blocks": str(len(blocks)),
            "positions": str(settings["positions"]),
            "labels": settings["labels"],
            "seed": str(seed),
            "dtype": str(model.dtype).removeprefix("torch."),
            "untracked": ", ".join(untracked),
        },
    )


def require_same_source(metadata: dict[str, str], other: dict[str, str], path: Path) -> None:
    """Refuse a file of the factor stage made from other weights, tokens or settings."""
    for name in ("weights", "tokens", "settings"):
        require_same(name, metadata[f"{name}_sha256"], other[f"{name}_sha256"], path)


def basis_tensors(bases: dict[str, Eigenbasis]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, basis in bases.items():
        tensors[f"{name}.activation_eigenvectors"] = basis.activation
        tensors[f"{name}.gradient_eigenvectors"] = basis.gradient
    return tensors


def read_bases(path: Path) -> tuple[dict[str, Eigenbasis], dict[str, str]]:
    tensors, metadata = read_tensors(path)
    names = [
        name.removesuffix(".activation_eigenvectors")
        for name in tensors
        if name.endswith(".activation_eigenvectors")
    ]
    bases = {
        name: Eigenbasis(
            tensors[f"{name}.activation_eigenvectors"], tensors[f"{name}.gradient_eigenvectors"]
        )
        for name in names
    }
    return bases, metadata
