"""Train a class-conditional language model: it reads a word that says whether a text is toxic.

The generative discriminator of GeDi (Krause et al., 2021) is such a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import Given, LabelledTexts, Need, Sizes, Step, with_own_training
from ifguide.models.work import Work, training_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun

TEXT_TOKENS = 30  # of a labelled text, where a plan has not read it


class ClassConditionalOptions(Settings):
    """Fine-tune the model of `start_from` on labelled texts, each after the control word of its
    class. What is not given here comes from `training`."""

    texts: Annotated[str, Field(description="Name of an entry of `texts`.")]
    words: Annotated[
        list[str],
        Field(
            min_length=2,
            max_length=2,
            description="The control words: of nontoxic texts and of toxic ones.",
        ),
    ] = ["clean", "dirty"]
    generative: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Weight of the loss of the texts' tokens; the rest is that of their class.",
        ),
    ] = 0.8
    scale: Annotated[
        float,
        Field(gt=0, description="What the mean log probability of a token counts in a class."),
    ] = 1.0
    epochs: Annotated[float, Field(gt=0, description="Passes over the texts.")] = 1
    batch_size: Annotated[
        int, Field(ge=1, description="Texts of one step, each of which is read twice.")
    ] = 4
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 2.0e-5
    max_length: Annotated[
        int,
        Field(ge=2, description="Tokens of a text that are read; the rest of it is left out."),
    ] = 128


class ClassConditional(Step):
    stage = "train"
    Options = ClassConditionalOptions
    reads_corpus = False
    needs_start = True
    shares_steps = False
    losses_of_tokens = False

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
        """Every text is read after both words."""
        tokens = 2 * self.options.epochs * sizes.records("texts") * TEXT_TOKENS
        training = {**sizes.training, "batch_size": 2 * self.options.batch_size}
        return training_work(sizes.shape, training, tokens, TEXT_TOKENS)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from functools import partial

        from ifguide.data.corpus import tokenize
        from ifguide.data.labelled_texts import read_texts
        from ifguide.files.checksums import file_sha256
        from ifguide.models.causal_text_training import learn_by
        from ifguide.models.control_words import (
            ClassConditionalLoss,
            both_classes,
            encode_control_words,
            record_control_words,
        )

        options = self.options
        (path,) = given["texts"]
        texts = read_texts(path)
        model, tokenizer, positions = run.model_to_tune()
        words = encode_control_words(tokenizer, options.words, options.scale)
        room = positions - max(len(words.nontoxic), len(words.toxic))
        length = min(options.max_length, room)
        examples = [
            (text.ids.tolist()[:length], kind == "toxic")
            for kind in texts._fields
            for text in tokenize(tokenizer, getattr(texts, kind))
        ]
        record_control_words(model, words)
        return learn_by(
            run,
            ClassConditionalLoss(options.scale, options.generative),
            model,
            [(ids, toxic) for ids, toxic in examples if ids],
            partial(both_classes, words),
            purpose="class-conditional texts",
            texts_sha256=file_sha256(path),
        )
