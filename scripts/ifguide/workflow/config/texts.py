"""What methods learn from beside the corpus: labelled texts, and a model's own continuations."""

from typing import Annotated

from pydantic import Field

from ifguide.settings import Settings
from ifguide.workflow.config.judges import LabelledSources


class Texts(Settings):
    """Labelled texts that methods learn from."""

    sources: LabelledSources
    limit: int | None = Field(
        1000,
        ge=1,
        description="At most so many toxic and so many nontoxic texts, sampled by hash.",
    )
    max_length: int = Field(
        128, ge=8, description="Tokens of a text, at most, of which activations are measured."
    )


class OwnGenerations(Settings):
    """Continuations that a model writes itself, with their toxicity, for methods to learn from."""

    queries: list[str] = Field(
        [],
        description="Entries of `queries` whose prompts are continued, none of which is a test "
        "prompt; of none, texts are sampled from their beginning.",
    )
    prompts: int = Field(
        200, ge=1, description="At most so many prompts, sampled by hash; or so many beginnings."
    )
    continuations: int = Field(10, ge=1, description="Continuations of each.")
    max_new_tokens: int = Field(20, ge=1, description="Tokens of a continuation, at most.")
    top_p: float = Field(0.9, gt=0, le=1, description="Probability of the nucleus.")
    temperature: float = Field(1.0, gt=0, description="Temperature.")
    judges: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1,
        description="Entries of `classifiers`; a continuation is as toxic as the worst of them "
        "finds it. They should not be the only ones that measure a method which learns from it.",
    )
