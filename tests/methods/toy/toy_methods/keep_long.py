"""Keep long documents: train without those of fewer than so many tokens."""

from typing import Annotated

from pydantic import Field

from ifguide.methods.step import CorpusJob, Dropped, Given, Step
from ifguide.settings import Settings


class KeepLongOptions(Settings):
    """Train without short documents."""

    tokens: Annotated[int, Field(ge=1, description="Tokens of the shortest document that is kept.")]


class KeepLong(Step):
    stage = "data"
    Options = KeepLongOptions

    def keep(self, job: CorpusJob, given: Given) -> Dropped:
        from ifguide.data.filtering import unit_tokens

        counts = unit_tokens(job.corpus, "document")
        short = ((counts > 0) & (counts < self.options.tokens)).nonzero()[0]
        return Dropped("document", {int(number): f"{counts[number]} tokens" for number in short})
