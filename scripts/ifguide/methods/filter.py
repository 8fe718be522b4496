"""Filter the corpus: train without some of its documents or blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ifguide.methods.step import (
    CorpusJob,
    DocumentToxicity,
    Dropped,
    Given,
    HeldOutScores,
    Need,
    Ranking,
    Step,
    Words,
)
from ifguide.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from ifguide.data.corpus import Corpus

Unit = Annotated[
    Literal["document", "block"],
    Field(description="What is judged and dropped: a source document, or a training block."),
]
WordFiles = Annotated[
    str,
    Field(
        min_length=1,
        description="Path or glob of files of words and phrases, one a line; `{planted}` and "
        "`{data_dir}` are filled in.",
    ),
]
Judge = Annotated[str, Field(description="The judge, an entry of `classifiers`.")]
Statistic = Annotated[
    Literal["mean", "share", "worst"],
    Field(
        description="What a long document or block is judged by, which the judge reads in pieces: "
        "the mean of their probabilities of being toxic, the share that is toxic, or the worst."
    ),
]
EqualTokens = Annotated[
    str,
    Field(
        description="Name of the entry of `influence.selections` of which as many tokens are "
        "dropped as it selects: a filter at the price of a mask."
    ),
]


class FalseAlarms(Settings):
    """A threshold by what it costs."""

    false_alarms: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="The lowest threshold, from 0.5 on, that at most this share of the "
            "harmless texts reaches which were held out when the judge was trained.",
        ),
    ]


def _kind_of_threshold(threshold: Any) -> str:
    return "FalseAlarms" if isinstance(threshold, Mapping) else "number"


Threshold = Annotated[
    Annotated[float, Field(ge=0, le=1), Tag("number")] | Annotated[FalseAlarms, Tag("FalseAlarms")],
    Discriminator(_kind_of_threshold),
    Field(description="Toxicity from which a document or block is dropped."),
]


class WordFilter(Settings):
    """Train without the documents or blocks that contain a listed word."""

    words: WordFiles
    unit: Unit = "document"


class EqualWordFilter(Settings):
    """Train without those of the most listed words a token, as many tokens as a mask has."""

    words: WordFiles
    drop_tokens_of: EqualTokens
    unit: Unit = "document"


class ClassifierFilter(Settings):
    """Train without the documents or blocks that a classifier calls toxic."""

    classifier: Judge
    by: Statistic = "mean"
    threshold: Threshold = 0.5
    unit: Unit = "document"


class EqualClassifierFilter(Settings):
    """Train without those that a classifier finds most toxic, as many tokens as a mask has."""

    classifier: Judge
    drop_tokens_of: EqualTokens
    by: Statistic = "mean"
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
    Options = (
        WordFilter | EqualWordFilter | ClassifierFilter | EqualClassifierFilter | SelectionFilter
    )

    def needs(self) -> dict[str, Need]:
        match self.options:
            case WordFilter(words=words):
                return {"words": Words(words)}
            case EqualWordFilter(words=words, drop_tokens_of=selection):
                return {"words": Words(words), "drop_tokens_of": Ranking(selection)}
            case ClassifierFilter(unit=unit, classifier=classifier, threshold=FalseAlarms()):
                return {
                    "classifier": DocumentToxicity(unit, classifier),
                    "threshold": HeldOutScores(classifier),
                }
            case ClassifierFilter(unit=unit, classifier=classifier):
                return {"classifier": DocumentToxicity(unit, classifier)}
            case EqualClassifierFilter(unit=unit, classifier=classifier, drop_tokens_of=selection):
                return {
                    "classifier": DocumentToxicity(unit, classifier),
                    "drop_tokens_of": Ranking(selection),
                }
            case SelectionFilter(selection=selection):
                return {"selection": Ranking(selection)}

    def kept_share(self) -> float:
        """All at most, but where a share is dropped: what is toxic is not known before."""
        return 1 - self.options.share if isinstance(self.options, SelectionFilter) else 1.0

    def keep(self, job: CorpusJob, given: Given) -> Dropped:
        corpus = job.corpus
        match self.options:
            case WordFilter(unit=unit):
                found = units_with_words(job, given["words"], unit)
                return Dropped(unit, {number: f"word: {words[0]}" for number, words in found})
            case EqualWordFilter(unit=unit):
                wanted = selected_tokens(corpus, given["drop_tokens_of"])
                return most_listed_words(job, given["words"], unit, wanted)
            case ClassifierFilter(unit=unit, by=by, threshold=threshold):
                from ifguide.data.unit_toxicity import unit_toxicity

                if isinstance(threshold, FalseAlarms):
                    threshold = threshold_of(given["threshold"], threshold.false_alarms)
                toxicity = unit_toxicity(corpus, given["classifier"], by)
                return Dropped(unit, toxic_units(toxicity, threshold))
            case EqualClassifierFilter(unit=unit, by=by):
                wanted = selected_tokens(corpus, given["drop_tokens_of"])
                return most_toxic(corpus, given["classifier"], by, unit, wanted)
            case SelectionFilter(share=share):
                (folder,) = given["selection"]
                return first_ranked_units(corpus, folder, share)


def units_with_words(
    job: CorpusJob, words: list[Path], unit: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the units that contain a listed word, and the words, in their order."""
    from ifguide.data.filtering import block_texts, listed_words, read_words
    from ifguide.data.tokenizers import load_tokenizer
    from ifguide.files.artifacts import require_same, stream_jsonl
    from ifguide.files.checksums import verified_sha256

    corpus = job.corpus
    find = listed_words(read_words(words))
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
        if found := find(text):
            yield number, found


