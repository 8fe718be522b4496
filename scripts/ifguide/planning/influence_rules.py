"""The work of the rules that find what to suppress: factors, directions, scores, selections."""

import math
from dataclasses import replace

from ifguide.models import costs, footprints
from ifguide.models.model_shapes import ModelShape
from ifguide.models.work import LOGITS_BUDGET, Work
from ifguide.planning.experiment import Experiment
from ifguide.planning.rates import FLOAT64, PREPARED, RANKED, SELECTED, TOKENIZED

QUERY_TOKENS = 40  # of a query record, or a text that an encoder learns from
LONGEST_JUDGED = 512  # tokens of a document that a judge reads at once
HEAPS = 20  # distinct words for each square root of a corpus's tokens


def _factor_blocks(experiment: Experiment, model: str) -> float:
    blocks = experiment.tokens(model) / experiment.block_size
    return min(blocks, experiment.config["influence"]["factors"]["blocks"] or math.inf)


def _factor_pass(experiment: Experiment, model: str, flops_per_token: float) -> Work:
    factors = experiment.config["influence"]["factors"]
    tokens = _factor_blocks(experiment, model) * experiment.block_size / factors["shards"]
    return Work(kind="gradients", tokens=tokens, flops=tokens * flops_per_token)


def _batch_and_budget(experiment: Experiment, section: str) -> tuple[int, int]:
    settings = experiment.config["influence"][section]
    return settings["batch_size"] * experiment.block_size, settings["logits_budget_mib"] * 2**20


def _covariance_flops(experiment: Experiment, shape: ModelShape) -> float:
    positions = experiment.config["influence"]["factors"]["positions"]
    return costs.covariance_flops(shape, experiment.block_size, positions)


def sum_covariances(experiment: Experiment, model: str, shard: str) -> Work:
    shape = experiment.shape(model)
    return replace(
        _factor_pass(experiment, model, _covariance_flops(experiment, shape)),
        memory=footprints.covariance_memory(shape, *_batch_and_budget(experiment, "factors")),
        disk=footprints.FLOAT * footprints.covariance_numbers(shape),
    )


def decompose_covariances(experiment: Experiment, model: str) -> Work:
    shape = experiment.shape(model)
    flops = costs.decomposition_flops(shape)
    return Work(
        processor_seconds=flops / FLOAT64,
        memory=footprints.decomposition_memory(
            shape, experiment.config["influence"]["factors"]["shards"]
        ),
        disk=footprints.FLOAT * footprints.covariance_numbers(shape),
    )


def correct_eigenvalues(experiment: Experiment, model: str, shard: str) -> Work:
    shape = experiment.shape(model)
    return replace(
        _factor_pass(experiment, model, costs.eigenvalue_flops(shape, experiment.block_size)),
        memory=footprints.eigenvalue_memory(shape, *_batch_and_budget(experiment, "factors")),
        disk=footprints.FLOAT * shape.tracked,
    )


def merge_factors(experiment: Experiment, model: str) -> Work:
    size = footprints.FLOAT * footprints.factor_numbers(experiment.shape(model))
    return Work(memory=footprints.LIBRARIES + 2 * size, disk=size)


def measure_query_gradient(experiment: Experiment, model: str, queries: str) -> Work:
    shape = experiment.shape(model)
    if own := experiment.config["own_generations"].get(queries):
        records = own["prompts"] * own["continuations"]  # at most: the toxic ones among them
    else:
        records = experiment.counts.records(f"queries.{queries}")
    tokens = records * QUERY_TOKENS
    batch = experiment.config["influence"]["query_tokens_per_batch"]
    return Work(
        kind="gradients",
        tokens=tokens,
        flops=tokens * costs.query_gradient_flops(shape, QUERY_TOKENS),
        memory=footprints.gradient_memory(shape, batch, LOGITS_BUDGET),
        disk=footprints.FLOAT * shape.tracked,
    )


def make_direction(experiment: Experiment, model: str, direction: str) -> Work:
    shape = experiment.shape(model)
    entry = experiment.config["influence"]["directions"][direction]
    flops = 0.0 if entry["hessian"] == "identity" else costs.inverse_hessian_flops(shape)
    return Work(
        processor_seconds=flops / FLOAT64,
        memory=footprints.LIBRARIES + footprints.FLOAT * footprints.factor_numbers(shape),
        disk=footprints.FLOAT * shape.tracked,
    )


def score_tokens(
    experiment: Experiment, model: str, direction: str, attribution: str, shard: str
) -> Work:
    shape, settings = experiment.shape(model), experiment.config["influence"]["scores"]
    total, length = experiment.tokens(model), experiment.block_size
    scored = min(total, (settings["blocks"] or math.inf) * length) / experiment.shards
    route = settings["route"] if attribution == "loss" else "position"
    flops = scored * costs.score_flops(shape, length, route)
    precision = settings["precision"] if attribution == "loss" else "float32"
    if route == "two_forward" or precision != "float32":
        # The exact scores of a few blocks, and those of the route.
        checked = min(settings["check_blocks"], scored / length) * length
        exact = costs.score_flops(shape, length, "forward_mode")
        flops += checked * (exact + costs.score_flops(shape, length, route))
    return Work(
        kind="gradients" if route in ("position", "backward") else "scores",
        tokens=scored,
        flops=flops,
        precision=precision,
        memory=footprints.score_memory(shape, *_batch_and_budget(experiment, "scores")),
        disk=footprints.FLOAT * total / experiment.shards,
    )


