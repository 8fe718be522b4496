"""From where a test prompt overlaps with what judges, methods and models learn from."""

from pydantic import Field

from ifguide.settings import Settings


class Contamination(Settings):
    """Overlap of test prompts with the corpus and with what judges and methods learn from."""

    ngram: int = Field(8, ge=2, description="Length of n-grams in words; of shorter prompts, all.")
    share: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Share of a prompt's n-grams in one text from which the two overlap.",
    )
    cosine: float = Field(
        0.6,
        gt=0,
        le=1,
        description="Cosine of the TF-IDF vectors of a prompt and a passage from which they do.",
    )
    pairs: int = Field(
        20, ge=0, description="Overlapping prompts to show of each source and benchmark."
    )
