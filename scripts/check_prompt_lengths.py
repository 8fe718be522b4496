"""Refuse prompts that a model could not continue, before any model is trained.

settings: {"models": {name: architecture}, "block_size": int, "max_new_tokens": {benchmark: {"key",
"tokens"}}}: the evaluated models of one tokenizer.
"""

from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from ifguide.architectures import read_architecture
from ifguide.artifacts import read_jsonl, write_json
from ifguide.benchmark_formats import PromptRecord
from ifguide.errors import InputError
from ifguide.models import load_tokenizer
from ifguide.prompt_lengths import longest_prompt, positions_of, room_for_prompts


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    block_size = settings["block_size"]
    positions = {
        model: positions_of(
            read_architecture(architecture, f"models.{model}.architecture"), block_size
        )
        for model, architecture in settings["models"].items()
    }
    for model, number in positions.items():
        if number < block_size:
            raise InputError(
                f"config key corpus.block_size: {block_size} is longer than the {number} positions "
                f"of models.{model}"
            )
    tokenizer = load_tokenizer(arguments.tokenizer)
    found = {}
    for path in arguments.prompts:
        benchmark = path.stem
        longest = settings["max_new_tokens"][benchmark]
        room = room_for_prompts(positions, longest["tokens"], longest["key"])
        records = [PromptRecord(**record) for record in read_jsonl(path)]
        found[benchmark] = {
            "longest_prompt": longest_prompt(tokenizer, records, room, benchmark),
            "room": room.tokens,
            "model": room.model,
        }
    write_json(arguments.output, {"tokens": found})


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
