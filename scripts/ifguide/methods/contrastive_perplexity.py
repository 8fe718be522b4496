"""Contrastive perplexity (Klein and Nabi, 2024, arXiv 2401.08491): harmless texts keep together.

Within a set of pairs, harmless texts are drawn to their mean perplexity, and toxic ones pushed away
from it: `models.contrastive_perplexity` has the loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.data.pair_files import PairFiles
from ifguide.methods.step import Given, Need, Pairs, Sizes, Step, with_own_training
from ifguide.models.fine_tuning_settings import FineTuningSettings
from ifguide.models.work import Work, training_work

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun

SIDE_TOKENS = 50  # of one text of a pair, where a plan has not read it


class ContrastivePerplexityOptions(PairFiles, FineTuningSettings):
    """Train the model of `start_from` to keep harmless texts at one perplexity, and toxic ones away
    from it."""

    one_sided: Annotated[
        bool,
        Field(
            description="Push toxic texts towards a higher perplexity wherever they are. False is "
            "the published distance, by which a toxic text that is likelier than the harmless ones "
            "becomes likelier still."
        ),
    ] = False
    temperature: Annotated[float, Field(gt=0, description="Temperature τ of the scores.")] = 1.0
    emphasis: Annotated[
        float, Field(ge=0, description="What is added to the scores of toxic texts: α.")
    ] = 100.0
    batch_size: Annotated[
        int, Field(ge=1, description="Pairs of a set, which is one step: five in the paper.")
    ] = 5


class ContrastivePerplexity(Step):
    stage = "train"
    Options = ContrastivePerplexityOptions
    strength = "epochs"
    reads_corpus = False
    needs_start = True
    shares_steps = False
    losses_of_tokens = False

    def needs(self) -> dict[str, Need]:
        options = self.options
        return {"pairs": Pairs(options.pairs, options.format, options.part, options.limit)}

    def training(self, settings: dict) -> dict:
        return with_own_training(settings, **self.options.own_training())

    def work(self, sizes: Sizes) -> Work:
        """Training on both sides of every pair."""
        tokens = 2 * self.options.epochs * sizes.records("pairs") * SIDE_TOKENS
        return training_work(sizes.shape, sizes.training, tokens, SIDE_TOKENS)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.files.checksums import file_sha256
        from ifguide.models.contrastive_perplexity import contrastive_loss
        from ifguide.models.fine_tuning import tuned
        from ifguide.models.pair_texts import pair_texts, read_pairs_file, stacked_pairs
        from ifguide.models.token_texts import next_token_log_p, text_losses

        options = self.options
        (path,) = given["pairs"]
        model, tokenizer, positions = run.model_to_tune()

        def loss(model, batch):
            losses = text_losses(next_token_log_p(model, batch["input_ids"]), batch["labels"])
            harmless, toxic = losses.chunk(2)
            return contrastive_loss(
                harmless,
                toxic,
                temperature=options.temperature,
                emphasis=options.emphasis,
                one_sided=options.one_sided,
            )

        return tuned(
            run,
            model,
            pair_texts(tokenizer, read_pairs_file(path), positions),
            stacked_pairs,
            loss,
            purpose="contrastive perplexity",
            pairs_sha256=file_sha256(path),
        )
