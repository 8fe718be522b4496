"""Language models and how they are trained."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from ifguide.settings import ABSENT, OrAbsent, Settings, check_choice, describe_keys
from ifguide.workflow.config.values import PINNED, HubName, Revision


class Training(Settings):
    """How language models are trained, unless a model or a method says otherwise."""

    epochs: float = Field(4, gt=0, description="Passes over the corpus.")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after so many steps; null trains all epochs."
    )
    batch_size: int = Field(16, ge=1, description="Blocks a process takes at once.")
    accumulation: int = Field(
        1,
        ge=1,
        description="Batches whose gradients are added before a step, over all processes: a step "
        "takes batch_size × accumulation blocks however many share it.",
    )
    learning_rate: float = Field(0.0006, gt=0, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="Course of the learning rate."
    )
    warmup: float = Field(
        0.01, ge=0, lt=1, description="Share of the steps in which the learning rate rises."
    )
    weight_decay: float = Field(0.0004, ge=0, description="Weight decay of AdamW.")
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.9, 0.95], min_length=2, max_length=2, description="The two betas of AdamW."
    )
    epsilon: float = Field(1e-08, gt=0, description="Epsilon of AdamW.")
    clip: float = Field(1.0, ge=0, description="Largest norm of a step's gradient.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Number type of the products in training."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    compile: bool = Field(False, description="Compile the model with torch.compile.")
    fsdp: bool = Field(
        False,
        description="Divide weights, gradients and optimizer state among the processes: for "
        "models that do not fit on one device.",
    )
    explosion_factor: float | None = Field(
        5.0,
        gt=1,
        description="Stop when the loss of unselected tokens exceeds its lowest value so many "
        "times, or never (null).",
    )
    peak_flops: float | None = Field(
        None,
        gt=0,
        description="Peak of a device in FLOP/s, by which utilisation is reckoned; null takes it "
        "from a table of devices.",
    )
    log_steps: int = Field(20, ge=1, description="Steps between two lines of the log.")
    checkpoint_steps: int = Field(
        500,
        ge=1,
        description="Steps between two checkpoints; a change reruns nothing that is finished.",
    )


def _overrides_of(model: type[Settings], *fixed: str) -> type[Settings]:
    """Return the model whose keys are those of another but for `fixed`, and have no defaults."""
    fields: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        if key not in fixed:
            kind = Annotated[field.annotation, ABSENT, *field.metadata]
            fields[key] = (kind, Field(None, description=field.description))
    return create_model(f"{model.__name__}Overrides", __base__=Settings, **fields)


TrainingOverrides = Annotated[
    _overrides_of(Training, "betas", "epsilon"),
    Field(description="Settings of `training` that differ here."),
]


class Architecture(Settings):
    """A model to train from scratch: a `transformers` configuration, spelled out (`model_type` and
    its settings), or a published `name`, a JSON `file` or that of a `hub` model at a `revision`,
    with settings that differ; the vocabulary is the tokenizer's unless a `vocab_size` pads it."""

    model_config = ConfigDict(extra="allow")
    exactly_one = (("model_type",), ("name",), ("file",), ("hub", "revision"))
    companions = PINNED

    name: OrAbsent[str] = Field(
        None,
        description="Published architecture: `pythia-14m` to `pythia-12b`, `llama-3.2-1b`, "
        "`llama-3.2-3b`, `gpt2` to `gpt2-xl`.",
    )
    file: OrAbsent[str] = Field(None, description="Path of a `config.json`.")
    hub: OrAbsent[HubName] = Field(
        None, description="Hub model whose architecture is taken, not its weights."
    )
    revision: OrAbsent[Revision] = None

    @model_validator(mode="after")
    def check_numbers(self) -> "Architecture":
        for key, value in _numbers(self.model_extra or {}):
            if not math.isfinite(value):
                context = {"key": key, "value": value}
                raise PydanticCustomError("not_finite", "{value} is not a finite number", context)
        return self


def _numbers(settings: dict | list) -> Iterator[tuple[str, float]]:
    """Yield the keys and the numbers that are not whole of what only `transformers` checks."""
    for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        if isinstance(value, dict | list):
            yield from ((f"{key}.{below}", number) for below, number in _numbers(value))
        elif isinstance(value, float):
            yield str(key), value


class Checkpoint(Settings):
    """A model as it was on the way: the same initial weights, order of data and schedule as `of`,
    stopped early. It takes everything else from there."""

    of: str = Field(
        description="Name of an entry of `models` that is trained from an `architecture`."
    )
    at: float = Field(
        gt=0, lt=1, description="Share of the steps of `of` after which training stops."
    )


# What a language model is made from, unless it is a checkpoint of another.
SOURCES = ("architecture", "path")


def _describe_language_model(schema: dict, model: type[Settings]) -> None:
    describe_keys(schema, model)
    schema["if"] = {"required": ["checkpoint"]}
    schema["else"] = {"required": ["tokenizer"], "oneOf": [{"required": [key]} for key in SOURCES]}


class LanguageModel(Settings):
    """A language model: trained here, or taken from a directory."""

    model_config = ConfigDict(json_schema_extra=_describe_language_model)

    tokenizer: OrAbsent[str] = Field(None, description="Name of an entry of `tokenizers`.")
    architecture: OrAbsent[Architecture] = None
    path: OrAbsent[str] = Field(
        None,
        description="Directory of a trained causal language model with safetensors weights: "
        "method `none` takes it as it is, other methods fine-tune it.",
    )
    training: OrAbsent[TrainingOverrides] = None
    checkpoint: OrAbsent[Checkpoint] = None

    @model_validator(mode="after")
    def check_keys(self) -> "LanguageModel":
        # A checkpoint takes everything else from the model that it is a state of.
        if self.checkpoint is None:
            if self.tokenizer is None:
                raise PydanticCustomError("missing_key", "missing", {"key": "tokenizer"})
            check_choice(self, *((key,) for key in SOURCES))
        return self
