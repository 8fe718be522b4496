"""Suppress tokens: the model learns every token but those of a mask, which it unlearns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.errors import InputError
from ifguide.methods.step import Given, Mask, Need, Sizes, Step
from ifguide.models.work import Work, corpus_training_work
from ifguide.settings import OrAbsent, Settings

if TYPE_CHECKING:
    from ifguide.data.corpus import Corpus, ShardedArray
    from ifguide.models.training_run import TrainedModel, TrainingRun


class SuppressOptions(Settings):
    """Suppress the tokens of a selection."""

    selection: Annotated[
        OrAbsent[str],
        Field(
            description="Name of an entry of `influence.selections`; `tokens: truth` needs none."
        ),
    ] = None
    tokens: Annotated[
        Literal["selected", "random", "truth"],
        Field(
            description="Which tokens: those selected, as many drawn at random from the whole "
            "corpus, or those known to be toxic."
        ),
    ] = "selected"
    objective: Annotated[
        Literal["published", "unlikelihood", "exclusion"],
        Field(
            description="What happens to selected tokens: gradient ascent as published, the "
            "bounded unlikelihood penalty, or no loss at all."
        ),
    ] = "unlikelihood"
    strength: Annotated[
        float, Field(ge=0, description="Weight of the penalty on selected tokens.")
    ] = 1.0


class Suppress(Step):
    stage = "train"
    Options = SuppressOptions
    strength = "strength"

    def mistake(self) -> tuple[str, str] | None:
        options = self.options
        if options.tokens == "truth":
            return ("selection", "is not used by tokens: truth") if options.selection else None
        if options.selection is None:
            return "selection", "missing: Name of an entry of `influence.selections`."
        return None

    def needs(self) -> dict[str, Need]:
        if self.options.tokens == "truth":
            return {"tokens": Mask(None, "truth")}
        return {"selection": Mask(self.options.selection, self.options.tokens)}

    def work(self, sizes: Sizes) -> Work:
        """As plain training: the mask changes the loss of a token, and not what it costs."""
        return corpus_training_work(
            sizes.shape, sizes.training, sizes.corpus_tokens, sizes.block_size
        )

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.influence.selection_files import open_mask, require_partial_mask
        from ifguide.models.training_run import learn

        corpus = run.open_corpus()
        if self.options.tokens == "truth":
            folder = corpus.directory
            mask, mask_sha256 = known_toxic_tokens(corpus)
        else:
            (folder,) = given["selection"]
            mask, selection = open_mask(folder, corpus)
            mask_sha256 = selection["mask_sha256"]
        require_partial_mask(mask, corpus, folder)
        return learn(
            run,
            mask=mask,
            mask_sha256=mask_sha256,
            objective=self.options.objective,
            strength=self.options.strength,
        )


def known_toxic_tokens(corpus: Corpus) -> tuple[ShardedArray, str]:
    """Return the tokens known to be toxic as a mask, and its hash."""
    if corpus.truth is None or corpus.meta["toxic_tokens"] == 0:
        raise InputError(
            f"{corpus.directory}: no token is known to be toxic, so `tokens: truth` suppresses "
            "nothing; name the `spans` of a corpus source, or a selection"
        )
    from ifguide.data.corpus import shard_name
    from ifguide.files.checksums import joined_sha256, recorded_sha256

    shards = range(len(corpus.meta["shards"]))
    paths = [corpus.directory / "truth" / shard_name(shard) for shard in shards]
    return corpus.truth, joined_sha256(recorded_sha256(path) for path in paths)
