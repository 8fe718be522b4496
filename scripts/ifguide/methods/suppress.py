"""Suppress tokens: the model learns every token but those of a mask, which it unlearns."""

from typing import Annotated, Literal

from pydantic import Field

from ifguide.methods.step import Need, Step
from ifguide.settings import OrAbsent, Settings


class SuppressOptions(Settings):
    """Suppress the tokens of a selection."""

    selection: Annotated[
        OrAbsent[str],
        Field(
            description="Name of an entry of `influence.selections`; `tokens: truth` needs none."
        ),
    ] = None
    tokens: Annotated[
        Literal["selected", "random", "truth"],
        Field(
            description="Which tokens: those selected, as many drawn at random from the whole "
            "corpus, or those known to be toxic."
        ),
    ] = "selected"
    objective: Annotated[
        Literal["published", "unlikelihood", "exclusion"],
        Field(
            description="What happens to selected tokens: gradient ascent as published, the "
            "bounded unlikelihood penalty, or no loss at all."
        ),
    ] = "unlikelihood"
    strength: Annotated[
        float, Field(ge=0, description="Weight of the penalty on selected tokens.")
    ] = 1.0


class Suppress(Step):
    stage = "train"
    Options = SuppressOptions

    def needs(self) -> dict[str, Need]:
        return {}
