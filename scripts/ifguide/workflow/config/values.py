"""Kinds of values that several sections of the config have."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from ifguide.data.record_parts import RecordPart
from ifguide.settings import OrAbsent, Settings

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


def matching(pattern: str, complaint: str, **others: Any) -> Any:
    """Return the field of a text of some form; `complaint` follows a text that has another."""
    return Field(pattern=pattern, json_schema_extra={"$comment": complaint, **others})


_IS_NO_NAME = "is not a name: letters, digits, - and _, the first a letter or digit"
Name = Annotated[str, matching(NAME, _IS_NO_NAME)]


def name_except(*taken: str) -> Any:
    """Return the type of a name that is none of those that the workflow takes itself."""

    def check(name: str) -> str:
        if name in taken:
            raise PydanticCustomError("taken_name", "cannot be a name here")
        return name

    form = matching(NAME, _IS_NO_NAME, **{"not": {"enum": list(taken)}})
    return Annotated[str, form, AfterValidator(check)]


Item = TypeVar("Item")


def _check_distinct(values: list) -> list:
    for value in values:
        if values.count(value) > 1:
            raise PydanticCustomError("repeated", "{value} stands twice", {"value": repr(value)})
    return values


Distinct = Annotated[
    list[Item], AfterValidator(_check_distinct), Field(json_schema_extra={"uniqueItems": True})
]

Share = Annotated[float, Field(ge=0, le=1)]
Bounds = Annotated[list[Share], Field(min_length=2, max_length=2)]
ScoreRange = Annotated[
    Bounds, Field(description="Keep the records whose score lies in this range.")
]
Part = Annotated[
    RecordPart,
    Field(
        description="Keep the records whose hash, uniform in [0, 1), lies in this range, or in "
        "the one that `parts` gives to this use: disjoint ranges share no record."
    ),
]

Files = Annotated[
    str,
    Field(
        min_length=1,
        description="Path or glob of the files; `{planted}` and `{data_dir}` are filled in. With "
        "`hub`, path or glob within the data set's repository.",
    ),
]
HubName = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$",
        "is not the name of a repository, such as owner/name",
    ),
]
HubData = Annotated[HubName, Field(description="Hub data set that holds the files.")]
Revision = Annotated[
    str,
    matching("^[0-9a-f]{40}$", "is not a full commit hash of 40 hexadecimal digits"),
    Field(description="Full commit hash that pins the hub repository."),
]
# What is read from the hub is pinned, and what is pinned is read from the hub.
PINNED = {"hub": "revision", "revision": "hub"}

Quotes = Annotated[
    bool,
    Field(
        description="Whether quotation marks enclose fields of a CSV or TSV file, which may then "
        "hold delimiters and line breaks. By default they do in CSV and in ParaDetox's own TSV; in "
        "other TSV they are text."
    ),
]

PromptFormat = Annotated[
    Literal["realtoxicityprompts", "toxigen", "bold", "attaq", "text"],
    Field(description="Format of the files."),
]


class SplitLimit(Settings):
    """One number for each split."""

    toxic: OrAbsent[int] = Field(None, ge=0, description="Toxic prompts.")
    nontoxic: OrAbsent[int] = Field(None, ge=0, description="Non-toxic prompts.")


def _kind_of_limit(limit: Any) -> str:
    return "SplitLimit" if isinstance(limit, Mapping) else "number"


Limit = Annotated[
    Annotated[Annotated[int, Field(ge=1)] | None, Tag("number")]
    | Annotated[SplitLimit, Tag("SplitLimit")],
    Discriminator(_kind_of_limit),
    Field(description="At most so many records, sampled by hash; or one number for each split."),
]
