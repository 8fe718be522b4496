"""The option that takes a part of a source's records, by a range of their hash or by a use.

The section `parts` of the config gives each use a range, so that what judges, methods and tests
take of one source has no record in common.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

Use = Literal["judges", "methods", "development", "tests"]


def _kind_of_part(part: Any) -> str:
    return "use" if isinstance(part, str) else "range"


HashRange = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]
RecordPart = Annotated[
    Annotated[HashRange, Tag("range")] | Annotated[Use, Tag("use")], Discriminator(_kind_of_part)
]
