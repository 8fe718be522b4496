"""Rectification (Cao et al., 2023, arXiv 2302.14003): tokens on the way to a toxic text are capped.

A Q-network learns from the model's own continuations how surely a text turns out toxic once a token
is said (`models.q_network`), and no token is to be likelier than the chance that it does not
(`evaluation.capping`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import (
    DecodingJob,
    Generations,
    Given,
    Need,
    PreparationJob,
    Sizes,
    Step,
    read_prepared,
)
from ifguide.models import costs, footprints
from ifguide.models.work import Work, training_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    import torch

    from ifguide.evaluation.generation import Guidance


TEXT_TOKENS = 50  # of a prompt with its continuation, where a plan has not read them


class RectificationOptions(Settings):
    """Rectification: a network that has learned from the model's own continuations which tokens
    lead to toxic texts caps their probabilities."""

    generations: Annotated[
        str,
        Field(description="Name of an entry of `own_generations`, which the network learns from."),
    ]
    continuations: Annotated[
        Literal["extremes", "all"],
        Field(
            description="Which of a prompt's continuations it learns from: the most and the least "
            "toxic one, or all."
        ),
    ] = "extremes"
    nontoxic_prompts: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of the prompts without any toxic continuation that it learns from.",
        ),
    ] = 0.5
    blocks: Annotated[
        int | None,
        Field(
            ge=1,
            description="Its trunk begins as a copy of so many first blocks of the model; null: "
            "of all.",
        ),
    ] = None
    epochs: Annotated[float, Field(gt=0, description="Passes over the texts.")] = 3
    batch_size: Annotated[int, Field(ge=1, description="Texts a step.")] = 64
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 3.0e-4
    strength: Annotated[
        float,
        Field(
            ge=0,
            description="How far below 1 a cap lies, in multiples of the published one; 0 caps "
            "nothing.",
        ),
    ] = 1.0
    epsilon: Annotated[
        float, Field(ge=0, le=1, description="By how much every cap is lower than 1 + Q.")
    ] = 0.1
    passes: Annotated[
        Annotated[int, Field(ge=1)] | Literal["exact"],
        Field(
            description="How often probabilities are cut to their caps and normalised anew, which "
            "lifts them above again; exact: none exceeds its cap.",
        ),
    ] = 2


class Rectification(Step):
    stage = "decode"
    Options = RectificationOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"generations": Generations(self.options.generations)}

    def work(self, sizes: Sizes) -> Work:
        """The network reads every token as the model does; its copy of the model is the most."""
        token = costs.forward_flops(sizes.shape, sizes.new_tokens)
        return Work(
            kind="generation",
            flops=sizes.rows * sizes.new_tokens * token,
            memory=footprints.FLOAT * sizes.shape.parameters,
        )

    def preparation_work(self, sizes: Sizes) -> Work:
        """Training of a copy of the model on all texts, of which it may take fewer."""
        options = self.options
        tokens = options.epochs * sizes.records("generations") * TEXT_TOKENS
        training = {**sizes.training, "batch_size": options.batch_size, "precision": "float32"}
        return training_work(sizes.shape, training, tokens, TEXT_TOKENS)

    def prepare(self, job: PreparationJob, given: Given) -> dict[str, torch.Tensor]:
        import torch

        from ifguide.data.own_generations import read_own_generations
        from ifguide.models.q_network import begin_q_network, episodes, train_q_network

        options = self.options
        (path,) = given["generations"]
        found = episodes(
            read_own_generations(path),
            which=options.continuations,
            nontoxic_prompts=options.nontoxic_prompts,
            seed=job.seed,
        )
        torch.manual_seed(job.seed)
        network = train_q_network(
            begin_q_network(job.model, options.blocks),
            found,
            settings={
                "epochs": options.epochs,
                "batch_size": options.batch_size,
                "learning_rate": options.learning_rate,
            },
            seed=job.seed,
            scratch=job.scratch,
        )
        return network.state_dict()

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[Guidance | None]:
        if not self.options.strength:
            yield None
            return
        from ifguide.evaluation.capping import CappedGuidance
        from ifguide.models.q_network import begin_q_network

        network = begin_q_network(job.model, self.options.blocks)
        network.load_state_dict(read_prepared(job, given))
        yield CappedGuidance(
            network.eval(),
            epsilon=self.options.epsilon,
            strength=self.options.strength,
            passes=self.options.passes,
            max_new_tokens=job.new_tokens,
        )
