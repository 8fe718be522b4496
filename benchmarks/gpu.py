"""One run on one GPU: the same numbers as on the CPU, training that resumes, and how fast it is.

    benchmarks/gpu.sh OUTPUT              # on a GPU, in at most 8 minutes; see there
    benchmarks/gpu.sh OUTPUT --small      # a rehearsal on the CPU: its figures say nothing

It needs PyTorch, `transformers`, NumPy and `accelerate`, and of this project what trains and
scores. What there is no time for is left out and named. One `gpu.json` and one `gpu.md` are
written, after every part anew, so that a run that is cut short has what it found.
"""

import argparse
import contextlib
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from ifguide.data.corpus import Corpus, ShardedArray
from ifguide.evaluation.generation import Sampling, generate_ids
from ifguide.models import costs
from ifguide.models.loading import build_model
from ifguide.models.model_shapes import model_shape
from ifguide.models.training import train
from workload import Size, Workload, relative_difference

# Relative differences that are allowed between the CPU and the device, both in float32: sums in
# another order. Two forward passes difference losses, and lose digits.
TOLERANCES = {
    "covariance": 1e-4,
    "forward_mode": 1e-3,
    "two_forward": 2e-2,
    "position": 1e-3,
    "query_direction": 2e-2,
}
# A resumed training against one that was not interrupted: the weights' relative difference.
RESUMED = {"float32": 1e-5, "bfloat16": 1e-2}
SAME_CONTINUATIONS = 0.9
SMALL = Size(2, 32, 2, 257, 32, 4, 2, 2)
CHECKED = Size(4, 256, 4, 4096, 256, 8, 4, 4)
MEASURED = Size(12, 768, 12, 50304, 2048, 16, 4, 4)
ROWS = (
    "training",
    "forward",
    "covariance",
    "eigenvalues",
    "two_forward",
    "forward_mode",
    "position",
)
LOSS_ROUTES = ("two_forward", "forward_mode")
FLOPS: dict[str, Callable] = {
    "training": costs.training_flops,
    "forward": costs.forward_flops,
    **{
        route: lambda shape, length, route=route: costs.score_flops(shape, length, route)
        for route in (*LOSS_ROUTES, "position")
    },
}
TRAINING = {
    **{"epochs": 1, "max_steps": None, "batch_size": 4, "accumulation": 1, "learning_rate": 1e-2},
    **{"schedule": "cosine", "warmup": 0.1, "weight_decay": 0.01, "betas": [0.9, 0.95]},
    **{"epsilon": 1e-8, "clip": 1.0, "gradient_checkpointing": False, "compile": False},
    **{"fsdp": False, "explosion_factor": 100.0, "peak_flops": None, "log_steps": 1},
}


