"""What a decode step fits once, before it decodes: a probe, a value network, a matrix.

settings: {"steps": {key: options} of the decode step, but for its strength, "names": [model,
method], "training_seed": int, "seed": int}. --given: what the step needs, {key: {need: paths}}.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import shutil
from argparse import Namespace
from pathlib import Path

from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.tensor_files import write_tensors
from ifguide.methods.step import PreparationJob, given_of, step_at
from ifguide.models.loading import compute_device, load_model, weights_sha256
from ifguide.seeds import derive_seed


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    step = step_at(settings["steps"], "decode")
    scratch = arguments.output.with_name(f".{arguments.output.name}.scratch")
    model_name, _ = settings["names"]
    job = PreparationJob(
        load_model(arguments.model).to(compute_device()),
        load_tokenizer(arguments.model),
        derive_seed(settings["seed"], "decoding", model_name, settings["training_seed"]),
        scratch,
    )
    prepared = step.prepare(job, given_of(step, arguments.given))
    write_tensors(arguments.output, prepared, {"weights_sha256": weights_sha256(arguments.model)})
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--given", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
