"""Suppressed training beside plain training of the same model by the Trainer of `transformers`.

    python benchmarks/training.py --output build/benchmarks/training
    python benchmarks/training.py --device cuda --architecture pythia-160m --block-size 2048
    python benchmarks/training.py --small --output /tmp/training      # a smoke run of seconds

Each run is a process of its own. Repetitions are interleaved, plain and suppressed in turn, so that
a slow phase of the machine meets both; the ratio of a repetition's pair is what counts, and its
median is compared with the goals. A third part trains with two gloo processes on the CPU and
compares every logged loss with those of one. Tokens and mask are random: this measures speed and
memory, not learning. Writes runs.csv, ratios.csv, training.png and table.md, and prints the table.
"""

import argparse
import json
import multiprocessing
import os
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from ifguide.data.corpus import Corpus, ShardedArray
from ifguide.files.artifacts import atomic_path, write_text
from ifguide.models.labels import unmark_labels
from ifguide.models.loading import build_model
from ifguide.models.training import SuppressionTrainer, training_arguments
from ifguide.models.training_blocks import Blocks
from ifguide.report.figure_style import PALETTE, save_figure, style

SPEED_GOAL = 0.97
MEMORY_GOAL = 1.03
LOSS_GOAL = 1e-5
VOCABULARY = 50304
SELECTED_SHARE = 0.02
SMALL = {
    "model_type": "gpt_neox",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}


@dataclass(frozen=True)
class Setup:
    """One measured training."""

    architecture: dict
    vocabulary_size: int
    block_size: int
    batch_size: int
    accumulation: int
    steps: int
    precision: str
    objective: str
    device: str
    processes: int = 1


class StepTimes(TrainerCallback):
    """The time after every step; on a GPU, when it is done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, arguments, state, control, **_):
        if arguments.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


class PlainBlocks(Blocks):
    """The same blocks without a mask, as the Trainer's own loss takes them."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        block = super().__getitem__(index)
        return block | {"labels": unmark_labels(block["labels"])[0]}


def random_blocks(setup: Setup) -> tuple[Corpus, ShardedArray]:
    """Random tokens for every step of the training, each block once, and a random mask."""
    generator = np.random.default_rng(0)
    shape = (setup.steps * setup.batch_size * setup.accumulation, setup.block_size)
    tokens = generator.integers(0, setup.vocabulary_size, shape, dtype=np.uint16)
    mask = generator.random(shape) < SELECTED_SHARE
    meta = {"block_size": setup.block_size, "blocks": shape[0], "padding": 0}
    return Corpus(Path(), meta, ShardedArray([tokens]), None, None), ShardedArray([mask])


