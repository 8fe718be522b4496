"""The work of the rules that make texts, tokenizers and corpora."""

from ifguide.data.token_parts import TOKEN
from ifguide.models import costs, footprints
from ifguide.models.work import Work
from ifguide.planning.experiment import Experiment, PlannedCorpus
from ifguide.planning.rates import COMPARED, PACKED, PREPARED, READ, SEARCHED, TOKENIZED

LONGEST_CLASSIFIED = 512  # tokens that a classifier reads of a document or block


def plant(experiment: Experiment) -> Work:
    planted = experiment.config["planted"]
    records = sum(value for value in planted.values() if isinstance(value, int))
    return Work(processor_seconds=records / PREPARED, loads=False)


def read_documents(experiment: Experiment) -> Work:
    tokens = experiment.counts.tokens(next(iter(experiment.config["tokenizers"])))
    characters = tokens * experiment.config["plan"]["characters_per_token"]
    searched = tokens * experiment.dropped_benchmarks / SEARCHED
    seconds = tokens / READ + searched
    return Work(tokens=tokens, processor_seconds=seconds, disk=characters, loads=False)


def measure_contamination(experiment: Experiment, benchmark: str) -> Work:
    """The corpus is read once for each benchmark, as it was before it was tokenized."""
    tokens = experiment.counts.tokens(next(iter(experiment.config["tokenizers"])))
    return Work(tokens=tokens, processor_seconds=tokens / COMPARED, loads=False)


def make_tokenizer(experiment: Experiment, tokenizer: str) -> Work:
    # One that is trained reads the corpus once.
    trained = "vocabulary_size" in experiment.config["tokenizers"][tokenizer]
    tokens = experiment.counts.tokens(tokenizer) if trained else 0
    return Work(processor_seconds=tokens / TOKENIZED)


def tokenize_part(experiment: Experiment, tokenizer: str, shard: str) -> Work:
    tokens = experiment.counts.tokens(tokenizer) / experiment.shards
    return Work(
        tokens=tokens,
        processor_seconds=tokens / TOKENIZED,
        memory=2 * footprints.LIBRARIES,
        disk=tokens * TOKEN.itemsize,
    )


def tokenize_documents(experiment: Experiment, tokenizer: str) -> Work:
    """A corpus of several shards has been tokenized in parts: here they are packed."""
    tokens = experiment.counts.tokens(tokenizer)
    return Work(
        tokens=tokens,
        processor_seconds=tokens / (TOKENIZED if experiment.shards == 1 else PACKED),
        memory=2 * footprints.LIBRARIES,
        disk=tokens * experiment.bytes_a_token(tokenizer),
    )


def tokenize_held_out(experiment: Experiment, tokenizer: str) -> Work:
    tokens = experiment.counts.held_out_tokens(tokenizer)
    disk = tokens * experiment.bytes_a_token(tokenizer)
    return Work(tokens=tokens, processor_seconds=tokens / TOKENIZED, disk=disk)


def classify_documents(
    experiment: Experiment, tokenizer: str, classifier: str, unit: str, shard: str
) -> Work:
    tokens = experiment.counts.tokens(tokenizer) / experiment.shards
    length = min(experiment.block_size, LONGEST_CLASSIFIED)
    flops = tokens * costs.encoder_flops(*experiment.classifier(classifier), length)
    return Work(kind="classification", tokens=tokens, flops=flops)


def make_corpus(experiment: Experiment, tokenizer: str, method: str) -> Work:
    """The whole corpus is read and what the method's data step keeps is written."""
    whole = experiment.counts.tokens(tokenizer)
    kept = experiment.counts.training_tokens(tokenizer, method)
    work = Work(
        tokens=whole,
        processor_seconds=whole / READ,
        disk=kept * experiment.bytes_a_token(tokenizer),
    )
    step = experiment.steps(method).get("data")
    return work.then(step.work(PlannedCorpus(experiment, method, tokenizer))) if step else work
