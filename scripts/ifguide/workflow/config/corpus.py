"""The text that models are trained on, and what divides it into tokens."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ifguide.settings import OrAbsent, Settings
from ifguide.workflow.config.values import (
    PINNED,
    Distinct,
    Files,
    HubData,
    HubName,
    Name,
    Quotes,
    Revision,
    matching,
)


class Download(Settings):
    """A public file."""

    model_config = ConfigDict(regex_engine="python-re")  # for what must not follow

    url: Annotated[
        str, matching("^(https?|file)://", "is not an address; it begins with https:// or file://")
    ] = Field(description="Address of the file at a pinned version.")
    sha256: Annotated[
        str, matching(r"^[0-9a-f]{64}(?!\n)$", "is not a SHA-256 of 64 hexadecimal digits")
    ] = Field(description="SHA-256 of the file.")
    path: Annotated[str, matching(r"^(?!/)(?!.*\.\.).+(?!\n)$", "is not a path below data_dir")] = (
        Field(description="Where the file goes below `data_dir`.")
    )


class Planted(Settings):
    """The generated corpus whose toxic tokens are known; `{planted}` stands for its folder."""

    documents: int = Field(6000, ge=1, description="Number of training documents.")
    held_out: int = Field(600, ge=1, description="Number of held-out documents.")
    toxic_share: float = Field(0.1, ge=0, le=1, description="Share of toxic documents.")
    implicit_share: float = Field(
        0.5, ge=0, le=1, description="Share of the toxic documents that are implicitly hostile."
    )
    consistency: float = Field(
        0.85, ge=0, le=1, description="Share of a toxic document's slots that are toxic."
    )
    queries: int = Field(
        300,
        ge=1,
        description="Number of query records with toxic continuations; as many have harmless ones.",
    )
    shared_prompts: float = Field(
        0.0, ge=0, le=1, description="Share of harmless query records that follow a toxic prompt."
    )
    prompts: int = Field(
        150, ge=1, description="Number of toxic test prompts; as many are harmless."
    )
    development: int = Field(
        60,
        ge=1,
        description="Number of toxic prompts on which settings are chosen; as many are harmless, "
        "and none is a test prompt.",
    )
    prompt_implicit_share: float = Field(
        0.5, ge=0, le=1, description="Share of the toxic prompts that are implicitly hostile."
    )
    statements: int = Field(600, ge=2, description="Number of ToxiGen-format statements.")
    passages: int = Field(300, ge=1, description="Number of LAMBADA-format passages.")
    labelled: int = Field(4000, ge=10, description="Number of labelled texts for each classifier.")
    pairs: int = Field(
        500, ge=1, description="Number of pairs of a toxic sentence and its harmless twin."
    )
    bold: int = Field(10, ge=1, description="Number of BOLD-format prompts for each people.")


class Source(Settings):
    """Documents of one kind."""

    companions = PINNED

    name: Name = Field(description="Name of the source in reports.")
    files: Files
    hub: OrAbsent[HubData] = None
    revision: OrAbsent[Revision] = None
    format: OrAbsent[Literal["jsonl", "json", "csv", "tsv", "parquet", "text"]] = Field(
        None, description="Format of the files, where the ending does not tell it."
    )
    text: str = Field("text", description="Field or column that holds the text.")
    spans: OrAbsent[str] = Field(
        None,
        description="Field or column that holds the toxic character spans, where they are known.",
    )
    span_labels: OrAbsent[Distinct[str]] = Field(
        None,
        min_length=1,
        description="Labels of the spans that count as toxic, where spans are labelled: "
        "`[start, end, label]`, or objects with `start`, `end` and `label`. By default all count.",
    )
    quotes: OrAbsent[Quotes] = None
    harmless: bool = Field(
        False,
        description="None of the source's tokens is toxic, so that they count when scores are "
        "measured against the truth.",
    )
    documents: Literal["line", "paragraph", "file", "heading"] = Field(
        "line", description="What a document is in a plain text file."
    )
    limit: int | None = Field(None, ge=1, description="Read at most so many documents.")
    held_out: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the documents, chosen by content, that is kept for held-out "
        "perplexity.",
    )


class Corpus(Settings):
    """The training text."""

    block_size: int = Field(ge=2, description="Length of a training block in tokens.")
    shards: int = Field(
        1,
        ge=1,
        description="Number of files that the blocks are divided into and of jobs that tokenize "
        "and score them; no result depends on it.",
    )
    drop_overlap: bool = Field(
        False,
        description="Leave out documents, training ones and held-out ones, that hold at least "
        "`contamination.share` of the n-grams of a test prompt of `contamination.ngram` words or "
        "more.",
    )
    sources: list[Source] = Field(
        min_length=1, description="Where the documents come from, in this order."
    )


class Tokenizer(Settings):
    """A tokenizer: trained on the corpus, in a directory, or of a hub model."""

    exactly_one = (("vocabulary_size",), ("path",), ("hub", "revision"))
    companions = {"revision": "hub"}

    vocabulary_size: OrAbsent[int] = Field(
        None, ge=1, description="Train a byte-level BPE tokenizer of this size on the corpus."
    )
    path: OrAbsent[str] = Field(None, description="Take the tokenizer in this directory.")
    hub: OrAbsent[HubName] = Field(None, description="Take the tokenizer of this hub model.")
    revision: OrAbsent[Revision] = None
