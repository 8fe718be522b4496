"""The highest ranked documents with their tokens, scores, selection and truth, for people to read.

settings: {"documents": number to describe}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.corpus import ShardedArray, open_corpus
from ifguide.data.document_places import DocumentPlaces
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import write_jsonl
from ifguide.files.tables import read_table
from ifguide.influence.score_files import open_scores
from ifguide.influence.selection_files import open_mask


def main(arguments: Namespace) -> None:
    corpus = open_corpus(arguments.corpus)
    tokenizer = load_tokenizer(arguments.corpus / "tokenizer")
    mask, record = open_mask(arguments.selection, corpus)
    score_shards = open_scores(arguments.scores, corpus, record["scores_made_from"])
    columns = {
        "tokens": corpus.tokens,
        "scores": ShardedArray(score_shards),
        "selected": mask,
    }
    if corpus.truth is not None:
        columns["truth"] = corpus.truth
    places = DocumentPlaces(corpus, record["settings"]["documents"] == "block")
    ranking = read_table(arguments.selection / "documents.csv").head(
        arguments.settings["documents"]
    )

    def described(row) -> dict:
        bounds = places.bounds(row.document)
        part = {name: column.stretch(*bounds) for name, column in columns.items()}
        ids = part["tokens"].tolist()
        return {
            "document": int(row.document),
            "rank": int(row.rank),
            "s": int(row.s),
            "f": float(row.f),
            "text": tokenizer.decode(ids),
            # One token alone may be half a character; it then shows as a replacement character.
            "tokens": [tokenizer.decode([token]) for token in ids],
            "scores": [round(float(score), 4) for score in part["scores"]],
            "selected": part["selected"].tolist(),
            "truth": part["truth"].tolist() if "truth" in part else None,
        }

    write_jsonl(arguments.output, (described(row) for row in ranking.itertuples(index=False)))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--selection", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
