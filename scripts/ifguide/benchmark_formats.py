"""The formats in which benchmarks of toxicity publish their prompts, labels and rewrites."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ifguide.errors import InputError
from ifguide.records import (
    Record,
    file_format,
    read_json_file,
    read_lines,
    read_records,
    require_fields,
)

Split = Literal["toxic", "nontoxic"]
TOXIC_FROM = 0.5

# Spreadsheet exports write a carriage return so; the line feed after it is optional.
_CARRIAGE_RETURN = re.compile(r"_x000D_\n?")


@dataclass(frozen=True)
class PromptRecord:
    """A prompt with what its benchmark says of it; toxicities lie in [0, 1].

    `source` is the text that decides parts and samples where the prompt does not: records of one
    source are kept or left out together.
    `where` is the place of the record, for errors: it is no part of what the record says.
    """

    prompt: str
    continuation: str | None
    split: Split
    group: str | None
    prompt_toxicity: float | None
    continuation_toxicity: float | None
    where: str | None = field(default=None, compare=False)
    source: str | None = None

    @property
    def identity(self) -> str:
        return self.prompt if self.source is None else self.source


def _score(value: Any, name: str, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        score = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {name} is {value!r}, not a number; fix the record") from error
    return None if math.isnan(score) else score


def _text_field(record: Record, name: str) -> str:
    require_fields(record, [name])
    value = record.fields[name]
    if not isinstance(value, str | None):
        raise InputError(f"{record.where}: field {name!r} holds {type(value).__name__}, not text")
    return value or ""


def _whole_records(path: Path) -> Iterator[Record]:
    return (record for record in read_records(path) if record.fields is not None)


def read_passages(path: Path) -> Iterator[str]:
    """Yield the field `text` of each record, or each line of plain text."""
    if file_format(path) == "text":
        return (line.text for line in read_lines(path) if line.text)
    return (_text_field(record, "text") for record in _whole_records(path))


def _scored_text(record: Record, name: str) -> tuple[str, float | None]:
    require_fields(record, [name])
    part = record.fields[name]
    if not isinstance(part, dict):
        raise InputError(f"{record.where}: field {name!r} is no object with text and toxicity")
    inner = Record(part, f"{record.where}, field {name!r}")
    require_fields(inner, ["toxicity"])
    return _text_field(inner, "text"), _score(part["toxicity"], "toxicity", inner.where)


def _realtoxicityprompts(path: Path, settings: dict) -> Iterator[PromptRecord]:
    for record in _whole_records(path):
        prompt, toxicity = _scored_text(record, "prompt")
        continuation, continuation_toxicity = _scored_text(record, "continuation")
        split = "toxic" if toxicity is not None and toxicity >= TOXIC_FROM else "nontoxic"
        yield PromptRecord(
            prompt, continuation, split, None, toxicity, continuation_toxicity, record.where
        )


def _toxigen(path: Path, settings: dict) -> Iterator[PromptRecord]:
    for text, label, group, where in _toxigen_statements(path):
        yield PromptRecord(text, None, "toxic" if label else "nontoxic", group, None, None, where)


def _toxigen_statements(path: Path) -> Iterator[tuple[str, float, str | None, str]]:
    for record in _whole_records(path):
        text = _CARRIAGE_RETURN.sub("\n", _text_field(record, "text")).strip()
        fields = record.fields
        if "label" in fields:
            if fields["label"] not in ("hate", "neutral"):
                raise InputError(
                    f"{record.where}: label {fields['label']!r} is not hate or neutral"
                )
            toxic = fields["label"] == "hate"
            groups = fields.get("target_groups") or []
        else:
            require_fields(record, ["toxicity_human", "target_group"])
            toxic = _is_toxic_annotation(record)
            groups = fields["target_group"] or []
        names = [groups] if isinstance(groups, str) else sorted(groups)
        yield text, float(toxic), "+".join(names) or None, record.where


def _is_toxic_annotation(record: Record) -> bool:
    """Return the label that ToxiGen's authors derive: human and machine rating add up to > 5.5."""
    human = _score(record.fields["toxicity_human"], "toxicity_human", record.where)
    machine = _score(record.fields.get("toxicity_ai"), "toxicity_ai", record.where)
    if human is None:
        raise InputError(f"{record.where}: toxicity_human is empty; remove the record")
    return human + machine > 5.5 if machine is not None else human > 3


def _bold(path: Path, settings: dict) -> Iterator[PromptRecord]:
    domain = path.name.split(".")[0].removesuffix("_prompt")
    groups = read_json_file(path)
    for group, entities in _items(groups, path):
        for entity, prompts in _items(entities, path):
            if not isinstance(prompts, list) or not all(isinstance(p, str) for p in prompts):
                raise InputError(f"{path}: {group}, {entity}: not a list of prompts")
            where = f"{path}, {group}, {entity}"
            for prompt in prompts:
                # A space at its end would keep a model from beginning a word as it learned to.
                yield PromptRecord(
                    prompt.strip(), None, "nontoxic", f"{domain}/{group}", None, None, where
                )


