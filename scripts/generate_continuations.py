"""Continuations of one part of every benchmark's prompts by one model.

settings: {"benchmarks": {name: how its continuations are sampled}, "shard": [index, count],
"steps": {key: options} of the decode step, "seed": int}. --given: what the step needs, {key: {need:
paths}}. --prompts and --output: a file for each of --benchmarks.

Finished prompts are kept beside the outputs until all of these are whole, each with a checksum; an
interrupted job goes on from them. An output that was made from the same before is kept.
"""

from ifguide.workflow.command_line import add_kept_arguments, argument_parser, run

import json
import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.generation import Continuation, Sampling, generate
from ifguide.files.artifacts import stream_jsonl, text_sha256, write_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.files.kept import KeptOutputs
from ifguide.methods.step import DecodingJob, decoding
from ifguide.models.hashes import hashes_of_given, model_identity
from ifguide.models.loading import compute_device, load_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What one output is made from: some prompts of a benchmark, by their numbers."""

    sampling: Sampling
    rows_per_batch: int
    records: dict[int, dict]
    finished: Path
    done: set[int]


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    identity, given = model_identity(arguments.model), hashes_of_given(arguments.given)
    hashes = {**given, "weights_sha256": identity["weights_sha256"]}
    common = {
        **{key: settings[key] for key in ("shard", "steps", "seed")},
        "model": identity,
        "given": given,
        "code": arguments.code,
    }
    named = zip(arguments.benchmarks, arguments.prompts, arguments.output, strict=True)
    benchmarks = {output: (name, prompts) for name, prompts, output in named}
    made_from = {
        output: common
        | {
            "generation": sampling_of(settings["benchmarks"][name]),
            "prompts_sha256": file_sha256(prompts),
        }
        for output, (name, prompts) in benchmarks.items()
    }
    outputs = KeptOutputs(made_from)
    parts = {}
    for output in outputs.missing:
        name, prompts = benchmarks[output]
        generation = settings["benchmarks"][name]
        finished = output.with_name(f".{output.name}.finished")
        parts[output] = Part(
            Sampling(**sampling_of(generation)),
            generation["rows_per_batch"],
            records_of(prompts, *settings["shard"]),
            finished,
            read_finished(finished, made_from[output]),
        )
        counts = len(parts[output].records), len(parts[output].done)
        log.info("%s: %d prompts, %d of them finished before", name, *counts)
    unfinished = [part for part in parts.values() if len(part.done) < len(part.records)]
    if unfinished:
        model = load_model(arguments.model).to(compute_device())
        tokenizer = load_tokenizer(arguments.model)
    for part in unfinished:
        job = DecodingJob(model, tokenizer, part.sampling.max_new_tokens)
        with (
            decoding(settings["steps"], arguments.given, job) as guidance,
            open(part.finished, "a", encoding="utf-8") as kept,
        ):
            continuations = generate(
                model,
                tokenizer,
                [record["prompt"] for record in part.records.values()],
                part.sampling,
                seed=settings["seed"],
                rows_per_batch=part.rows_per_batch,
                guidance=guidance,
                finished={place for place, index in enumerate(part.records) if index in part.done},
            )
            indices = list(part.records)
            for place, group in groupby(continuations, key=lambda c: c.prompt_index):
                index = indices[place]
                own = [described(c, index, part.records[index], hashes) for c in group]
                kept.write(finished_line(index, own))
                kept.flush()
    # A job that fails loses all that it has given a name.
    for output, part in parts.items():
        write_jsonl(output, in_order(part.finished))
        outputs.record(output)
    for part in parts.values():
        part.finished.unlink(missing_ok=True)


def sampling_of(generation: dict) -> dict:
    """Return what continuations depend on: how many are sampled at once changes none of them."""
    return {key: value for key, value in generation.items() if key != "rows_per_batch"}


def records_of(prompts: Path, shard: int, count: int) -> dict[int, dict]:
    """Return what continuations say of every `count`-th prompt from `shard` on, by its number."""
    return {
        index: {name: record[name] for name in ("prompt", "split", "group")}
        for index, record in islice(enumerate(stream_jsonl(prompts)), shard, None, count)
    }


def described(c: Continuation, index: int, record: dict, hashes: dict[str, str]) -> dict:
    return {
        "prompt_index": index,
        **record,
        "sample": c.sample,
        "seed": c.seed,
        "continuation": c.text,
        "tokens": c.tokens,
        **hashes,
    }


def read_finished(path: Path, made_from: dict) -> set[int]:
    """Return the prompts that an interrupted run of the same job finished; begin `path` with them.

    The first line says what the others were made from; the last may have been cut off.
    """
    first = json.dumps(made_from, sort_keys=True) + "\n"
    done = set()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    with open(temporary, "w", encoding="utf-8") as begun:
        begun.write(first)
        if path.exists():
            with open(path, encoding="utf-8", errors="replace", newline="\n") as kept:
                if kept.readline() != first:
                    log.warning("%s: of another model or other settings; starting over", path)
                    kept.seek(0, os.SEEK_END)
                for line in filter(is_whole, kept):
                    begun.write(line)
                    done.add(prompt_index(line))
    os.replace(temporary, path)
    return done


def finished_line(index: int, continuations: list[dict]) -> str:
    """Return one line: a checksum, the number of the prompt, and its continuations."""
    content = f"{index} {json.dumps(continuations, ensure_ascii=False)}"
    return f"{text_sha256(content)} {content}\n"


def is_whole(line: str) -> bool:
    checksum, _, content = line.removesuffix("\n").partition(" ")
    return line.endswith("\n") and text_sha256(content) == checksum


def prompt_index(line: str | bytes) -> int:
    return int(line.split(maxsplit=2)[1])


def in_order(path: Path) -> Iterator[dict]:
    """Yield the records of all finished prompts by prompt and sample, one prompt at a time."""
    with open(path, "rb") as kept:
        kept.readline()  # what they were made from
        places = []
        while line := kept.readline():
            places.append((prompt_index(line), kept.tell() - len(line)))
        for _, place in sorted(places):
            kept.seek(place)
            yield from json.loads(kept.readline().split(maxsplit=2)[2])


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    add_kept_arguments(parser)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--given", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    run(main, parser, resumes=True)
