"""Continuations of one part of a benchmark's prompts by one model.

settings: {"generation": {...}, "shard": [index, count], "rad": {"beta", "top_k", "context"} or
null, "seed": int}.

Finished prompts are kept beside the output until it is whole, each with a checksum; an interrupted
job goes on from them.
"""

import json
import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path

from command_line import argument_parser, run
from ifguide.data.corpus import end_of_text_id
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.generation import Continuation, Sampling, generate
from ifguide.evaluation.reward_guidance import RewardGuidance, require_same_tokens
from ifguide.files.artifacts import stream_jsonl, text_sha256, write_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.models.loading import compute_device, load_model, weights_sha256
from ifguide.models.reward_model import load_reward_model

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
    made_from = {
        "settings": {**settings, "generation": sampling},
        "prompts_sha256": file_sha256(arguments.prompts),
        "weights_sha256": weights_sha256(arguments.model),
    }
    if arguments.reward:
        made_from["reward_sha256"] = weights_sha256(arguments.reward)
    finished = arguments.output.with_name(f".{arguments.output.name}.finished")
    done = read_finished(finished, made_from)
    log.info("%d prompts, %d of them finished before", len(records), len(done))
    if len(done) < len(records):
        model = load_model(arguments.model).to(compute_device())
        tokenizer = load_tokenizer(arguments.model)
        continuations = generate(
            model,
            tokenizer,
            [record["prompt"] for record in records.values()],
            Sampling(**sampling),
            seed=settings["seed"],
            rows_per_batch=rows_per_batch,
            guidance=read_guidance(arguments.reward, settings, tokenizer, model.device),
            finished={place for place, index in enumerate(records) if index in done},
        )
        indices = list(records)
        with open(finished, "a", encoding="utf-8") as kept:
            for place, group in groupby(continuations, key=lambda c: c.prompt_index):
                index = indices[place]
                own = [described(c, index, records[index], made_from) for c in group]
                kept.write(finished_line(index, own))
                kept.flush()
    write_jsonl(arguments.output, in_order(finished))
    finished.unlink(missing_ok=True)


def described(c: Continuation, index: int, record: dict, made_from: dict) -> dict:
    hashes = ("weights_sha256", "reward_sha256")
    return {
        "prompt_index": index,
        **record,
        "sample": c.sample,
        "seed": c.seed,
        "continuation": c.text,
        "tokens": c.tokens,
        **{name: made_from[name] for name in hashes if name in made_from},
    }


def read_guidance(reward: Path | None, settings: dict, tokenizer, device) -> RewardGuidance | None:
    if reward is None:
        return None
    require_same_tokens(load_tokenizer(reward), tokenizer, str(reward))
    return RewardGuidance(
        load_reward_model(reward).to(device),
        **settings["rad"],
        end_of_text=end_of_text_id(tokenizer),
        max_new_tokens=settings["generation"]["max_new_tokens"],
    )


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
    parser.add_argument("--reward", type=Path, help="reward model that guides the decoding")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser, resumes=True)
