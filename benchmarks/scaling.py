"""How time and memory of each stage grow with the number of tokens.

    python benchmarks/scaling.py --output results/scaling            1, 4 and 16 times the tokens
    python benchmarks/scaling.py --output results/scaling --small --scales 1 4    in a few minutes

The stages run one after the other as the workflow runs them, by its own commands, on the planted
corpus with a small proxy and one shard, on one core; the selection, which takes a hundredth of the
time of any other, on made-up scores of more tokens. Written: scaling.csv, scaling.md, scaling.png
and scaling.svg. Every process first loads its libraries, whatever the size, so that growth shows in
the marginal time: what the tokens added since the size before have cost, per token. CPU time stands
beside wall time because it does not count what other programs on the machine took; both are the
least of some repetitions, as the start of a process varies by more than some stages take.

Memory is the most that any process of a stage holds itself (RssAnon, looked at a hundred times a
second): the pages of mapped files are the kernel's, which takes them back when it needs room.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
import yaml

from process_memory import process_memory
from selection_cost import VARIANTS, selection_command, write_corpus_and_scores

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
STAGES = {
    "corpus preparation": (
        "read_documents.py",
        "make_tokenizer.py",
        "tokenize_documents.py",
    ),
    "factors": (
        "sum_covariances.py",
        "decompose_covariances.py",
        "correct_eigenvalues.py",
        "merge_factors.py",
    ),
    "scoring": ("score_tokens.py",),
    "generation": ("generate_continuations.py",),
}
STAGE_OF = {script: stage for stage, scripts in STAGES.items() for script in scripts}
RESULTS = Path("results/tiny")
TARGETS = [
    RESULTS / "influence/proxy/differential/scores/loss/shard-00000.npy",
    RESULTS / "evaluation/proxy/none/0/realtoxicityprompts/continuations/shard-00000.jsonl",
]
TOLERANCE = 0.1
# A selection ends within seconds.
SELECTION_REPETITIONS = 3


@dataclass(frozen=True)
class Sizes:
    """How large the smallest size of each stage is; the tokens of a selection are made up."""

    documents: int
    factor_blocks: int
    prompts: int
    selection_tokens: int


# What a further token costs has to show beside the start of a process.
FULL = Sizes(documents=9600, factor_blocks=512, prompts=640, selection_tokens=8_000_000)
SMALL = Sizes(documents=60, factor_blocks=16, prompts=4, selection_tokens=200_000)


def overlay(scale: int, sizes: Sizes) -> dict:
    """The tiny config, `scale` times larger; what is not measured keeps its size."""
    return {
        "planted": {"documents": scale * sizes.documents, "prompts": scale * sizes.prompts},
        # Among many prompts some are longer than the tiny config's blocks.
        "corpus": {"shards": 1, "block_size": 256},
        "training": {"epochs": 1, "max_steps": 20},
        "influence": {"factors": {"shards": 1, "blocks": scale * sizes.factor_blocks}},
        "evaluation": {"models": ["proxy"]},
        "report": {"proxy_agreement": None},
    }


def commands_of(folder: Path, config: dict) -> list[list[str]]:
    """The commands of all jobs, in an order in which they can run."""
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", *map(str, TARGETS), "--dry-run", "--cores", "1"),
            *("--printshellcmds", "--directory", str(folder)),
            *("--snakefile", str(REPOSITORY / "workflow/Snakefile")),
            *("--configfile", str(REPOSITORY / "tests/configs/tiny.yaml"), str(path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    printed = ran.stdout + ran.stderr
    if ran.returncode:
        raise SystemExit(printed)
    found = re.findall(r"^Shell command: (python .*) > \S+ 2>&1$", printed, re.M)
    return [[sys.executable, *shlex.split(command)[1:]] for command in found]


@dataclass(frozen=True)
class Measured:
    """Wall seconds, CPU seconds and peak MiB of its own, of one process or one after another."""

    wall: float = 0.0
    cpu: float = 0.0
    peak: float = 0.0

    def then(self, other: "Measured") -> "Measured":
        return Measured(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak))


def run_measured(command: Sequence[str], folder: Path) -> Measured:
    """Run one command on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        peak = 0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            with contextlib.suppress(ValueError):  # it has ended since
                peak = max(peak, process_memory("RssAnon", process.pid))
            time.sleep(0.01)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{shlex.join(command)}\n{output.read()}")
    wall = time.perf_counter() - started
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak / 2**20)


def least_of(repetitions: int, command: Sequence[str], folder: Path) -> Measured:
    """The least times of some repetitions, and the most memory."""
    runs = [run_measured(command, folder) for _ in range(repetitions)]
    return Measured(
        min(run.wall for run in runs), min(run.cpu for run in runs), max(run.peak for run in runs)
    )


