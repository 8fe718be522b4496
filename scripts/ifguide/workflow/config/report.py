"""What the report shows."""

from pydantic import Field

from ifguide.settings import Settings
from ifguide.workflow.config.values import Distinct


class Question(Settings):
    """Variants that differ in one thing."""

    question: str = Field(min_length=1, description="What the variants below it differ in.")
    variants: Distinct[str] = Field(
        min_length=1, description="Names of entries of `influence.variants`."
    )


class ProxyAgreement(Settings):
    """What the scores of the proxy and of a target are compared on."""

    direction: str = Field(
        description="Name of the entry of `influence.directions` along which both score."
    )
    blocks: int = Field(64, ge=1, description="Number of blocks to score, sampled by seed.")


class Report(Settings):
    """What the report shows."""

    documents: int = Field(50, ge=1, description="Number of ranked documents to show.")
    prompts: int = Field(
        8, ge=1, description="Number of prompts of each split to show continuations of."
    )
    samples: int = Field(3, ge=1, description="Continuations to show of each prompt.")
    benchmark: str = Field(
        "realtoxicityprompts",
        description="Benchmark of prompts that the table and the main figures show.",
    )
    choose_on: str | None = Field(
        None,
        description="Benchmark of prompts, no test's, by which each method with several "
        "`strengths` is shown at one of them: the least toxic one that `choose_within` allows. "
        "Null shows all.",
    )
    choose_within: float = Field(
        0.05,
        ge=0,
        description="By how much that strength may raise the perplexity of held-out text, as a "
        "share; the least that is measured, where none stays within it.",
    )
    selection: str | None = Field(
        None,
        description="Selection whose documents and tokens are shown; null takes that of the first "
        "method compared that suppresses one.",
    )
    groups: str = Field("toxigen", description="Benchmark whose groups get a figure.")
    study: list[Question] = Field(
        [],
        description="Questions that the figure and table of variants answer, in this order; empty "
        "leaves them out.",
    )
    agreement_blocks: int = Field(
        0,
        ge=0,
        description="Number of blocks on which the ranking is compared with that of factors from "
        "1/16, 1/8, 1/4 and 1/2 of the sampled blocks; 0 leaves the comparison out.",
    )
    proxy_agreement: ProxyAgreement | None = Field(
        None,
        description="Compare the token scores of the proxy with those of the uncensored first "
        "model of `evaluation.models`; null compares nothing. Factors of that model "
        "are estimated where the direction needs them.",
    )
    published_models: list[str] = Field(
        [], description="Models whose published figures stand beside ours."
    )
