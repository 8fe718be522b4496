"""Pairs of a preferred and a rejected text, as files hold them."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.data.benchmark_formats import (
    PromptRecord,
    paradetox_rewrites,
    quotes_of,
    split_after_common_words,
)
from ifguide.data.prompts import in_part, malformed_report, sample_texts
from ifguide.data.records import (
    MalformedRecord,
    Record,
    parse_records,
    read_records,
    require_fields,
    require_files,
)
from ifguide.data.text_lines import is_unicode
from ifguide.errors import InputError


@dataclass(frozen=True)
class PreferencePair:
    """Two continuations of one prompt, which may be empty: the first is preferred."""

    prompt: str
    chosen: str
    rejected: str

    @property
    def record(self) -> str:
        """The text that decides the part: pairs of one prompt stay together."""
        return self.prompt if self.prompt.strip() else self.rejected


def read_pairs(
    settings: dict, paths: Sequence[str | Path], seed: int
) -> tuple[list[PreferencePair], dict[str, Any]]:
    """Return the distinct pairs of the files, in a random order of their own, and what was skipped.

    `settings` holds `format` (a key of PAIR_FORMATS) and may hold `part` (of the prompt, or where
    there is none of the rejected text) and `limit` (pairs, sampled by hash). Skipped and counted:
    pairs with an empty side, two equal sides, or text that is not UTF-8, and malformed records, of
    which the first are named.

    Raises InputError, with file and line, where a file's records are malformed (see
    `parse_records`), and where no pair is left.
    """
    files = require_files(paths)
    counts = {"read": 0, "skipped": 0}
    malformed: list[str] = []
    pairs: dict[str, PreferencePair] = {}
    for path in files:
        for pair in read_pair_records(settings, path, malformed):
            counts["read"] += 1
            sides = (pair.chosen.strip(), pair.rejected.strip())
            if not all(sides) or sides[0] == sides[1] or not is_unicode("".join(_texts(pair))):
                counts["skipped"] += 1
            elif in_part(pair.record, settings.get("part"), seed):
                pairs.setdefault(json.dumps(_texts(pair)), pair)
    counts = {name: count + len(malformed) for name, count in counts.items()}
    chosen = [pairs[key] for key in sample_texts(pairs, settings.get("limit"), seed)]
    if not chosen:
        raise InputError(
            f"{files[0]}: no pair left of {counts['read']} read, {counts['skipped']} of them with "
            "an empty side or two equal sides; check `format`, or widen `part`"
        )
    return chosen, {**counts, **malformed_report(malformed), "kept": len(chosen)}


def read_pair_records(settings: dict, path: Path, malformed: list[str]) -> Iterator[PreferencePair]:
    """Yield the pairs of a file as they stand; malformed records are as `parse_records` says."""
    format = settings["format"]
    records = read_records(path, quotes=quotes_of(format, settings))
    return parse_records(path, records, PAIR_FORMATS[format], malformed)


def _texts(pair: PreferencePair) -> tuple[str, str, str]:
    return pair.prompt, pair.chosen, pair.rejected


def _paradetox(record: Record) -> Iterator[PreferencePair]:
    toxic, rewrites = paradetox_rewrites(record)
    for neutral in filter(str.strip, rewrites):
        yield PreferencePair("", neutral, toxic)


def _preference(record: Record) -> Iterator[PreferencePair]:
    """Yield the pair of a record as TRL's data sets hold it.

    Texts, or conversations: lists of {"role", "content"}. Without a `prompt`, what both sides begin
    with is it: the same messages, of texts the same words.
    """
    require_fields(record, ["chosen", "rejected"])
    prompt, chosen, rejected = (
        record.fields.get(name) or "" for name in ("prompt", "chosen", "rejected")
    )
    if isinstance(chosen, list) and isinstance(rejected, list):
        if not prompt:
            common = _common_messages(chosen, rejected)
            prompt, chosen, rejected = chosen[:common], chosen[common:], rejected[common:]
        sides = [
            _spoken(record, name, turns)
            for name, turns in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected))
        ]
        # As a text goes on: what is said next is a paragraph of its own.
        between = "\n\n" if sides[0] else ""
        yield PreferencePair(sides[0] + between, sides[1], sides[2])
        return
    for name, value in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not isinstance(value, str):
            raise MalformedRecord(
                f"{record.where}: {name} holds {type(value).__name__}, not text; fix it"
            )
    yield PreferencePair(prompt, chosen, rejected)


def _common_messages(chosen: list, rejected: list) -> int:
    """Return with how many equal messages both begin; one at least is left to each."""
    common = 0
    while common < min(len(chosen), len(rejected)) - 1 and chosen[common] == rejected[common]:
        common += 1
    return common


def _spoken(record: Record, name: str, turns: Any) -> str:
    """Return what the messages of a conversation say, as paragraphs."""
    if isinstance(turns, str):
        return turns
    said = [turn.get("content") if isinstance(turn, dict) else None for turn in turns]
    if not all(isinstance(content, str) for content in said):
        raise MalformedRecord(
            f"{record.where}: {name} holds a message without the text of its `content`; fix it"
        )
    return "\n\n".join(said)


PAIR_FORMATS: dict[str, Callable[[Record], Iterator[PreferencePair]]] = {
    "paradetox": _paradetox,
    "preference": _preference,
}


def require_pairs_disjoint(
    pairs: Iterable[PreferencePair],
    prompts: Iterable[PromptRecord],
    key: str,
    benchmark: str,
) -> None:
    """Raise InputError if a test prompt is in a pair.

    It is a pair's prompt, one of its sides, both joined, or the words with which both sides begin.
    key: of what learns from the pairs, in the config.
    """
    seen: set[str] = set()
    for pair in pairs:
        sides = (pair.chosen, pair.rejected)
        common = split_after_common_words(*sides)[0]
        texts = (pair.prompt, common, *sides, *(pair.prompt + text for text in (common, *sides)))
        seen.update(text.strip() for text in texts)
    shared = (seen - {""}) & {record.prompt.strip() for record in prompts}
    if shared:
        example = json.dumps(min(shared)[:80], ensure_ascii=False)
        raise InputError(
            f"the pairs of {key} share {len(shared)} texts with benchmarks.{benchmark} "
            f"(for example {example}); remove those pairs, or give disjoint parts: `part` of the "
            "pairs goes by the prompt, or without one by the rejected text, `part` of a "
            "benchmark by its prompt"
        )
