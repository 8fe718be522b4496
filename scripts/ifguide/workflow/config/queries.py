"""Sets of query records: what the scores of tokens are asked about."""

from typing import Literal

from pydantic import Field

from ifguide.settings import OrAbsent, Settings
from ifguide.workflow.config.values import (
    PINNED,
    Distinct,
    Files,
    HubData,
    Limit,
    Part,
    Quotes,
    Revision,
    ScoreRange,
)


class Match(Settings):
    """Take for every record of another set the nearest record of this one (one may be taken several
    times)."""

    to: str = Field(description="Name of the query set whose records are matched.")
    by: Distinct[Literal["prompt_toxicity", "length", "words"]] = Field(
        ["prompt_toxicity", "words"],
        min_length=1,
        description="Distances that are added up: of the prompts' toxicity, of the lengths in "
        "words (relative), of the prompts' words (1 - Jaccard index).",
    )


class QuerySet(Settings):
    """Prompts, and the continuations whose gradient is the query."""

    companions = PINNED

    format: Literal["realtoxicityprompts", "paradetox", "toxigen", "bold", "attaq", "text"] = Field(
        description="Format of the files."
    )
    files: Files
    hub: OrAbsent[HubData] = None
    revision: OrAbsent[Revision] = None
    part: OrAbsent[Part] = None
    quotes: OrAbsent[Quotes] = None
    prompt_toxicity: OrAbsent[ScoreRange] = None
    continuation_toxicity: OrAbsent[ScoreRange] = None
    limit: OrAbsent[Limit] = None
    side: OrAbsent[Literal["toxic", "neutral"]] = Field(
        None,
        description="Which sentence of a `paradetox` pair is the continuation of the words that "
        "both begin with.",
    )
    match: OrAbsent[Match] = None