def one_run(kind: str, setup: Setup) -> dict:
    """Train, and return tokens in a second after the first steps, peak memory, and losses."""
    torch.set_num_threads(1 if setup.device == "cpu" else torch.get_num_threads())
    settings = {
        "epochs": 1,
        "max_steps": setup.steps,
        "batch_size": setup.batch_size,
        "accumulation": setup.accumulation,
        "learning_rate": 6e-4,
        "schedule": "cosine",
        "warmup": 0.01,
        "weight_decay": 4e-4,
        "betas": [0.9, 0.95],
        "epsilon": 1e-8,
        "clip": 1.0,
        "precision": setup.precision,
        "gradient_checkpointing": False,
        "compile": False,
        "fsdp": False,
        "log_steps": 1,
        "checkpoint_steps": 10**9,
    }
    model = build_model(
        setup.architecture,
        "architecture",
        vocabulary_size=setup.vocabulary_size,
        block_size=setup.block_size,
        end_of_text=0,
        seed=0,
    )
    corpus, mask = random_blocks(setup)
    times = StepTimes()
    with tempfile.TemporaryDirectory() as checkpoints:
        arguments = training_arguments(
            settings,
            checkpoints=Path(checkpoints),
            seed=0,
            use_cpu=setup.device == "cpu",
            processes=setup.processes,
        )
        arguments.save_strategy = "no"
        if kind == "plain":
            trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=PlainBlocks(corpus, None),
                callbacks=[times],
            )
        else:
            trainer = SuppressionTrainer(
                model=model,
                args=arguments,
                train_dataset=Blocks(corpus, mask),
                callbacks=[times],
                objective=setup.objective,
                strength=1.0,
                peak=None,
            )
        trainer.remove_callback(PrinterCallback)
        before = memory_gib(setup.device)
        trainer.train()
    warm = max(1, setup.steps // 5)
    steps = setup.steps - warm
    tokens = steps * setup.batch_size * setup.accumulation * setup.block_size
    return {
        "kind": kind,
        "tokens_per_second": tokens / (times.times[-1] - times.times[warm - 1]),
        "peak_gib": memory_gib(setup.device) - before,
        "losses": [
            [record[name] for name in ("loss", "selected_loss", "unselected_loss")]
            for record in trainer.state.log_history
            if "selected_loss" in record
        ],
    }


def memory_gib(device: str) -> float:
    """The most memory that this process has taken so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def as_process(rank: int, port: int, kind: str, setup: Setup, result: str) -> None:
    if setup.processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(setup.processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    found = one_run(kind, setup)
    if rank == 0:
        Path(result).write_text(json.dumps(found), encoding="utf-8")


def run_apart(kind: str, setup: Setup) -> dict:
    """Run in fresh processes and return what the first one found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["transformers.trainer"])
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        processes = [
            server.Process(target=as_process, args=(rank, port, kind, setup, str(result)))
            for rank in range(setup.processes)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                raise SystemExit(f"a {kind} run ended with status {process.exitcode}")
        return json.loads(result.read_text(encoding="utf-8"))


def measure_speed(setup: Setup, repetitions: int) -> pd.DataFrame:
    rows = []
    for repetition in range(repetitions):
        kinds = ["plain", "suppressed"]
        for kind in kinds if repetition % 2 == 0 else reversed(kinds):
            found = run_apart(kind, setup)
            del found["losses"]
            rows.append({"repetition": repetition, **found})
    return pd.DataFrame(rows)


def measure_processes(setup: Setup) -> float:
    """Return the largest relative difference of any logged loss, two processes against one."""
    one, two = (
        np.array(run_apart("suppressed", Setup(**{**asdict(setup), "processes": count}))["losses"])
        for count in (1, 2)
    )
    return float(np.abs(two / one - 1).max())


def ratios(runs: pd.DataFrame) -> pd.DataFrame:
    """Suppressed over plain, of each repetition."""
    wide = runs.pivot(index="repetition", columns="kind")
    return pd.DataFrame(
        {
            name: wide[name]["suppressed"] / wide[name]["plain"]
            for name in ("tokens_per_second", "peak_gib")
        }
    )


def table(runs: pd.DataFrame, pairs: pd.DataFrame, difference: float) -> str:
    lines = ["| measured | plain | suppressed | ratio | goal | met |", "|---|---|---|---|---|---|"]
    goals: list[tuple[str, str, float, Callable[[float, float], bool], str]] = [
        ("tokens_per_second", "tokens/s", SPEED_GOAL, float.__ge__, "≥"),
        ("peak_gib", "peak memory, GiB", MEMORY_GOAL, float.__le__, "≤"),
    ]
    for name, label, goal, met, sign in goals:
        medians = runs.groupby("kind")[name].median()
        ratio = float(statistics.median(pairs[name]))
        spread = f"{pairs[name].min():.3f}–{pairs[name].max():.3f}"
        lines.append(
            f"| {label} | {medians['plain']:.4g} | {medians['suppressed']:.4g} | {ratio:.3f} "
            f"({spread}) | {sign} {goal} | {'yes' if met(ratio, goal) else 'no'} |"
        )
    lines.append(
        f"| relative difference of losses, 2 processes to 1 | | | {difference:.1e} | ≤ {LOSS_GOAL} "
        f"| {'yes' if difference <= LOSS_GOAL else 'no'} |"
    )
    return "\n".join(lines) + "\n"


def draw(runs: pd.DataFrame, path: Path) -> None:
    with style():
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        labels = {"tokens_per_second": "tokens per second", "peak_gib": "peak memory, GiB"}
        for axes, (name, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
            for place, (kind, rows) in enumerate(runs.groupby("kind")):
                axes.plot([place] * len(rows), rows[name], "o", color=PALETTE[place], label=kind)
            axes.set(xticks=[0, 1], xticklabels=["plain", "suppressed"], title=label)
            axes.set(xlim=(-0.5, 1.5), ylim=(0, 1.15 * runs[name].max()))
        save_figure(figure, [path])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/training"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--architecture", default="pythia-14m", help="published name")
    parser.add_argument("--block-size", type=int, default=256, help="tokens")
    parser.add_argument("--batch-size", type=int, default=4, help="blocks")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--objective", default="unlikelihood")
    parser.add_argument("--precision", choices=["float32", "bfloat16"])
    parser.add_argument("--small", action="store_true", help="a smoke run: its figures say nothing")
    options = parser.parse_args()
    default_precision = "bfloat16" if options.device == "cuda" else "float32"
    setup = Setup(
        architecture={"name": options.architecture},
        vocabulary_size=VOCABULARY,
        block_size=options.block_size,
        batch_size=options.batch_size,
        accumulation=1,
        steps=options.steps,
        precision=options.precision or default_precision,
        objective=options.objective,
        device=options.device,
    )
    tiny = Setup(SMALL, 300, 32, 4, 4, 6, "float32", options.objective, "cpu")
    repetitions = options.repetitions
    if options.small:
        setup, repetitions = tiny, 2
    runs = measure_speed(setup, repetitions)
    pairs = ratios(runs)
    found = table(runs, pairs, measure_processes(tiny))
    for name, frame in (("runs.csv", runs), ("ratios.csv", pairs.reset_index())):
        with atomic_path(options.output / name) as temporary:
            frame.to_csv(temporary, index=False)
    draw(runs, options.output / "training.png")
    described = ", ".join(f"{name} {value}" for name, value in asdict(setup).items())
    write_text(options.output / "table.md", f"{described}; repetitions {repetitions}\n\n{found}")
    print(found)


if __name__ == "__main__":
    main()
