"""Train a tokenizer on the documents, or copy one from a directory.

settings: one entry of the config section `tokenizers`.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.corpus import end_of_text_id, train_tokenizer
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import stream_jsonl
from ifguide.files.checksums import record_directory


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    if "vocabulary_size" in settings:
        texts = (record["text"] for record in stream_jsonl(arguments.documents))
        tokenizer = train_tokenizer(texts, settings["vocabulary_size"])
    else:
        tokenizer = load_tokenizer(settings["path"], "tokenizers.*.path")
    if not tokenizer.is_fast:
        raise InputError(
            f"config key tokenizers: {tokenizer.name_or_path} has no tokenizer.json, which gives "
            "the character offsets of tokens; use a fast tokenizer"
        )
    end_of_text_id(tokenizer)
    tokenizer.save_pretrained(arguments.output)
    record_directory(arguments.output)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