def tokens_of_stages(folder: Path) -> dict[str, int]:
    """How many tokens each stage had to do with."""
    meta = json.loads((folder / RESULTS / "corpus/bpe/meta.json").read_text("utf-8"))
    config = yaml.safe_load((folder / "overlay.yaml").read_text("utf-8"))
    sampled = min(config["influence"]["factors"]["blocks"], meta["blocks"]) * meta["block_size"]
    with open(folder / TARGETS[1], encoding="utf-8") as lines:
        generated = sum(json.loads(line)["tokens"] for line in lines)
    corpus = {stage: meta["tokens"] for stage in STAGES}
    return corpus | {"factors": sampled, "generation": generated}


def measure(scale: int, sizes: Sizes, repetitions: int) -> list[dict]:
    """Run everything at one size, what is measured several times; return a row for each stage."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = {stage: Measured() for stage in STAGES}
        for command in commands_of(folder, overlay(scale, sizes)):
            stage = STAGE_OF.get(Path(command[1]).name)
            # The held-out documents are not scaled.
            if not stage or any("held_out/" in part for part in command):
                run_measured(command, folder)
            else:
                found[stage] = found[stage].then(least_of(repetitions, command, folder))
        tokens = tokens_of_stages(folder)
    found["selection"], tokens["selection"] = measure_selection(
        scale * sizes.selection_tokens, SELECTION_REPETITIONS * repetitions
    )
    return [
        {
            "stage": stage,
            "scale": scale,
            "tokens": tokens[stage],
            "wall_seconds": round(measured.wall, 3),
            "cpu_seconds": round(measured.cpu, 3),
            "peak_mib": round(measured.peak, 1),
        }
        for stage, measured in found.items()
    ]


def measure_selection(tokens: int, repetitions: int) -> tuple[Measured, int]:
    """Select among made-up scores; return also how many there were."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scores = write_corpus_and_scores(folder, tokens)
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        command = selection_command(folder, scores, VARIANTS["training blocks"])
        return least_of(repetitions, command, folder), meta["tokens"]


def with_growth(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the marginal CPU microseconds per token, and both figures relative to the smallest.

    The marginal time of a size is measured against the size before, so the first has none.
    """
    rows = rows.sort_values(["stage", "scale"], ignore_index=True)
    by_stage = rows.groupby("stage")
    added = by_stage["cpu_seconds"].diff() / by_stage["tokens"].diff()
    rows["marginal_microseconds"] = (1e6 * added).round(5)
    first = by_stage["marginal_microseconds"].transform("first")
    rows["time_growth"] = (rows["marginal_microseconds"] / first).round(3)
    rows["memory_growth"] = (rows["peak_mib"] / by_stage["peak_mib"].transform("first")).round(3)
    return rows


def markdown(rows: pd.DataFrame) -> str:
    lines = [
        "| stage | scale | tokens | wall s | CPU s | µs of CPU for each token more | peak MiB | "
        "memory against 1× |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows.to_dict("records"):
        marginal = row["marginal_microseconds"]
        lines.append(
            f"| {row['stage']} | {row['scale']}× | {row['tokens']:,} | {row['wall_seconds']:.1f} | "
            f"{row['cpu_seconds']:.1f} | {'' if pd.isna(marginal) else f'{marginal:.3g}'} | "
            f"{row['peak_mib']:.0f} | {row['memory_growth']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: pd.DataFrame, path: Path) -> None:
    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for stage, part in rows.groupby("stage", sort=False):
        time_axis.plot(part["tokens"], part["cpu_seconds"], marker="o", label=stage)
        memory_axis.plot(part["scale"], part["memory_growth"], marker="o", label=stage)
    time_axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel="CPU seconds")
    memory_axis.axhspan(1 - TOLERANCE, 1 + TOLERANCE, color="0.9", zorder=0)
    memory_axis.set(xscale="log", xlabel="size, times the smallest", ylabel="peak memory, relative")
    memory_axis.set_xticks(sorted(rows["scale"].unique()), sorted(rows["scale"].unique()))
    memory_axis.minorticks_off()
    time_axis.legend(frameon=False, fontsize="small")
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="begin with a small corpus")
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    sizes = SMALL if arguments.small else FULL
    rows = []
    for scale in arguments.scales:
        rows += measure(scale, sizes, arguments.repetitions)
        print(f"{scale}× done", file=sys.stderr)
    table = with_growth(pd.DataFrame(rows))
    arguments.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output / "scaling.csv", index=False)
    written = markdown(table)
    (arguments.output / "scaling.md").write_text(written, encoding="utf-8")
    draw(table, arguments.output / "scaling.png")
    print(written)
    grown = table[(table["memory_growth"] > 1 + TOLERANCE) | (table["time_growth"] > 1 + TOLERANCE)]
    for row in grown.to_dict("records"):
        print(
            f"grows by more than {TOLERANCE:.0%}: {row['stage']} at {row['scale']}×, time per "
            f"token {row['time_growth']:.2f}, memory {row['memory_growth']:.2f}"
        )


if __name__ == "__main__":
    main()
