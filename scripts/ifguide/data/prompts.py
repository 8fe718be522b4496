"""Prompts, passages, labelled texts and pairs, read from the formats that benchmarks publish.

Samples are drawn by a hash of the text under the experiment's seed, never as "the first n", so they
do not depend on the order of files or records, and parts of one file are disjoint by construction.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from ifguide.data.benchmark_formats import (
    LABELLED_FORMATS,
    PROMPT_FORMATS,
    PromptRecord,
    read_labelled_texts,
    read_passages,
    read_prompt_records,
    split_last_word,
)
from ifguide.data.records import MALFORMED_NAMED, require_files
from ifguide.data.text_lines import is_unicode, read_lines
from ifguide.errors import InputError
from ifguide.files.artifacts import canonical_json
from ifguide.seeds import derive_seed, uniform_hash

log = logging.getLogger(__name__)


class LabelledText(NamedTuple):
    """A text for a classifier, its label in [0, 1], and the format of the file it came from.

    `record` decides on which side of a split it falls: texts of one record stay together.
    """

    text: str
    label: float
    format: str
    record: str


def read_prompts(
    settings: dict, paths: Sequence[str | Path], seed: int
) -> tuple[list[PromptRecord], dict[str, Any]]:
    """Return the prompts that `settings` ask for and a report of what was left out.

    `settings` holds `format` (a key of PROMPT_FORMATS) and may hold the filters `part`,
    `prompt_toxicity`, `continuation_toxicity` (each [low, high): a bound of 1 includes 1) and
    `limit`: a number, or one for each split (a split that is not named is left out). ParaDetox
    needs `side`, toxic or neutral; both sides of a pair are kept or left out together. `part` keeps
    prompts whose seeded hash lies in the range. Records come ordered by another such hash.

    Skipped and counted: empty prompts, text that is not UTF-8, RealToxicityPrompts records without
    the scores that are needed, further records of the same prompt, and malformed records, of which
    the report names the first.

    Raises InputError for a file that is missing or empty or whose records are malformed (see
    `parse_records`), and filters that leave nothing.
    """
    format = _known_format(PROMPT_FORMATS, settings.get("format"))
    files = require_files(paths)
    counts: Counter[str] = Counter()
    malformed: list[str] = []
    kept: list[PromptRecord] = []
    for path in files:
        for record in read_prompt_records(format, path, settings, malformed):
            counts["records"] += 1
            reason = _reason_to_skip(record, settings, seed, path)
            if reason is None:
                kept.append(record)
            else:
                counts[reason] += 1
    counts["records"] += len(malformed)
    order = derive_seed(seed, "limit")
    kept.sort(
        key=lambda record: (
            uniform_hash(order, record.identity),
            canonical_json(asdict(replace(record, where=None))),
        )
    )
    distinct = list({record.identity: record for record in reversed(kept)}.values())[::-1]
    counts["duplicates"] = len(kept) - len(distinct)
    chosen = _limit_by_split(distinct, settings.get("limit"))
    report = {
        **dict(sorted(counts.items())),
        **malformed_report(malformed),
        "eligible": _split_counts(distinct),
        "kept": _split_counts(chosen),
    }
    if not chosen:
        counts["skipped_malformed"] = len(malformed)
        raise InputError(_nothing_left(files, settings, counts))
    _require_wanted_splits(chosen, settings.get("limit"), files)
    return chosen, report


def require_disjoint(
    queries: Iterable[PromptRecord],
    prompts: Iterable[PromptRecord],
    key: str,
    benchmark: str,
) -> None:
    """Raise InputError if a prompt of the query set `key` is also a prompt of the benchmark."""
    shared = {record.prompt for record in queries} & {record.prompt for record in prompts}
    if shared:
        example = json.dumps(min(shared)[:80], ensure_ascii=False)
        raise InputError(
            f"{key} shares {len(shared)} prompts with benchmarks.{benchmark} "
            f"(for example {example}); give them disjoint parts, such as `part: [0.0, 0.5]` and "
            "`part: [0.5, 1.0]`"
        )


def malformed_report(malformed: Sequence[str]) -> dict[str, Any]:
    """Return what a report says of skipped records that were malformed: nothing if none was."""
    if not malformed:
        return {}
    return {
        "skipped_malformed": len(malformed),
        "first_malformed": list(malformed[:MALFORMED_NAMED]),
    }


def read_lambada(
    paths: Sequence[str | Path], limit: int | None, seed: int, block_size: int
) -> tuple[list[str], dict[str, Any]]:
    """Return LAMBADA passages (field `text`, or one a line) and a report of what was skipped.

    At most `limit` passages come, sampled by hash. Skipped and counted: passages of fewer than two
    words, those whose last word may be longer than a model's context (it has as many bytes as a
    block has tokens, `block_size`, less the space before it and one token to predict it from), text
    that is not UTF-8, and malformed records.

    Raises InputError for a bad file, and where no passage is left.
    """
    files = require_files(paths)
    counts: Counter[str] = Counter()
    malformed: list[str] = []
    texts: set[str] = set()
    for path in files:
        for text in read_passages(path, malformed):
            if not is_unicode(text):
                counts["skipped_not_utf8"] += 1
            elif (parts := split_last_word(text)) is None:
                counts["skipped_too_short"] += 1
            elif len(parts[1].encode()) > block_size - 2:
                counts["skipped_word_too_long"] += 1
            else:
                texts.add(text.strip())
    if not texts:
        if too_long := counts["skipped_word_too_long"]:
            raise InputError(
                f"{files[0]}: the last words of all {too_long} passages are too long for blocks of "
                f"{block_size} tokens; check the file, or raise corpus.block_size"
            )
        raise InputError(f"{files[0]}: no passage of at least two words; check the file")
    chosen = sample_texts(texts, limit, seed)
    return chosen, {**counts, **malformed_report(malformed), "kept": len(chosen)}


def sample_texts(texts: Iterable[str], limit: int | None, seed: int) -> list[str]:
    """Return at most `limit` of `texts`, ordered by their seeded hash: a random sample."""
    order = derive_seed(seed, "limit")
    return sorted(texts, key=lambda text: (uniform_hash(order, text), text))[:limit]


def in_part(record: str, part: Sequence[float] | None, seed: int) -> bool:
    """Return whether the seeded hash of a record, in [0, 1), lies in [low, high).

    Whatever is read from a record goes by the same text, its prompt, toxic sentence or only text:
    so parts that do not overlap share none, in whichever format each of them is read.
    """
    return part is None or part[0] <= uniform_hash(derive_seed(seed, "part"), record) < part[1]


def read_labelled(
    sources: Sequence[dict], paths: Sequence[Sequence[str | Path]], seed: int
) -> list[LabelledText]:
    """Return texts and labels in [0, 1] for a classifier; source i is read from `paths[i]`.

    A source holds `format` (a key of LABELLED_FORMATS) and may hold `part` (of the prompt, the
    toxic sentence or the text), `toxicity` (bounds of the labels that stay) and `limit` (texts,
    sampled by hash). Empty texts, texts that are not UTF-8, null labels, repeated texts and
    malformed records, such as one with a label outside [0, 1], are left out; of a repeated text the
    first stays.

    Raises InputError for a bad file (see `parse_records`), or a source that yields nothing.
    """
    labelled: dict[str, LabelledText] = {}
    for source, source_paths in zip(sources, paths, strict=True):
        format = _known_format(LABELLED_FORMATS, source.get("format"))
        files = require_files(source_paths)
        malformed: list[str] = []
        found: dict[str, LabelledText] = {}
        removed: Counter[str] = Counter()
        for path in files:
            for key, text, label in read_labelled_texts(format, path, malformed, source):
                if not (text.strip() and is_unicode(key + text)):
                    removed["empty or not UTF-8"] += 1
                elif label is None:
                    removed["null labels"] += 1
                elif not label_within(label, source):
                    removed["outside toxicity"] += 1
                elif not in_part(key, source.get("part"), seed):
                    removed["outside part"] += 1
                else:
                    found.setdefault(text, LabelledText(text, label, format, key))
        if malformed:
            log.warning("%s: skipped %d malformed records", files[0], len(malformed))
        if not found:
            filters = [key for key in ("toxicity", "part") if removed[f"outside {key}"]]
            cure = f"widen {', '.join(filters)}" if filters else "check the file and `format`"
            counts = ", ".join(f"{count} {reason}" for reason, count in removed.items())
            raise InputError(
                f"{files[0]}: no labelled text left ({counts or 'none there'}); {cure}"
            )
        for text in sample_texts(found, source.get("limit"), seed):
            labelled.setdefault(text, found[text])
    return list(labelled.values())


def label_within(label: float | None, source: dict) -> bool:
    """Return whether a label is known and within a source's `toxicity`, whose end counts at 1."""
    if label is None:
        return False
    low, high = source.get("toxicity") or (0.0, 1.0)
    return low <= label < high or label == high == 1


