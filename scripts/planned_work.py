"""What each job of the workflow does: its work by rule and wildcards.

A rule that this module does not know has no work beyond its start. Rates are tokens or records a
second on one processor core: rough, and compared with what was measured once a run is finished.
"""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from ifguide.data.token_parts import TOKEN
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json
from ifguide.models import costs, footprints
from ifguide.models.loading import build_model
from ifguide.models.model_shapes import ModelShape, model_shape
from ifguide.models.work import Work
from planned_counts import (
    LABELLED_TOKENS,
    PAIR_TOKENS,
    PASSAGE_TOKENS,
    PROMPT_TOKENS,
    QUERY_TOKENS,
    Counts,
)
from planned_stages import LIGHT

# Tokens a second of a processor core.
TOKENIZED = 6e5
PACKED = 8e6
READ = 2e6
SELECTED = 1e7
RANKED = 2e5
# Records a second of a processor core.
PREPARED = 2000
FLOAT64 = 1e10  # FLOP/s of a processor core in dense float64 algebra
# Width and depth of published encoders: RoBERTa's and BERT's base size, and RoBERTa's large one.
BASE_ENCODER, LARGE_ENCODER = (768, 12), (1024, 24)
UNKNOWN_VOCABULARY = 50304
CONTINUATION_BYTES = 600  # of one continuation in both files, with its scores
PERPLEXITY_BATCH = 32


