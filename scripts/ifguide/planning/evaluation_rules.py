"""The work of the rules that measure models: continuations, their toxicity, and fluency."""

from ifguide.models import costs, footprints
from ifguide.models.work import Work, reading_work
from ifguide.planning.experiment import Experiment, ModelJob
from ifguide.planning.rates import PREPARED

# Tokens of a prompt, and of a passage whose last word is guessed.
PROMPT_TOKENS, PASSAGE_TOKENS = 15, 90
CONTINUATION_BYTES = 600  # of one continuation in both files, with its scores
PERPLEXITY_BATCH = 32


def generate_continuations(
    experiment: Experiment, model: str, method: str, seed: str, benchmark: str, shard: str
) -> Work:
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
    step = experiment.steps(method).get("decode")
    if step is None:
        return work
    job = ModelJob(experiment, method, model, rows=prompts * copies, new_tokens=new)
    return work.beside(step.work(job))


def classify_continuations(
    experiment: Experiment, model: str, method: str, seed: str, benchmark: str
) -> Work:
    sampling = experiment.sampling(benchmark)
    texts = experiment.counts.records(f"benchmarks.{benchmark}") * sampling["continuations"]
    length = sampling["max_new_tokens"] + 2
    both = sum(
        costs.encoder_flops(*experiment.classifier(classifier), length)
        for classifier in ("explicit", "implicit")
    )
    return Work(
        kind="classification",
        tokens=2 * texts * length,
        flops=texts * length * both,
        processor_seconds=texts / PREPARED,
        disk=texts * CONTINUATION_BYTES * 2 / 3,
    )


def measure_perplexity(
    experiment: Experiment, model: str, method: str, seed: str, benchmark: str
) -> Work:
    tokens = experiment.counts.held_out_tokens(experiment.tokenizer_of(model))
    return reading_work(experiment.shape(model), tokens, experiment.block_size, PERPLEXITY_BATCH)


def measure_lambada(
    experiment: Experiment, model: str, method: str, seed: str, benchmark: str
) -> Work:
    tokens = experiment.counts.records(f"benchmarks.{benchmark}") * PASSAGE_TOKENS
    return reading_work(experiment.shape(model), tokens, PASSAGE_TOKENS, PERPLEXITY_BATCH)
