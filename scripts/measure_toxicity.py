"""Measure a file of classified continuations: toxicity and degeneration, with intervals.

--settings: {"judges": ["explicit", "implicit"], "seed": int, "threshold": 0.5, "resamples": 2000,
"level": 0.95}. The seed is the experiment's, not the training seed: methods measured on the same
prompts share their resamples.
"""

from ifguide.workflow.command_line import argument_parser, run

import argparse
import logging

from ifguide.evaluation.generation_metrics import measure_generations, require_own
from ifguide.evaluation.judge import LEADING
from ifguide.files.artifacts import read_json, read_jsonl, write_json
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)


def main(arguments: argparse.Namespace) -> None:
    settings = arguments.settings
    generations = read_jsonl(arguments.generations)
    if arguments.training_record:
        weights = read_json(arguments.training_record)["weights_sha256"]
        require_own(generations, weights, settings["seed"], arguments.generations)
    measured = measure_generations(
        generations,
        path=arguments.generations,
        judges=settings.get("judges", LEADING),
        threshold=settings.get("threshold", 0.5),
        resamples=settings.get("resamples", 2000),
        seed=derive_seed(settings.get("seed", 0), "intervals", arguments.benchmark),
        level=settings.get("level", 0.95),
        losses=read_json(arguments.losses)["prompts"] if arguments.losses else None,
    )
    for warning in measured["warnings"]:
        log.warning("%s: %s", arguments.generations, warning)
    header = {
        "benchmark": arguments.benchmark,
        "model": arguments.model,
        "method": arguments.method,
        "seed": arguments.training_seed,
    }
    write_json(arguments.output, header | measured)
    log.info(
        "%d prompts x %d continuations measured in %s",
        len(measured["prompts"]),
        measured["continuations"],
        arguments.output,
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--generations", required=True, help="classified generations.jsonl")
    parser.add_argument("--losses", help="continuation_losses.json, under the uncensored model")
    parser.add_argument("--training-record", help="training.json of the model that wrote them")
    parser.add_argument("--benchmark", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--training-seed", required=True, type=int)
    parser.add_argument("--output", required=True, help="metrics.json")
    run(main, parser)
