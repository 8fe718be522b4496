"""Domain-adaptive training on the least toxic documents of the corpus (Gehman et al., 2020).

The other half of the corpus is not unlearned: the model sees it no more.

    kept = the first ⌊share · n⌋ of the corpus's n documents, sorted by toxicity
    loss = −mean log p(token | those before it), over the tokens of the kept documents
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import DocumentToxicity, Given, Need, Sizes, Step, with_own_training
from ifguide.models.fine_tuning_settings import FineTuningSettings
from ifguide.models.work import Work, training_work

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun


class DaptOptions(FineTuningSettings):
    """Train the model of `start_from` further on the least toxic documents of the corpus."""

    classifier: Annotated[str, Field(description="The judge, an entry of `classifiers`.")]
    by: Annotated[
        Literal["mean", "share", "worst"],
        Field(
            description="What a long document is judged by, which the judge reads in pieces: the "
            "mean of their probabilities of being toxic, the share that is toxic, or the worst."
        ),
    ] = "mean"
    share: Annotated[
        float,
        Field(gt=0, le=1, description="Share of the documents that is kept, least toxic first."),
    ] = 0.5


class Dapt(Step):
    stage = "train"
    Options = DaptOptions
    strength = "epochs"
    needs_start = True
    shares_steps = False

    def needs(self) -> dict[str, Need]:
        return {"classifier": DocumentToxicity("document", self.options.classifier)}

    def training(self, settings: dict) -> dict:
        return with_own_training(settings, **self.options.own_training())

    def work(self, sizes: Sizes) -> Work:
        tokens = self.options.epochs * self.options.share * sizes.corpus_tokens
        return training_work(sizes.shape, sizes.training, tokens, sizes.block_size)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.data.unit_toxicity import unit_toxicity
        from ifguide.errors import InputError
        from ifguide.files.checksums import file_sha256, joined_sha256
        from ifguide.models.causal_text_training import mean_label_loss
        from ifguide.models.fine_tuning import tuned
        from ifguide.models.token_texts import (
            corpus_texts,
            least_toxic,
            stacked,
        )

        corpus = run.open_corpus()
        model, _, positions = run.model_to_tune()
        toxicity = unit_toxicity(corpus, given["classifier"], self.options.by)[:, 0]
        kept = least_toxic(toxicity, self.options.share)
        if not len(kept):
            raise InputError(
                f"{corpus.directory}: a share of {self.options.share:g} of {len(toxicity)} "
                "documents keeps none; raise `share`"
            )
        length = min(corpus.block_size, positions)
        pieces = corpus_texts(corpus, "document", kept.tolist(), length)
        texts = [piece for document in pieces for piece in document]

        return tuned(
            run,
            model,
            texts,
            stacked,
            mean_label_loss,
            purpose="dapt",
            record={
                "documents_kept": len(kept),
                "highest_toxicity_kept": float(toxicity[kept].max()),
            },
            toxicity_sha256=joined_sha256(map(file_sha256, given["classifier"])),
        )
