"""Filter tokens: train on every document, but on no token of a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import Given, Mask, Need, Sizes, Step
from ifguide.models.work import Work, corpus_training_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun


class TokenFilterOptions(Settings):
    """Train on no token of a selection."""

    selection: Annotated[str, Field(description="Name of an entry of `influence.selections`.")]
    mode: Annotated[
        Literal["mask", "remove"],
        Field(
            description="`mask` leaves a selected token in the input and takes no loss of it; "
            "`remove` has a hidden token read in its place as well, so that nothing is predicted "
            "from it."
        ),
    ] = "mask"


class TokenFilter(Step):
    stage = "train"
    Options = TokenFilterOptions

    def needs(self) -> dict[str, Need]:
        return {"selection": Mask(self.options.selection)}

    def work(self, sizes: Sizes) -> Work:
        """As plain training: a token without a loss is read like any other."""
        return corpus_training_work(
            sizes.shape, sizes.training, sizes.corpus_tokens, sizes.block_size
        )

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.influence.selection_files import open_mask, require_partial_mask
        from ifguide.models.training_run import learn

        corpus = run.open_corpus()
        (folder,) = given["selection"]
        mask, selection = open_mask(folder, corpus)
        require_partial_mask(mask, corpus, folder)
        return learn(
            run,
            mask=mask,
            mask_sha256=selection["mask_sha256"],
            objective="exclusion",
            hide=self.options.mode == "remove",
        )
