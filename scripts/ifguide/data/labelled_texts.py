"""A file of labelled texts: of each a JSON line with the fields of `LabelledText`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.prompts import LabelledText
from ifguide.errors import InputError
from ifguide.files.artifacts import read_jsonl
from ifguide.seeds import derive_seed, uniform_hash

TOXIC = 0.5


class Texts(NamedTuple):
    """Toxic texts and texts that are not."""

    toxic: list[str]
    nontoxic: list[str]


def balanced(labelled: Sequence[LabelledText], each: int | None, seed: int) -> list[LabelledText]:
    """Return at most `each` toxic and as many nontoxic texts, sampled by hash, in their order."""
    sides: dict[bool, list[LabelledText]] = {True: [], False: []}
    for text in labelled:
        sides[text.label >= TOXIC].append(text)
    kept = {
        text.text
        for side in sides.values()
        for text in sorted(side, key=lambda one: uniform_hash(seed, one.text))[:each]
    }
    return [text for text in labelled if text.text in kept]


def divided(
    labelled: Sequence[LabelledText], held_out: float, seed: int, stage: str
) -> tuple[list[LabelledText], list[LabelledText]]:
    """Return texts to train on, and the share `held_out` of the records to measure on.

    By the hash of the record: no text that is held out has a sibling in training.
    stage: `classifier` or `reward`, what learns from the texts.
    """
    own = derive_seed(seed, f"{stage} held out")
    sides: tuple[list[LabelledText], list[LabelledText]] = ([], [])
    for text in labelled:
        sides[uniform_hash(own, text.record) < held_out].append(text)
    return sides


def require_texts_disjoint(
    labelled: Iterable[LabelledText], prompts: Iterable[PromptRecord], key: str, benchmark: str
) -> None:
    """Raise InputError if a text of `key` is a test prompt, or comes from the record of one."""
    learned = {text.strip() for one in labelled for text in (one.text, one.record)}
    shared = learned & {record.prompt.strip() for record in prompts}
    if shared:
        example = json.dumps(min(shared)[:80], ensure_ascii=False)
        raise InputError(
            f"{key} shares {len(shared)} records with benchmarks.{benchmark} (for example "
            f"{example}); remove them, or give the sources and the benchmark disjoint parts by "
            "`part`"
        )


def read_labelled_texts(path: Path) -> list[LabelledText]:
    return [LabelledText(**record) for record in read_jsonl(path)]


def read_texts(path: Path) -> Texts:
    """Return the texts of a file, each kind in its order.

    Raises InputError where one kind is missing.
    """
    texts = Texts([], [])
    for record in read_jsonl(path):
        (texts.toxic if record["label"] >= TOXIC else texts.nontoxic).append(record["text"])
    for kind, found in zip(("toxic", "nontoxic"), texts, strict=True):
        if not found:
            raise InputError(f"{path}: no text is {kind}; add a source to the entry of `texts`")
    return texts


def equally_many(texts: Texts, most: int | None, seed: int) -> Texts:
    """Return as many toxic texts as others, at most `most` of each, sampled by hash."""
    count = min(len(texts.toxic), len(texts.nontoxic), most or len(texts.toxic))
    return Texts(
        *(sorted(side, key=lambda text: uniform_hash(seed, text))[:count] for side in texts)
    )
