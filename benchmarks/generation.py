"""Continuations per second: this workflow's generation against `model.generate` of transformers.

Both sides draw the same number of continuations of the same prompts, with the same model, from the
same distribution. The peer gets each prompt repeated once a continuation, in batches of 32 rows,
padded on the left. Sides take turns, and the ratio is taken within each repetition, so that a load
on the machine falls on both.

The models are random. Their output head is scaled so that logits have a standard deviation of 4,
which makes nuclei about as narrow as those of trained models.

    OMP_NUM_THREADS=2 python benchmarks/generation.py --output results/benchmarks/generation
    python benchmarks/generation.py --small --output /tmp/generation
"""

import argparse
import csv
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import chi2_contingency
from transformers import AutoConfig, AutoModelForCausalLM

from ifguide.evaluation.generation import Sampling, generate_ids
from ifguide.files.artifacts import atomic_path, write_text

PEER_ROWS = 32
END_OF_TEXT = 0
# hidden size, layers, heads, vocabulary, prompts, lengths of prompts in tokens
SIZES = {
    "smoke": (24, 1, 2, 300, 4, (5, 9)),
    "default target": (96, 3, 4, 1536, 24, (30, 60)),
    "Pythia-160M": (768, 12, 12, 50_304, 12, (8, 20)),
}
COLUMNS = ("model", "repetition", "side", "continuations", "seconds", "per_second", "ratio")


def build(hidden: int, layers: int, heads: int, vocabulary: int) -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gpt_neox",
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        vocab_size=vocabulary,
        max_position_embeddings=128,
        bos_token_id=END_OF_TEXT,
        eos_token_id=END_OF_TEXT,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        logits = model(torch.arange(1, 60).unsqueeze(0)).logits
        model.get_output_embeddings().weight.mul_(4 / logits.std())
    return model


def draw_prompts(count: int, lengths: tuple[int, int], vocabulary: int) -> list[np.ndarray]:
    """Return prompts of random tokens, their lengths uniform in [low, high]."""
    rng = np.random.default_rng(1)
    return [
        rng.integers(1, vocabulary, rng.integers(lengths[0], lengths[1] + 1)) for _ in range(count)
    ]


def ours(model, prompts: list[np.ndarray], sampling: Sampling, seed: int) -> list[list[int]]:
    seeds = [seed * len(prompts) + index for index in range(len(prompts))]
    found = dict(generate_ids(model, prompts, seeds, sampling, end_of_text=END_OF_TEXT))
    return [row for index in range(len(prompts)) for row in found[index]]


@torch.no_grad()
def theirs(model, prompts: list[np.ndarray], sampling: Sampling, seed: int) -> list[list[int]]:
    torch.manual_seed(seed)
    repeated = [prompt for prompt in prompts for _ in range(sampling.continuations)]
    found = []
    for start in range(0, len(repeated), PEER_ROWS):
        rows = repeated[start : start + PEER_ROWS]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), END_OF_TEXT)
        for row, prompt in enumerate(rows):
            ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        written = model.generate(
            ids,
            attention_mask=(ids != END_OF_TEXT).long(),
            do_sample=True,
            top_p=sampling.top_p,
            top_k=0,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=END_OF_TEXT,
        )[:, longest:].tolist()
        found += [row[: row.index(END_OF_TEXT)] if END_OF_TEXT in row else row for row in written]
    return found


def same_distribution(one: list[list[int]], other: list[list[int]], place: int) -> float:
    """Return the p-value of a chi-squared test of the tokens at `place`; rare tokens are pooled."""
    counts = np.zeros((2, 1 + max(max(row, default=0) for row in one + other)))
    for side, rows in enumerate((one, other)):
        for row in rows:
            if len(row) > place:
                counts[side, row[place]] += 1
    rare = counts.sum(0) < 10
    table = np.column_stack([counts[:, ~rare], counts[:, rare].sum(1)])
    return float(chi2_contingency(table[:, table.sum(0) > 0]).pvalue)


