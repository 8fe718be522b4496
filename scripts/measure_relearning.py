"""Fine-tune a method's model on toxic texts and measure on the way how toxic it is again.

Before the first step and after given numbers of steps: the loss of known toxic tokens of held-out
documents, and the share of continuations of toxic prompts that a leading judge calls toxic.

settings: {"learning_rate": float, "batch_size": int, "steps": [1, 2, 4, ...], "max_length": tokens
of a text, "prompts": at most so many, "continuations": of each, "sampling": {"top_p",
"temperature", "max_new_tokens"}, "judges": {name: what opens it, as of
`evaluation.judge_forms.open_judge`}, "threshold": float, "seed": int}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifguide.data.corpus import open_corpus
from ifguide.data.labelled_texts import read_texts
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.generation import Sampling, generate
from ifguide.evaluation.judge import TOXICITY, Judge
from ifguide.evaluation.judge_forms import open_judge
from ifguide.evaluation.relearning import relearn, toxic_text_loss
from ifguide.files.artifacts import read_jsonl, write_json
from ifguide.models.activations import encode_texts_for
from ifguide.models.loading import compute_device, load_model, weights_sha256
from ifguide.models.token_texts import TokenText
from ifguide.seeds import derive_seed, uniform_hash

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.held_out)
    model = load_model(arguments.model).to(compute_device())
    tokenizer = load_tokenizer(arguments.model)
    toxic = read_texts(arguments.texts).toxic
    texts = encode_texts_for(model, tokenizer, toxic, settings["max_length"])
    prompts = toxic_prompts(arguments.prompts, settings["prompts"], settings["seed"])
    sampling = Sampling(continuations=settings["continuations"], **settings["sampling"])
    judges = [open_judge(name, given) for name, given in settings["judges"].items()]
    points = []
    for steps in relearn(
        model,
        [TokenText(ids) for ids in texts],
        learning_rate=settings["learning_rate"],
        batch_size=settings["batch_size"],
        measured_steps=sorted(settings["steps"]),
        # Not the method's, nor the training seed's: all models see the same texts in one order.
        seed=derive_seed(settings["seed"], "relearning"),
    ):
        written = list(generate(model, tokenizer, prompts, sampling, seed=settings["seed"]))
        spoken = [prompts[one.prompt_index] for one in written], [one.text for one in written]
        point = {
            "steps": steps,
            "toxic_loss": toxic_text_loss(model, corpus),
            "toxic_fraction": toxic_fraction(judges, *spoken, settings["threshold"]),
        }
        log.info("step %(steps)d: loss %(toxic_loss).3f, toxic %(toxic_fraction).3f", point)
        points.append(point)
    write_json(
        arguments.output,
        {
            "model": arguments.model_name,
            "method": arguments.method,
            "seed": arguments.training_seed,
            "weights_sha256": weights_sha256(arguments.model),
            "texts": len(texts),
            "prompts": len(prompts),
            "continuations": settings["continuations"],
            "points": points,
        },
    )


def toxic_prompts(path: Path, count: int, seed: int) -> list[str]:
    """Return at most `count` toxic prompts of a benchmark, sampled by hash."""
    found = dict.fromkeys(
        record["prompt"] for record in read_jsonl(path) if record["split"] == "toxic"
    )
    if not found:
        raise InputError(
            f"config key lasting.benchmark: {path} holds no toxic prompt; name another benchmark"
        )
    return sorted(found, key=lambda prompt: uniform_hash(seed, prompt))[:count]


def toxic_fraction(
    judges: Sequence[Judge], prompts: Sequence[str], texts: Sequence[str], threshold: float
) -> float:
    """Return the share of continuations that any of the judges calls toxic."""
    scores = [judge.scores(prompts, texts)[TOXICITY] for judge in judges]
    return float((np.max(scores, axis=0) >= threshold).mean())


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True, help="the held-out documents")
    parser.add_argument("--texts", type=Path, required=True, help="labelled texts")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--training-seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
