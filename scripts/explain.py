"""Say of the tokens of a document, or of a phrase, whether they are selected and why.

    python scripts/explain.py --results results/planted --document 17
    python scripts/explain.py --results results/planted --method ifguide --phrase "some words"

A document is what the selection ranks, by its number in documents.csv: a training block, or a
source document. In a terminal, tokens are shaded by their score; NO_COLOR in the environment, or
output to a file, leaves that out.
"""

from ifguide.workflow.command_line import argument_parser, run

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from ifguide.data.corpus import Corpus, ShardedArray, open_corpus, shard_name
from ifguide.data.document_places import DocumentPlaces, first_tokens
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import stream_jsonl
from ifguide.files.checksums import remedy, verify
from ifguide.files.tables import read_table
from ifguide.influence.explanation import lower_scores, occurrences, token_reasons
from ifguide.influence.mask_transfer import characters_of, require_same_tokens, tokenize_again
from ifguide.influence.pieces import Pieces
from ifguide.influence.score_files import open_scores
from ifguide.influence.selection_files import open_mask
from ifguide.methods.step import Mask, steps_of
from ifguide.report.explanation_text import (
    ExplainedDocument,
    colour_legend,
    document_text,
    selection_line,
)
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.influence import Influence
from ifguide.workflow.layout import Layout

CONTEXT = 4  # tokens on each side of a phrase


def main(arguments: argparse.Namespace) -> None:
    # The output may be read by a pager that is left early.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    place = find_selection(arguments.results, arguments.method)
    corpus = open_corpus(place.corpus)
    selection = Selection(place, corpus)
    if arguments.phrase is None:
        wanted = [selection.whole(arguments.document)]
    else:
        texts = arguments.results / "corpus" / "documents.jsonl"
        found = phrase_tokens(arguments.phrase, texts, corpus, selection.tokenizer)
        wanted = list(selection.parts(found, arguments.occurrences))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    sys.stdout.write(selection_line(place.name, selection.record))
    if colour:
        sys.stdout.write(colour_legend())
    window = selection.record["settings"]["window"]
    for document in selection.explained(wanted):
        sys.stdout.write("\n" + document_text(document, window, colour=colour))
    if arguments.phrase is not None:
        shown = min(arguments.occurrences, len(found))
        sys.stdout.write(f"\n{shown:,} of {len(found):,} occurrences shown, by document\n")


class Place(NamedTuple):
    """Where the files of a selection lie."""

    name: str
    corpus: Path
    scores: Path
    folder: Path


def find_selection(results: Path, method: str | None) -> Place:
    """Return the selection whose tokens a method suppresses, by the record of the run.

    Without a method, that of the first one compared that suppresses a selection.
    """
    run_config = results / "run_config.yaml"
    if not run_config.is_file():
        raise InputError(f"{results}: no run_config.yaml; give the folder results/<experiment>")
    verify(run_config)
    config = yaml.safe_load(run_config.read_text(encoding="utf-8"))["config"]
    scored = {
        name: mask.selection
        for name, entry in config["methods"].items()
        if (mask := scored_mask(entry))
    }
    compared = [name for name in config["evaluation"]["methods"] if name in scored]
    method = method or next(iter(compared), None)
    if method is None:
        raise InputError(f"{run_config}: no method compared suppresses a selection; give --method")
    if method not in config["methods"]:
        raise InputError(
            f"--method: {method!r} is none of {', '.join(config['methods'])} ({run_config})"
        )
    if method not in scored:
        raise InputError(
            f"--method: {method} suppresses no tokens by their scores; those that do are "
            f"{', '.join(scored) or 'none'}"
        )
    experiment = Experiment(config, Layout(config["experiment"], folder=str(results)))
    influence = Influence(experiment)
    name = scored[method]
    folder = Path(influence.selection_folder(name))
    if not (folder / "selection.json").is_file():
        raise InputError(f"{folder}: no selection.json; make it by `snakemake select`")
    entry = config["influence"]["selections"][name]
    return Place(
        name,
        Path(experiment.corpus_of(experiment.proxy)),
        Path(influence.scores_folder(entry["direction"], entry["attribution"])),
        folder,
    )


def scored_mask(entry: dict) -> Mask | None:
    """Return the mask of selected tokens that a method trains with, if it does."""
    steps = [step for step in steps_of(entry) if step.stage == "train"]
    needs = [need for step in steps for need in step.needs().values()]
    masks = [need for need in needs if isinstance(need, Mask) and need.tokens == "selected"]
    return next(iter(masks), None)


class Part(NamedTuple):
    """A ranked document, the places of its tokens to show, and of those of the phrase."""

    number: int
    shown: np.ndarray
    asked: np.ndarray


