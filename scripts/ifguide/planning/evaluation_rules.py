"""The work of the rules that measure models: continuations, their toxicity, and fluency.

A job measures all benchmarks of its kind, one after another.
"""

import functools
from collections.abc import Iterable

from ifguide.models import costs, footprints
from ifguide.models.work import Work, reading_work, training_work
from ifguide.planning.experiment import Experiment, PlannedModel
from ifguide.planning.rates import PREPARED

# Tokens of a prompt, of a passage whose last word is guessed, and of that word.
PROMPT_TOKENS, PASSAGE_TOKENS, WORD_TOKENS = 15, 90, 2
CONTINUATION_BYTES = 600  # of one continuation in both files, with its scores
PERPLEXITY_BATCH = 32
LABELLED_TOKENS = 40  # of a labelled text


def _one_after_another(parts: Iterable[Work]) -> Work:
    return functools.reduce(Work.then, parts, Work())


def generate_continuations(
    experiment: Experiment, model: str, method: str, seed: str, shard: str
) -> Work:
    return _one_after_another(
        _continuations(experiment, model, method, benchmark)
        for benchmark in experiment.benchmarks("prompts")
    )


def _continuations(experiment: Experiment, model: str, method: str, benchmark: str) -> Work:
    shape, sampling = experiment.shape(model), experiment.sampling(benchmark)
    prompts = experiment.counts.records(f"benchmarks.{benchmark}") / sampling["shards"]
    copies, new = sampling["continuations"], sampling["max_new_tokens"]
    batch = max(copies, sampling["rows_per_batch"])
    work = Work(
        kind="generation",
        tokens=prompts * (PROMPT_TOKENS + copies * new),
        flops=costs.generation_flops(shape, prompts, PROMPT_TOKENS, copies, new),
        memory=footprints.generation_memory(shape, batch, PROMPT_TOKENS + new),
        disk=prompts * copies * CONTINUATION_BYTES / 3,
    )
    return _decoded(work, experiment, model, method, prompts * copies, new)


def _decoded(
    work: Work, experiment: Experiment, model: str, method: str, rows: float, new_tokens: int
) -> Work:
    """Return the work with what the method's decode step adds to it, if it has one."""
    step = experiment.steps(method).get("decode")
    if step is None:
        return work
    return work.beside(
        step.work(PlannedModel(experiment, method, model, rows=rows, new_tokens=new_tokens))
    )


def classify_continuations(experiment: Experiment, model: str, method: str, seed: str) -> Work:
    return _one_after_another(
        _judgements(experiment, benchmark) for benchmark in experiment.benchmarks("prompts")
    )


def _judgements(experiment: Experiment, benchmark: str) -> Work:
    sampling = experiment.sampling(benchmark)
    texts = experiment.counts.records(f"benchmarks.{benchmark}") * sampling["continuations"]
    length = sampling["max_new_tokens"] + 2
    judges = experiment.config["classifiers"]
    encoders = [encoder for encoder in map(experiment.classifier, judges) if any(encoder)]
    return Work(
        kind="classification",
        tokens=len(encoders) * texts * length,
        flops=texts * length * sum(costs.encoder_flops(*encoder, length) for encoder in encoders),
        processor_seconds=texts / PREPARED,
        disk=texts * CONTINUATION_BYTES * len(judges) / 3,
    )


def measure_fluency(experiment: Experiment, model: str, method: str, seed: str) -> Work:
    documents = experiment.benchmarks("perplexity", method)
    passages = experiment.benchmarks("lambada", method)
    compared = "none" in experiment.config["evaluation"]["methods"]
    prompts = experiment.benchmarks("prompts", method) if compared else []
    return _one_after_another(
        [
            *(_perplexity(experiment, model, method) for _ in documents),
            *(_last_words(experiment, model, method, benchmark) for benchmark in passages),
            *(_continuation_losses(experiment, model, benchmark) for benchmark in prompts),
        ]
    )


def _perplexity(experiment: Experiment, model: str, method: str) -> Work:
    tokens = experiment.counts.held_out_tokens(experiment.tokenizer_of(model))
    length = experiment.block_size
    work = reading_work(experiment.shape(model), tokens, length, PERPLEXITY_BATCH)
    decoded = _decoded(work, experiment, model, method, tokens / length, length)
    # Beside it the uncensored model reads the same; beside the uncensored one, another seed of it.
    evaluation = experiment.config["evaluation"]
    compared = "none" in evaluation["methods"] and (method != "none" or evaluation["seeds"][1:])
    return decoded.beside(work) if compared else decoded


def _last_words(experiment: Experiment, model: str, method: str, benchmark: str) -> Work:
    passages = experiment.counts.records(f"benchmarks.{benchmark}")
    tokens = passages * PASSAGE_TOKENS
    work = reading_work(experiment.shape(model), tokens, PASSAGE_TOKENS, PERPLEXITY_BATCH)
    return _decoded(work, experiment, model, method, passages, WORD_TOKENS)


def _continuation_losses(experiment: Experiment, model: str, benchmark: str) -> Work:
    sampling = experiment.sampling(benchmark)
    length = PROMPT_TOKENS + sampling["max_new_tokens"]
    wanted = experiment.config["evaluation"]["perplexity_continuations"]
    texts = experiment.counts.records(f"benchmarks.{benchmark}")
    texts *= min(sampling["continuations"], wanted)
    return reading_work(experiment.shape(model), texts * length, length, PERPLEXITY_BATCH)


def measure_relearning(experiment: Experiment, model: str, method: str, seed: str) -> Work:
    lasting, shape = experiment.config["lasting"], experiment.shape(model)
    copies, new = lasting["continuations"], experiment.config["generation"]["max_new_tokens"]
    tuned = {**experiment.config["training"], "batch_size": lasting["batch_size"]}
    tuned |= {"precision": "float32", "gradient_checkpointing": False}
    tokens = max(lasting["steps"]) * lasting["batch_size"] * LABELLED_TOKENS
    measured = _toxic_text(experiment, model).then(
        Work(
            kind="generation",
            tokens=lasting["prompts"] * (PROMPT_TOKENS + copies * new),
            flops=costs.generation_flops(shape, lasting["prompts"], PROMPT_TOKENS, copies, new),
            memory=footprints.generation_memory(
                shape, copies * lasting["prompts"], PROMPT_TOKENS + new
            ),
        )
    )
    times = len(lasting["steps"]) + 1
    training = training_work(shape, tuned, tokens, LABELLED_TOKENS)
    return _one_after_another([training, *[measured] * times])


def measure_loss_curve(experiment: Experiment, model: str, seed: str) -> Work:
    names = dict.fromkeys([*experiment.config["lasting"]["curve"], model])
    return _one_after_another(_toxic_text(experiment, name) for name in names)


def _toxic_text(experiment: Experiment, model: str) -> Work:
    """The reading of held-out documents; those without a toxic token are passed over."""
    tokens = experiment.counts.held_out_tokens(experiment.tokenizer_of(model))
    return reading_work(experiment.shape(model), tokens, experiment.block_size, PERPLEXITY_BATCH)
