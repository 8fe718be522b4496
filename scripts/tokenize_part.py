"""Tokenize one part of the numbered documents.

settings: {"shard": [its number, how many]}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.data.corpus import token_streams, tokenizer_sha256
from ifguide.data.token_parts import numbered_documents, write_part
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import stream_jsonl_part
from ifguide.files.checksums import verified_sha256

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    shard, shards = arguments.settings["shard"]
    tokenizer = load_tokenizer(arguments.tokenizer)
    documents = numbered_documents(stream_jsonl_part(arguments.documents, shard, shards))
    tokens = write_part(
        arguments.output,
        token_streams(documents, tokenizer),
        {
            "documents": verified_sha256(arguments.documents),
            "tokenizer": tokenizer_sha256(arguments.tokenizer),
            "shard": f"{shard} of {shards}",
        },
    )
    log.info("%d tokens in part %d of %d", tokens, shard, shards)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
