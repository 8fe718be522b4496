"""The judges of toxicity, and the reward models that guide a decoder."""

from typing import Annotated, Literal

from pydantic import Field

from ifguide.settings import OrAbsent, Settings
from ifguide.workflow.config.values import PINNED, Bounds, Files, HubData, HubName, Part, Revision


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
    toxicity: OrAbsent[Bounds] = Field(
        None, description="Use the texts whose label lies in this range."
    )
    limit: OrAbsent[int | None] = Field(None, ge=1, description="At most so many texts.")


LabelledSources = Annotated[
    list[LabelledSource], Field(min_length=1, description="Labelled texts.")
]


class ClassifierTraining(Settings):
    """Train a small RoBERTa classifier from scratch."""

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


class ExplicitClassifier(Settings):
    """A Detoxify model: trained here, a checkpoint file, or a published one by name."""

    exactly_one = (("train",), ("checkpoint",), ("hub",))

    train: OrAbsent[ClassifierTraining] = None
    checkpoint: OrAbsent[str] = Field(None, description="Detoxify checkpoint file.")
    hub: OrAbsent[
        Literal["unbiased", "original", "multilingual", "unbiased-small", "original-small"]
    ] = Field(
        None,
        description="Name of a published Detoxify model. A download named `detoxify-<name>` in "
        "`downloads` stands for its weights, to take them from a mirror or to pin "
        "their checksum.",
    )


class ImplicitClassifier(Settings):
    """A sequence classifier trained here, or a directory of one."""

    exactly_one = (("train",), ("path",), ("hub", "revision"))
    companions = {"revision": "hub"}

    train: OrAbsent[ClassifierTraining] = None
    path: OrAbsent[str] = Field(
        None, description="Directory of a `transformers` sequence classifier."
    )
    hub: OrAbsent[HubName] = Field(
        None, description="Hub model that is a sequence classifier, with safetensors weights."
    )
    revision: OrAbsent[Revision] = None
    toxic_label: int = Field(1, ge=0, description="Index of the class that means toxic.")


class Classifiers(Settings):
    """The judges of toxicity."""

    explicit: ExplicitClassifier
    implicit: ImplicitClassifier


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
