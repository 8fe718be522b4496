"""Move a selection's mask to the tokens of another tokenizer, through the documents' characters."""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.data.corpus import open_corpus
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import require_same, stream_jsonl, write_json
from ifguide.files.checksums import verified_sha256
from ifguide.influence.mask_transfer import MARKED_SHARE, transfer_mask
from ifguide.influence.selection_files import open_mask, write_mask

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    source, target = open_corpus(arguments.source), open_corpus(arguments.target)
    mask, selection = open_mask(arguments.selection, source)
    documents = verified_sha256(arguments.documents)
    for corpus in (source, target):
        require_same("documents", documents, corpus.meta["documents_sha256"], corpus.directory)
    moved = transfer_mask(
        ((record["document"], record["text"]) for record in stream_jsonl(arguments.documents)),
        mask,
        source,
        target,
        load_tokenizer(arguments.source / "tokenizer"),
        load_tokenizer(arguments.target / "tokenizer"),
    )
    log.info(
        "%d selected tokens became %d; these hold %.1f of %d selected characters",
        moved.selected_source_tokens,
        moved.selected_tokens,
        moved.held_characters,
        moved.selected_characters,
    )
    if moved.selected_tokens == 0:
        raise InputError(
            f"{arguments.selection}: none of its {moved.selected_source_tokens} selected tokens "
            "holds half of a token of the other tokenizer; raise influence.selections.*.window"
        )
    write_json(
        arguments.output / "selection.json",
        {
            "moved_from_mask_sha256": selection["mask_sha256"],
            "tokens_sha256": target.content_sha256,
            **write_mask(arguments.output, moved.masks),
            "marked_share": MARKED_SHARE,
            "selected_source_tokens": moved.selected_source_tokens,
            "selected_tokens": moved.selected_tokens,
            "selected_share": moved.selected_tokens / target.meta["tokens"],
            "selected_characters": moved.selected_characters,
            "held_characters": moved.held_characters,
            "documents_with_selection": moved.documents_with_selection,
        },
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--documents", type=Path, required=True, help="documents.jsonl")
    parser.add_argument("--selection", type=Path, required=True, help="folder of a selection")
    parser.add_argument("--source", type=Path, required=True, help="corpus that it speaks of")
    parser.add_argument("--target", type=Path, required=True, help="corpus to move it to")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
