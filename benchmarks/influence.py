"""Cost of factors, query direction, scores and selection, in units of one training pass.

A training pass is forward and backward over the same blocks, without an optimiser. All rows run in
one process, one after another, several times over; a ratio is taken within one repetition, and the
table shows the median and the range. Peak memory is measured in a fresh process a row. Rows of the
peer need kronfluence, installed without its dependencies (README.md beside this file).

    python benchmarks/influence.py                     # two sizes and a selection of 100 M tokens
    python benchmarks/influence.py --small             # seconds: does it run?
    python benchmarks/influence.py --device cuda --precisions bf16 tf32 fp32 --sizes pythia-160m
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from ifguide.files.artifacts import atomic_path, write_text
from ifguide.report.figure_style import NEUTRAL, PALETTE, save_figure, style
from process_memory import process_memory
from selection_cost import measure_selection
from workload import SIZES, Peer, Size, Workload, agreement, tracked_parameters

HERE = Path(__file__).resolve().parent
ROWS = {
    "training": "training pass",
    "forward": "forward pass, losses of all tokens",
    "covariance": "covariance pass",
    "covariance_quarter": "covariance pass, a quarter of the positions",
    "peer covariance": "covariance pass, kronfluence",
    "eigenvalues": "eigenvalue correction pass",
    "peer eigenvalues": "eigenvalue correction pass, kronfluence",
    "two_forward": "`loss` scores, two forward passes",
    "forward_mode": "`loss` scores, forward mode",
    "backward": "`loss` scores, one backward pass a token (one block, scaled)",
    "position": "`position` scores",
    "peer position": "`position` scores, kronfluence, every query",
    "query_direction": "query direction",
}
ONCE = ("backward", "peer position")
IN_FLOAT32 = ("two_forward", "forward_mode", "backward")


def main(arguments: argparse.Namespace) -> None:
    if arguments.peak_of:
        print(peak_bytes(arguments))
        return
    peer_at_hand = importlib.util.find_spec("kronfluence") is not None
    if not peer_at_hand:
        print("kronfluence is not installed: its rows are left out\n")
    if arguments.device == "cpu":
        print("Rows for a GPU (--device cuda) were not run here and are untested\n")
    tables, agreements = [], []
    for name in arguments.sizes:
        for precision in arguments.precisions:
            table, agreed = measure(name, precision, arguments, peer_at_hand)
            tables.append(table)
            agreements.append(agreed)
    table = pd.concat(tables, ignore_index=True)
    text = [described(arguments), as_markdown(table), agreement_lines(agreements)]
    if arguments.selection_tokens:
        with tempfile.TemporaryDirectory() as folder:
            costs = measure_selection(Path(folder), arguments.selection_tokens)
        text.append(costs.to_markdown(index=False))
    print("\n\n".join(text))
    arguments.output.mkdir(parents=True, exist_ok=True)
    with atomic_path(arguments.output / "influence.csv") as temporary:
        table.to_csv(temporary, index=False)
    write_text(arguments.output / "influence.md", "\n\n".join(text) + "\n")
    save_figure(
        draw(table), [arguments.output / f"influence.{suffix}" for suffix in ("svg", "png")]
    )


def measure(
    name: str, precision: str, arguments: argparse.Namespace, peer_at_hand: bool
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Time every row of one size, interleaved, and measure its memory."""
    size = sized(name, arguments)
    workload = Workload(size, device=arguments.device, precision=precision, labels=arguments.labels)
    peer = Peer(workload) if peer_at_hand else None
    rows = [row for row in arguments.rows if peer or not row.startswith("peer")]
    if precision == "bf16":
        rows = [row for row in rows if row not in IN_FLOAT32]
        print("bf16: rows of `loss` scores are left out, because they need float32 losses\n")
    work = {row: work_of(row, workload, peer) for row in rows}
    prepare(workload, peer, rows)
    times: dict[str, list[tuple[float, float]]] = {row: [] for row in rows}
    for repetition in range(arguments.repetitions):
        for row in rows:
            if repetition == 0 or row not in ONCE:
                times[row].append(timed(work[row], workload, row))
    scale = {"backward": size.blocks}
    records = []
    for row in rows:
        seconds = [s * scale.get(row, 1) for s, _ in times[row]]
        pairs = list(zip(times[row], times["training"], strict=False))
        ratios = pd.Series([scale.get(row, 1) * a[0] / b[0] for a, b in pairs])
        processor = pd.Series([scale.get(row, 1) * a[1] / b[1] for a, b in pairs])
        records.append(
            {
                "size": str(size),
                "precision": precision,
                "row": row,
                "what": ROWS[row],
                "seconds": pd.Series(seconds).median(),
                "tokens_per_second": size.blocks * size.length / pd.Series(seconds).median(),
                "ratio": ratios.median(),
                "ratio_low": ratios.min(),
                "ratio_high": ratios.max(),
                "processor_ratio": processor.median(),
                "peak_mib": peak_mib(name, precision, row, arguments) if arguments.memory else None,
                "model_tflops": model_flops(workload, row)
                and model_flops(workload, row) / pd.Series(seconds).median() / 1e12,
            }
        )
    table = pd.DataFrame(records)
    if arguments.device == "cuda":
        table["utilisation"] = table["model_tflops"] / peak_tflops(workload)
    return table, {str(size): agreement(workload, peer)}


