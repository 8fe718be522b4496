"""Tokenize numbered documents and pack them into blocks.

settings: {"block_size": int, "shards": int, "truth": bool}.
"""

import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from command_line import argument_parser, run
from ifguide.artifacts import file_sha256, stream_jsonl, write_json
from ifguide.corpus import end_of_text_id, token_streams, tokenizer_sha256, write_blocks
from ifguide.documents import Document
from ifguide.tokenizers import load_tokenizer

log = logging.getLogger(__name__)


def numbered_documents(path: Path) -> Iterator[tuple[int, Document]]:
    for record in stream_jsonl(path):
        spans = record["spans"]
        if spans is not None:
            spans = tuple((start, end) for start, end in spans)
        yield record["document"], Document(record["text"], spans, record["source"])


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    tokenizer = load_tokenizer(arguments.tokenizer)
    meta = write_blocks(
        token_streams(numbered_documents(arguments.documents), tokenizer),
        arguments.output,
        block_size=settings["block_size"],
        shards=settings["shards"],
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=settings["truth"],
    )
    meta["documents_sha256"] = file_sha256(arguments.documents)
    meta["tokenizer_sha256"] = tokenizer_sha256(arguments.tokenizer)
    log.info("%d tokens in %d blocks", meta["tokens"], meta["blocks"])
    write_json(arguments.output / "meta.json", meta)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
