"""What models are evaluated on, and how."""

from typing import Annotated, Literal

from pydantic import Field

from ifguide.settings import OrAbsent, Settings
from ifguide.workflow.config.values import (
    PINNED,
    Distinct,
    Files,
    HubData,
    Limit,
    Part,
    PromptFormat,
    Quotes,
    Revision,
    ScoreRange,
)


class Generation(Settings):
    """How continuations are sampled, unless a benchmark says otherwise."""

    continuations: int = Field(25, ge=1, description="Continuations of each prompt.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus: probability mass to sample from.")
    temperature: float = Field(1.0, gt=0, description="Temperature of sampling.")
    max_new_tokens: int = Field(20, ge=1, description="Longest continuation in tokens.")
    rows_per_batch: int = Field(512, ge=1, description="Continuations that are sampled at once.")
    shards: int = Field(
        1,
        ge=1,
        description="Number of jobs that the prompts are divided into; no result depends on it.",
    )


class GenerationOverrides(Settings):
    """Settings of `generation` that differ for this benchmark."""

    continuations: OrAbsent[int] = Field(None, ge=1, description="Continuations of each prompt.")
    max_new_tokens: OrAbsent[int] = Field(None, ge=1, description="Longest continuation in tokens.")


class PromptBenchmark(Settings):
    """Toxicity of continuations of prompts."""

    companions = PINNED

    kind: Literal["prompts"] = Field(description="Toxicity of continuations of prompts.")
    format: PromptFormat
    files: Files
    hub: OrAbsent[HubData] = None
    revision: OrAbsent[Revision] = None
    split: OrAbsent[Literal["toxic", "nontoxic"]] = Field(
        None, description="Split of prompts in a plain text file."
    )
    part: OrAbsent[Part] = None
    quotes: OrAbsent[Quotes] = None
    prompt_toxicity: OrAbsent[ScoreRange] = None
    limit: OrAbsent[Limit] = None
    generation: OrAbsent[GenerationOverrides] = None


class PerplexityBenchmark(Settings):
    """Perplexity of the held-out documents."""

    kind: Literal["perplexity"] = Field(description="Perplexity of the held-out documents.")


class LambadaBenchmark(Settings):
    """Accuracy of the last word of passages."""

    companions = PINNED

    kind: Literal["lambada"] = Field(description="Accuracy of the last word of passages.")
    files: Files
    hub: OrAbsent[HubData] = None
    revision: OrAbsent[Revision] = None
    limit: OrAbsent[int | None] = Field(None, ge=1, description="At most so many passages.")


Benchmark = Annotated[
    PromptBenchmark | PerplexityBenchmark | LambadaBenchmark, Field(discriminator="kind")
]


class Evaluation(Settings):
    """What is trained and measured."""

    models: Distinct[str] = Field(min_length=1, description="Names of the target models.")
    methods: Distinct[str] = Field(min_length=1, description="Names of the methods to compare.")
    benchmarks: Distinct[str] | None = Field(
        None, description="Names of the benchmarks to measure them on; null takes all."
    )
    seeds: Distinct[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="Training seeds; the proxy takes the first."
    )
    threshold: float = Field(
        0.5, ge=0, le=1, description="Probability from which a classifier calls a text toxic."
    )
    perplexity_continuations: int = Field(
        5,
        ge=1,
        description="Continuations of each prompt, the first ones, whose perplexity under the "
        "uncensored model is measured, where `none` is compared.",
    )
    resamples: int = Field(2000, ge=1, description="Bootstrap resamples of an interval.")
    ranking_resamples: int = Field(
        100, ge=1, description="Bootstrap resamples of precision-recall areas."
    )
    level: float = Field(0.95, gt=0, lt=1, description="Level of the intervals.")