def sized(name: str, arguments: argparse.Namespace) -> Size:
    size = SIZES[name]
    return replace(size, blocks=arguments.blocks) if arguments.blocks else size


def work_of(row: str, workload: Workload, peer: Peer | None) -> Callable[[], object]:
    owner = peer if row.startswith("peer") else workload
    return getattr(owner, row.removeprefix("peer "))


def prepare(workload: Workload, peer: Peer | None, rows: list[str]) -> None:
    """Do what a row finds done: a first pass warms the caches, correction needs eigenbases."""
    workload.training()
    if {"eigenvalues", "query_direction"} & set(rows):
        assert workload.bases
        workload.results["eigenvalues"] = workload.eigenvalues()
    if "two_forward" in rows:
        assert workload.two_forward_score
    if peer and {"peer eigenvalues", "peer position"} & set(rows):
        workload.results["peer covariance"] = peer.covariance()
        peer.decompose()
        peer.eigenvalues()


def timed(work: Callable[[], object], workload: Workload, row: str) -> tuple[float, float]:
    """Return the seconds of the clock and of the processor that one run of a row takes."""
    wait = torch.cuda.synchronize if workload.device.type == "cuda" else lambda: None
    wait()
    clock, processor = time.perf_counter(), time.process_time()
    workload.results[row] = work()
    wait()
    return time.perf_counter() - clock, time.process_time() - processor


def model_flops(workload: Workload, row: str) -> float | None:
    """Return the arithmetic of matrix products with weights: 2 a weight and token, once or more."""
    passes = {"training": 3, "forward": 1, "two_forward": 2, "forward_mode": 3}
    if row not in passes:
        return None
    size = workload.size
    weights = tracked_parameters(workload.layers) + size.vocabulary * size.width
    return passes[row] * 2.0 * weights * size.blocks * size.length


def peak_tflops(workload: Workload) -> float:
    """Return what one large matrix product reaches on this device, in TFLOP/s."""
    a = torch.randn(8192, 8192, device=workload.device, dtype=workload.dtype)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12


def peak_mib(name: str, precision: str, row: str, arguments: argparse.Namespace) -> float | None:
    """Return the peak memory of a row above the loaded model, from a process of its own."""
    command = [sys.executable, __file__, "--peak-of", row, "--sizes", name]
    command += ["--precisions", precision, "--device", arguments.device]
    command += ["--blocks", str(sized(name, arguments).blocks)]
    command += ["--labels", arguments.labels, "--threads", str(arguments.threads)]
    # Large tensors, once freed, go back to the system: what the allocator keeps does not count.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(ran.stdout.splitlines()[-1]) / 2**20


def peak_bytes(arguments: argparse.Namespace) -> int:
    """Run one row once and return how far memory rises above that of the loaded model."""
    row, name = arguments.peak_of, arguments.sizes[0]
    workload = Workload(
        sized(name, arguments),
        device=arguments.device,
        precision=arguments.precisions[0],
        labels=arguments.labels,
        one_row=True,
    )
    # A scoring job reads its direction before its model; it counts below all the same.
    read = 0
    if row in ("two_forward", "forward_mode", "backward", "position"):
        read = sum(tensor.nbytes for tensor in workload.direction.values())
    # A tiny pass first: libraries allocate their own memory once.
    with torch.no_grad():
        workload.model(workload.tokens[:1, :8])
    peer = Peer(workload) if row.startswith("peer") else None
    if row not in ("training", "forward", "two_forward"):
        prepare(workload, peer, [row])
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work_of(row, workload, peer)()
        return read + torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = process_memory("RssAnon")
    work_of(row, workload, peer)()
    # Pages of libraries come and go as the kernel likes: they do not count.
    return read + process_memory("VmHWM") - process_memory("RssFile") - before