def read_words(path: str | Path) -> list[str]:
    """Return the distinct words or phrases of a list with one a line, in its order."""
    (file,) = require_files([path])
    words = {line.text.strip(): None for line in read_lines(file) if line.text is not None}
    words.pop("", None)
    if not all(map(is_unicode, words)):
        raise InputError(f"{file}: not UTF-8; convert it to UTF-8")
    if not words:
        raise InputError(f"{file}: no word in it; write one a line")
    return list(words)


def _known_format(formats: Iterable[str], name: str | None) -> str:
    if name is None or name not in formats:
        raise InputError(f"format: {name!r} is not one of {', '.join(sorted(formats))}")
    return name


def _reason_to_skip(record: PromptRecord, settings: dict, seed: int, path: Path) -> str | None:
    if not record.identity.strip():
        return "skipped_empty"
    texts = (record.prompt, record.continuation, record.group, record.source)
    if not all(is_unicode(text) for text in texts if text is not None):
        return "skipped_not_utf8"
    if settings["format"] == "realtoxicityprompts" and record.prompt_toxicity is None:
        return "skipped_null_toxicity"
    for key in ("prompt_toxicity", "continuation_toxicity"):
        if (bounds := settings.get(key)) is None:
            continue
        toxicity = getattr(record, key)
        if toxicity is None and settings["format"] != "realtoxicityprompts":
            raise InputError(
                f"{key}: format {settings['format']} has no such score ({path}); remove the filter"
            )
        if toxicity is None:
            return "skipped_null_toxicity"
        if not (bounds[0] <= toxicity < bounds[1] or toxicity == bounds[1] == 1):
            return f"outside_{key}"
    if settings.get("continuation_toxicity") and not (record.continuation or "").strip():
        return "skipped_empty"
    if not in_part(record.identity, settings.get("part"), seed):
        return "outside_part"
    return None


