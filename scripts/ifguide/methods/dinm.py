"""Detoxifying with intraoperative neural monitoring, DINM (Wang et al., 2024, arXiv 2403.14472).

One weight is tuned: the output matrix of the MLP in the block where the harmless and the toxic
sides of pairs differ most (`models.toxic_layer`), by

    loss = −mean log p(harmless token | prompt and those before it)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.data.pair_files import PairFiles
from ifguide.methods.step import Given, Need, Pairs, Sizes, Step, with_own_training
from ifguide.models.work import Work, training_work

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun

SIDE_TOKENS = 50  # of one text of a pair, where a plan has not read it


class DinmOptions(PairFiles):
    """Tune one matrix of the model of `start_from` on harmless sides of pairs: the one at which
    harmless and toxic sides differ most."""

    steps: Annotated[
        int, Field(ge=0, description="Steps of tuning; 0 leaves the model as it was.")
    ] = 10
    batch_size: Annotated[
        int, Field(ge=1, description="Pairs of one step; with `limit: 1` the edit is of one pair.")
    ] = 16
    learning_rate: Annotated[
        float, Field(gt=0, description="Learning rate, the same in all steps.")
    ] = 5.0e-4


class Dinm(Step):
    stage = "train"
    Options = DinmOptions
    strength = "steps"
    reads_corpus = False
    needs_start = True
    shares_steps = False

    def needs(self) -> dict[str, Need]:
        options = self.options
        return {"pairs": Pairs(options.pairs, options.format, options.part, options.limit)}

    def training(self, settings: dict) -> dict:
        options = self.options
        return with_own_training(
            settings,
            epochs=min(options.steps, 1),
            max_steps=options.steps or None,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            schedule="constant",
            warmup=0.0,
            weight_decay=0.0,
        )

    def work(self, sizes: Sizes) -> Work:
        """A training of few steps, after both sides of every pair were read once."""
        tokens = (self.options.steps * self.options.batch_size + 1) * SIDE_TOKENS
        return training_work(sizes.shape, sizes.training, tokens, SIDE_TOKENS)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.files.checksums import file_sha256
        from ifguide.models.causal_text_training import mean_label_loss
        from ifguide.models.fine_tuning import tuned
        from ifguide.models.pair_texts import read_pairs_file, tokenize_pairs
        from ifguide.models.token_texts import TokenText, stacked
        from ifguide.models.toxic_layer import output_layer, toxic_block

        (path,) = given["pairs"]
        model, tokenizer, positions = run.model_to_tune()
        pairs = tokenize_pairs(tokenizer, read_pairs_file(path), positions)
        harmless, toxic = (
            [
                TokenText(pair["prompt_ids"] + pair[f"{side}_ids"], len(pair["prompt_ids"]))
                for pair in pairs
            ]
            for side in ("chosen", "rejected")
        )
        block = toxic_block(model, harmless, toxic)
        layer = output_layer(model, block)
        model.requires_grad_(False)
        layer.module.weight.requires_grad_(True)
        return tuned(
            run,
            model,
            harmless,
            stacked,
            mean_label_loss,
            purpose="dinm",
            record={"tuned": f"{layer.name}.weight"},
            pairs_sha256=file_sha256(path),
        )
