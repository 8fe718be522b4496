"""Parts of sources that are named by their use: the ranges take the place of the names."""

import itertools
from collections.abc import Iterator

from ifguide.workflow.refusal import refuse_config

PART = "part"


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
    for entry in _entries(config):
        if isinstance(use := entry[PART], str):
            entry[PART] = list(parts[use])


def _entries(node: object) -> Iterator[dict]:
    """Yield each section of the config that has a `part`."""
    if isinstance(node, dict):
        if PART in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _entries(child)
