"""Losses of the continuations that a method wrote, under the uncensored model.

settings: {"continuations": of each prompt, the first ones}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from itertools import groupby
from pathlib import Path

from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.fluency import continuation_losses
from ifguide.files.artifacts import read_jsonl, write_json
from ifguide.models.loading import compute_device, load_model, weights_sha256

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    records = [
        record
        for path in arguments.continuations
        for record in read_jsonl(path)
        if record["sample"] < arguments.settings["continuations"]
    ]
    records.sort(key=lambda record: (record["prompt_index"], record["sample"]))
    model = load_model(arguments.reference).to(compute_device())
    texts = [(record["prompt"], record["continuation"]) for record in records]
    losses, tokens = continuation_losses(model, load_tokenizer(arguments.reference), texts)
    prompts = []
    for index, group in groupby(range(len(records)), lambda row: records[row]["prompt_index"]):
        rows = list(group)
        sums = {"loss_sum": float(losses[rows].sum()), "tokens": int(tokens[rows].sum())}
        prompts.append({"prompt_index": index} | sums)
    log.info("%d continuations of %d prompts", len(records), len(prompts))
    content = {"weights_sha256": weights_sha256(arguments.reference), "prompts": prompts}
    write_json(arguments.output, content)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--continuations", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--reference", type=Path, required=True, help="directory of the uncensored model"
    )
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
