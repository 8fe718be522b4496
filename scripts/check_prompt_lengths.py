"""Refuse prompts that a model could not continue, before any model is trained.

settings: {"benchmark", "model", "architecture": {...}, "block_size": int, "max_new_tokens": {"key",
"tokens"}}.
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
    model, continuation = settings["model"], settings["max_new_tokens"]
    architecture = read_architecture(settings["architecture"], f"models.{model}.architecture")
    room = room_for_prompts(
        model,
        positions_of(architecture, model, settings["block_size"]),
        continuation["tokens"],
        continuation["key"],
    )
    records = [PromptRecord(**record) for record in read_jsonl(arguments.prompts)]
    longest = longest_prompt(
        load_tokenizer(arguments.tokenizer), records, room, settings["benchmark"]
    )
    write_json(arguments.output, {"longest_prompt": longest, "room": room.tokens})


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
