"""Write a selection as data: the selected character spans of every document, and their scores.

settings: {"name": of the selection, "entry": its entry in the config, "direction": that of its
direction, "experiment": name, "tokenizers": [names] of the label masks beside it}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from ifguide.data.corpus import Corpus, ShardedArray, open_corpus
from ifguide.data.document_places import first_tokens
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import require_same, stream_jsonl, text_sha256, write_json, write_text
from ifguide.files.checksums import recorded_sha256, verified_sha256
from ifguide.influence.character_spans import Spans, selected_spans
from ifguide.influence.exported_spans import ExportedDocument, write_spans
from ifguide.influence.mask_transfer import characters_of, require_same_tokens, tokenize_again
from ifguide.influence.pieces import Pieces
from ifguide.influence.score_files import open_scores
from ifguide.influence.selection_files import open_mask
from ifguide.report.spans_card import spans_card

log = logging.getLogger(__name__)

DOCUMENTS_AT_ONCE = 256


class SelectedTokens:
    """A selection with the scores that it was made from, by the tokens of its corpus."""

    def __init__(self, corpus: Corpus, selection: Path, scores: list[Path]) -> None:
        self.corpus = corpus
        self.mask, self.record = open_mask(selection, corpus)
        shards = open_scores(scores, corpus, self.record["scores_made_from"])
        self.scores = ShardedArray(shards)
        self.ranking = Pieces(corpus, shards, self.record["settings"]).ranking
        self.first = first_tokens(corpus)
        self.backend = characters_of(load_tokenizer(corpus.directory / "tokenizer"))

    def places(self, document: int) -> tuple[int, int]:
        """Return where a document's own tokens begin and end, without the end of text."""
        return int(self.first[document]), int(self.first[document + 1]) - 1

    def any_of(self, document: int) -> bool:
        return bool(self.mask.stretch(*self.places(document)).any())

    def spans(self, documents: list[int], texts: list[str]) -> Iterator[Spans]:
        """Yield the spans of some documents. Raises InputError where a text is another one."""
        tokenized = tokenize_again(self.backend, texts)
        for document, text in zip(documents, tokenized, strict=True):
            start, stop = self.places(document)
            require_same_tokens(self.corpus, document, start, text.ids)
            yield selected_spans(
                text.offsets,
                self.mask.stretch(start, stop),
                self.scores.stretch(start, stop),
                self._ranking_scores(start, stop),
            )

    def _ranking_scores(self, start: int, stop: int) -> np.ndarray:
        size = self.corpus.block_size
        rows = range(start // size, -(-stop // size))
        columns = (self.scores, self.corpus.tokens, self.corpus.documents)
        ranked = self.ranking(*(column.rows(rows) for column in columns))
        return ranked.reshape(-1)[start - rows.start * size :][: stop - start]


def exported(records: Iterator[dict], selection: SelectedTokens) -> Iterator[ExportedDocument]:
    """Yield every document, in order; only those with a selected token are tokenized again."""
    while batch := list(islice(records, DOCUMENTS_AT_ONCE)):
        touched = [record for record in batch if selection.any_of(record["document"])]
        spans = selection.spans(
            [record["document"] for record in touched], [record["text"] for record in touched]
        )
        found = {record["document"]: own for record, own in zip(touched, spans, strict=True)}
        for record in batch:
            yield ExportedDocument(
                document=record["document"],
                source=record["source"],
                sha256=text_sha256(record["text"]),
                characters=len(record["text"]),
                spans=found.get(record["document"]),
            )


def main(arguments: Namespace) -> None:
    corpus = open_corpus(arguments.corpus)
    documents = verified_sha256(arguments.documents)
    require_same("documents", documents, corpus.meta["documents_sha256"], corpus.directory)
    selection = SelectedTokens(corpus, arguments.selection, arguments.scores)
    spans = arguments.output / "spans.parquet"
    counts = write_spans(spans, exported(stream_jsonl(arguments.documents), selection))
    record = {
        **counts,
        "selected_tokens": selection.record["selected_tokens"],
        "selected_share": selection.record["selected_share"],
        "threshold": selection.record["threshold"],
        "false_discovery_rate": selection.record.get("false_discovery_rate"),
        "mask_sha256": selection.record["mask_sha256"],
        "documents_sha256": documents,
        "spans_sha256": recorded_sha256(spans),
    }
    log.info(
        "%d of %d selected tokens are in %d spans of %d documents",
        *(record[name] for name in ("tokens", "selected_tokens", "spans", "documents")),
    )
    write_json(arguments.output / "spans.json", record)
    write_text(arguments.output / "README.md", spans_card(arguments.settings, record))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--documents", type=Path, required=True, help="documents.jsonl")
    parser.add_argument("--selection", type=Path, required=True, help="folder of a selection")
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