def described(arguments: argparse.Namespace) -> str:
    device = (
        torch.cuda.get_device_name()
        if arguments.device == "cuda"
        else f"CPU, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    )
    sizes = "; ".join(
        f"{size}: {size.blocks} blocks of {size.length} tokens, batches of {size.batch}, "
        f"{size.queries} queries"
        for size in (sized(name, arguments) for name in arguments.sizes)
    )
    return (
        f"{device}; PyTorch {torch.__version__}; labels: {arguments.labels}; "
        f"{arguments.repetitions} repetitions. {sizes}."
    )


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table that the README shows."""
    shown = pd.DataFrame(
        {
            "model": table["size"],
            "precision": table["precision"],
            "": table["what"],
            "time / training pass": [
                f"{r.ratio:.2f} ({r.ratio_low:.2f}–{r.ratio_high:.2f})" for r in table.itertuples()
            ],
            "processor time / training pass": table["processor_ratio"].map("{:.2f}".format),
            "tokens/s": table["tokens_per_second"].map("{:,.0f}".format),
        }
    )
    if table["peak_mib"].notna().any():
        shown["peak memory above the model, MiB"] = table["peak_mib"].map("{:,.0f}".format)
    if "utilisation" in table:
        shown["of one large matrix product"] = table["utilisation"].map("{:.0%}".format)
    return shown.to_markdown(index=False)


def agreement_lines(agreements: list[dict]) -> str:
    lines = ["Relative differences of results that should be equal:", ""]
    for agreed in agreements:
        for size, differences in agreed.items():
            lines += [f"- {size}: {what}: {value:.1e}" for what, value in differences.items()]
    return "\n".join(lines)


def draw(table: pd.DataFrame) -> Figure:
    """Draw each row's time over that of a training pass: ours and the peer's apart by colour."""
    models = list(dict.fromkeys(zip(table["size"], table["precision"], strict=True)))
    with style():
        figure = Figure(figsize=(7.2, 0.7 + 2.6 * len(models)), layout="constrained")
        axes = figure.subplots(len(models), 1, squeeze=False)[:, 0]
        for axis, (size, precision) in zip(axes, models, strict=True):
            # A backward pass a token costs hundreds of training passes: it would hide the others.
            part = table[
                (table["size"] == size)
                & (table["precision"] == precision)
                & ~table["row"].isin(["training", "backward"])
            ].iloc[::-1]
            colours = [PALETTE[row.startswith("peer")] for row in part["row"]]
            spread = [part["ratio"] - part["ratio_low"], part["ratio_high"] - part["ratio"]]
            axis.barh(part["what"].str.replace("`", ""), part["ratio"], color=colours, height=0.7)
            axis.errorbar(
                part["ratio"], range(len(part)), xerr=spread, fmt="none", ecolor="black", lw=0.8
            )
            axis.axvline(1, color=NEUTRAL, linestyle="--")
            axis.grid(axis="y", visible=False)
            axis.set_title(f"{size}, {precision}")
        axes[-1].set_xlabel("time, in training passes over the same blocks (median and range)")
        return figure


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["base", "double"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--blocks", type=int, help="in place of the size's own number")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--labels", choices=("true", "sampled"), default="true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    precisions = ("fp32", "tf32", "bf16")
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=["fp32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--selection-tokens", type=int, default=100_000_000)
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--small", action="store_true", help="a smoke test that measures nothing")
    parser.add_argument("--peak-of", choices=ROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.small:
        arguments.sizes, arguments.repetitions = ["smoke"], 1
        arguments.selection_tokens, arguments.memory = 200_000, False
    # Ratios need their denominator.
    arguments.rows = list(dict.fromkeys(["training", *arguments.rows]))
    torch.set_num_threads(arguments.threads)
    return arguments


if __name__ == "__main__":
    main(parsed())
