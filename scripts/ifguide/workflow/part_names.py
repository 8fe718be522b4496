"""Parts of sources that are named by their use: the ranges take the place of the names."""

import itertools

from ifguide.workflow.config_sections import sections_below
from ifguide.workflow.refusal import refuse_config


def fill_in_parts(config: dict) -> None:
    """Replace every `part` that names a use by the range that `parts` gives to it.

    Stops with one line where two of these ranges have records in common.
    """
    parts: dict[str, list[float]] = config["parts"]
    ordered = sorted(parts, key=lambda use: parts[use])
    for first, second in itertools.pairwise(ordered):
        if parts[second][0] < parts[first][1]:
            refuse_config(
                f"parts.{second}",
                f"{parts[second]} overlaps with {parts[first]} of {first}; parts share no record",
            )
    for _, section in sections_below(config):
        if isinstance(use := section.get("part"), str):
            section["part"] = list(parts[use])
