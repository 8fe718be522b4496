"""Measure classified continuations: toxicity and degeneration, with intervals.

--settings: {"judges": ["explicit", "implicit"], "seed": int, "threshold": 0.5, "resamples": 2000,
"level": 0.95}. The seed is the experiment's, not the training seed: methods measured on the same
prompts share their resamples. --generations, --losses and --output: a file for each of
--benchmarks. An output that was made from the same before is kept.
"""

from ifguide.workflow.command_line import add_kept_arguments, argument_parser, run

import argparse
import logging
from pathlib import Path

from ifguide.evaluation.generation_metrics import measure_generations, require_own
from ifguide.evaluation.judge import LEADING
from ifguide.files.artifacts import read_json, read_jsonl, write_json
from ifguide.files.checksums import file_sha256
from ifguide.files.kept import KeptOutputs
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)


def main(arguments: argparse.Namespace) -> None:
    weights = None
    if arguments.training_record:
        weights = read_json(arguments.training_record)["weights_sha256"]
    losses = arguments.losses or [None] * len(arguments.benchmarks)
    named = zip(arguments.benchmarks, arguments.generations, losses, strict=True)
    sources = dict(zip(arguments.output, named, strict=True))
    outputs = KeptOutputs(
        {
            output: {
                **header_of(name, arguments),
                "settings": arguments.settings,
                "weights_sha256": weights,
                "generations_sha256": file_sha256(generations),
                "losses_sha256": own_losses and file_sha256(own_losses),
                "code": arguments.code,
            }
            for output, (name, generations, own_losses) in sources.items()
        }
    )
    for output in outputs.unfinished:
        name, generations, own_losses = sources[output]
        measured = measure(arguments.settings, name, generations, own_losses, weights)
        for warning in measured["warnings"]:
            log.warning("%s: %s", generations, warning)
        write_json(outputs.place(output), header_of(name, arguments) | measured)
        counts = len(measured["prompts"]), measured["continuations"]
        log.info("%d prompts x %d continuations measured in %s", *counts, output)
    outputs.publish()


def header_of(benchmark: str, arguments: argparse.Namespace) -> dict:
    return {
        "benchmark": benchmark,
        "model": arguments.model,
        "method": arguments.method,
        "seed": arguments.training_seed,
    }


def measure(
    settings: dict, benchmark: str, path: Path, losses: Path | None, weights: str | None
) -> dict:
    """Return the metrics of one benchmark's file of continuations, written by these weights."""
    generations = read_jsonl(path)
    if weights:
        require_own(generations, weights, settings["seed"], str(path))
    return measure_generations(
        generations,
        path=str(path),
        judges=settings.get("judges", LEADING),
        threshold=settings.get("threshold", 0.5),
        resamples=settings.get("resamples", 2000),
        seed=derive_seed(settings.get("seed", 0), "intervals", benchmark),
        level=settings.get("level", 0.95),
        losses=read_json(losses)["prompts"] if losses else None,
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    add_kept_arguments(parser)
    parser.add_argument("--generations", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--losses", type=Path, nargs="+", help="of continuations under the uncensored model"
    )
    parser.add_argument("--training-record", help="training.json of the model that wrote them")
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--training-seed", required=True, type=int)
    run(main, parser, resumes=True)
