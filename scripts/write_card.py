"""Write the card of a model: what was trained on what, what was suppressed and why, what it does.

settings: {"experiment": name, "model", "method", "seed"; "entry": of the method in the config,
"start": the method or directory that it begins with, or null, "given": directory whose weights are
taken as they are, or null; "sources": of the corpus, "suppressed": which tokens, or null,
"selection": {"name", "entry", "direction"} or null; "judges": entries of classifiers, "sampling":
of continuations, "level": of intervals}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifguide.data.corpus import Corpus, ShardedArray, open_corpus
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import read_json, require_same, write_text
from ifguide.influence.selection_files import open_mask
from ifguide.report.model_card import Suppressed, model_card

TOKENS_SHOWN = 20


def suppressed_tokens(corpus: Corpus, mask: ShardedArray) -> Suppressed:
    """Return how many tokens a mask holds, and the most frequent ones."""
    counts = np.zeros(corpus.meta["vocabulary_size"], np.int64)
    for tokens, marked in zip(corpus.tokens.shards, mask.shards, strict=True):
        counts += np.bincount(tokens[marked], minlength=len(counts))
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    # Of equal counts, the lower number first.
    most = np.argsort(-counts, kind="stable")[:TOKENS_SHOWN]
    return Suppressed(
        tokens=int(counts.sum()),
        share=float(counts.sum() / corpus.meta["tokens"]),
        kinds=int((counts > 0).sum()),
        most_frequent=[(tokenizer.decode([token]), int(counts[token])) for token in most]
        if counts.any()
        else [],
    )


def read_all(paths: Sequence[Path]) -> list[dict]:
    return [read_json(path) for path in paths]


def main(arguments: Namespace) -> None:
    corpus = open_corpus(arguments.corpus)
    training = read_json(arguments.model / "training.json")
    suppressed = dropped = None
    if arguments.mask:
        mask, record = open_mask(arguments.mask, corpus)
        require_same("mask", record["mask_sha256"], training["mask_sha256"], arguments.model)
        suppressed = suppressed_tokens(corpus, mask)
    elif arguments.truth:
        suppressed = suppressed_tokens(corpus, corpus.truth)
    elif arguments.dropped:
        dropped = read_json(arguments.dropped)
    text = model_card(
        arguments.settings,
        training,
        corpus.meta,
        suppressed=suppressed,
        dropped=dropped,
        selected=read_json(arguments.selection / "selection.json") if arguments.selection else None,
        metrics=read_all(arguments.metrics),
        reference=read_all(arguments.reference),
    )
    write_text(arguments.output, text)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--corpus", type=Path, required=True, help="in the model's own tokens")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--dropped", type=Path, help="dropped.json of a corpus made by a data step")
    kinds.add_argument("--mask", type=Path, help="folder of the mask that the model was made with")
    kinds.add_argument("--truth", action="store_true", help="it suppresses known toxic tokens")
    parser.add_argument("--selection", type=Path, help="folder of the selection of that mask")
    parser.add_argument("--metrics", type=Path, nargs="+", default=[], help="of the model")
    parser.add_argument("--reference", type=Path, nargs="+", default=[], help="of the uncensored")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
