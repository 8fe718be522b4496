"""The base of every section of the config: unknown keys are refused, values keep their type."""

import functools
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError


class _Absent:
    """Marks a key that has no value where it is not given, and so is not in the config either."""


ABSENT = _Absent()
Value = TypeVar("Value")
if TYPE_CHECKING:
    OrAbsent = Value | None
else:
    # A key that may be left out: `key: OrAbsent[str] = None`. Null is no value of it.
    OrAbsent = Annotated[Value, ABSENT]


def stays_absent(field: FieldInfo) -> bool:
    """Return whether a key that is not given has no default that the config is to show."""
    return ABSENT in field.metadata


def section(description: str | None = None) -> Any:
    """Return the field of a section that may be left out, as all its keys have defaults."""
    # An empty section is built with the model that holds it; a default factory would need its own.
    return Field({}, validate_default=True, description=description)


def one_of(*alternatives: type["Settings"]) -> Any:
    """Return the type of a section that is one of several; a mistake speaks of the one meant.

    That is the alternative with the fewest keys unknown or missing.
    """

    def meant(section: Any) -> str:
        if not isinstance(section, Mapping):
            return alternatives[0].__name__
        return min(alternatives, key=lambda model: _misfits(model, section)).__name__

    tagged = [Annotated[model, Tag(model.__name__)] for model in alternatives]
    return Annotated[functools.reduce(operator.or_, tagged), Discriminator(meant)]


def _misfits(model: type["Settings"], section: Mapping) -> int:
    fields = model.model_fields
    missing = [key for key in fields if fields[key].is_required() and key not in section]
    return len(missing) + sum(key not in fields for key in section)


def options_type(options: Any) -> Any:
    """Return the type of a step's options: a model, or the one meant of a union of models."""
    return one_of(*get_args(options)) if get_args(options) else options


def describe_keys(schema: dict, model: type["Settings"]) -> None:
    """Say in a model's JSON schema which keys go together, and that absent keys have no default."""
    for key, field in model.model_fields.items():
        if stays_absent(field):
            schema["properties"][key].pop("default", None)
    if model.exactly_one:
        schema["oneOf"] = [{"required": list(keys)} for keys in model.exactly_one]
    if model.companions:
        schema["dependentRequired"] = {key: [needed] for key, needed in model.companions.items()}


class Settings(BaseModel):
    """One section. Numbers are finite and not read from text, and no key is passed over."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        # Built once, within the model of the whole config.
        defer_build=True,
        json_schema_extra=describe_keys,
    )

    # Sets of keys of which exactly one is given.
    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = ()
    # Keys that are nothing without another one.
    companions: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="after")
    def check_keys(self) -> "Settings":
        given = self.model_fields_set
        for key, needed in self.companions.items():
            if key in given and needed not in given:
                context = {"key": needed, "given": key}
                raise PydanticCustomError("missing_companion", "missing, beside {given}", context)
        if self.exactly_one:
            check_choice(self, *self.exactly_one)
        return self


def check_choice(section: Settings, *choices: tuple[str, ...]) -> None:
    """Refuse a section that does not have exactly one of several sets of keys."""
    given = section.model_fields_set
    taken = [keys for keys in choices if given.issuperset(keys)]
    if len(taken) != 1:
        context = {
            "exactly": "only" if taken else "exactly",
            "choices": ", or ".join(" with ".join(keys) for keys in taken or choices),
        }
        raise PydanticCustomError("choice", "give {exactly} one of {choices}", context)
