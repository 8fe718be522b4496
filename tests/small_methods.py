"""A small model of each family with a tokenizer, labelled texts, and the runs of steps on them."""

import json
from collections.abc import Sequence
from pathlib import Path

from ifguide.data.corpus import end_of_text_id, train_tokenizer
from ifguide.evaluation.generation import Guidance, Sampling, generate
from ifguide.methods.step import DecodingJob, Step, registered_steps
from ifguide.models.loading import build_model, load_model, save_model
from ifguide.models.training_run import TrainedModel, TrainingRun
from small_models import ARCHITECTURES
from small_training import TRAINING

NOUNS = ("cook", "guide", "miller", "shepherd", "weaver")
TOXIC = [f"the {noun} is a {word} fool" for noun in NOUNS for word in ("vile", "lousy")]
NONTOXIC = [f"the {noun} is a {word} friend of mine" for noun in NOUNS for word in ("kind", "old")]
PROMPTS = ["the cook", "the miller is", "a friend of the guide is a", "fool"]
POSITIONS = 32


def small_tokenizer(texts: Sequence[str] = (*TOXIC, *NONTOXIC)):
    return train_tokenizer(texts, 290)


def save_small_model(
    directory: Path,
    family: str,
    *,
    seed: int = 0,
    tied: bool | None = None,
    texts: Sequence[str] = (*TOXIC, *NONTOXIC),
):
    """Write and return a model directory of a family with the tokenizer of texts, weights large.

    tied: whether input and output embeddings are one; None leaves it to the family.
    """
    architecture = {**ARCHITECTURES[family], "max_position_embeddings": POSITIONS}
    if tied is not None:
        architecture["tie_word_embeddings"] = tied
    tokenizer = small_tokenizer(texts)
    model = build_model(
        architecture,
        vocabulary_size=len(tokenizer),
        block_size=POSITIONS,
        end_of_text=end_of_text_id(tokenizer),
        seed=seed,
    )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    save_model(model, tokenizer, directory)
    return load_model(directory)


def write_labelled_texts(path: Path) -> Path:
    lines = [{"text": text, "label": 1.0} for text in TOXIC]
    lines += [{"text": text, "label": 0.0} for text in NONTOXIC]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def step_with(key: str, **options) -> Step:
    return registered_steps()[key].from_config(options)


def run_of(step: Step, start: Path, output: Path, **training) -> TrainingRun:
    """Return the run of a train step that goes on from a model directory."""
    settings = step.training({**TRAINING, **training})
    checkpoint_steps = settings.pop("checkpoint_steps")
    return TrainingRun(
        settings={
            "architecture": {},
            "training": settings,
            "names": ["target", step.key()],
            "training_seed": 0,
            "seed": 1,
        },
        tokenizer_directory=start,
        output=output,
        checkpoint_steps=checkpoint_steps,
        start_from=start,
        processes=1,
    )


def trained_by(step: Step, start: Path, output: Path, given: dict, **training) -> TrainedModel:
    return step.train(run_of(step, start, output, **training), given)


def saved(trained: TrainedModel, directory: Path) -> Path:
    save_model(trained.model, small_tokenizer(), directory)
    return directory


SAMPLING = Sampling(continuations=3, max_new_tokens=6)


def spoken(
    model, guidance: Guidance | None = None, prompts: list[str] = PROMPTS, rows_per_batch: int = 512
) -> dict[tuple[str, int], str]:
    """Return the continuations of prompts, by prompt and sample."""
    written = generate(
        model,
        small_tokenizer(),
        prompts,
        SAMPLING,
        seed=3,
        rows_per_batch=rows_per_batch,
        guidance=guidance,
    )
    return {(prompts[c.prompt_index], c.sample): c.text for c in written}


def check_that_no_batch_matters(model, guidance: Guidance | None) -> dict[tuple[str, int], str]:
    """Whatever stands beside a prompt, before or after it, its continuations are the same ones."""
    together = spoken(model, guidance)
    assert spoken(model, guidance, PROMPTS[::-1], rows_per_batch=6) == together
    for prompt in PROMPTS:
        alone = spoken(model, guidance, [prompt], rows_per_batch=1)
        assert alone == {key: text for key, text in together.items() if key[0] == prompt}
    return together


def token_that_ends_rows(written: list[list[int]]) -> int:
    """Return a token at which rows would end one after another, the first token left out."""
    ends: dict[int, set[int]] = {}
    for row in written:
        for token in set(row) - {row[0]}:
            ends.setdefault(token, set()).add(row.index(token))
    token = max(ends, key=lambda token: len(ends[token]))
    assert len(ends[token]) > 1
    return token


def decoding_job(model) -> DecodingJob:
    return DecodingJob(model, small_tokenizer(), SAMPLING.max_new_tokens)
