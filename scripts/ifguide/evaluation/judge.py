"""Judges of toxicity: what they have in common, and how one is opened by its settings.

A judge is one module of this room. It gives each continuation a score in [0, 1] under the field
`toxicity`; further fields are categories of it. It judges the continuation alone: the prompt is
there for a judge that has to know where a word begins, or what has been said before.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifguide.data.file_lists import from_arguments

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

    def peaks(self, texts: Sequence[str]) -> list[float]:
        """Return the toxicity of whole texts, however long each is."""
        return self.scores([""] * len(texts), texts)[TOXICITY]


def open_judge(name: str, settings: Mapping[str, Any]) -> Judge:
    """Return the judge of a config entry `classifiers.<name>`.

    settings: one of {"checkpoint": file of a Detoxify model}, {"directory": of a sequence
    classifier, "toxic_label": index or name of its toxic class}, {"planted": kind of hostility} and
    {"words": arguments that stand for files}. What a judge reads is loaded here, and no library
    that it does not need is imported. Raises InputError where files are missing or refused.
    """
    match settings:
        case {"checkpoint": path}:
            from ifguide.evaluation.detoxify_judge import DetoxifyJudge

            return DetoxifyJudge(path, key=f"classifiers.{name}")
        case {"directory": path, "toxic_label": label}:
            from ifguide.evaluation.sequence_judge import SequenceJudge

            return SequenceJudge(path, label, key=f"classifiers.{name}")
        case {"planted": kind}:
            from ifguide.evaluation.planted_judge import PlantedJudge

            return PlantedJudge(kind)
        case {"words": files}:
            from ifguide.data.filtering import read_words
            from ifguide.evaluation.word_judge import WordJudge

            return WordJudge(read_words(map(Path, from_arguments(files))))
    raise ValueError(f"no judge has the settings {settings}")