class Run:
    """One device, one clock, and what was found so far."""

    def __init__(self, output: Path, seconds: float, small: bool) -> None:
        self.output, self.small = output, small
        self.started, self.seconds = time.monotonic(), seconds
        self.device = "cuda" if torch.cuda.is_available() and not small else "cpu"
        self.found: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if self.device == "cuda" else platform.machine(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "small": small,
            "checks": [],
            "speeds": [],
            "errors": [],
            "left_out": [],
        }

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note what a part fails of, and write what there is when it ends."""
        try:
            yield
        except Exception as error:  # one part must not take the others' minutes with it
            self.found["left_out"].append(f"{name}: {type(error).__name__}: {error}")
        self.found["seconds"] = round(time.monotonic() - self.started, 1)
        self.write()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def check(self, what: str, found: float, allowed: float, *, at_least: bool = False) -> None:
        passed = found >= allowed if at_least else found <= allowed
        self.found["checks"].append(
            {"what": what, "found": found, "allowed": allowed, "passed": bool(passed)}
        )

    def timed(self, work: Callable[[], object], repetitions: int = 3) -> tuple[float, float]:
        """Return the median seconds of some work, once it is warm, and its peak memory in GiB."""
        work()
        times = []
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(repetitions):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - began)
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else 0.0
        return float(np.median(times)), memory

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def write(self) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.found, indent=2, ensure_ascii=False)
        (self.output / "gpu.json").write_text(text + "\n", encoding="utf-8")
        (self.output / "gpu.md").write_text(as_markdown(self.found), encoding="utf-8")


# --- the same numbers -----------------------------------------------------------------------------


def check_numbers(run: Run) -> None:
    size = SMALL if run.small else CHECKED
    here, there = (
        Workload(size, device=device, precision="fp32", labels="true")
        for device in ("cpu", run.device)
    )
    for row, allowed in TOLERANCES.items():
        for workload in (here, there):
            if row == "query_direction":
                workload.results["eigenvalues"] = workload.eigenvalues()
            workload.results[row] = getattr(workload, row)()
        run.check(f"{row}: CPU and device", _difference(here, there, row), allowed)


def _difference(here: Workload, there: Workload, row: str) -> float:
    one, other = here.results[row], there.results[row]
    if isinstance(one, torch.Tensor):
        return relative_difference(other, one)
    pairs = [(one[name], other[name]) for name in one if isinstance(one[name], torch.Tensor)]
    return max(relative_difference(found, expected) for expected, found in pairs)


# --- training -------------------------------------------------------------------------------------


def counted_corpus(size: Size, blocks: int) -> tuple[Corpus, ShardedArray]:
    """Blocks that count, each from another number: something that a few steps teach."""
    generator = np.random.default_rng(0)
    shape = (blocks, size.length)
    starts = generator.integers(0, 100, (blocks, 1))
    tokens = (1 + (starts + np.arange(size.length)) % 100).astype(np.uint16)
    meta = {"block_size": size.length, "blocks": blocks, "padding": 0}
    mask = ShardedArray([generator.random(shape) < 0.05])
    return Corpus(Path(), meta, ShardedArray([tokens]), None, None), mask


def architecture(size: Size) -> dict:
    return {
        "model_type": "gpt_neox",
        **{"hidden_size": size.width, "intermediate_size": 4 * size.width},
        **{"num_hidden_layers": size.layers, "num_attention_heads": size.heads},
    }


def trained(size: Size, blocks: int, precision: str, checkpoints: Path, stop_at: float = 1):
    corpus, mask = counted_corpus(size, blocks)
    model = build_model(
        architecture(size),
        vocabulary_size=size.vocabulary,
        block_size=size.length,
        end_of_text=0,
        seed=0,
    )
    settings = {**TRAINING, "precision": precision, "checkpoint_steps": 2, "stop_at": stop_at}
    settings["batch_size"] = size.batch
    found = train(
        model,
        corpus,
        settings=settings,
        mask=mask,
        objective="unlikelihood",
        strength=1.0,
        checkpoints=checkpoints,
        seed=0,
    )
    weights = torch.cat([weight.detach().flatten().cpu() for weight in model.parameters()])
    return weights, found


def check_training(run: Run, precision: str) -> None:
    size = SMALL if run.small else CHECKED
    blocks = 8 * size.batch
    with tempfile.TemporaryDirectory() as folder:
        whole, found = trained(size, blocks, precision, Path(folder, "whole"))
        trained(size, blocks, precision, Path(folder, "parts"), stop_at=0.5)
        resumed, _ = trained(size, blocks, precision, Path(folder, "parts"))
    losses = [record["unselected_loss"] for record in found.losses]
    run.check(f"training in {precision}: last loss over the first", losses[-1] / losses[0], 0.95)
    run.check(
        f"training in {precision}: resumed after half of the steps and not interrupted",
        relative_difference(resumed, whole),
        RESUMED[precision],
    )


def measure_training(run: Run, precision: str) -> None:
    size = SMALL if run.small else MEASURED
    blocks = (4 if run.small else 12) * size.batch
    if run.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        _, found = trained(size, blocks, precision, Path(folder))
    memory = torch.cuda.max_memory_allocated() / 2**30 if run.device == "cuda" else 0.0
    # The first steps warm up.
    speeds = [record["tokens_per_second"] for record in found.losses][2:]
    speed, flops = float(np.median(speeds)), found.speed["flops_per_token"]
    peak = run.found["peak_flops"]["bf16" if precision == "bfloat16" else "fp32"]
    run.found["speeds"].append(
        speed_row("suppressed training", precision, speed, flops, peak, memory)
    )


# --- generation -----------------------------------------------------------------------------------


def continuations(model: torch.nn.Module, size: Size, sampling: Sampling, prompts: int):
    generator = np.random.default_rng(1)
    ids = [generator.integers(1, size.vocabulary, 8) for _ in range(prompts)]
    # No token ends a text.
    made = generate_ids(model, ids, range(prompts), sampling, end_of_text=size.vocabulary)
    return [row for _, rows in sorted(made) for row in rows]


def check_generation(run: Run) -> None:
    size = SMALL if run.small else CHECKED
    sampling = Sampling(continuations=4, max_new_tokens=12)
    here, there = (
        continuations(
            Workload(size, device=device, precision="fp32", labels="true").model, size, sampling, 8
        )
        for device in ("cpu", run.device)
    )
    same = float(np.mean([one == other for one, other in zip(here, there, strict=True)]))
    run.check(
        "continuations that are the same on CPU and device", same, SAME_CONTINUATIONS, at_least=True
    )


def measure_generation(run: Run) -> None:
    size = SMALL if run.small else MEASURED
    sampling = Sampling(continuations=25, max_new_tokens=20)
    prompts = 2 if run.small else 64
    model = Workload(size, device=run.device, precision="fp32", labels="true").model
    seconds, memory = run.timed(lambda: continuations(model, size, sampling, prompts), 2)
    rows = prompts * sampling.continuations
    shape = model_shape(model)
    flops = costs.generation_flops(shape, prompts, 8, sampling.continuations, 20) / (20 * rows)
    speed = 20 * rows / seconds
    peak = run.found["peak_flops"]["fp32"]
    run.found["speeds"].append(speed_row("generation", "fp32", speed, flops, peak, memory))


# --- speed ----------------------------------------------------------------------------------------


def measure_peaks(run: Run) -> None:
    """The speed of a large matrix product, which stands for the device's peak."""
    width = 128 if run.small else 8192
    peaks = {}
    for name, dtype in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        matrix = torch.randn(width, width, device=run.device, dtype=dtype)
        seconds, _ = run.timed(lambda matrix=matrix: matrix @ matrix)
        peaks[name] = 2 * width**3 / seconds
    torch.backends.cuda.matmul.allow_tf32 = False
    run.found["peak_flops"] = peaks


