"""Refuse prompts that a model could not continue, before any model is trained.

settings: {"model", "architecture": {...}, "block_size": int, "max_new_tokens": {benchmark: {"key",
"tokens"}}}. --prompts and --output: a file for each of --benchmarks.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.prompt_lengths import longest_prompt, positions_of, room_for_prompts
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import read_jsonl, write_json
from ifguide.models.architectures import read_architecture


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    model = settings["model"]
    architecture = read_architecture(settings["architecture"], f"models.{model}.architecture")
    positions = positions_of(architecture, model, settings["block_size"])
    tokenizer = load_tokenizer(arguments.tokenizer)
    found = []
    for name, path in zip(arguments.benchmarks, arguments.prompts, strict=True):
        continuation = settings["max_new_tokens"][name]
        room = room_for_prompts(model, positions, continuation["tokens"], continuation["key"])
        records = [PromptRecord(**record) for record in read_jsonl(path)]
        longest = longest_prompt(tokenizer, records, room, name)
        found.append({"longest_prompt": longest, "room": room.tokens})
    for output, record in zip(arguments.output, found, strict=True):
        write_json(output, record)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--benchmarks", nargs="+", required=True)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    run(main, parser)
