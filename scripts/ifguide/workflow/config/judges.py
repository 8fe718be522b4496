"""The judges of toxicity, and the reward models that guide a decoder."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from ifguide.evaluation.published_detoxify import PUBLISHED
from ifguide.settings import OrAbsent, Settings
from ifguide.workflow.config.values import (
    PINNED,
    Bounds,
    Files,
    HubData,
    HubName,
    Part,
    Quotes,
    Revision,
    name_except,
)

# A judge's score stands beside these in a record of a continuation, and its fraction beside that of
# empty continuations.
JudgeName = name_except(
    *("prompt_index", "prompt", "split", "group", "sample", "seed", "continuation", "tokens"),
    "empty",
)


class LabelledSource(Settings):
    """Labelled texts of one kind."""

    companions = PINNED

    format: Literal["labelled", "realtoxicityprompts", "paradetox", "toxigen", "wikipedia_talk"] = (
        Field(description="Format of the files.")
    )
    files: Files
    hub: OrAbsent[HubData] = None
    revision: OrAbsent[Revision] = None
    part: OrAbsent[Part] = None
    quotes: OrAbsent[Quotes] = None
    toxicity: OrAbsent[Bounds] = Field(
        None, description="Use the texts whose label lies in this range."
    )
    limit: OrAbsent[int | None] = Field(None, ge=1, description="At most so many texts.")


LabelledSources = Annotated[
    list[LabelledSource], Field(min_length=1, description="Labelled texts.")
]


class ClassifierTraining(Settings):
    """Train a small RoBERTa classifier from scratch."""

    kind: Literal["detoxify", "sequence"] = Field(
        description="What it is: `kind: detoxify`, a Detoxify checkpoint with the sigmoid of one "
        "logit, or `kind: sequence`, a `transformers` sequence classifier with a softmax over "
        "harmless and toxic."
    )
    sources: LabelledSources
    held_out: float = Field(
        0.15, gt=0, lt=1, description="Share of the texts on which the classifier is measured."
    )
    vocabulary_size: int = Field(
        2000, ge=270, description="Tokens of its byte-level BPE tokenizer."
    )
    max_length: int = Field(128, ge=8, description="Longest text in tokens.")
    hidden_size: int = Field(64, ge=8, description="Width.")
    layers: int = Field(2, ge=1, description="Number of layers.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    epochs: float = Field(4, gt=0, description="Passes over the texts.")
    batch_size: int = Field(32, ge=1, description="Texts in one batch.")
    learning_rate: float = Field(0.0005, gt=0, description="Peak learning rate.")


def _kind_of_label(label: Any) -> str:
    return "name" if isinstance(label, str) else "index"


ToxicLabel = Annotated[
    Annotated[Annotated[int, Field(ge=0)], Tag("index")]
    | Annotated[Annotated[str, Field(min_length=1)], Tag("name")],
    Discriminator(_kind_of_label),
]


class Judge(Settings):
    """A judge of toxicity: a classifier trained here, a given or published one, or a list."""

    exactly_one = (("train",), ("checkpoint",), ("path",), ("hub",), ("planted",), ("words",))
    companions = {"revision": "hub", "path": "toxic_label"}

    train: OrAbsent[ClassifierTraining] = None
    checkpoint: OrAbsent[str] = Field(
        None,
        min_length=1,
        description="Detoxify checkpoint file, with its configuration and tokenizer beside it.",
    )
    path: OrAbsent[str] = Field(
        None, min_length=1, description="Directory of a `transformers` sequence classifier."
    )
    hub: OrAbsent[HubName] = Field(
        None,
        description=f"Published Detoxify model, by its name: {', '.join(PUBLISHED)}; a download "
        "named `detoxify-<name>` in `downloads` stands for its weights, to take them from a mirror "
        "or to pin their checksum. With `revision` and `toxic_label`, hub model that is a sequence "
        "classifier, with safetensors weights.",
    )
    revision: OrAbsent[Revision] = None
    toxic_label: OrAbsent[ToxicLabel] = Field(
        None, description="Index or name of the sequence classifier's class that means toxic."
    )
    planted: OrAbsent[Literal["explicit", "implicit"]] = Field(
        None,
        description="Look for what is hostile in the language of the planted corpus, literally: "
        "insults, or implicitly hostile phrases. Scores are 0 or 1.",
    )
    words: OrAbsent[str] = Field(
        None,
        min_length=1,
        description="Path or glob of files of words and phrases, one a line: look for one in the "
        "continuation that the prompt does not have. Scores are 0 or 1. `{planted}` and "
        "`{data_dir}` are filled in.",
    )

    @model_validator(mode="after")
    def check_label(self) -> "Judge":
        """Ask for the revision and label of a repository, and for neither elsewhere."""
        given = self.model_fields_set
        repository = self.hub is not None and self.hub not in PUBLISHED
        if repository and "revision" not in given:
            context = {"hub": self.hub, "known": ", ".join(PUBLISHED)}
            message = "{hub} is no published Detoxify model ({known}); another one needs `revision`"
            raise PydanticCustomError("unpublished", message, context)
        if repository and "toxic_label" not in given:
            context = {"key": "toxic_label", "given": "hub"}
            raise PydanticCustomError("missing_companion", "missing, beside {given}", context)
        if not repository and "revision" in given:
            context = {"hub": self.hub}
            message = "{hub} is a published Detoxify model, which has no `revision`"
            raise PydanticCustomError("published", message, context)
        if "toxic_label" in given and not (repository or "path" in given):
            message = "toxic_label goes with a sequence classifier, by `path` or `hub`"
            raise PydanticCustomError("no_label", message)
        return self


class Classifiers(Settings):
    """The judges of toxicity, by name; `explicit` and `implicit` lead in tables and figures."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[JudgeName, Judge]

    explicit: Judge
    implicit: Judge


class RewardTraining(Settings):
    """Train it from scratch, with the tokenizer of the model that is decoded."""

    sources: LabelledSources
    held_out: float = Field(
        0.15, gt=0, lt=1, description="Share of the texts on which the reward model is measured."
    )
    max_length: int = Field(128, ge=8, description="Longest text in tokens.")
    hidden_size: int = Field(64, ge=8, description="Width.")
    layers: int = Field(2, ge=1, description="Number of layers.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    epochs: float = Field(3, gt=0, description="Passes over the texts.")
    batch_size: int = Field(32, ge=1, description="Texts in one batch.")
    learning_rate: float = Field(0.001, gt=0, description="Peak learning rate.")


class RewardModel(Settings):
    """A small unidirectional model that says at every token how toxic the text will be."""

    train: RewardTraining