def most_listed_words(job: CorpusJob, words: list[Path], unit: str, wanted: int) -> Dropped:
    """Return units of the most listed words a token, up to so many tokens.

    A unit without a listed word is never dropped.
    """
    import numpy as np

    from ifguide.data.filtering import first_of_tokens, unit_tokens

    found = dict(units_with_words(job, words, unit))
    numbers = np.array(list(found), np.int64)
    tokens = unit_tokens(job.corpus, unit)[numbers]
    density = np.array([len(own) for own in found.values()]) / np.maximum(tokens, 1)
    order = np.lexsort((numbers, -density))
    first = order[: first_of_tokens(tokens[order], wanted)]
    return Dropped(
        unit,
        {int(numbers[row]): f"{density[row]:.3f} listed words a token" for row in np.sort(first)},
    )


def selected_tokens(corpus: Corpus, given: list[Path]) -> int:
    """Return how many tokens of the corpus a selection selects."""
    from ifguide.files.artifacts import read_json, require_same

    (folder,) = given
    record = read_json(folder / "selection.json")
    require_same("tokens", corpus.content_sha256, record["tokens_sha256"], folder)
    return record["selected_tokens"]


def threshold_of(given: list[Path], false_alarms: float) -> float:
    """Return the threshold that a share of a judge's held-out harmless texts reaches, at most."""
    from ifguide.evaluation.calibration import Calibration
    from ifguide.files.artifacts import read_json

    (path,) = given
    return Calibration(**read_json(path)).threshold(false_alarms)


def toxic_units(toxicity: np.ndarray, threshold: float) -> dict[int, str]:
    """Return the units that reach a threshold, and how toxic they are."""
    reached = (toxicity[:, 0] >= threshold).nonzero()[0]
    return {int(number): f"toxicity {toxicity[number, 0]:.3f}" for number in reached}


def most_toxic(corpus: Corpus, paths: list[Path], by: str, unit: str, wanted: int) -> Dropped:
    """Return the most toxic units, up to so many tokens; ties go by the mean, then by number."""
    import numpy as np

    from ifguide.data.filtering import first_of_tokens, unit_tokens
    from ifguide.data.unit_toxicity import unit_toxicity

    toxicity = unit_toxicity(corpus, paths, by)
    tokens = unit_tokens(corpus, unit)
    order = np.lexsort((np.arange(len(tokens)), -toxicity[:, 1], -toxicity[:, 0]))
    order = order[tokens[order] > 0]
    first = np.sort(order[: first_of_tokens(tokens[order], wanted)])
    return Dropped(unit, {int(number): f"toxicity {toxicity[number, 0]:.3f}" for number in first})


def first_ranked_units(corpus: Corpus, folder: Path, share: float) -> Dropped:
    """Return the units that a selection ranks first, up to a share of the corpus's tokens.

    A unit that nothing speaks against is never dropped: one without a flagged token or, where
    influence ranks, without positive influence.
    """
    from ifguide.data.filtering import first_of_tokens, unit_tokens
    from ifguide.files.artifacts import read_json, require_same
    from ifguide.files.tables import read_table

    record = read_json(folder / "selection.json")
    require_same("tokens", corpus.content_sha256, record["tokens_sha256"], folder)
    unit = "block" if record["settings"]["documents"] == "block" else "document"
    ranking = read_table(folder / "documents.csv")
    against = ranking["influence" if "influence" in ranking else "s"] > 0
    ranked = ranking[against]
    counts = unit_tokens(corpus, unit)[ranked["document"]]
    first = ranked.head(first_of_tokens(counts, share * corpus.meta["tokens"]))
    return Dropped(
        unit, {int(row.document): f"rank {row.rank}" for row in first.itertuples(index=False)}
    )
