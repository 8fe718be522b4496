"""Filter the corpus: train without some of its documents or blocks."""

from typing import Annotated, Literal

from pydantic import Field

from ifguide.methods.step import Step
from ifguide.settings import Settings

Unit = Annotated[
    Literal["document", "block"],
    Field(description="What is judged and dropped: a source document, or a training block."),
]


class WordFilter(Settings):
    """Train without the documents or blocks that contain a listed word."""

    words: Annotated[
        str,
        Field(
            min_length=1,
            description="Path or glob of files of words and phrases, one a line; `{planted}` and "
            "`{data_dir}` are filled in.",
        ),
    ]
    unit: Unit = "document"


class ClassifierFilter(Settings):
    """Train without the documents or blocks that the explicit classifier calls toxic."""

    classifier: Annotated[
        Literal["explicit"], Field(description="The judge, an entry of `classifiers`.")
    ]
    threshold: Annotated[
        float,
        Field(ge=0, le=1, description="Toxicity from which a document or block is dropped."),
    ] = 0.5
    unit: Unit = "document"


class SelectionFilter(Settings):
    """Train without the documents that a selection ranks first."""

    selection: Annotated[
        str,
        Field(
            description="Name of the entry of `influence.selections` whose documents are dropped, "
            "the first ranked first."
        ),
    ]
    share: Annotated[float, Field(gt=0, lt=1, description="Share of the corpus's tokens to drop.")]


class Filter(Step):
    stage = "data"
    Options = WordFilter | ClassifierFilter | SelectionFilter

    def kept_share(self) -> float:
        """All at most, but where a share is dropped: what is toxic is not known before."""
        return 1 - self.options.share if isinstance(self.options, SelectionFilter) else 1.0
