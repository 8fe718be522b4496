"""The options by which a step of a method names pairs of a preferred and a rejected text."""

from typing import Annotated, Literal

from pydantic import Field

from ifguide.data.record_parts import RecordPart
from ifguide.settings import OrAbsent, Settings


class PairFiles(Settings):
    """Which pairs a step learns from."""

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
        OrAbsent[RecordPart],
        Field(
            description="Keep the pairs whose prompt, or rejected text where there is none, has a "
            "hash, uniform in [0, 1), in this range, or in the one that `parts` gives to this "
            "use.",
        ),
    ] = None
    limit: Annotated[
        int | None, Field(ge=1, description="At most so many pairs, sampled by hash.")
    ] = None