def measure_rows(run: Run, precision: str) -> None:
    """Every row of influence at one precision, and how far its scores are from exact ones."""
    size = SMALL if run.small else MEASURED
    workload = Workload(size, device=run.device, precision=precision, labels="true")
    shape, tokens = model_shape(workload.model), size.blocks * size.length
    for row in ROWS:
        # Differences of losses, and derivatives along a direction, need float32 weights.
        if precision == "bf16" and row in LOSS_ROUTES:
            run.found["left_out"].append(f"{row}, bf16: needs float32 losses")
            continue
        if run.left() < 30:
            run.found["left_out"].append(f"{row}, {precision}: no time")
            continue

        def work(row: str = row) -> None:
            workload.results[row] = getattr(workload, row)()

        with run.part(f"{row}, {precision}"):
            seconds, memory = run.timed(work, 2)
            flops = FLOPS[row](shape, size.length) if row in FLOPS else None
            run.found["speeds"].append(
                speed_row(
                    row,
                    precision,
                    tokens / seconds,
                    flops,
                    run.found["peak_flops"][precision],
                    memory,
                )
            )
    with run.part(f"errors, {precision}"):
        compare_scores(run, precision, workload.results)


def compare_scores(run: Run, precision: str, results: dict[str, Any]) -> None:
    """Errors of the scores of one precision against those of float32, exact ones for the losses."""
    exact = run.__dict__.setdefault("exact", {})
    if precision == "fp32":
        exact.update({row: results[row].cpu() for row in ("forward_mode", "position")})
    for row in (*LOSS_ROUTES, "position"):
        if row not in results:
            continue
        reference = exact["position" if row == "position" else "forward_mode"]
        found = results[row].float().cpu()
        run.found["errors"].append(
            {
                "route": row,
                "precision": precision,
                "relative": relative_difference(found, reference),
                "largest_of_largest": float(
                    (found - reference).abs().max() / reference.abs().max()
                ),
            }
        )


