"""Filter the corpus: train without some of its documents or blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import (
    CorpusJob,
    DocumentToxicity,
    Dropped,
    Given,
    Need,
    Ranking,
    Step,
    Words,
)
from ifguide.settings import Settings

if TYPE_CHECKING:
    from ifguide.data.corpus import Corpus

Unit = Annotated[
    Literal["document", "block"],
    Field(description="What is judged and dropped: a source document, or a training block."),
]


class WordFilter(Settings):
    """Train without the documents or blocks that contain a listed word."""

    words: Annotated[
        str,
        Field(
            min_length=1,
            description="Path or glob of files of words and phrases, one a line; `{planted}` and "
            "`{data_dir}` are filled in.",
        ),
    ]
    unit: Unit = "document"


class ClassifierFilter(Settings):
    """Train without the documents or blocks that a classifier calls toxic."""

    classifier: Annotated[str, Field(description="The judge, an entry of `classifiers`.")]
    threshold: Annotated[
        float,
        Field(ge=0, le=1, description="Toxicity from which a document or block is dropped."),
    ] = 0.5
    unit: Unit = "document"


class SelectionFilter(Settings):
    """Train without the documents that a selection ranks first."""

    selection: Annotated[
        str,
        Field(
            description="Name of the entry of `influence.selections` whose documents are dropped, "
            "the first ranked first."
        ),
    ]
    share: Annotated[float, Field(gt=0, lt=1, description="Share of the corpus's tokens to drop.")]


class Filter(Step):
    stage = "data"
    Options = WordFilter | ClassifierFilter | SelectionFilter

    def needs(self) -> dict[str, Need]:
        match self.options:
            case WordFilter(words=words):
                return {"words": Words(words)}
            case ClassifierFilter(unit=unit, classifier=classifier):
                return {"classifier": DocumentToxicity(unit, classifier)}
            case SelectionFilter(selection=selection):
                return {"selection": Ranking(selection)}

    def kept_share(self) -> float:
        """All at most, but where a share is dropped: what is toxic is not known before."""
        return 1 - self.options.share if isinstance(self.options, SelectionFilter) else 1.0

    def keep(self, job: CorpusJob, given: Given) -> Dropped:
        match self.options:
            case WordFilter(unit=unit):
                return Dropped(unit, dict(units_with_words(job, given["words"], unit)))
            case ClassifierFilter(unit=unit, threshold=threshold):
                scores = given["classifier"]
                return Dropped(unit, dict(toxic_units(job.corpus, scores, threshold)))
            case SelectionFilter(share=share):
                (folder,) = given["selection"]
                return first_ranked_units(job.corpus, folder, share)


def units_with_words(job: CorpusJob, words: list[Path], unit: str) -> Iterator[tuple[int, str]]:
    """Yield the units that contain a listed word, and the word."""
    from ifguide.data.filtering import block_texts, read_words, word_finder
    from ifguide.data.tokenizers import load_tokenizer
    from ifguide.files.artifacts import require_same, stream_jsonl
    from ifguide.files.checksums import verified_sha256

    corpus = job.corpus
    find = word_finder(read_words(words))
    if unit == "block":
        tokenizer = load_tokenizer(job.tokenizer)
        texts = enumerate(block_texts(corpus, tokenizer, 0, corpus.meta["blocks"]))
    else:
        require_same(
            "documents",
            corpus.meta["documents_sha256"],
            verified_sha256(job.documents),
            job.documents,
        )
        records = stream_jsonl(job.documents)
        texts = ((record["document"], record["text"]) for record in records)
    for number, text in texts:
        if word := find(text):
            yield number, f"word: {word}"


def toxic_units(corpus: Corpus, paths: list[Path], threshold: float) -> Iterator[tuple[int, str]]:
    """Yield the units that the classifier calls toxic, and how toxic."""
    import numpy as np

    from ifguide.files.artifacts import open_array, read_json, require_same

    shards = []
    for path in paths:
        record = read_json(path.with_suffix(".json"))
        require_same("tokens", corpus.content_sha256, record["tokens_sha256"], path)
        shards.append(open_array(path))
    scores = np.concatenate(shards)
    for number in np.flatnonzero(scores >= threshold):
        yield int(number), f"toxicity {scores[number]:.3f}"


def first_ranked_units(corpus: Corpus, folder: Path, share: float) -> Dropped:
    """Return the units that a selection ranks first, up to a share of the corpus's tokens.

    A unit that nothing speaks against is never dropped: one without a flagged token or, where
    influence ranks, without positive influence.
    """
    from ifguide.data.filtering import first_of_share, unit_tokens
    from ifguide.files.artifacts import read_json, require_same
    from ifguide.files.tables import read_table

    record = read_json(folder / "selection.json")
    require_same("tokens", corpus.content_sha256, record["tokens_sha256"], folder)
    unit = "block" if record["settings"]["documents"] == "block" else "document"
    ranking = read_table(folder / "documents.csv")
    against = ranking["influence" if "influence" in ranking else "s"] > 0
    ranked = ranking[against]
    counts = unit_tokens(corpus, unit)[ranked["document"]]
    first = ranked.head(first_of_share(counts, corpus.meta["tokens"], share))
    return Dropped(
        unit, {int(row.document): f"rank {row.rank}" for row in first.itertuples(index=False)}
    )
