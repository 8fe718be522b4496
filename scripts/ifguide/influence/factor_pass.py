"""What both passes of the factor stage share: their inputs, and the files between the steps."""

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ifguide.data.corpus import Corpus, open_corpus
from ifguide.errors import InputError
from ifguide.files.artifacts import canonical_json, require_same, text_sha256
from ifguide.files.checksums import remedy
from ifguide.files.tensor_files import read_tensors, write_tensors
from ifguide.influence.ekfac import Batch, Eigenbasis, Statistics
from ifguide.influence.factor_blocks import (
    block_batches,
    block_groups,
    groups_of_shard,
    sampled_blocks,
)
from ifguide.influence.ordered_sums import PartialSum, add_neighbours, on_cpu, total
from ifguide.models.loading import compute_device, load_model, require_trained, weights_sha256
from ifguide.models.tracked_layers import TrackedLayer, tracked_layers
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)


@dataclass
class FactorPass:
    """One shard of a pass: model, tracked layers, groups of blocks, the options of both passes."""

    model: PreTrainedModel
    layers: Sequence[TrackedLayer]
    corpus: Corpus
    groups: dict[int, np.ndarray]
    settings: dict
    seed: int
    metadata: dict[str, str]

    @property
    def options(self) -> dict:
        return pass_options(self.settings, self.seed)

    def write_sums(self, path: Path, sums_of: Callable[[Iterator[Batch]], Statistics]) -> None:
        """Write the sums over the groups of this shard, as far as they can be added."""
        groups = tqdm(self.groups.items(), mininterval=10, unit="group")
        partial_sums = add_neighbours(
            PartialSum(0, index, on_cpu(sums_of(self._batches(blocks)))) for index, blocks in groups
        )
        tensors = {
            f"{partial_sum.level}.{partial_sum.index}/{name}": tensor
            for partial_sum in partial_sums
            for name, tensor in partial_sum.sums.items()
        }
        write_tensors(path, tensors, self.metadata)

    def _batches(self, blocks: np.ndarray) -> Iterator[Batch]:
        return block_batches(
            self.corpus,
            blocks,
            self.settings["batch_size"],
            self.model.device,
            positions=self.settings["positions"],
            seed=self.seed,
        )


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
    groups = block_groups(blocks, settings["batch_size"])
    own = {
        index: groups[index]
        for index in groups_of_shard(len(groups), arguments.shard, settings["shards"])
    }
    log.info(
        "%d of %d sampled blocks, %d tracked layers",
        sum(map(len, own.values())),
        len(blocks),
        len(layers),
    )
    # The number of jobs changes no sum, and so no file that is made of all of them.
    science = {
        **arguments.settings,
        "factors": {key: value for key, value in settings.items() if key != "shards"},
    }
    return FactorPass(
        model,
        layers,
        corpus,
        own,
        settings,
        seed,
        {
            "weights_sha256": weights_sha256(arguments.model),
            "tokens_sha256": corpus.content_sha256,
            "settings_sha256": text_sha256(canonical_json(science)),
            "blocks": str(len(blocks)),
            "groups": str(len(groups)),
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


def read_total(
    paths: Sequence[Path], belongs_to: dict[str, str] | None = None
) -> tuple[Statistics, dict[str, str]]:
    """Add the sums of all shards of a pass, read one after the other; return their metadata too.

    belongs_to: metadata of what they have to belong to; without, of the first shard.
    """
    source = dict(belongs_to or {})

    def partial_sums() -> Iterator[PartialSum]:
        for path in paths:
            found, metadata = _read_partial_sums(path)
            source.update(source or metadata)
            require_same_source(source, metadata, path)
            yield from found

    try:
        sums, groups = total(partial_sums())
    except ValueError as error:
        advice = remedy(paths[0], "its files")
        raise InputError(f"{paths[0].parent}: {error}; {advice}") from None
    if str(groups) != source["groups"]:
        raise InputError(
            f"{paths[0].parent}: sums over {groups} of {source['groups']} groups of blocks; "
            f"{remedy(paths[0], 'its files')}"
        )
    return sums, source


def _read_partial_sums(path: Path) -> tuple[list[PartialSum], dict[str, str]]:
    tensors, metadata = read_tensors(path)
    found: dict[str, Statistics] = {}
    for key, tensor in tensors.items():
        node, name = key.split("/", 1)
        found.setdefault(node, {})[name] = tensor
    partial_sums = [PartialSum(*map(int, node.split(".")), sums) for node, sums in found.items()]
    return sorted(partial_sums, key=lambda partial_sum: partial_sum.first_group), metadata


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
