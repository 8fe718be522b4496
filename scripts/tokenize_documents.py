"""Tokenize numbered documents, or take the parts that others tokenized, and pack them into blocks.

settings: {"block_size": int, "shards": int, "truth": bool}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from ifguide.data.corpus import (
    TokenStream,
    end_of_text_id,
    token_streams,
    tokenizer_sha256,
    write_blocks,
)
from ifguide.data.token_parts import numbered_documents, read_part
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import stream_jsonl, write_json
from ifguide.files.checksums import verified_sha256

log = logging.getLogger(__name__)


def streams_of_parts(parts: list[Path], documents: str, tokenizer: str) -> Iterator[TokenStream]:
    for number, path in enumerate(parts):
        shard = f"{number} of {len(parts)}"
        yield from read_part(path, {"documents": documents, "tokenizer": tokenizer, "shard": shard})


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    tokenizer = load_tokenizer(arguments.tokenizer)
    hashes = verified_sha256(arguments.documents), tokenizer_sha256(arguments.tokenizer)
    if arguments.parts:
        streams = streams_of_parts(arguments.parts, *hashes)
    else:
        streams = token_streams(numbered_documents(stream_jsonl(arguments.documents)), tokenizer)
    meta = write_blocks(
        streams,
        arguments.output,
        block_size=settings["block_size"],
        shards=settings["shards"],
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=settings["truth"],
    )
    meta["documents_sha256"], meta["tokenizer_sha256"] = hashes
    log.info("%d tokens in %d blocks", meta["tokens"], meta["blocks"])
    write_json(arguments.output / "meta.json", meta)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--parts", type=Path, nargs="*", default=[])
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