def average_scores(experiment: Experiment, model: str, direction: str, attribution: str) -> Work:
    tokens = experiment.tokens(model)
    parts = len(experiment.config["influence"]["averages"][direction]["directions"])
    return Work(processor_seconds=parts * tokens / SELECTED, disk=footprints.FLOAT * tokens)


def score_rival(experiment: Experiment, model: str, direction: str) -> Work:
    """All shards in one job."""
    ((kind, options),) = experiment.config["influence"]["rivals"][direction].items()
    work = {
        "rho": _excess_loss,
        "saliency": _saliency,
        "ate": _treatment_effects,
        "token_classifier": _token_classifier,
    }[kind](experiment, model, direction, options)
    return replace(work, disk=footprints.FLOAT * experiment.tokens(model))


def _excess_loss(experiment: Experiment, model: str, direction: str, options: dict) -> Work:
    shape, length = experiment.shape(model), experiment.block_size
    tokens = experiment.tokens(model)
    return Work(
        kind="scores",
        tokens=tokens,
        flops=2 * tokens * costs.forward_flops(shape, length),
        memory=footprints.score_memory(shape, *_batch_and_budget(experiment, "scores")),
    )


def _saliency(experiment: Experiment, model: str, direction: str, options: dict) -> Work:
    tokens = experiment.tokens(model)
    length = min(experiment.block_size, LONGEST_JUDGED)
    forward = costs.encoder_flops(*experiment.classifier(options["classifier"]), length)
    # The gradient of the embeddings alone is as much again as the forward pass.
    return Work(
        kind="classification",
        tokens=tokens,
        flops=2 * tokens * forward,
        processor_seconds=tokens / TOKENIZED,
    )


def _treatment_effects(experiment: Experiment, model: str, direction: str, options: dict) -> Work:
    tokens = experiment.tokens(model)
    # Distinct words grow as the square root of a text (Heaps' law); each is replaced in samples.
    words = min(tokens / options["fewest_occurrences"], HEAPS * math.sqrt(tokens))
    texts = words * options["occurrences"] * (1 + options["replacements"])
    length = 2 * options["context"] + 1
    forward = costs.encoder_flops(*experiment.classifier(options["classifier"]), length)
    return Work(
        kind="classification",
        tokens=texts * length,
        flops=texts * length * forward,
        processor_seconds=tokens / TOKENIZED + texts / PREPARED,
    )


def _token_classifier(experiment: Experiment, model: str, direction: str, options: dict) -> Work:
    texts = (
        2 * experiment.counts.records(f"influence.rivals.{direction}")
        if "pairs" in options
        else experiment.counts.records(f"texts.{options['texts']}")
    )
    length = min(options["max_length"], QUERY_TOKENS)
    size = options["hidden_size"], options["layers"]
    trained = 3 * options["epochs"] * texts * length * costs.encoder_flops(*size, length)
    read = experiment.tokens(model) * costs.encoder_flops(*size, options["max_length"])
    return Work(
        kind="classification",
        tokens=experiment.tokens(model),
        flops=trained + read,
        processor_seconds=texts / PREPARED,
    )


# --- what is made of scores ---


def measure_attribution(experiment: Experiment, model: str, **_: str) -> Work:
    tokens = experiment.tokens(model)
    return Work(tokens=tokens, processor_seconds=tokens / RANKED)


def measure_agreement(experiment: Experiment, model: str, direction: str) -> Work:
    """Factors from 1/16, 1/8, 1/4, 1/2 of the blocks; exact scores by each and by all."""
    shape, length = experiment.shape(model), experiment.block_size
    factor_tokens = _factor_blocks(experiment, model) * length
    covariance = _covariance_flops(experiment, shape) / 2
    eigenvalues = costs.eigenvalue_flops(shape, length) * 15 / 16
    blocks = min(experiment.config["report"]["agreement_blocks"], experiment.tokens(model) / length)
    scored = 5 * blocks * length
    exact = costs.score_flops(shape, length, "forward_mode")
    products = 4 * costs.decomposition_flops(shape) + 5 * costs.inverse_hessian_flops(shape)
    return Work(
        kind="gradients",
        tokens=factor_tokens + scored,
        flops=factor_tokens * (covariance + eigenvalues) + scored * exact,
        processor_seconds=products / FLOAT64,
        memory=footprints.eigenvalue_memory(shape, *_batch_and_budget(experiment, "factors")),
    )


def select_tokens(experiment: Experiment, model: str, direction: str, selection: str) -> Work:
    tokens = experiment.tokens(model)
    # Source documents are fewer than blocks, or of about their number.
    return Work(
        tokens=tokens,
        processor_seconds=tokens / SELECTED,
        memory=footprints.selection_memory(tokens / experiment.block_size),
        disk=tokens,
        loads=False,
    )


def transfer_mask(
    experiment: Experiment, model: str, direction: str, selection: str, tokenizer: str
) -> Work:
    tokens = experiment.counts.tokens(tokenizer)
    return Work(tokens=tokens, processor_seconds=tokens / TOKENIZED, disk=tokens)


def export_spans(experiment: Experiment, selection: str) -> Work:
    tokens = experiment.tokens(experiment.config["influence"]["model"])
    return Work(tokens=tokens, processor_seconds=tokens / TOKENIZED + tokens / SELECTED)


def export_labels(experiment: Experiment, selection: str, tokenizer: str) -> Work:
    tokens = experiment.counts.tokens(tokenizer)
    # A number of four bytes and a truth value a token, at most.
    return Work(tokens=tokens, processor_seconds=tokens / TOKENIZED, disk=5 * tokens)
