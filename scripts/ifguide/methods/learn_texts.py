"""Learn labelled texts of one kind: fine-tune a model, or its first blocks, on them alone.

The experts and anti-experts of other methods are made so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import Given, LabelledTexts, Need, Sizes, Step, with_own_training
from ifguide.models.work import Work, training_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun

TEXT_TOKENS = 30  # of a labelled text, where a plan has not read it


class LearnTextsOptions(Settings):
    """Fine-tune the model of `start_from` on labelled texts of one kind. What is not given here
    comes from `training`."""

    texts: Annotated[str, Field(description="Name of an entry of `texts`.")]
    kind: Annotated[
        Literal["toxic", "nontoxic"],
        Field(description="Which texts: those labelled toxic, or the others."),
    ]
    blocks: Annotated[
        Annotated[int, Field(ge=1)] | Literal["all", "shallow"],
        Field(
            description="Begin with so many first blocks of the model alone, with its embeddings, "
            "final norm and head, and leave the others; `shallow` takes three or a quarter of "
            "them, one of at most four.",
        ),
    ] = "all"
    epochs: Annotated[float, Field(gt=0, description="Passes over the texts.")] = 1
    batch_size: Annotated[int, Field(ge=1, description="Texts of one step.")] = 64
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 5.0e-5
    max_length: Annotated[
        int,
        Field(
            ge=2,
            description="Tokens of the longest text that is read whole, the end of text before it "
            "included; of longer ones the rest is left out.",
        ),
    ] = 128


class LearnTexts(Step):
    stage = "train"
    Options = LearnTextsOptions
    reads_corpus = False
    needs_start = True
    shares_steps = False
    losses_of_tokens = False  # of other texts than the corpus

    def needs(self) -> dict[str, Need]:
        return {"texts": LabelledTexts(self.options.texts)}

    def training(self, settings: dict) -> dict:
        options = self.options
        return with_own_training(
            settings,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
        )

    def work(self, sizes: Sizes) -> Work:
        """Half of the texts are of one kind; fewer blocks cost less than is said here."""
        tokens = self.options.epochs * sizes.records("texts") / 2 * TEXT_TOKENS
        training = {**sizes.training, "batch_size": self.options.batch_size}
        return training_work(sizes.shape, training, tokens, TEXT_TOKENS)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.data.labelled_texts import read_texts
        from ifguide.files.checksums import file_sha256
        from ifguide.models.activations import encode_after_end_of_text
        from ifguide.models.causal_text_training import learn_by, mean_label_loss
        from ifguide.models.first_blocks import first_blocks

        (path,) = given["texts"]
        texts = getattr(read_texts(path), self.options.kind)
        model, tokenizer, positions = run.model_to_tune()
        if self.options.blocks != "all":
            count = None if self.options.blocks == "shallow" else self.options.blocks
            model = first_blocks(model, count)
        encoded = encode_after_end_of_text(
            tokenizer, texts, min(self.options.max_length, positions)
        )
        return learn_by(
            run,
            mean_label_loss,
            model,
            encoded,
            purpose="labelled texts",
            texts_sha256=file_sha256(path),
        )
