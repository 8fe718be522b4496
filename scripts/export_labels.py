"""Write an exported selection as label masks: the tokens of every document by a given tokenizer.

A token is selected where spans hold at least half of its characters.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import require_same, stream_jsonl, text_sha256
from ifguide.influence.character_spans import selected_tokens
from ifguide.influence.exported_spans import LabelMask, read_spans, write_label_masks
from ifguide.influence.mask_transfer import characters_of, tokenize_again

log = logging.getLogger(__name__)

DOCUMENTS_AT_ONCE = 256


def label_masks(documents: Path, spans: Path, tokenizer: Path) -> Iterator[LabelMask]:
    """Yield every document's label mask. Raises InputError where the spans are of other texts."""
    backend = characters_of(load_tokenizer(tokenizer))
    rows = zip(stream_jsonl(documents), read_spans(spans), strict=True)
    while batch := list(islice(rows, DOCUMENTS_AT_ONCE)):
        tokenized = tokenize_again(backend, [record["text"] for record, _ in batch])
        for (record, row), tokens in zip(batch, tokenized, strict=True):
            require_same("the text", text_sha256(record["text"]), row["sha256"], spans)
            ranges = [(span["start"], span["end"]) for span in row["spans"]]
            yield LabelMask(
                row["document"], row["sha256"], tokens.ids, selected_tokens(tokens.offsets, ranges)
            )


def main(arguments: Namespace) -> None:
    masks = label_masks(arguments.documents, arguments.spans, arguments.tokenizer)
    write_label_masks(arguments.output, masks)
    log.info("label masks written: %s", arguments.output)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--documents", type=Path, required=True, help="documents.jsonl")
    parser.add_argument("--spans", type=Path, required=True, help="spans.parquet of an export")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a tokenizer")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
