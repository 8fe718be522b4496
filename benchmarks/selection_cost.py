"""Seconds and memory of a selection, by the script that the workflow runs, on made-up scores."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ifguide.data.corpus import shard_bounds, shard_name
from ifguide.files.artifacts import write_array, write_json
from ifguide.files.tensor_files import tensors_sha256, write_tensors
from ifguide.files.tensor_metadata import TENSORS

DIRECTION = "direction.safetensors"
SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "select_tokens.py"
BLOCK = 2048
SHARDS = 24
VOCABULARY = 50304
TOKENS_A_DOCUMENT = 1000
DEFAULTS = {
    "rank_by": "flagged",
    "unmoved": False,
    "pooling": 0.0,
    "pool_over": "token",
    "harmless_sources": [],
    "token_weight": "none",
    "token_weight_power": 1.0,
}
VARIANTS = {
    "training blocks": {"documents": "block"},
    "source documents": {"documents": "source"},
    "training blocks, inverse document frequency": {
        "documents": "block",
        "token_weight": "inverse_document_frequency",
    },
    "training blocks, pooled": {"documents": "block", "pooling": 0.9},
    "training blocks, pooled over contexts": {
        "documents": "block",
        "pooling": 0.9,
        "pool_over": "context",
    },
}
# Linux counts into a process's peak memory what its parent held when it was started. The parent is
# therefore this small one, which says what its child took.
MEASURED_CHILD = """
import json, resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
sys.exit(status)
"""


def measure_selection(folder: Path, tokens: int) -> pd.DataFrame:
    """Select 2 % of about `tokens` tokens in every variant."""
    scores = write_corpus_and_scores(folder, tokens)
    records = []
    for name, variant in VARIANTS.items():
        command = selection_command(folder, scores, variant)
        start = time.perf_counter()
        with open(folder / "log.txt", "wb") as log:
            ran = subprocess.run(
                [sys.executable, "-c", MEASURED_CHILD, *command],
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
            )
        if ran.returncode:
            raise RuntimeError((folder / "log.txt").read_text()[-2000:])
        processor_seconds, peak_kib = json.loads(ran.stdout.splitlines()[-1])
        records.append(
            {
                "selection over": name,
                "tokens": f"{tokens:,}",
                "seconds": f"{time.perf_counter() - start:.1f}",
                "processor seconds": f"{processor_seconds:.1f}",
                "peak GiB, mapped files included": f"{peak_kib / 2**20:.2f}",
            }
        )
    return pd.DataFrame(records)


def selection_command(folder: Path, scores: list[Path], variant: dict) -> list[str]:
    """The command that selects 2 % of the tokens of a corpus in `folder`."""
    settings = {"quantile": 0.99, "window": 1, "limit": 0.02, **DEFAULTS, **variant}
    return [
        *(sys.executable, str(SCRIPT), "--settings", json.dumps(settings)),
        *("--corpus", str(folder), "--scores", *map(str, scores)),
        *("--directions", str(folder / DIRECTION), "--scored", "{}"),
        *("--output", str(folder / "selection")),
    ]


def write_corpus_and_scores(folder: Path, tokens: int) -> list[Path]:
    """Write a corpus of random tokens, and scores with heavy tails; return the score files."""
    random = np.random.default_rng(0)
    made_from = {"weights_sha256": "0" * 64}
    direction = {"made up": torch.zeros(1)}
    direction_sha256 = tensors_sha256(direction)
    write_tensors(folder / DIRECTION, direction, {**made_from, TENSORS: direction_sha256})
    blocks = max(1, tokens // BLOCK)
    shards, files = [], []
    meta = {
        "content_sha256": "0" * 64,
        "block_size": BLOCK,
        "blocks": blocks,
        "tokens": blocks * BLOCK,
        "padding": 0,
        "documents": -(-blocks * BLOCK // TOKENS_A_DOCUMENT),
        "documents_without_truth": [],
        "vocabulary_size": VOCABULARY,
        "truth": False,
        "end_of_text": 0,
    }
    for shard, (start, stop) in enumerate(shard_bounds(blocks, SHARDS)):
        shape = (stop - start, BLOCK)
        # Squared, so that some tokens are frequent.
        ids = (random.random(shape, np.float32) ** 2 * VOCABULARY).astype(np.uint16)
        documents = np.arange(start * BLOCK, stop * BLOCK, dtype=np.int32) // TOKENS_A_DOCUMENT
        scores = random.standard_normal(shape, np.float32) ** 3
        for name, array in (("tokens", ids), ("documents", documents.reshape(shape))):
            write_array(folder / name / shard_name(shard), array)
        shards.append({"blocks": stop - start, "first_block": start})
        files.append(folder / "scores" / shard_name(shard))
        write_array(files[-1], scores)
        write_json(
            files[-1].with_suffix(".json"),
            {
                "tokens_sha256": meta["content_sha256"],
                **made_from,
                "direction_sha256": direction_sha256,
                "settings": {},
            },
        )
    write_json(folder / "meta.json", meta | {"shards": shards})
    return files
