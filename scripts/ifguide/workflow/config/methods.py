"""Ways to train a model: what a method may consist of is what the registered steps declare."""

import functools
import importlib
import inspect
import operator
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import ConfigDict, Discriminator, Field, Tag, create_model, model_validator
from pydantic_core import PydanticCustomError

from ifguide.methods.step import STAGES, STRENGTHS, Step, registered_steps
from ifguide.settings import OrAbsent, Settings, options_type
from ifguide.workflow.config.models import TrainingOverrides
from ifguide.workflow.config.values import Distinct, Name


class ModelDirectory(Settings):
    """A model directory."""

    path: str = Field(
        min_length=1,
        description="Directory of a `transformers` model with safetensors weights and the corpus's "
        "tokenizer.",
    )


def _kind_of_start(start: Any) -> str:
    return "ModelDirectory" if isinstance(start, Mapping) else "method"


class CommonKeys(Settings):
    """What every method may have beside its steps."""

    start_from: OrAbsent[
        Annotated[
            Annotated[str, Tag("method")] | Annotated[ModelDirectory, Tag("ModelDirectory")],
            Discriminator(_kind_of_start),
        ]
    ] = Field(
        None,
        description="Begin with a trained model: the name of the method whose model this one "
        "fine-tunes, edits or decodes, or a model directory.",
    )
    training: OrAbsent[TrainingOverrides] = None
    compare_with: OrAbsent[str] = Field(
        None,
        min_length=1,
        description="Another compared method, the control: figures are compared with its too, "
        "beside those of `none`. The control of a method that trains on trains on likewise, and "
        "does nothing else.",
    )

    @model_validator(mode="before")
    @classmethod
    def refuse_decode(cls, section: Any) -> Any:
        if isinstance(section, Mapping) and "decode" in section:
            message = "is no key any more; write start_from: {base}"
            context = {"key": "decode", "base": section["decode"]}
            raise PydanticCustomError("retired_key", message, context)
        return section


def _description(step: type[Step]) -> str:
    """Return the docstring of a step's options, of its module where they are of several kinds."""
    if isinstance(step.Options, type):
        return inspect.getdoc(step.Options) or ""
    return inspect.getdoc(importlib.import_module(step.__module__)) or ""


def _options_of(step: type[Step]) -> Any:
    """Return the type of a step's options; of one that has a strength, with a grid of it."""
    kinds = get_args(step.Options) or (step.Options,)
    if step.strength is not None:
        kinds = tuple(_with_grid(options, step.strength) for options in kinds)
    return options_type(functools.reduce(operator.or_, kinds))


def _with_grid(options: type[Settings], strength: str) -> type[Settings]:
    field = options.model_fields[strength]
    value = Annotated[field.annotation, *field.metadata]
    grid = Field(
        None,
        min_length=1,
        description=f"Several values of `{strength}`, each a method of its own, "
        "`<method>-<value>`: a curve in the report, which shows the one that the prompts of "
        "`report.choose_on` choose.",
    )
    return create_model(
        options.__name__,
        __base__=options,
        __doc__=options.__doc__,
        **{STRENGTHS: (OrAbsent[Distinct[value]], grid)},
    )


def _method() -> type[Settings]:
    """Return the model of one method: a key for each registered step, and the common ones."""
    steps = sorted(registered_steps().items(), key=lambda item: STAGES.index(item[1].stage))
    fields: dict[str, Any] = {
        key: (OrAbsent[_options_of(step)], Field(None, description=_description(step)))
        for key, step in steps
    }
    return create_model(
        "Method", __base__=CommonKeys, __doc__="One way to train a model.", **fields
    )


Method = _method()


class Uncensored(Settings):
    """The uncensored model: it may have a `training` of its own and nothing else."""

    training: OrAbsent[TrainingOverrides] = None


class Methods(Settings):
    """Ways to train a model, by name; `none` is the uncensored model and always there."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Name, Method]

    none: Uncensored
