"""Self-generation enabled domain-adaptive training (Wang et al., 2022, arXiv 2202.04173).

A model writes texts, a judge scores them, and the model learns the least toxic share of them:

    kept = the first ⌊share · n⌋ of the n texts, sorted by toxicity
    loss = −mean log p(token | those before it), over the tokens that the model wrote
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import Generations, Given, Need, Sizes, Step, with_own_training
from ifguide.models.fine_tuning_settings import FineTuningSettings
from ifguide.models.work import Work, training_work

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun


class SgeatOptions(FineTuningSettings):
    """Train the model of `start_from` further on the least toxic of the texts that it wrote
    itself."""

    generations: Annotated[
        str,
        Field(
            description="Name of an entry of `own_generations`: the published way writes after no "
            "prompt."
        ),
    ]
    share: Annotated[
        float,
        Field(gt=0, le=1, description="Share of the texts that is kept, the least toxic first."),
    ] = 0.5


class Sgeat(Step):
    stage = "train"
    Options = SgeatOptions
    strength = "epochs"
    reads_corpus = False
    needs_start = True
    shares_steps = False

    def needs(self) -> dict[str, Need]:
        return {"generations": Generations(self.options.generations)}

    def training(self, settings: dict) -> dict:
        return with_own_training(settings, **self.options.own_training())

    def work(self, sizes: Sizes) -> Work:
        """Training on the kept texts, counted as if each filled a block."""
        texts = self.options.share * sizes.records("generations")
        tokens = self.options.epochs * texts * sizes.block_size
        return training_work(sizes.shape, sizes.training, tokens, sizes.block_size)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        import numpy as np

        from ifguide.data.own_generations import read_own_generations
        from ifguide.errors import InputError
        from ifguide.files.checksums import file_sha256
        from ifguide.models.causal_text_training import mean_label_loss
        from ifguide.models.fine_tuning import tuned
        from ifguide.models.token_texts import (
            least_toxic,
            stacked,
            written_texts,
        )

        (path,) = given["generations"]
        model, _, positions = run.model_to_tune()
        written = [own for prompt in read_own_generations(path) for own in prompt]
        toxicity = np.array([own.toxicity for own in written], dtype=np.float64)
        kept = least_toxic(toxicity, self.options.share)
        texts = written_texts([written[index] for index in kept], positions)
        if not texts:
            raise InputError(
                f"{path}: none of the {len(kept)} texts that are kept has a token; sample more, or "
                "raise `share`"
            )

        return tuned(
            run,
            model,
            texts,
            stacked,
            mean_label_loss,
            purpose="sgeat",
            record={"highest_toxicity_kept": float(toxicity[kept].max())},
            generations_sha256=file_sha256(path),
        )
