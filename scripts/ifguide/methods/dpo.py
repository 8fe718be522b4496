"""Direct preference optimisation of a trained model."""

from typing import Annotated, Literal

from pydantic import Field

from ifguide.methods.step import Step
from ifguide.settings import OrAbsent, Settings


class DpoOptions(Settings):
    """Train the model of `start_from` on pairs of a preferred and a rejected text, by direct
    preference optimisation. What is not given here comes from `training`."""

    pairs: Annotated[
        str,
        Field(
            min_length=1,
            description="Path or glob of the files; `{planted}` and `{data_dir}` are filled in.",
        ),
    ]
    format: Annotated[
        Literal["paradetox", "preference"],
        Field(
            description="Format of the pairs: ParaDetox's (neutral rewrite preferred to toxic "
            "sentence), or records with `chosen`, `rejected` and, if they have one, `prompt`."
        ),
    ] = "paradetox"
    part: Annotated[
        OrAbsent[list[Annotated[float, Field(ge=0, le=1)]]],
        Field(
            min_length=2,
            max_length=2,
            description="Keep the pairs whose rejected text has a hash, uniform in [0, 1), in this "
            "range.",
        ),
    ] = None
    limit: Annotated[
        int | None, Field(ge=1, description="At most so many pairs, sampled by hash.")
    ] = None
    beta: Annotated[
        float, Field(gt=0, description="How strongly the model is held to the one it began as.")
    ] = 0.1
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 1
    batch_size: Annotated[int, Field(ge=1, description="Pairs a device takes at once.")] = 16
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1.0e-6
    warmup: Annotated[
        float,
        Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises."),
    ] = 0.1


class Dpo(Step):
    stage = "train"
    Options = DpoOptions
