"""The work of the rules that make models."""

from dataclasses import replace
from functools import reduce

from ifguide.models import costs, footprints
from ifguide.models.work import Work, corpus_training_work, reading_work
from ifguide.planning.experiment import Experiment, PlannedModel
from ifguide.planning.rates import PREPARED

LABELLED_TOKENS = 40  # of a labelled text
PROMPT_TOKENS = 15
ACTIVATION_BATCH = 32
OWN_ROWS = 512  # continuations that are sampled at once


def make_model(experiment: Experiment, model: str, method: str, seed: str) -> Work:
    """The work of the method's steps that train or edit a model; training without one is plain."""
    steps = experiment.steps(method)
    job = PlannedModel(experiment, method, model)
    parts = [steps[stage].work(job) for stage in ("train", "edit") if stage in steps]
    if "train" not in steps and experiment.facts["trains"][method]:
        plain = corpus_training_work(job.shape, job.training, job.corpus_tokens, job.block_size)
        parts.insert(0, plain)
    return replace(reduce(Work.then, parts), disk=footprints.FLOAT * job.shape.parameters)


def take_model(experiment: Experiment, model: str, seed: str) -> Work:
    size = footprints.FLOAT * experiment.shape(model).parameters
    return Work(memory=footprints.LIBRARIES + size, disk=size)


def train_classifier(experiment: Experiment, classifier: str) -> Work:
    train = experiment.config["classifiers"][classifier]["train"]
    return _small_training(train, experiment.counts.records(f"classifiers.{classifier}"))


def train_reward(experiment: Experiment, reward: str, tokenizer: str) -> Work:
    train = experiment.config["rewards"][reward]["train"]
    return _small_training(train, experiment.counts.records(f"rewards.{reward}"))


def measure_activations(
    experiment: Experiment, model: str, method: str, seed: str, texts: str
) -> Work:
    length = min(experiment.config["texts"][texts]["max_length"], LABELLED_TOKENS)
    tokens = experiment.counts.records(f"texts.{texts}") * length
    return reading_work(experiment.shape(model), tokens, length, ACTIVATION_BATCH)


def sample_own_generations(
    experiment: Experiment, model: str, method: str, seed: str, own_generations: str
) -> Work:
    entry, shape = experiment.config["own_generations"][own_generations], experiment.shape(model)
    prompts, copies, new = entry["prompts"], entry["continuations"], entry["max_new_tokens"]
    return Work(
        kind="generation",
        tokens=prompts * (PROMPT_TOKENS + copies * new),
        flops=costs.generation_flops(shape, prompts, PROMPT_TOKENS, copies, new),
        memory=footprints.generation_memory(shape, max(copies, OWN_ROWS), PROMPT_TOKENS + new),
    )


def prepare_decoding(experiment: Experiment, model: str, method: str, seed: str) -> Work:
    step = experiment.steps(method)["decode"]
    return step.preparation_work(PlannedModel(experiment, method, model))


def _small_training(train: dict, texts: float) -> Work:
    length = min(train["max_length"], LABELLED_TOKENS)
    # The held-out texts are read once, forward.
    passes = 3 * train["epochs"] * (1 - train["held_out"]) + train["held_out"]
    tokens = texts * length * passes / 3
    flops = 3 * tokens * costs.encoder_flops(train["hidden_size"], train["layers"], length)
    return Work(kind="training", tokens=tokens, flops=flops, processor_seconds=texts / PREPARED)
