"""LAMBADA: accuracy of the last word, and of its last token.

settings: {"steps": {key: options} of the decode step, "sampling": {"top_p", "temperature"}, the
nucleus that a step weighs anew, "seed": int, "resamples": int, "level": float}. --given: what the
step needs, {key: {need: paths}}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

import numpy as np

from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.fluency import last_words, longest_last_word
from ifguide.evaluation.generation import Sampling
from ifguide.evaluation.generation_metrics import metric_row
from ifguide.evaluation.intervals import share_interval
from ifguide.evaluation.metrics_file import add_measurement_arguments, write_metrics
from ifguide.files.artifacts import read_jsonl
from ifguide.methods.step import DecodingJob, decoding
from ifguide.models.loading import compute_device, load_model
from ifguide.seeds import derive_seed


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    model = load_model(arguments.model).to(compute_device())
    passages = [record["text"] for record in read_jsonl(arguments.passages)]
    tokenizer = load_tokenizer(arguments.model)
    job = DecodingJob(model, tokenizer, longest_last_word(tokenizer, passages))
    with decoding(settings["steps"], arguments.given, job) as guidance:
        sampling = Sampling(**settings["sampling"]) if guidance is not None else None
        found = last_words(model, tokenizer, passages, guidance=guidance, sampling=sampling)
    units = {
        "last_word_accuracy": [float(passage.word) for passage in found],
        "last_token_accuracy": [float(passage.token) for passage in found],
    }
    seed = derive_seed(settings["seed"], "intervals", arguments.benchmark)
    rows = [
        metric_row(
            "all",
            name,
            share_interval(np.array(values), settings["resamples"], seed, settings["level"]),
            len(values),
        )
        for name, values in units.items()
    ]
    write_metrics(arguments, rows, units={"all": units})


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--passages", type=Path, required=True)
    add_measurement_arguments(parser)
    run(main, parser)
