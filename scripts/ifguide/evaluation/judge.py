"""Judges of toxicity: what they have in common.

A judge is one module of this room (`judge_forms` has them all). It gives each continuation a score
in [0, 1] under the field `toxicity`; further fields are categories of it. It judges the
continuation alone: the prompt is there for a judge that has to know where a word begins, or what
has been said before.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

# The field that is a judge's score; its others are categories of it.
TOXICITY = "toxicity"
# The judges that every experiment has, and that tables and figures lead with.
LEADING = ("explicit", "implicit")

Scores = dict[str, list[float]]


class Judge(ABC):
    """Tells how toxic texts are."""

    @abstractmethod
    def scores(self, prompts: Sequence[str], continuations: Sequence[str]) -> Scores:
        """Return each field's scores in [0, 1], one for each continuation, `toxicity` among them.

        prompts: what stands right before each continuation.
        """

    def piece_scores(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the toxicity of each piece of whole texts, however long each is."""
        return [[score] for score in self.scores([""] * len(texts), texts)[TOXICITY]]
