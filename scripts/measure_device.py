"""Measure what `snakemake plan` assumes of this machine, in about a minute.

    python scripts/measure_device.py --output device.json
    python scripts/measure_device.py --output device.json --architecture pythia-160m

Measured, on the GPU where there is one and on the threads of this process elsewhere: the speed of
large matrix products, which stands for the peak; the share of it that training, gradients, scores
and generation take, on a random model of a published architecture; and the start of a process.
Name the file in the config: `plan: {calibration: device.json, devices: [calibrated]}`.
"""

from ifguide.workflow.command_line import argument_parser, run

import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ifguide.evaluation.generation import Sampling, generate_ids
from ifguide.files.artifacts import write_json
from ifguide.influence.ekfac import Batch, covariance_sums
from ifguide.influence.token_scores import two_forward_scorer
from ifguide.models import costs
from ifguide.models.devices import GIB, GPU_UTILISATION
from ifguide.models.loading import build_model, compute_device
from ifguide.models.model_shapes import ModelShape, model_shape
from ifguide.models.objective import suppression_loss
from ifguide.models.precision import matrix_products
from ifguide.models.tracked_layers import tracked_layers

VOCABULARY = 4096
LOGITS_BUDGET = 2**26
PRODUCT_FLOPS = {"cpu": 4e9, "cuda": 4e12}  # of one product, about
REPETITIONS = 3
START = "import torch, transformers, datasets, accelerate"


def main(arguments: Namespace) -> None:
    device = compute_device()
    model = build_model(
        {"name": arguments.architecture},
        vocabulary_size=VOCABULARY,
        block_size=arguments.block_size,
        end_of_text=0,
        seed=0,
    ).to(device)
    peaks = {
        precision: product_speed(device, precision) for precision in ("float32", "tf32", "bfloat16")
    }
    random = np.random.default_rng(0)
    shape = (arguments.blocks, arguments.block_size)
    tokens = torch.from_numpy(random.integers(1, VOCABULARY, shape)).to(device)
    reached = {kind: flops / seconds(work) for kind, (work, flops) in works(model, tokens).items()}
    # Training is measured in float32; the share is taken for either precision.
    utilisation = {kind: min(1.0, speed / peaks["float32"]) for kind, speed in reached.items()}
    write_json(
        arguments.output,
        {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "architecture": arguments.architecture,
            "tokens": tokens.numel(),
            **peaks,
            "memory_gib": (torch.cuda.mem_get_info()[1] / GIB if device.type == "cuda" else None),
            # Classifiers read batches of short texts, as no probe here does.
            "utilisation": utilisation
            | {"classification": min(utilisation["scores"], GPU_UTILISATION["classification"])},
            "start_seconds": seconds(
                lambda: subprocess.run([sys.executable, "-c", START], check=True), repetitions=1
            ),
        },
        publish=os.replace,
    )


def seconds(work: Callable[[], object], repetitions: int = REPETITIONS) -> float:
    """Return the shortest of a few times, after one that is not counted."""
    found = []
    for _ in range(repetitions + 1):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found[1:])


def product_speed(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of a product of two large square matrices."""
    width = round((PRODUCT_FLOPS[device.type] / 2) ** (1 / 3))
    matrix = torch.randn(width, width, device=device)
    with matrix_products(precision, device):
        return 2 * width**3 / seconds(lambda: matrix @ matrix)


def works(
    model: PreTrainedModel, tokens: torch.Tensor
) -> dict[str, tuple[Callable[[], object], float]]:
    """Return each kind of work on blocks (blocks, T), and the FLOPs that it is reckoned at."""
    shape: ModelShape = model_shape(model)
    length, count = tokens.shape[1], tokens.numel()
    layers, _ = tracked_layers(model)
    valid = torch.ones_like(tokens, dtype=torch.bool)
    batch = Batch(tokens, valid, range(len(tokens)))
    direction = {
        name: torch.randn_like(parameter)
        for layer in layers
        for name, parameter in layer.named_parameters()
    }
    sampling = Sampling(continuations=8, max_new_tokens=8)
    prompts = [row[:16].cpu().numpy() for row in tokens]

    def train() -> None:
        model.requires_grad_(True)
        logits = model(input_ids=tokens, use_cache=False).logits
        total, _ = suppression_loss(logits, tokens, ~valid, objective="exclusion", strength=0.0)
        total.backward()
        model.zero_grad(set_to_none=True)

    def generate() -> None:
        # No token ends a text: every row is as long as it can be.
        found = generate_ids(model, prompts, [0] * len(prompts), sampling, end_of_text=-1)
        for _ in found:
            pass

    score = None

    def score_tokens() -> None:
        nonlocal score
        if score is None:
            score = two_forward_scorer(
                model, direction, relative_step=1e-3, logits_budget_bytes=LOGITS_BUDGET
            )
        score(tokens)

    # The scorer uses the model up, so it comes last.
    return {
        "training": (train, count * costs.training_flops(shape, length)),
        "gradients": (
            lambda: covariance_sums(
                model, layers, [batch], labels="true", logits_budget_bytes=LOGITS_BUDGET
            ),
            count * costs.covariance_flops(shape, length),
        ),
        "generation": (
            generate,
            costs.generation_flops(
                shape, len(prompts), 16, sampling.continuations, sampling.max_new_tokens
            ),
        ),
        "scores": (score_tokens, count * costs.score_flops(shape, length, "two_forward")),
    }


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--architecture", default="pythia-14m", help="a published name")
    parser.add_argument("--block-size", type=int, default=128, help="tokens of a block")
    parser.add_argument("--blocks", type=int, default=8)
    run(main, parser)
