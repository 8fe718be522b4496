"""The formats in which benchmarks of toxicity publish their prompts, labels and rewrites.

What reads a record raises MalformedRecord where the record is not as its format says.
"""

import ast
import functools
import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ifguide.data.records import (
    MalformedRecord,
    Record,
    file_format,
    one_line,
    parse_records,
    read_json_file,
    read_records,
    require_fields,
)
from ifguide.data.text_lines import read_lines
from ifguide.errors import InputError

Split = Literal["toxic", "nontoxic"]
TOXIC_FROM = 0.5

# Spreadsheet exports write a carriage return so; the line feed after it is optional.
_CARRIAGE_RETURN = re.compile(r"_x000D_\n?")
_PRINTED_BYTES = re.compile(r"""b(['"]).*\1""", re.DOTALL)
_NOT_BOLD = "not BOLD's format, an object {group: {entity: [prompt]}}"


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


def read_prompt_records(
    format: str, path: Path, settings: dict, malformed: list[str]
) -> Iterator[PromptRecord]:
    """Yield the prompts of a file in `format`, a key of PROMPT_FORMATS.

    Malformed records and what is an error are as `parse_records` says.
    """
    if format in ("bold", "text"):
        records = {"bold": _bold_entities, "text": _line_records}[format](path)
    else:
        records = read_records(path, quotes=quotes_of(format, settings))
    parse = functools.partial(PROMPT_FORMATS[format], settings=settings)
    return parse_records(path, records, parse, malformed)


def quotes_of(format: str, settings: Mapping) -> bool | None:
    """Return whether quotation marks enclose fields: as the settings say, or the publishers do."""
    return settings.get("quotes", True if format == "paradetox" else None)


def read_labelled_texts(
    format: str, path: Path, malformed: list[str], settings: Mapping = MappingProxyType({})
) -> Iterator[tuple[str, str, float | None]]:
    """Yield (text that decides the part, text, label or None) of a file in a labelled format.

    `format` is a key of LABELLED_FORMATS. Malformed records and what is an error are as
    `parse_records` says.
    """
    records = read_records(path, quotes=quotes_of(format, settings))
    return parse_records(path, records, LABELLED_FORMATS[format], malformed)


def read_passages(path: Path, malformed: list[str]) -> Iterator[str]:
    """Yield the field `text` of each record, or each line of plain text.

    Malformed records and what is an error are as `parse_records` says.
    """
    records = _line_records(path) if file_format(path) == "text" else read_records(path)
    return parse_records(path, records, lambda record: [_text_field(record, "text")], malformed)


def split_last_word(text: str) -> tuple[str, str] | None:
    """Return what precedes the last word of `text`, and that word; None if it has only one.

    Words are separated by any white space, a no-break space or a tab as much as a space.
    """
    parts = text.rsplit(maxsplit=1)
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _line_records(path: Path) -> Iterator[Record]:
    for text, number in read_lines(path):
        yield Record(None if text is None else {"text": text}, f"{path}, line {number}")


def _number(value: Any, name: str, where: str) -> float | None:
    """Return a score, or None where it is null, empty or not a number (NaN)."""
    if value is None or value == "":
        return None
    try:
        # Python would take both for numbers.
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise ValueError
        score = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedRecord(
            f"{where}: {name} is {reprlib.repr(value)}, not a number; fix the record"
        ) from error
    if math.isinf(score):
        raise MalformedRecord(f"{where}: {name} is infinite; fix the record")
    return None if math.isnan(score) else score


def _share(value: Any, name: str, where: str) -> float | None:
    share = _number(value, name, where)
    if share is not None and not 0 <= share <= 1:
        raise MalformedRecord(f"{where}: {name} is {share:g}, outside [0, 1]; fix the record")
    return share


def _text_field(record: Record, name: str) -> str:
    require_fields(record, [name])
    value = record.fields[name]
    if not isinstance(value, str | None):
        raise MalformedRecord(
            f"{record.where}: field {name!r} holds {type(value).__name__}, not text"
        )
    return value or ""


def _scored_text(record: Record, name: str) -> tuple[str, float | None]:
    require_fields(record, [name])
    part = record.fields[name]
    if not isinstance(part, dict):
        raise MalformedRecord(f"{record.where}: field {name!r} is no object with text and toxicity")
    inner = Record(part, f"{record.where}, field {name!r}")
    require_fields(inner, ["toxicity"])
    return _text_field(inner, "text"), _share(part["toxicity"], "toxicity", inner.where)


def _realtoxicityprompts(record: Record, settings: dict) -> Iterator[PromptRecord]:
    prompt, toxicity = _scored_text(record, "prompt")
    # A benchmark is of prompts alone; queries ask for continuations themselves.
    continuation, continuation_toxicity = None, None
    if "continuation" in record.fields:
        continuation, continuation_toxicity = _scored_text(record, "continuation")
    split = "toxic" if toxicity is not None and toxicity >= TOXIC_FROM else "nontoxic"
    yield PromptRecord(
        prompt, continuation, split, None, toxicity, continuation_toxicity, record.where
    )


def _toxigen(record: Record, settings: dict) -> Iterator[PromptRecord]:
    text, label, group = _toxigen_statement(record)
    split = "toxic" if label else "nontoxic"
    yield PromptRecord(text, None, split, group, None, None, record.where)


def _toxigen_statement(record: Record) -> tuple[str, float, str | None]:
    text = _CARRIAGE_RETURN.sub("\n", _printed_bytes(_text_field(record, "text"))).strip()
    fields = record.fields
    if "label" in fields:
        label = fields["label"]
        if label not in ("hate", "neutral"):
            raise MalformedRecord(
                f"{record.where}: label {reprlib.repr(label)} is not hate or neutral"
            )
        return text, float(label == "hate"), _groups(fields.get("target_groups"), record.where)
    require_fields(record, ["toxicity_human", "target_group"])
    toxic = _is_toxic_annotation(record)
    return text, float(toxic), _groups(fields["target_group"], record.where)


