"""Continuations that a model writes itself, judged: what a method learns from its own text.

settings: {"sampling": {...}, "prompts": count, "judges": {name: what opens it, as of
`evaluation.judge_forms.open_judge`}, "seed": int}. Without --queries, texts are sampled from their
beginning. A continuation is as toxic as the worst of the judges finds it.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

import numpy as np

from ifguide.data.corpus import end_of_text_id
from ifguide.data.labelled_texts import TOXIC
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.generation import Sampling, encode_prompts, generate_ids
from ifguide.evaluation.judge import TOXICITY
from ifguide.evaluation.judge_forms import open_judge
from ifguide.files.artifacts import read_jsonl, write_jsonl
from ifguide.models.loading import compute_device, load_model, weights_sha256
from ifguide.seeds import derive_seed, prompt_seed, uniform_hash

log = logging.getLogger(__name__)

LONGEST = 2**31  # tokens of a prompt; what does not fit a model is left out here


def main(arguments: Namespace) -> None:
    settings, sampling = arguments.settings, Sampling(**arguments.settings["sampling"])
    seed = derive_seed(settings["seed"], "own generations")
    model = load_model(arguments.model).to(compute_device())
    tokenizer = load_tokenizer(arguments.model)
    end_of_text = end_of_text_id(tokenizer)
    prompts = prompts_of(arguments.queries, settings["prompts"], seed)
    if arguments.queries:
        encoded = encode_prompts(tokenizer, prompts, positions=LONGEST)
        positions = getattr(model.config, "max_position_embeddings", None) or LONGEST
        room = positions - sampling.max_new_tokens
        fitting = [place for place, ids in enumerate(encoded) if len(ids) <= room]
        prompts = [prompts[place] for place in fitting]
        encoded = [encoded[place] for place in fitting]
    else:
        encoded = [np.array([end_of_text], dtype=np.int32) for _ in prompts]
    seeds = [prompt_seed(seed, prompt) for prompt in prompts]
    rows = dict(generate_ids(model, encoded, seeds, sampling, end_of_text=end_of_text))
    records = [
        {
            "prompt_index": index,
            "sample": sample,
            "prompt_text": prompts[index] if arguments.queries else "",
            "prompt": encoded[index].tolist(),
            "continuation": ids,
            "text": tokenizer.decode(ids),
        }
        for index in range(len(encoded))
        for sample, ids in enumerate(rows[index])
    ]
    spoken = [record["prompt_text"] for record in records], [record["text"] for record in records]
    scores = [
        open_judge(name, given).scores(*spoken)[TOXICITY]
        for name, given in settings["judges"].items()
    ]
    weights = weights_sha256(arguments.model)
    for record, worst in zip(records, map(max, zip(*scores, strict=True)), strict=True):
        record |= {"toxicity": worst, "weights_sha256": weights}
    toxic = sum(record["toxicity"] >= TOXIC for record in records)
    log.info("%d continuations of %d prompts, %d toxic", len(records), len(encoded), toxic)
    write_jsonl(arguments.output, records)


def prompts_of(queries: list[Path], count: int, seed: int) -> list[str]:
    """Return at most `count` of the prompts of query sets, sampled by hash; or as many names."""
    if not queries:
        return [f"beginning {number}" for number in range(count)]
    prompts = dict.fromkeys(record["prompt"] for path in queries for record in read_jsonl(path))
    return sorted(filter(str.strip, prompts), key=lambda prompt: uniform_hash(seed, prompt))[:count]


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--queries", type=Path, nargs="*", default=[])
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
