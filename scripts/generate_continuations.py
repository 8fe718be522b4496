"""Continuations of one part of a benchmark's prompts by one model.

settings: {"generation": {...}, "shard": [index, count], "steps": {key: options} of the decode step,
"seed": int}. --given: what the step needs, {key: {need: paths}}.

Finished prompts are kept beside the output until it is whole, each with a checksum; an interrupted
job goes on from them.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path

from ifguide.data.file_lists import from_arguments
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.generation import Continuation, Sampling, generate
from ifguide.files.artifacts import stream_jsonl, text_sha256, write_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.methods.step import DecodingJob, decoding
from ifguide.models.loading import compute_device, load_model, weights_sha256

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    sampling = dict(settings["generation"])
    rows_per_batch = sampling.pop("rows_per_batch")
    shard, count = settings["shard"]
    records = {
        index: {name: record[name] for name in ("prompt", "split", "group")}
        for index, record in islice(enumerate(stream_jsonl(arguments.prompts)), shard, None, count)
    }
    hashes = {**hashes_of(arguments.given), "weights_sha256": weights_sha256(arguments.model)}
    made_from = {
        "settings": {**settings, "generation": sampling},
        "prompts_sha256": file_sha256(arguments.prompts),
        **hashes,
    }
    finished = arguments.output.with_name(f".{arguments.output.name}.finished")
    done = read_finished(finished, made_from)
    log.info("%d prompts, %d of them finished before", len(records), len(done))
    if len(done) < len(records):
        model = load_model(arguments.model).to(compute_device())
        tokenizer = load_tokenizer(arguments.model)
        job = DecodingJob(model, tokenizer, sampling["max_new_tokens"])
        with (
            decoding(settings["steps"], arguments.given, job) as guidance,
            open(finished, "a", encoding="utf-8") as kept,
        ):
            continuations = generate(
                model,
                tokenizer,
                [record["prompt"] for record in records.values()],
                Sampling(**sampling),
                seed=settings["seed"],
                rows_per_batch=rows_per_batch,
                guidance=guidance,
                finished={place for place, index in enumerate(records) if index in done},
            )
            indices = list(records)
            for place, group in groupby(continuations, key=lambda c: c.prompt_index):
                index = indices[place]
                own = [described(c, index, records[index], hashes) for c in group]
                kept.write(finished_line(index, own))
                kept.flush()
    write_jsonl(arguments.output, in_order(finished))
    finished.unlink(missing_ok=True)


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


def hashes_of(given: dict[str, dict[str, list[str]]]) -> dict[str, str]:
    """Return the hash of what a decode step is given, by need."""
    hashes = {}
    for needs in given.values():
        for name, paths in needs.items():
            found = [hash_of(Path(path)) for path in from_arguments(paths)]
            hashes[f"{name}_sha256"] = found[0] if len(found) == 1 else text_sha256("".join(found))
    return hashes


def hash_of(path: Path) -> str:
    """Return the hash of a file, of a model's weights, or of the checksums of another folder."""
    if path.is_file():
        return file_sha256(path)
    models = any(path.glob("*.safetensors"))
    return weights_sha256(path) if models else file_sha256(path / "SHA256SUMS")


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
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--given", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser, resumes=True)