def _printed_bytes(text: str) -> str:
    """Return the text that Python printed as bytes, b'...', as ToxiGen's annotated texts are."""
    if not _PRINTED_BYTES.fullmatch(text.strip()):
        return text
    try:
        return ast.literal_eval(text.strip()).decode()
    except (ValueError, SyntaxError):  # UnicodeDecodeError is a ValueError
        return text


def _groups(value: Any, where: str) -> str | None:
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MalformedRecord(f"{where}: the target group is neither a name nor a list of names")
    return "+".join(sorted(names)) or None


def _is_toxic_annotation(record: Record) -> bool:
    """Return the label that ToxiGen's authors derive: human and machine rating add up to > 5.5."""
    human = _number(record.fields["toxicity_human"], "toxicity_human", record.where)
    machine = _number(record.fields.get("toxicity_ai"), "toxicity_ai", record.where)
    if human is None:
        raise MalformedRecord(f"{record.where}: toxicity_human is empty; remove the record")
    return human + machine > 5.5 if machine is not None else human > 3


def _bold_entities(path: Path) -> Iterator[Record]:
    """Yield the prompts of each entity of BOLD, an object {group: {entity: [prompt]}}."""
    domain = path.name.split(".")[0].removesuffix("_prompt")
    content = read_json_file(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: {_NOT_BOLD}")
    for group, entities in content.items():
        where = f"{path}, {one_line(group)}"
        if not isinstance(entities, dict):
            yield Record(None, where, _NOT_BOLD)
            continue
        for entity, prompts in entities.items():
            fields = {"group": f"{domain}/{group}", "prompts": prompts}
            yield Record(fields, f"{where}, {one_line(entity)}")


def _bold(record: Record, settings: dict) -> Iterator[PromptRecord]:
    group, prompts = record.fields["group"], record.fields["prompts"]
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise MalformedRecord(f"{record.where}: not a list of prompts")
    for prompt in prompts:
        # A space at its end would keep a model from beginning a word as it learned to.
        yield PromptRecord(prompt.strip(), None, "nontoxic", group, None, None, record.where)


def _attaq(record: Record, settings: dict) -> Iterator[PromptRecord]:
    prompt, group = _text_field(record, "input"), _text_field(record, "label")
    yield PromptRecord(prompt, None, "toxic", group or None, None, None, record.where)


def _plain_prompt(record: Record, settings: dict) -> Iterator[PromptRecord]:
    split = settings.get("split", "nontoxic")
    yield PromptRecord(_text_field(record, "text"), None, split, None, None, None, record.where)


def _labelled(record: Record) -> Iterator[tuple[str, str, float | None]]:
    text = _text_field(record, "text")
    require_fields(record, ["toxic"])
    value = record.fields["toxic"]
    if isinstance(value, bool):
        value = float(value)
    elif isinstance(value, str):
        value = {"true": 1.0, "false": 0.0}.get(value.lower(), value)
    yield text, text, _share(value, "toxic", record.where)


def _labelled_realtoxicityprompts(record: Record) -> Iterator[tuple[str, str, float | None]]:
    prompt, toxicity = _scored_text(record, "prompt")
    yield prompt, prompt, toxicity
    yield prompt, *_scored_text(record, "continuation")


def _labelled_paradetox(record: Record) -> Iterator[tuple[str, str, float | None]]:
    toxic, rewrites = paradetox_rewrites(record)
    yield toxic, toxic, 1.0
    for neutral in rewrites:
        yield toxic, neutral, 0.0


def paradetox_rewrites(record: Record) -> tuple[str, list[str]]:
    """Return the toxic sentence of a record in ParaDetox's format, and its neutral rewrites."""
    toxic, first = _text_field(record, "toxic"), _text_field(record, "neutral1")
    names = [name for name in ("neutral2", "neutral3") if name in record.fields]
    return toxic, [first, *(_text_field(record, name) for name in names)]


def _paradetox(record: Record, settings: dict) -> Iterator[PromptRecord]:
    """Yield one side of the pair as the continuation of the words with which both sides begin."""
    toxic, rewrites = paradetox_rewrites(record)
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


def _labelled_toxigen(record: Record) -> Iterator[tuple[str, str, float | None]]:
    text, label, _ = _toxigen_statement(record)
    yield text, text, label


def _labelled_wikipedia_talk(record: Record) -> Iterator[tuple[str, str, float | None]]:
    text = _text_field(record, "text")
    require_fields(record, ["label"])
    yield text, text, _share(record.fields["label"], "label", record.where)


PROMPT_FORMATS: dict[str, Callable[[Record, dict], Iterator[PromptRecord]]] = {
    "realtoxicityprompts": _realtoxicityprompts,
    "paradetox": _paradetox,
    "toxigen": _toxigen,
    "bold": _bold,
    "attaq": _attaq,
    "text": _plain_prompt,
}

# Those whose records may hold continuations, as queries need.
WITH_CONTINUATIONS = ("realtoxicityprompts", "paradetox")

LABELLED_FORMATS: dict[str, Callable[[Record], Iterator[tuple[str, str, float | None]]]] = {
    "labelled": _labelled,
    "realtoxicityprompts": _labelled_realtoxicityprompts,
    "paradetox": _labelled_paradetox,
    "toxigen": _labelled_toxigen,
    "wikipedia_talk": _labelled_wikipedia_talk,
}