class Selection:
    """A selection with the scores that it was made from, document by document."""

    def __init__(self, place: Place, corpus: Corpus) -> None:
        self.corpus = corpus
        self.mask, self.record = open_mask(place.folder, corpus)
        paths = [place.scores / shard_name(shard) for shard in range(len(corpus.meta["shards"]))]
        scores = open_scores(paths, corpus, self.record["scores_made_from"])
        self.scores = ShardedArray(scores)
        self.pieces = Pieces(corpus, scores, self.record["settings"])
        self.ranking = read_table(place.folder / "documents.csv").set_index("document")
        self.tokenizer = load_tokenizer(place.corpus / "tokenizer")
        self.by_block = self.record["settings"]["documents"] == "block"
        self.folder = place.folder
        # Where each source document begins in the stream of all blocks' tokens.
        self.first = first_tokens(corpus)
        self.places = DocumentPlaces(corpus, self.by_block)

    @property
    def unit(self) -> str:
        return "block" if self.by_block else "document"

    def whole(self, number: int) -> Part:
        if number not in self.ranking.index:
            raise InputError(
                f"--document: {number} is no {self.unit} of this corpus; give one of 0 to "
                f"{len(self.ranking) - 1}, as in {self.folder / 'documents.csv'}"
            )
        start, stop = self.places.bounds(number)
        return Part(number, np.arange(stop - start), np.array([], np.int64))

    def parts(self, found: list[tuple[int, int, int]], limit: int) -> Iterator[Part]:
        """Yield the ranked documents that hold tokens of a phrase, with their neighbours."""
        for document, begin, end in found[:limit]:
            low = max(int(self.first[document]), begin - CONTEXT)
            high = min(int(self.first[document + 1]), end + CONTEXT)
            size = self.corpus.block_size
            numbers = range(low // size, (high - 1) // size + 1) if self.by_block else [document]
            for number in numbers:
                start, stop = self.places.bounds(number)
                shown = np.arange(max(low, start), min(high, stop))
                asked = shown[(shown >= begin) & (shown < end)]
                if len(asked):
                    yield Part(number, shown - start, asked - start)

    def explained(self, parts: Iterable[Part]) -> Iterator[ExplainedDocument]:
        """Explain documents. Raises InputError where the mask is not what the scores give."""
        parts = list(parts)
        ranked = {part.number: self._ranking_scores(part.number) for part in parts}
        flat = np.concatenate(list(ranked.values()))
        lower, total = lower_scores(flat, (scores for scores, _, _ in self.pieces.candidates()))
        starts = np.cumsum([0] + [len(scores) for scores in ranked.values()])
        quantiles = dict(zip(ranked, np.split(lower / total, starts[1:-1]), strict=True))
        for part in parts:
            start, stop = self.places.bounds(part.number)
            row = self.ranking.loc[part.number]
            tokens = self.corpus.tokens.stretch(start, stop)
            reasons = token_reasons(
                ranked[part.number],
                candidates=tokens != self.corpus.meta["end_of_text"],
                threshold=self.record["threshold"],
                window=self.record["settings"]["window"],
                allotment=int(row["selected"]),
            )
            if not np.array_equal(reasons.selected, self.mask.stretch(start, stop)):
                raise InputError(
                    f"{self.folder}: the mask of {self.unit} {part.number} is not what its scores "
                    f"and settings give; {remedy(self.folder, 'the folder')}"
                )
            asked = np.zeros(stop - start, bool)
            asked[part.asked] = True
            yield ExplainedDocument(
                unit=self.unit,
                number=part.number,
                rank=int(row["rank"]),
                ranked=len(self.ranking),
                flagged=int(row["s"]),
                flagged_sum=float(row["f"]),
                # One token alone may be half a character; it then shows as a replacement character.
                tokens=[self.tokenizer.decode([token]) for token in tokens.tolist()],
                scores=self.scores.stretch(start, stop),
                ranking=ranked[part.number],
                quantiles=quantiles[part.number],
                reasons=reasons,
                shown=part.shown,
                asked=asked,
            )

    def _ranking_scores(self, number: int) -> np.ndarray:
        start, stop = self.places.bounds(number)
        size = self.corpus.block_size
        rows = range(start // size, -(-stop // size))
        columns = (self.scores, self.corpus.tokens, self.corpus.documents)
        ranked = self.pieces.ranking(*(column.rows(rows) for column in columns))
        return ranked.reshape(-1)[start - rows.start * size :][: stop - start]


def phrase_tokens(
    phrase: str, texts: Path, corpus: Corpus, tokenizer
) -> list[tuple[int, int, int]]:
    """Return the document of each occurrence of a phrase, and its tokens [start, stop).

    The tokens' places are those in the stream of all blocks; every token that holds a character of
    the phrase is one. Raises InputError where the phrase is nowhere.
    """
    if not phrase.strip():
        raise InputError("--phrase: is empty; give some words of the training text")
    first = first_tokens(corpus)
    backend = characters_of(tokenizer)
    found = []
    for record in stream_jsonl(texts):
        spans = list(occurrences(phrase, record["text"]))
        if not spans:
            continue
        document, start = record["document"], int(first[record["document"]])
        (tokenized,) = tokenize_again(backend, [record["text"]])
        require_same_tokens(corpus, document, start, tokenized.ids)
        for begin, end in spans:
            touching = (tokenized.offsets[:, 0] < end) & (tokenized.offsets[:, 1] > begin)
            places = np.flatnonzero(touching)
            found.append((document, start + int(places[0]), start + int(places[-1]) + 1))
    if not found:
        raise InputError(f"--phrase: {phrase!r} is nowhere in {texts}; give words that occur there")
    return found


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--results", type=Path, required=True, help="results/<experiment>")
    parser.add_argument("--method", help="a method that suppresses a selection")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--document", type=int, help="number of a ranked document")
    what.add_argument("--phrase", help="words of the training text")
    parser.add_argument("--occurrences", type=int, default=3, help="of the phrase to show")
    run(main, parser)