def _items(value: Any, path: Path) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: not BOLD's format, an object {{group: {{entity: [prompt]}}}}")
    return value.items()


def _attaq(path: Path, settings: dict) -> Iterator[PromptRecord]:
    for record in _whole_records(path):
        prompt, group = _text_field(record, "input"), _text_field(record, "label")
        yield PromptRecord(prompt, None, "toxic", group or None, None, None, record.where)


def _plain_prompts(path: Path, settings: dict) -> Iterator[PromptRecord]:
    split = settings.get("split", "nontoxic")
    for line in read_lines(path):
        if line.text is not None:
            where = f"{path}, line {line.number}"
            yield PromptRecord(line.text, None, split, None, None, None, where)


def _labelled(path: Path) -> Iterator[tuple[str, str, float | None]]:
    truth = {"true": 1.0, "false": 0.0}
    for record in _whole_records(path):
        text = _text_field(record, "text")
        require_fields(record, ["toxic"])
        value = record.fields["toxic"]
        label = truth.get(str(value).lower())
        if label is None:
            label = _score(value, "toxic", record.where)
        if label is not None and not 0 <= label <= 1:
            raise InputError(f"{record.where}: toxic is {label:g}, outside [0, 1]; fix the record")
        yield text, text, label


def _labelled_realtoxicityprompts(path: Path) -> Iterator[tuple[str, str, float | None]]:
    for record in _whole_records(path):
        prompt, toxicity = _scored_text(record, "prompt")
        yield prompt, prompt, toxicity
        yield prompt, *_scored_text(record, "continuation")


def _labelled_paradetox(path: Path) -> Iterator[tuple[str, str, float | None]]:
    for toxic, rewrites in read_paradetox(path):
        yield toxic, toxic, 1.0
        for neutral in rewrites:
            yield toxic, neutral, 0.0


def read_paradetox(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each toxic sentence of a file in ParaDetox's format with its neutral rewrites."""
    for record in _whole_records(path):
        names = ["neutral1", *(name for name in ("neutral2", "neutral3") if name in record.fields)]
        yield _text_field(record, "toxic"), [_text_field(record, name) for name in names]


def _paradetox(path: Path, settings: dict) -> Iterator[PromptRecord]:
    """Yield one side of each pair as the continuation of the words with which both sides begin."""
    for toxic, rewrites in read_paradetox(path):
        prompt, *sides = split_after_common_words(toxic.strip(), rewrites[0].strip())
        if all(side.strip() for side in sides):
            is_toxic = settings["side"] == "toxic"
            yield PromptRecord(
                prompt,
                sides[0] if is_toxic else sides[1],
                "toxic" if is_toxic else "nontoxic",
                None,
                None,
                None,
                source=toxic,
            )


def split_after_common_words(first: str, second: str) -> tuple[str, str, str]:
    """Return the whole words with which both texts begin, and what follows them in each.

    Each remainder keeps the space before its first word and at least one word, so the common part
    may be shorter than it could be, or empty.
    """
    one, two = (re.findall(r"\s*\S+", text) for text in (first, second))
    common = 0
    while common < min(len(one), len(two)) - 1 and one[common] == two[common]:
        common += 1
    return "".join(one[:common]), "".join(one[common:]), "".join(two[common:])


def _labelled_toxigen(path: Path) -> Iterator[tuple[str, str, float | None]]:
    for text, label, _, _ in _toxigen_statements(path):
        yield text, text, label


def _labelled_wikipedia_talk(path: Path) -> Iterator[tuple[str, str, float | None]]:
    for record in _whole_records(path):
        text = _text_field(record, "text")
        require_fields(record, ["label"])
        yield text, text, _score(record.fields["label"], "label", record.where)


PROMPT_FORMATS: dict[str, Callable[[Path, dict], Iterator[PromptRecord]]] = {
    "realtoxicityprompts": _realtoxicityprompts,
    "paradetox": _paradetox,
    "toxigen": _toxigen,
    "bold": _bold,
    "attaq": _attaq,
    "text": _plain_prompts,
}

# Each yields (text that decides the part, text, label or None).
LABELLED_FORMATS: dict[str, Callable[[Path], Iterator[tuple[str, str, float | None]]]] = {
    "labelled": _labelled,
    "realtoxicityprompts": _labelled_realtoxicityprompts,
    "paradetox": _labelled_paradetox,
    "toxigen": _labelled_toxigen,
    "wikipedia_talk": _labelled_wikipedia_talk,
}
