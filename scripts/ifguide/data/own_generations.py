"""Continuations that a model wrote itself, judged: a JSON line each."""

from pathlib import Path
from typing import NamedTuple

from ifguide.files.artifacts import read_jsonl


class OwnGeneration(NamedTuple):
    """One continuation: token ids of its prompt and of itself, without end of text; toxicity.

    `prompt` is the end of the text before alone where text is sampled after no prompt.
    """

    prompt: list[int]
    continuation: list[int]
    text: str
    toxicity: float


def read_own_generations(path: Path) -> list[list[OwnGeneration]]:
    """Return the continuations of each prompt, by prompt and sample."""
    prompts: dict[int, list[OwnGeneration]] = {}
    for record in read_jsonl(path):
        own = {name: record[name] for name in OwnGeneration._fields}
        prompts.setdefault(record["prompt_index"], []).append(OwnGeneration(**own))
    return list(prompts.values())