def compare(
    name: str, sampling: Sampling, repetitions: int, count: int | None = None
) -> tuple[list[dict], str]:
    *architecture, usual, lengths = SIZES[name]
    count = count or usual
    model = build(*architecture)
    prompts = draw_prompts(count, lengths, architecture[-1])
    written: dict[str, list[list[int]]] = {"ifguide": [], "transformers": []}
    records, ratios = [], []
    for repetition in range(repetitions + 1):
        seconds = {}
        for side, generate in (("ifguide", ours), ("transformers", theirs)):
            # The first round warms both sides up, on two prompts.
            some = prompts if repetition else prompts[:2]
            started = time.perf_counter()
            rows = generate(model, some, sampling, repetition)
            seconds[side] = time.perf_counter() - started
            written[side] += rows if repetition else []
        if not repetition:
            continue
        ratios.append(seconds["transformers"] / seconds["ifguide"])
        for side, taken in seconds.items():
            continuations = count * sampling.continuations
            records.append(
                {
                    "model": name,
                    "repetition": repetition,
                    "side": side,
                    "continuations": continuations,
                    "seconds": f"{taken:.3f}",
                    "per_second": f"{continuations / taken:.2f}",
                    "ratio": f"{ratios[-1]:.3f}",
                }
            )
    first, last = (
        same_distribution(written["ifguide"], written["transformers"], place)
        for place in (0, sampling.max_new_tokens - 1)
    )
    speeds = [
        statistics.median(float(r["per_second"]) for r in records if r["side"] == side)
        for side in written
    ]
    row = (
        f"| {name} | {speeds[0]:.1f} | {speeds[1]:.1f} | {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}–{max(ratios):.2f}) | {first:.2f} | {last:.2f} |\n"
    )
    return records, row


def draw(records: list[dict]) -> Figure:
    names = list(dict.fromkeys(record["model"] for record in records))
    figure = Figure(figsize=(1.6 + 1.6 * len(names), 3), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        ratios = [
            float(r["ratio"]) for r in records if r["model"] == name and r["side"] == "ifguide"
        ]
        axes.plot([place] * len(ratios), ratios, "o", color="#0072b2", alpha=0.6)
        axes.plot([place - 0.15, place + 0.15], [statistics.median(ratios)] * 2, color="black")
    axes.axhline(1, color="grey", linestyle=":")
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("times as many continuations\nper second as model.generate")
    return figure


def main(arguments: argparse.Namespace) -> None:
    names = ["smoke"] if arguments.small else arguments.models
    sampling = Sampling(max_new_tokens=5 if arguments.small else 20)
    repetitions = 2 if arguments.small else arguments.repetitions
    records, rows = [], []
    for name in names:
        found, row = compare(name, sampling, repetitions, arguments.prompts)
        records += found
        rows.append(row)
    table = (
        f"{sampling.continuations} continuations a prompt of at most {sampling.max_new_tokens} "
        f"tokens, nucleus {sampling.top_p}; {torch.get_num_threads()} threads, PyTorch "
        f"{torch.__version__}; medians of {repetitions} repetitions, ratio with lowest and "
        "highest. Speeds on a shared machine mean little; the ratio is taken within each "
        "repetition. p: chi-squared test that both sides draw tokens from one distribution.\n\n"
        "| model | ours, per second | model.generate, per second | ratio | p, first token | "
        "p, last token |\n| --- | ---: | ---: | ---: | ---: | ---: |\n" + "".join(rows)
    )
    write_text(arguments.output / "generation.md", table)
    csv_path = arguments.output / "generation.csv"
    with atomic_path(csv_path) as temporary, open(temporary, "w", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(records)
    with atomic_path(arguments.output / "generation.png") as temporary:
        draw(records).savefig(temporary, dpi=150)
    print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a tiny model, in seconds")
    parser.add_argument(
        "--models", nargs="+", choices=list(SIZES), default=["default target", "Pythia-160M"]
    )
    parser.add_argument("--prompts", type=int, help="of each model, in place of its usual number")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, help="folder of table, CSV, figure")
    main(parser.parse_args())