class PlannedWork:
    """The work of every job of one experiment."""

    def __init__(self, config: dict, facts: dict, counts: Counts) -> None:
        """facts: what the workflow tells of files and resolved settings (`planned_facts`)."""
        self.config = config
        self.facts = facts
        self.counts = counts
        self.block_size = config["corpus"]["block_size"]
        self.shards = config["corpus"]["shards"]
        self.shape = cache(self._shape)

    def of(self, rule: str, wildcards: dict[str, str]) -> Work:
        """Return the work of one job; `_RULE` takes the rule's wildcards."""
        work = getattr(self, f"_{rule}", None)
        return work(**wildcards) if work else Work(loads=rule not in LIGHT)

    # --- sizes ---

    def _shape(self, model: str) -> ModelShape:
        key = f"models.{model}.architecture"
        architecture = self.facts["architectures"][model]
        hub = self.config["models"][model].get("architecture", {}).get("hub")
        if hub and not Path(architecture["file"]).is_file():
            raise InputError(
                f"config key {key}.hub: {hub} has not been fetched; run snakemake fetch, or give a "
                "published `name`"
            )
        with torch.device("meta"):
            built = build_model(
                architecture,
                key,
                vocabulary_size=self._vocabulary(model),
                block_size=self.block_size,
                end_of_text=0,
                seed=0,
            )
        return model_shape(built)

    def _vocabulary(self, model: str) -> int:
        tokenizer = self.config["models"][model]["tokenizer"]
        meta = Path(self.facts["corpora"][tokenizer], "meta.json")
        if meta.is_file():
            return read_json(meta)["vocabulary_size"]
        own = self.facts["architectures"][model].get("vocab_size")
        return (
            self.config["tokenizers"][tokenizer].get("vocabulary_size") or own or UNKNOWN_VOCABULARY
        )

    def _tokenizer_of(self, model: str) -> str:
        return self.config["models"][model]["tokenizer"]

    def _tokens(self, model: str) -> float:
        return self.counts.tokens(self._tokenizer_of(model))

    def _encoder(self, classifier: str) -> tuple[int, int]:
        """Return the width and the number of blocks of a classifier."""
        entry = self.config["classifiers"][classifier]
        if "train" in entry:
            return entry["train"]["hidden_size"], entry["train"]["layers"]
        folder = self.facts["classifiers"][classifier]
        if folder and Path(folder, "config.json").is_file():
            described = read_json(Path(folder, "config.json"))
            return described["hidden_size"], described["num_hidden_layers"]
        return BASE_ENCODER if classifier == "explicit" else LARGE_ENCODER

    # --- the corpus ---

    def _plant(self) -> Work:
        planted = self.config["planted"]
        records = sum(value for value in planted.values() if isinstance(value, int))
        return Work(processor_seconds=records / PREPARED, loads=False)

    def _read_documents(self) -> Work:
        tokens = self.counts.tokens(next(iter(self.config["tokenizers"])))
        characters = tokens * self.config["plan"]["characters_per_token"]
        return Work(tokens=tokens, processor_seconds=tokens / READ, disk=characters, loads=False)

    def _make_tokenizer(self, tokenizer: str) -> Work:
        # One that is trained reads the corpus once.
        trained = "vocabulary_size" in self.config["tokenizers"][tokenizer]
        tokens = self.counts.tokens(tokenizer) if trained else 0
        return Work(processor_seconds=tokens / TOKENIZED)

    def _tokenize_part(self, tokenizer: str, shard: str) -> Work:
        tokens = self.counts.tokens(tokenizer) / self.shards
        return Work(
            tokens=tokens,
            processor_seconds=tokens / TOKENIZED,
            memory=2 * footprints.LIBRARIES,
            disk=tokens * TOKEN.itemsize,
        )

    def _tokenize_documents(self, tokenizer: str) -> Work:
        """A corpus of several shards has been tokenized in parts: here they are packed."""
        tokens = self.counts.tokens(tokenizer)
        return Work(
            tokens=tokens,
            processor_seconds=tokens / (TOKENIZED if self.shards == 1 else PACKED),
            memory=2 * footprints.LIBRARIES,
            disk=tokens * self._bytes_a_token(tokenizer),
        )

    def _tokenize_held_out(self, tokenizer: str) -> Work:
        tokens = self.counts.held_out_tokens(tokenizer)
        disk = tokens * self._bytes_a_token(tokenizer)
        return Work(tokens=tokens, processor_seconds=tokens / TOKENIZED, disk=disk)

    def _bytes_a_token(self, tokenizer: str) -> int:
        model = next(
            (m for m, entry in self.config["models"].items() if entry["tokenizer"] == tokenizer),
            None,
        )
        vocabulary = self._vocabulary(model) if model else UNKNOWN_VOCABULARY
        marks = footprints.MARK if self.facts["truth"] else 0
        return footprints.token_bytes(vocabulary) + footprints.DOCUMENT_ID + marks

    # --- training ---

    def _make_model(self, model: str, method: str, seed: str) -> Work:
        shape, settings = self.shape(model), self.facts["trainings"][model][method]
        epoch = self.counts.training_tokens(self._tokenizer_of(model), method)
        if settings["max_steps"]:
            step = settings["batch_size"] * settings["accumulation"] * self.block_size
            tokens = float(settings["max_steps"] * step)
        else:
            tokens = settings["epochs"] * epoch
        tokens *= settings.get("stop_at", 1)
        return self._trained(shape, settings, tokens, self.block_size)

    def _trained(self, shape: ModelShape, settings: dict, tokens: float, length: int) -> Work:
        recomputed = settings["gradient_checkpointing"]
        return Work(
            kind="training",
            tokens=tokens,
            flops=tokens * costs.training_flops(shape, length, recomputed=recomputed),
            precision=settings["precision"],
            memory=footprints.training_memory(
                shape, settings["batch_size"] * length, settings["precision"], recomputed=recomputed
            ),
            disk=footprints.FLOAT * shape.parameters,
        )

    def _take_model(self, model: str, seed: str) -> Work:
        size = footprints.FLOAT * self.shape(model).parameters
        return Work(memory=footprints.LIBRARIES + size, disk=size)

    def _train_dpo(self, model: str, method: str, seed: str) -> Work:
        shape, settings = self.shape(model), self.facts["trainings"][model][method]
        sides = 2 * settings["epochs"] * self.counts.records(f"methods.{method}")
        work = self._trained(shape, settings, sides * PAIR_TOKENS, PAIR_TOKENS)
        # The reference model reads every side too, and is held beside the one that is trained.
        reference = work.tokens * costs.forward_flops(shape, PAIR_TOKENS)
        held = footprints.FLOAT * shape.parameters
        return replace(work, flops=work.flops + reference, memory=work.memory + held)

    def _train_classifier(self, classifier: str) -> Work:
        train = self.config["classifiers"][classifier]["train"]
        return self._small_training(train, f"classifiers.{classifier}")

    def _train_reward(self, reward: str, tokenizer: str) -> Work:
        return self._small_training(self.config["rewards"][reward]["train"], f"rewards.{reward}")

    def _small_training(self, train: dict, records: str) -> Work:
        length = min(train["max_length"], LABELLED_TOKENS)
        texts = self.counts.records(records)
        # The held-out texts are read once, forward.
        passes = 3 * train["epochs"] * (1 - train["held_out"]) + train["held_out"]
        tokens = texts * length * passes / 3
        flops = 3 * tokens * costs.encoder_flops(train["hidden_size"], train["layers"], length)
        return Work(kind="training", tokens=tokens, flops=flops, processor_seconds=texts / PREPARED)

    # --- influence ---

    def _factor_blocks(self, model: str) -> float:
        blocks = self._tokens(model) / self.block_size
        return min(blocks, self.config["influence"]["factors"]["blocks"] or math.inf)

    def _factor_pass(self, model: str, flops_per_token: float) -> Work:
        factors = self.config["influence"]["factors"]
        tokens = self._factor_blocks(model) * self.block_size / factors["shards"]
        return Work(kind="gradients", tokens=tokens, flops=tokens * flops_per_token)

    def _batch_and_budget(self, section: str) -> tuple[int, int]:
        settings = self.config["influence"][section]
        return settings["batch_size"] * self.block_size, settings["logits_budget_mib"] * 2**20

    def _sum_covariances(self, model: str, shard: str) -> Work:
        shape = self.shape(model)
        return replace(
            self._factor_pass(model, self._covariance_flops(shape)),
            memory=footprints.covariance_memory(shape, *self._batch_and_budget("factors")),
            disk=footprints.FLOAT * footprints.covariance_numbers(shape),
        )

    def _covariance_flops(self, shape: ModelShape) -> float:
        positions = self.config["influence"]["factors"]["positions"]
        return costs.covariance_flops(shape, self.block_size, positions)

    def _decompose_covariances(self, model: str) -> Work:
        shape = self.shape(model)
        flops = costs.decomposition_flops(shape)
        return Work(
            processor_seconds=flops / FLOAT64,
            memory=footprints.decomposition_memory(
                shape, self.config["influence"]["factors"]["shards"]
            ),
            disk=footprints.FLOAT * footprints.covariance_numbers(shape),
        )

    def _correct_eigenvalues(self, model: str, shard: str) -> Work:
        shape = self.shape(model)
        return replace(
            self._factor_pass(model, costs.eigenvalue_flops(shape, self.block_size)),
            memory=footprints.eigenvalue_memory(shape, *self._batch_and_budget("factors")),
            disk=footprints.FLOAT * shape.tracked,
        )

    def _merge_factors(self, model: str) -> Work:
        size = footprints.FLOAT * footprints.factor_numbers(self.shape(model))
        return Work(memory=footprints.LIBRARIES + 2 * size, disk=size)

    def _measure_query_gradient(self, model: str, queries: str) -> Work:
        shape = self.shape(model)
        tokens = self.counts.records(f"queries.{queries}") * QUERY_TOKENS
        batch = self.config["influence"]["query_tokens_per_batch"]
        return Work(
            kind="gradients",
            tokens=tokens,
            flops=tokens * costs.query_gradient_flops(shape, QUERY_TOKENS),
            memory=footprints.gradient_memory(shape, batch, 2**26),
            disk=footprints.FLOAT * shape.tracked,
        )

    def _make_direction(self, model: str, direction: str) -> Work:
        shape = self.shape(model)
        entry = self.config["influence"]["directions"][direction]
        flops = 0.0 if entry["hessian"] == "identity" else costs.inverse_hessian_flops(shape)
        return Work(
            processor_seconds=flops / FLOAT64,
            memory=footprints.LIBRARIES + footprints.FLOAT * footprints.factor_numbers(shape),
            disk=footprints.FLOAT * shape.tracked,
        )

    def _score_tokens(self, model: str, direction: str, attribution: str, shard: str) -> Work:
        shape, settings = self.shape(model), self.config["influence"]["scores"]
        total, length = self._tokens(model), self.block_size
        scored = min(total, (settings["blocks"] or math.inf) * length) / self.shards
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
            memory=footprints.score_memory(shape, *self._batch_and_budget("scores")),
            disk=footprints.FLOAT * total / self.shards,
        )

    def _average_scores(self, model: str, direction: str, attribution: str) -> Work:
        tokens = self._tokens(model)
        parts = len(self.config["influence"]["averages"][direction]["directions"])
        return Work(processor_seconds=parts * tokens / SELECTED, disk=footprints.FLOAT * tokens)

    # --- what is made of scores ---

    def _measure_attribution(self, model: str, **_: str) -> Work:
        tokens = self._tokens(model)
        return Work(tokens=tokens, processor_seconds=tokens / RANKED)

    _measure_variant = _measure_attribution

    def _measure_agreement(self, model: str, direction: str) -> Work:
        """Factors from 1/16, 1/8, 1/4, 1/2 of the blocks; exact scores by each and by all."""
        shape, length = self.shape(model), self.block_size
        factor_tokens = self._factor_blocks(model) * length
        covariance = self._covariance_flops(shape) / 2
        eigenvalues = costs.eigenvalue_flops(shape, length) * 15 / 16
        blocks = min(self.config["report"]["agreement_blocks"], self._tokens(model) / length)
        scored = 5 * blocks * length
        exact = costs.score_flops(shape, length, "forward_mode")
        products = 4 * costs.decomposition_flops(shape) + 5 * costs.inverse_hessian_flops(shape)
        return Work(
            kind="gradients",
            tokens=factor_tokens + scored,
            flops=factor_tokens * (covariance + eigenvalues) + scored * exact,
            processor_seconds=products / FLOAT64,
            memory=footprints.eigenvalue_memory(shape, *self._batch_and_budget("factors")),
        )

    def _select_tokens(self, model: str, direction: str, selection: str) -> Work:
        tokens = self._tokens(model)
        seconds = tokens / SELECTED
        # Source documents are fewer than blocks, or of about their number.
        return Work(
            tokens=tokens,
            processor_seconds=seconds,
            memory=footprints.selection_memory(tokens / self.block_size),
            disk=tokens,
            loads=False,
        )

    def _random_tokens(self, model: str, direction: str, selection: str) -> Work:
        return self._select_tokens(model, direction, selection)

    def _transfer_mask(self, model: str, direction: str, selection: str, tokenizer: str) -> Work:
        tokens = self.counts.tokens(tokenizer)
        return Work(tokens=tokens, processor_seconds=tokens / TOKENIZED, disk=tokens)

    def _classify_documents(self, tokenizer: str, unit: str, shard: str) -> Work:
        tokens = self.counts.tokens(tokenizer) / self.shards
        length = min(self.block_size, 512)
        flops = tokens * costs.encoder_flops(*self._encoder("explicit"), length)
        return Work(kind="classification", tokens=tokens, flops=flops)

    def _make_corpus(self, tokenizer: str, method: str) -> Work:
        whole = self.counts.tokens(tokenizer)
        kept = self.counts.training_tokens(tokenizer, method)
        return Work(
            tokens=whole,
            processor_seconds=whole / READ,
            disk=kept * self._bytes_a_token(tokenizer),
        )

    # --- evaluation ---

    def _sampling(self, benchmark: str) -> dict:
        own = self.config["benchmarks"][benchmark].get("generation", {})
        return self.config["generation"] | own

    def _generate_continuations(
        self, model: str, method: str, seed: str, benchmark: str, shard: str
    ) -> Work:
        shape, sampling = self.shape(model), self._sampling(benchmark)
        prompts = self.counts.records(f"benchmarks.{benchmark}") / sampling["shards"]
        copies, new = sampling["continuations"], sampling["max_new_tokens"]
        flops = costs.generation_flops(shape, prompts, PROMPT_TOKENS, copies, new)
        guided = self.config["methods"][method].get("rad")
        if guided:
            train = self.config["rewards"][guided["reward"]]["train"]
            candidates = guided["top_k"] or shape.vocabulary
            read = prompts * copies * new * (1 + candidates)
            flops += read * costs.encoder_flops(train["hidden_size"], train["layers"], new)
        rows = max(copies, sampling["rows_per_batch"])
        return Work(
            kind="generation",
            tokens=prompts * (PROMPT_TOKENS + copies * new),
            flops=flops,
            memory=footprints.generation_memory(shape, rows, PROMPT_TOKENS + new),
            disk=prompts * copies * CONTINUATION_BYTES / 3,
        )

    def _classify_continuations(self, model: str, method: str, seed: str, benchmark: str) -> Work:
        sampling = self._sampling(benchmark)
        texts = self.counts.records(f"benchmarks.{benchmark}") * sampling["continuations"]
        length = sampling["max_new_tokens"] + 2
        both = sum(
            costs.encoder_flops(*self._encoder(classifier), length)
            for classifier in ("explicit", "implicit")
        )
        return Work(
            kind="classification",
            tokens=2 * texts * length,
            flops=texts * length * both,
            processor_seconds=texts / PREPARED,
            disk=texts * CONTINUATION_BYTES * 2 / 3,
        )

    def _measure_perplexity(self, model: str, method: str, seed: str, benchmark: str) -> Work:
        tokens = self.counts.held_out_tokens(self._tokenizer_of(model))
        return self._read(model, tokens, self.block_size)

    def _measure_lambada(self, model: str, method: str, seed: str, benchmark: str) -> Work:
        tokens = self.counts.records(f"benchmarks.{benchmark}") * PASSAGE_TOKENS
        return self._read(model, tokens, PASSAGE_TOKENS)

    def _read(self, model: str, tokens: float, length: int) -> Work:
        shape = self.shape(model)
        return Work(
            kind="scores",
            tokens=tokens,
            flops=tokens * costs.forward_flops(shape, length),
            memory=footprints.score_memory(shape, PERPLEXITY_BATCH * length, 2**26),
        )
