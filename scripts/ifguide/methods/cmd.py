"""Masked contexts with harmless continuations, after CMD (Tang et al., 2023, arXiv 2308.08295).

The published chain finds toxic spans, masks them, rewrites the context and continues it, all by one
model that follows prompts. A small model follows none, so that the chain is data here: pairs give
the spans (`models.masked_contexts`), and the model learns how the harmless side goes on,

    loss = −mean log p(token of the continuation | context and those before it)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.data.pair_files import PairFiles
from ifguide.errors import InputError
from ifguide.methods.step import Given, Need, Pairs, Sizes, Step, with_own_training
from ifguide.models.fine_tuning_settings import FineTuningSettings
from ifguide.models.work import Work, training_work

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun

SIDE_TOKENS = 50  # of one text of a pair, where a plan has not read it


class CmdOptions(PairFiles, FineTuningSettings):
    """Train the model of `start_from` to continue toxic beginnings, their toxic spans masked or
    not, as the harmless side of a pair does."""

    contexts: Annotated[
        Literal["masked", "toxic", "both"],
        Field(
            description="What stands before a continuation: the toxic beginning with its toxic "
            "spans masked, as it is, or one text of either."
        ),
    ] = "both"
    mask: Annotated[str, Field(min_length=1, description="Text that stands for a toxic span.")] = (
        " _"
    )


class Cmd(Step):
    stage = "train"
    Options = CmdOptions
    strength = "epochs"
    reads_corpus = False
    needs_start = True
    shares_steps = False

    def needs(self) -> dict[str, Need]:
        options = self.options
        return {"pairs": Pairs(options.pairs, options.format, options.part, options.limit)}

    def training(self, settings: dict) -> dict:
        return with_own_training(settings, **self.options.own_training())

    def work(self, sizes: Sizes) -> Work:
        """Training on a text a pair, on two where contexts are masked and not."""
        texts = (2 if self.options.contexts == "both" else 1) * sizes.records("pairs")
        tokens = self.options.epochs * texts * SIDE_TOKENS
        return training_work(sizes.shape, sizes.training, tokens, SIDE_TOKENS)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.data.corpus import end_of_text_id, tokenize
        from ifguide.files.checksums import file_sha256
        from ifguide.models.causal_text_training import mean_label_loss
        from ifguide.models.fine_tuning import tuned
        from ifguide.models.masked_contexts import masked_contexts
        from ifguide.models.pair_texts import pair_texts, read_pairs_file
        from ifguide.models.token_texts import stacked

        (path,) = given["pairs"]
        model, tokenizer, positions = run.model_to_tune()
        (mask,) = tokenize(tokenizer, [self.options.mask])
        texts = [
            text
            for pair in pair_texts(tokenizer, read_pairs_file(path), 2**31)
            for text in masked_contexts(
                pair.harmless.ids[1:],
                pair.toxic.ids[1:],
                begin=end_of_text_id(tokenizer),
                mask=mask.ids.tolist(),
                contexts=self.options.contexts,
                positions=positions,
            )
        ]
        if not texts:
            raise InputError(
                f"{path}: in no pair does anything follow on a toxic span; give pairs whose sides "
                "go on after it"
            )
        return tuned(
            run,
            model,
            texts,
            stacked,
            mean_label_loss,
            purpose="cmd",
            pairs_sha256=file_sha256(path),
        )
