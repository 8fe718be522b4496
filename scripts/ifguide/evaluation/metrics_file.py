"""What the measurements of fluency share: whose metrics they are, and the file they go to."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ifguide.files.artifacts import write_json


def add_measurement_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--given", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--benchmark", required=True)
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--training-seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)


def write_metrics(arguments: Namespace, rows: list[dict], **units: dict) -> None:
    """Write metrics.json: whose it is, its rows, and what paired differences need (`units`)."""
    header = {
        "benchmark": arguments.benchmark,
        "model": arguments.model_name,
        "method": arguments.method,
        "seed": arguments.training_seed,
    }
    write_json(arguments.output, {**header, "rows": rows, **units})
