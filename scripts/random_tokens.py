"""Draw as many random label tokens as a selection has: the control that must not help.

settings: {"seed": int}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.corpus import open_corpus
from ifguide.files.artifacts import write_json
from ifguide.influence.pieces import candidate_documents
from ifguide.influence.random_tokens import random_masks
from ifguide.influence.selection_files import open_mask, write_mask
from ifguide.seeds import derive_seed


def main(arguments: Namespace) -> None:
    corpus = open_corpus(arguments.corpus)
    selected, record = open_mask(arguments.selection, corpus)
    # Column 0 is no label: a selected token there has no loss to replace.
    count = sum(int(shard[:, 1:].sum()) for shard in selected.shards)
    seed = derive_seed(arguments.settings["seed"], "random tokens")
    shards = range(len(corpus.tokens.shards))
    masks = random_masks([candidate_documents(corpus, shard) for shard in shards], count, seed)
    write_json(
        arguments.output / "selection.json",
        {
            **write_mask(arguments.output, masks),
            "tokens_sha256": corpus.content_sha256,
            "as_many_as_sha256": record["mask_sha256"],
            "selected_tokens": count,
            "selected_share": count / corpus.meta["tokens"],
        },
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--selection", type=Path, required=True, help="folder of a selection")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