def _limit_by_split(
    records: list[PromptRecord], limit: int | dict[str, int] | None
) -> list[PromptRecord]:
    if not isinstance(limit, dict):
        return records[:limit]
    room = Counter(limit)
    chosen = []
    for record in records:
        if room[record.split] > 0:
            room[record.split] -= 1
            chosen.append(record)
    return chosen


def _require_wanted_splits(
    chosen: list[PromptRecord], limit: int | dict[str, int] | None, files: list[Path]
) -> None:
    found = _split_counts(chosen)
    wanted = limit if isinstance(limit, dict) else {}
    for split, number in wanted.items():
        if number and not found.get(split):
            raise InputError(
                f"limit.{split}: {files[0]} has no {split} prompt left after filtering"
            )
        if found.get(split, 0) < number:
            log.warning("%s: %d %s prompts, not %d", files[0], found[split], split, number)


def _split_counts(records: Iterable[PromptRecord]) -> dict[str, int]:
    counts = Counter(record.split for record in records)
    return {split: counts[split] for split in ("toxic", "nontoxic")}


def _nothing_left(files: list[Path], settings: dict, counts: Counter[str]) -> str:
    removed = ", ".join(
        f"{count} {reason.replace('_', ' ')}"
        for reason, count in sorted(_removed(counts).items())
        if count
    )
    return (
        f"{files[0]}: no prompt left of {counts['records']} records ({removed or 'none there'}); "
        f"{_cure(settings, counts)}"
    )


def _cure(settings: dict, counts: Counter[str]) -> str:
    """Return what would leave prompts: it depends on what removed them."""
    removing = {
        "prompt_toxicity": "outside_prompt_toxicity",
        "continuation_toxicity": "outside_continuation_toxicity",
        "part": "outside_part",
    }
    filters = [key for key, reason in removing.items() if counts[reason]]
    if not filters and settings.get("limit") is not None:
        filters = ["limit"] if counts["records"] > sum(_removed(counts).values()) else []
    if filters:
        return f"widen {', '.join(f'{key}: {settings[key]}' for key in filters)}"
    if counts["skipped_null_toxicity"]:
        return (
            "the scores that they need are null: give records with a toxicity of the prompt, and "
            "of the continuation where that is a filter, or prompts alone as `format: text`"
        )
    return "check the file"


def _removed(counts: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if reason != "records"}