def speed_row(
    what: str, precision: str, speed: float, flops: float | None, peak: float, memory: float
) -> dict[str, Any]:
    return {
        "what": what,
        "precision": precision,
        "tokens_per_second": speed,
        "share_of_peak": None if flops is None else speed * flops / peak,
        "memory_gib": memory,
        "hours_for_1e9_tokens": 1e9 / speed / 3600,
    }


# --- what is written ------------------------------------------------------------------------------


def as_markdown(found: dict[str, Any]) -> str:
    lines = [
        f"{found['device']}, PyTorch {found['torch']}, transformers {found['transformers']}, "
        f"{found.get('seconds', 0)} s"
        + (" — a rehearsal, whose figures say nothing" if found["small"] else ""),
        "",
        "| check | found | allowed | passed |",
        "|---|---:|---:|---|",
    ]
    for row in found["checks"]:
        passed = "yes" if row["passed"] else "**no**"
        lines.append(f"| {row['what']} | {row['found']:.3g} | {row['allowed']:.3g} | {passed} |")
    lines += [
        "",
        "| work | precision | tokens/s | share of peak | memory, GiB | hours for 1 B tokens |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in found["speeds"]:
        share = "–" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
        lines.append(
            f"| {row['what']} | {row['precision']} | {row['tokens_per_second']:,.0f} | {share} "
            f"| {row['memory_gib']:.2f} | {row['hours_for_1e9_tokens']:.2f} |"
        )
    lines += [
        "",
        "| scores | precision | relative error | largest error over the largest score |",
        "|---|---|---:|---:|",
    ]
    for row in found["errors"]:
        lines.append(
            f"| {row['route']} | {row['precision']} | {row['relative']:.1e} "
            f"| {row['largest_of_largest']:.1e} |"
        )
    lines += ["", *(f"- left out: {line}" for line in found["left_out"]), ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--small", action="store_true", help="a rehearsal on the CPU")
    parser.add_argument("--seconds", type=float, default=450, help="begin no part after these")
    arguments = parser.parse_args()
    run = Run(arguments.output, arguments.seconds, arguments.small)
    if run.device == "cpu" and not arguments.small:
        parser.error("no GPU here: give --small to rehearse on the CPU")
    parts: list[tuple[str, Callable[[], None]]] = [
        ("peak", lambda: measure_peaks(run)),
        ("same numbers", lambda: check_numbers(run)),
        ("training in float32", lambda: check_training(run, "float32")),
        ("training in bfloat16", lambda: check_training(run, "bfloat16")),
        ("generation", lambda: check_generation(run)),
        ("rows in fp32", lambda: measure_rows(run, "fp32")),
        ("rows in tf32", lambda: measure_rows(run, "tf32")),
        ("rows in bf16", lambda: measure_rows(run, "bf16")),
        ("speed of training in bfloat16", lambda: measure_training(run, "bfloat16")),
        ("speed of generation", lambda: measure_generation(run)),
        ("speed of training in float32", lambda: measure_training(run, "float32")),
    ]
    for name, part in parts:
        if run.left() < 20:
            run.found["left_out"].append(f"{name}: no time")
            continue
        with run.part(name):
            part()
    run.write()
    print(as_markdown(run.found))
    return 0 if all(check["passed"] for check in run.found["checks"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
