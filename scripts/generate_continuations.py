"""Continuations of a benchmark's prompts by one model.

settings: {"generation": {...}, "seed": int}.
"""

import logging
from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from ifguide.artifacts import read_jsonl, write_jsonl
from ifguide.generation import Sampling, generate
from ifguide.models import compute_device, load_model, load_tokenizer, weights_sha256

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = dict(arguments.settings["generation"])
    rows_per_batch = settings.pop("rows_per_batch")
    records = read_jsonl(arguments.prompts)
    model = load_model(arguments.model).to(compute_device())
    weights = weights_sha256(arguments.model)
    continuations = generate(
        model,
        load_tokenizer(arguments.model),
        [record["prompt"] for record in records],
        Sampling(**settings),
        seed=arguments.settings["seed"],
        rows_per_batch=rows_per_batch,
    )
    log.info("%d continuations of %d prompts", len(continuations), len(records))
    write_jsonl(
        arguments.output,
        (
            {
                "prompt_index": c.prompt_index,
                "prompt": records[c.prompt_index]["prompt"],
                "split": records[c.prompt_index]["split"],
                "group": records[c.prompt_index]["group"],
                "sample": c.sample,
                "seed": c.seed,
                "continuation": c.text,
                "tokens": c.tokens,
                "weights_sha256": weights,
            }
            for c in continuations
        ),
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
