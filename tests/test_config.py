"""What a change of the config reruns: every leaf of it, on a finished run, by dry runs."""

import ast
import copy
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from conftest import TINY, copy_run, error_line, rules_to_run, run_snakemake
from ifguide.errors import InputError
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.config.overlays import merged, resolve

REPOSITORY = Path(__file__).resolve().parent.parent

SHIPPED = sorted(
    str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "config").rglob("*.yaml")
)

# What reruns after a change, each set with everything that follows from it.
REPORT = {"build_report"}
# What methods learn from that the tiny config does not compare: the report shows the config.
LEARNED = REPORT
PAGES = {"write_pages"} | REPORT
DRAWN = {"draw_figures", "write_result"}
SUMMARY = {"summarize"} | DRAWN | REPORT
TOXICITY = {"measure_toxicity", "write_card"} | SUMMARY
FLUENCY = {"measure_fluency"} | TOXICITY  # of which the losses of continuations are a part
# A job has all benchmarks of its kind: which of them it keeps is tested by test_kept_benchmarks.
CLASSIFY = {"classify_continuations"} | TOXICITY | PAGES
# What a change of the judges themselves reruns.
JUDGES = {"measure_judges"} | CLASSIFY
CLASSIFIER = {"train_classifier"} | JUDGES
# What is learned from, held against test prompts.
LEARNED_OVERLAP = {"measure_learned_contamination"} | PAGES
CORPUS_OVERLAP = {"measure_contamination"} | PAGES
CHECKED = {"check_disjoint"} | LEARNED_OVERLAP | SUMMARY
JUDGE_TEXTS = {"read_judge_texts"} | CHECKED | CLASSIFIER
GENERATE = {"generate_continuations"} | FLUENCY | CLASSIFY
LENGTHS = {"check_prompt_lengths"}
PROMPTS = {"read_prompts"} | CHECKED | CORPUS_OVERLAP | LENGTHS | GENERATE
PASSAGES = {"read_passages"} | FLUENCY
TRAINED = {"make_model"} | GENERATE
SUPPRESSED = {"measure_erasure"} | TRAINED
TARGET = SUPPRESSED
DPO = TRAINED  # in the tiny config, the model that `rad` decodes
PAIRS = {"read_pairs"} | CHECKED | DPO
# A method that only decodes has no model, and so no card.
DECODED = GENERATE - {"write_card"}
REWARD = {"train_reward"} | DECODED
REWARD_TEXTS = {"read_reward_texts"} | CHECKED | REWARD
SHOWN = {"describe_documents"} | PAGES
ATTRIBUTION = {"measure_attribution"} | SUMMARY
STUDY = {"draw_study"} | REPORT
VARIANT = {"measure_variant"} | STUDY | SUMMARY
AVERAGE = {"average_scores"} | VARIANT
RIVAL = {"score_rival"} | ATTRIBUTION
RIVAL_PAIRS = {"read_rival_pairs"} | CHECKED | RIVAL
AGREEMENT = {"measure_agreement"} | DRAWN | REPORT
PROXY_AGREEMENT = {"measure_proxy_agreement"} | DRAWN | REPORT
# The direction `identity` of the proxy and of the target, which are only compared.
COMPARED = {"make_direction"} | PROXY_AGREEMENT
REMOVAL = {"measure_removal"} | SUMMARY
SELECTION = {"select_tokens"} | REMOVAL | SHOWN | TARGET
SCORES = {"score_tokens"} | AVERAGE | ATTRIBUTION | SELECTION
DIRECTION = {"make_direction"} | SCORES
QUERY = AGREEMENT | DIRECTION
HESSIAN = {"sum_covariances", "decompose_covariances", "correct_eigenvalues", "merge_factors"}
FACTORS = HESSIAN | QUERY
GRADIENT = {"measure_query_gradient"} | QUERY | PROXY_AGREEMENT
# The direction `plain` is only measured: no selection uses it.
PLAIN_DIRECTION = {"make_direction", "score_tokens"} | AVERAGE
PLAIN = {"measure_query_gradient"} | PLAIN_DIRECTION
QUERIES = {"read_queries"} | CHECKED | GRADIENT
MATCHED = {"read_queries"} | CHECKED | PLAIN
PROXY = FACTORS | GRADIENT
TRAINING = PROXY | TARGET
FILTER = {"make_corpus"} | REMOVAL | TRAINED
TOKENS = {"tokenize_documents"} | FILTER | TRAINING | RIVAL
BLOCKS = {"tokenize_held_out"} | TOKENS
PARTS = {"tokenize_part"}
TOKENIZER = {"make_tokenizer"} | LENGTHS | PARTS | BLOCKS | REWARD
DOCUMENTS = {"read_documents"} | CORPUS_OVERLAP | TOKENIZER
EVERYTHING = {"plant"} | DOCUMENTS | QUERIES | PROMPTS | PASSAGES | PAIRS | RIVAL_PAIRS
EVERYTHING |= JUDGE_TEXTS | REWARD_TEXTS

# Each leaf of the tiny config, all defaults filled in: a new value, and the rules that rerun, or
# the error where the config no longer holds together.
CHANGES: dict[str, tuple[object, set[str] | str]] = {
    "experiment": ("other", EVERYTHING),
    "overlay": (
        "beside",
        {"measure_judges", "summarize", "draw_study"} | DRAWN | LEARNED_OVERLAP,
    ),
    "seed": (2, EVERYTHING),
    "track_code": (False, REPORT),
    "data_dir": ("elsewhere", REPORT),
    "downloads": (
        {"words": {"url": "https://example.org/a", "sha256": "0" * 64, "path": "a.txt"}},
        REPORT,
    ),
    "planted.documents": (301, EVERYTHING),
    "planted.held_out": (41, EVERYTHING),
    "planted.toxic_share": (0.4, EVERYTHING),
    "planted.implicit_share": (0.4, EVERYTHING),
    "planted.consistency": (0.9, EVERYTHING),
    "planted.queries": (25, EVERYTHING),
    "planted.shared_prompts": (0.1, EVERYTHING),
    "planted.prompts": (11, EVERYTHING),
    "planted.development": (11, EVERYTHING),
    "planted.prompt_implicit_share": (0.4, EVERYTHING),
    "planted.statements": (42, EVERYTHING),
    "planted.passages": (21, EVERYTHING),
    "planted.labelled": (201, EVERYTHING),
    "planted.pairs": (11, EVERYTHING),
    "planted.bold": (11, EVERYTHING),
    # No `part` of the tiny config names a use.
    "parts.judges": ([0.0, 0.2], REPORT),
    "parts.methods": ([0.3, 0.6], REPORT),
    "parts.development": ([0.6, 0.65], REPORT),
    "parts.tests": ([0.8, 1.0], REPORT),
    **{
        f"contamination.{key}": (value, CORPUS_OVERLAP | LEARNED_OVERLAP)
        for key, value in [("ngram", 7), ("share", 0.6), ("cosine", 0.5), ("pairs", 3)]
    },
    "corpus.drop_overlap": (True, DOCUMENTS),
    "corpus.block_size": (96, LENGTHS | BLOCKS | PASSAGES),
    "corpus.shards": (3, PARTS | TOKENS),
    "corpus.sources.0.name": ("texts", DOCUMENTS),
    "corpus.sources.0.files": ("{planted}/held_out.jsonl", DOCUMENTS),
    "corpus.sources.0.text": ("body", DOCUMENTS),
    "corpus.sources.0.spans": ("marks", DOCUMENTS),
    "corpus.sources.0.documents": ("paragraph", DOCUMENTS),
    "corpus.sources.0.limit": (200, DOCUMENTS),
    "corpus.sources.0.harmless": (True, DOCUMENTS),
    "corpus.sources.0.held_out": (0.1, DOCUMENTS),
    "corpus.sources.1.name": ("texts", DOCUMENTS),
    "corpus.sources.1.files": ("{planted}/documents.jsonl", DOCUMENTS),
    "corpus.sources.1.text": ("body", DOCUMENTS),
    "corpus.sources.1.spans": ("marks", DOCUMENTS),
    "corpus.sources.1.documents": ("paragraph", DOCUMENTS),
    "corpus.sources.1.limit": (30, DOCUMENTS),
    "corpus.sources.1.harmless": (True, DOCUMENTS),
    "corpus.sources.1.held_out": (0.9, DOCUMENTS),
    "tokenizers.bpe.vocabulary_size": (500, TOKENIZER),
    **{
        f"texts.labelled.{key}": (value, LEARNED)
        for key, value in [
            ("sources.0.format", "toxigen"),
            ("sources.0.files", "{planted}/implicit_labelled.jsonl"),
            ("sources.1.format", "toxigen"),
            ("sources.1.files", "{planted}/explicit_labelled.jsonl"),
            ("sources.1.part", [0.0, 0.9]),
            ("limit", 30),
            ("max_length", 30),
        ]
    },
    "own_generations.own.queries": (["safe"], LEARNED),
    "own_generations.own.prompts": (7, LEARNED),
    "own_generations.own.continuations": (5, LEARNED),
    "own_generations.own.max_new_tokens": (7, LEARNED),
    "own_generations.own.top_p": (0.8, LEARNED),
    "own_generations.own.temperature": (0.8, LEARNED),
    "own_generations.own.judges": (["explicit"], LEARNED),
    "queries.toxic.format": ("bold", QUERIES),
    "queries.toxic.files": ("{planted}/prompts.jsonl", QUERIES),
    "queries.toxic.continuation_toxicity": ([0.6, 1.0], QUERIES),
    "queries.safe.format": ("bold", QUERIES),
    "queries.safe.files": ("{planted}/prompts.jsonl", QUERIES),
    "queries.safe.continuation_toxicity": ([0.0, 0.4], QUERIES),
    "queries.safe.part": ([0.0, 0.8], QUERIES),
    "queries.safe.limit": (19, QUERIES),
    "queries.matched.format": ("bold", MATCHED),
    "queries.matched.files": ("{planted}/prompts.jsonl", MATCHED),
    "queries.matched.continuation_toxicity": ([0.0, 0.4], MATCHED),
    "queries.matched.match.to": ("safe", MATCHED),
    "queries.matched.match.by": (["length"], MATCHED),
    **{
        f"classifiers.{classifier}.train.sources.0.{key}": (value, JUDGE_TEXTS)
        for classifier in ("explicit", "implicit")
        for key, value in [
            ("format", "realtoxicityprompts"),
            ("files", "{planted}/prompts.jsonl"),
            ("toxicity", [0.0, 0.5]),
        ]
    },
    **{
        f"classifiers.{classifier}.train.{key}": (value, CLASSIFIER)
        for classifier in ("explicit", "implicit")
        for key, value in [
            ("held_out", 0.2),
            ("vocabulary_size", 401),
            ("max_length", 65),
            ("hidden_size", 32),
            ("layers", 2),
            ("heads", 1),
            ("epochs", 2),
            ("batch_size", 31),
            ("learning_rate", 0.002),
        ]
    },
    "classifiers.explicit.train.kind": ("sequence", CLASSIFIER),
    "classifiers.implicit.train.kind": ("detoxify", CLASSIFIER),
    "classifiers.explicit_literal.planted": ("implicit", JUDGES),
    "classifiers.implicit_literal.planted": ("explicit", JUDGES),
    "classifiers.word_list.words": ("{planted}/pairs.tsv", JUDGES),
    # The target has epochs of its own.
    "training.epochs": (3, TRAINING),
    "training.max_steps": (30, TRAINING),
    "training.batch_size": (9, TRAINING),
    "training.accumulation": (2, TRAINING),
    "training.learning_rate": (0.004, TRAINING),
    "training.schedule": ("linear", TRAINING),
    "training.warmup": (0.02, TRAINING),
    "training.weight_decay": (0.1, TRAINING),
    "training.betas": ([0.95, 0.9], TRAINING),
    "training.epsilon": (1e-7, TRAINING),
    "training.clip": (0.5, TRAINING),
    "training.precision": ("bfloat16", TRAINING),
    "training.gradient_checkpointing": (True, TRAINING),
    "training.compile": (True, TRAINING),
    "training.fsdp": (True, TRAINING),
    "training.explosion_factor": (None, TRAINING),
    "training.peak_flops": (1e12, TRAINING),
    "training.log_steps": (6, TRAINING),
    "training.checkpoint_steps": (21, REPORT),
    "models.proxy.tokenizer": ("other", "models.proxy.tokenizer: 'other' is none of bpe"),
    "models.target.tokenizer": ("other", "models.target.tokenizer: 'other' is none of bpe"),
    **{
        f"models.{model}.architecture.{key}": (value, rerun)
        for model, rerun in (
            ("proxy", TRAINING),
            ("target", LENGTHS | TARGET | PLAIN | PROXY_AGREEMENT),
        )
        for key, value in [
            ("model_type", "gpt2"),
            ("hidden_size", 32),
            ("num_hidden_layers", 2),
            ("num_attention_heads", 1),
            ("intermediate_size", 40),
        ]
    },
    "methods.none": ({"training": {"clip": 0.5}}, TRAINING),
    "models.target.training.epochs": (1, TARGET | PLAIN | PROXY_AGREEMENT),
    "methods.ifguide.suppress.selection": (
        "wide",
        AGREEMENT | PROXY_AGREEMENT | SELECTION - {"measure_attribution"},
    ),
    "methods.ifguide.suppress.tokens": ("random", {"random_tokens"} | REMOVAL | TARGET),
    "methods.word_filter.filter.words": ("{planted}/pairs.tsv", FILTER),
    "methods.word_filter.filter.unit": ("block", FILTER),
    "methods.word_filter.compare_with": ("rad", SUMMARY),
    "methods.word_filter.training.max_steps": (19, TRAINED),
    "methods.ifguide.suppress.objective": ("exclusion", SUPPRESSED),
    "methods.ifguide.suppress.strength": (0.5, SUPPRESSED),
    "methods.dpo.start_from": ("ifguide", DPO),
    "methods.dpo.dpo.pairs": ("{planted}/words.txt", PAIRS),
    "methods.dpo.dpo.format": ("preference", PAIRS),
    "methods.dpo.dpo.limit": (9, PAIRS),
    "methods.dpo.dpo.beta": (0.2, DPO),
    "methods.dpo.dpo.epochs": (2, DPO),
    "methods.dpo.dpo.batch_size": (5, DPO),
    "methods.dpo.dpo.learning_rate": (0.002, DPO),
    "methods.dpo.dpo.warmup": (0.2, DPO),
    "methods.rad.start_from": ("none", CHECKED | DECODED),
    "methods.rad.rad.reward": (
        "missing",
        "methods.rad.rad.reward: 'missing' is none of toxicity",
    ),
    "methods.rad.rad.beta": (10, DECODED),
    "methods.rad.rad.top_k": (6, DECODED),
    "methods.rad.rad.context": ("prompt", DECODED),
    **{
        f"rewards.toxicity.train.sources.0.{key}": (value, REWARD_TEXTS)
        for key, value in [
            ("format", "realtoxicityprompts"),
            ("files", "{planted}/prompts.jsonl"),
        ]
    },
    **{
        f"rewards.toxicity.train.{key}": (value, REWARD)
        for key, value in [
            ("held_out", 0.2),
            ("max_length", 65),
            ("hidden_size", 32),
            ("layers", 2),
            ("heads", 1),
            ("epochs", 2),
            ("batch_size", 31),
            ("learning_rate", 0.002),
        ]
    },
    # Methods that are not compared train nothing, and selections that none of them needs are not
    # made.
    "methods.ascent.suppress.selection": ("wide", REPORT),
    "methods.toxicity_filter.filter.classifier": (
        "another",
        "methods.toxicity_filter.filter.classifier: 'another' is none of explicit, "
        "explicit_literal, implicit, implicit_literal, word_list",
    ),
    "methods.toxicity_filter.filter.by": ("worst", REPORT),
    "methods.toxicity_filter.filter.threshold.false_alarms": (0.4, REPORT),
    "methods.toxicity_filter.filter.unit": ("document", REPORT),
    "methods.word_filter_equal.filter.words": ("{planted}/pairs.tsv", REPORT),
    "methods.word_filter_equal.filter.drop_tokens_of": ("top", REPORT),
    "methods.word_filter_equal.filter.unit": ("block", REPORT),
    "methods.standard_influence.filter.selection": ("top", REPORT),
    "methods.standard_influence.filter.share": (0.2, REPORT),
    "methods.ascent.suppress.tokens": ("random", REPORT),
    "methods.ascent.suppress.objective": ("exclusion", REPORT),
    "methods.ascent.suppress.strength": (0.1, REPORT),
    "methods.ascent.training.max_steps": (9, REPORT),
    "methods.repair.start_from": ("ascent", REPORT),
    "methods.repair.suppress.selection": ("top", REPORT),
    "methods.repair.suppress.tokens": ("random", REPORT),
    "methods.repair.suppress.objective": ("published", REPORT),
    "methods.repair.suppress.strength": (0.5, REPORT),
    "methods.repair.training.epochs": (2, REPORT),
    "methods.repair.training.learning_rate": (0.001, REPORT),
    "influence.model": (
        "target",
        "report.proxy_agreement.direction: belongs to target itself; name another",
    ),
    "influence.allow_untrained": (True, PROXY),
    "influence.query_tokens_per_batch": (4096, GRADIENT),
    "influence.factors.blocks": (60, FACTORS),
    "influence.factors.shards": (1, FACTORS),
    "influence.factors.positions": (0.5, FACTORS),
    "influence.factors.labels": ("true", FACTORS),
    "influence.factors.batch_size": (8, FACTORS),
    "influence.factors.logits_budget_mib": (32, FACTORS),
    "influence.directions.differential.toxic": ("safe", QUERY),
    "influence.directions.differential.safe": (None, QUERY),
    "influence.directions.differential.hessian": (
        "identity",
        "report.agreement_blocks: differential, whose selection the report shows, uses no factors",
    ),
    "influence.directions.differential.relative_damping": (0.2, QUERY),
    "influence.directions.differential.model": ("target", FACTORS),
    "influence.directions.differential.layers": ("attention", QUERY),
    "influence.directions.differential.measure": ([], ATTRIBUTION - {"measure_attribution"}),
    "influence.directions.plain.toxic": ("safe", PLAIN_DIRECTION),
    "influence.directions.plain.safe": (None, PLAIN_DIRECTION),
    "influence.directions.plain.hessian": ("ekfac", HESSIAN | PLAIN_DIRECTION),
    "influence.directions.plain.relative_damping": (0.2, PLAIN_DIRECTION),
    "influence.directions.plain.model": ("proxy", PLAIN),
    "influence.directions.plain.layers": ("attention", PLAIN_DIRECTION),
    "influence.directions.plain.measure": (["loss"], ATTRIBUTION),
    "influence.directions.identity.toxic": ("safe", COMPARED),
    "influence.directions.identity.safe": (None, COMPARED),
    "influence.directions.identity.hessian": ("ekfac", HESSIAN | COMPARED),
    "influence.directions.identity.relative_damping": (0.2, COMPARED),
    "influence.directions.identity.model": (
        "target",
        "report.proxy_agreement.direction: belongs to target itself; name another",
    ),
    "influence.directions.identity.layers": ("attention", COMPARED),
    "influence.directions.identity.measure": (["loss"], {"score_tokens"} | ATTRIBUTION),
    # The average moves to the folder of the other model.
    "influence.averages.mean.directions": (["plain", "differential"], AVERAGE),
    "influence.averages.mean.normalise": (False, AVERAGE),
    "influence.rivals.tagger.token_classifier.pairs.files": ("{planted}/words.txt", RIVAL_PAIRS),
    "influence.rivals.tagger.token_classifier.pairs.format": ("preference", RIVAL_PAIRS),
    **{
        f"influence.rivals.tagger.token_classifier.{key}": (value, RIVAL)
        for key, value in [
            ("max_length", 30),
            ("hidden_size", 32),
            ("layers", 2),
            ("heads", 1),
            ("epochs", 2),
            ("batch_size", 31),
            ("learning_rate", 0.002),
        ]
    },
    "influence.variants.unmoved.direction": ("plain", {"score_tokens"} | VARIANT),
    "influence.variants.unmoved.attribution": (
        "loss",
        "influence.variants.unmoved.unmoved: only `position` scores are moved",
    ),
    "influence.variants.unmoved.unmoved": (False, VARIANT),
    "influence.variants.unmoved.pooling": (0.5, VARIANT),
    "influence.variants.unmoved.pool_over": ("context", VARIANT),
    "influence.variants.unmoved.token_weight": ("inverse_document_frequency", VARIANT),
    "influence.variants.unmoved.token_weight_power": (2.0, VARIANT),
    "influence.variants.rare.direction": ("differential", VARIANT),
    "influence.variants.rare.attribution": ("position", {"score_tokens"} | AVERAGE),
    "influence.variants.rare.unmoved": (
        True,
        "influence.variants.rare.unmoved: only `position` scores are moved",
    ),
    "influence.variants.rare.pooling": (0.5, VARIANT),
    "influence.variants.rare.pool_over": ("context", VARIANT),
    "influence.variants.rare.token_weight": ("none", VARIANT),
    "influence.variants.rare.token_weight_power": (0.5, VARIANT),
    "influence.scores.route": ("forward_mode", SCORES),
    "influence.scores.precision": ("bfloat16", SCORES),
    "influence.scores.relative_step": (0.002, SCORES),
    "influence.scores.tolerance": (0.02, SCORES),
    "influence.scores.check_blocks": (3, SCORES),
    "influence.scores.batch_size": (8, AGREEMENT | PROXY_AGREEMENT | SCORES),
    "influence.scores.logits_budget_mib": (32, AGREEMENT | PROXY_AGREEMENT | SCORES),
    "influence.scores.blocks": (
        50,
        "influence.scores.blocks: a selection needs the scores of all blocks",
    ),
    "influence.selections.top.direction": (
        "missing",
        "influence.selections.top.direction: 'missing' is none of differential, identity, mean, "
        "plain, tagger",
    ),
    "influence.selections.top.attribution": ("position", SELECTION),
    "influence.selections.top.quantile": (0.8, SELECTION),
    "influence.selections.top.window": (2, SELECTION),
    "influence.selections.top.limit": (0.04, AGREEMENT | PROXY_AGREEMENT | SELECTION),
    "influence.selections.top.documents": ("source", SELECTION),
    "influence.selections.top.unmoved": (
        True,
        "influence.selections.top.unmoved: only `position` scores are moved",
    ),
    "influence.selections.top.pooling": (0.5, SELECTION),
    "influence.selections.top.pool_over": ("context", SELECTION),
    "influence.selections.top.rank_by": ("influence", SELECTION),
    "influence.selections.top.token_weight": ("inverse_document_frequency", SELECTION),
    "influence.selections.top.token_weight_power": (2.0, SELECTION),
    "influence.selections.wide.direction": (
        "missing",
        "influence.selections.wide.direction: 'missing' is none of differential, identity, mean, "
        "plain, tagger",
    ),
    "influence.selections.wide.attribution": ("position", REPORT),
    "influence.selections.wide.quantile": (0.7, REPORT),
    "influence.selections.wide.window": (2, REPORT),
    "influence.selections.wide.limit.false_discovery_rate": (0.9, REPORT),
    "influence.selections.wide.limit.decoys": (
        "harmless",
        "influence.selections.wide.limit.decoys: no entry of corpus.sources has `harmless: true`",
    ),
    "influence.selections.wide.documents": ("block", REPORT),
    "influence.selections.wide.unmoved": (
        True,
        "influence.selections.wide.unmoved: only `position` scores are moved",
    ),
    "influence.selections.wide.pooling": (0.5, REPORT),
    "influence.selections.wide.pool_over": ("context", REPORT),
    "influence.selections.wide.rank_by": ("influence", REPORT),
    "influence.selections.wide.token_weight": ("inverse_document_frequency", REPORT),
    "influence.selections.wide.token_weight_power": (2.0, REPORT),
    # No method uses this one: only the scores that it asks for are made and measured.
    "influence.selections.words.direction": ("differential", CHECKED),
    "influence.selections.words.attribution": (
        "position",
        "influence.selections.words.attribution: tagger is a rival, with one kind of scores",
    ),
    "influence.selections.words.unmoved": (
        True,
        "influence.selections.words.unmoved: only `position` scores are moved",
    ),
    "influence.selections.words.limit.tokens_of": ("wide", REPORT),
    **{
        f"influence.selections.words.{key}": (value, REPORT)
        for key, value in [
            ("quantile", 0.7),
            ("window", 2),
            ("documents", "source"),
            ("pooling", 0.5),
            ("pool_over", "context"),
            ("rank_by", "influence"),
            ("token_weight", "inverse_document_frequency"),
            ("token_weight_power", 2.0),
        ]
    },
    "generation.continuations": (6, GENERATE),
    "generation.top_p": (0.8, GENERATE),
    "generation.temperature": (0.9, GENERATE),
    "generation.max_new_tokens": (9, LENGTHS | GENERATE),
    "generation.rows_per_batch": (256, GENERATE),
    "generation.shards": (2, GENERATE),
    "benchmarks.realtoxicityprompts.kind": (
        "perplexity",
        "benchmarks.realtoxicityprompts.format: unknown key; the keys here are kind",
    ),
    "benchmarks.realtoxicityprompts.format": ("attaq", PROMPTS),
    "benchmarks.realtoxicityprompts.files": ("{planted}/queries.jsonl", PROMPTS),
    "benchmarks.toxigen.kind": (
        "prompt",
        "benchmarks.toxigen.kind: 'prompt' is none of prompts, perplexity, lambada; did you mean "
        "prompts?",
    ),
    "benchmarks.toxigen.format": ("bold", PROMPTS),
    "benchmarks.toxigen.files": ("{planted}/bold.json", PROMPTS),
    "benchmarks.toxigen.limit.toxic": (4, PROMPTS),
    "benchmarks.toxigen.limit.nontoxic": (4, PROMPTS),
    "benchmarks.toxigen.generation.continuations": (4, GENERATE),
    "benchmarks.toxigen.generation.max_new_tokens": (5, LENGTHS | GENERATE),
    "benchmarks.heldout.kind": ("lambada", "benchmarks.heldout.files: missing: Path or glob"),
    "benchmarks.lambada.kind": ("perplexity", "benchmarks.lambada.files: unknown key"),
    "benchmarks.lambada.files": ("{planted}/held_out.jsonl", PASSAGES),
    "benchmarks.lambada.limit": (9, PASSAGES),
    "evaluation.models": (
        ["target", "proxy"],
        {"measure_removal"} | LENGTHS | TRAINED - {"write_pages"},
    ),
    "evaluation.methods": (["none"], CHECKED),
    "evaluation.benchmarks": (["realtoxicityprompts", "heldout"], LENGTHS | GENERATE),
    "evaluation.seeds": ([0, 1], TRAINED - {"write_pages"}),
    "evaluation.threshold": (0.6, {"measure_judges"} | TOXICITY | PAGES),
    "evaluation.perplexity_continuations": (4, FLUENCY),
    "evaluation.resamples": (60, FLUENCY | PAGES),
    "evaluation.ranking_resamples": (11, ATTRIBUTION | VARIANT | PROXY_AGREEMENT),
    "evaluation.level": (
        0.9,
        {"measure_judges"} | FLUENCY | PAGES | ATTRIBUTION | VARIANT | PROXY_AGREEMENT,
    ),
    "report.documents": (6, SHOWN),
    "report.prompts": (3, PAGES),
    "report.samples": (3, PAGES),
    "report.benchmark": ("toxigen", SUMMARY | PAGES),
    "report.choose_on": ("toxigen", DRAWN | REPORT),
    "report.choose_within": (0.1, REPORT),  # where nothing is chosen
    "report.selection": ("wide", {"select_tokens"} | SHOWN | AGREEMENT | PROXY_AGREEMENT),
    "report.study.0.question": ("Which?", STUDY),
    "report.study.0.variants": (["rare"], STUDY | DRAWN),
    "report.agreement_blocks": (17, AGREEMENT),
    "report.proxy_agreement.direction": (
        "plain",
        "report.proxy_agreement.direction: belongs to target itself; name another",
    ),
    "report.proxy_agreement.blocks": (15, PROXY_AGREEMENT),
    "report.groups": ("realtoxicityprompts", DRAWN | REPORT),
    "report.published_models": (["Pythia-160M"], SUMMARY),
    # A plan changes no result.
    "plan.devices": (["h100"], set()),
    "plan.own_devices": ({"own": {"bfloat16": 1e12, "float32": 1e12}}, set()),
    "plan.calibration": ("device.json", set()),
    "plan.utilisation": ({"training": 0.5}, set()),
    "plan.start_seconds": (7, set()),
    "plan.tokens": (1000, set()),
    "plan.characters_per_token": (3.0, set()),
    "plan.records": ({"queries.toxic": 5}, set()),
}

# Sections whose keys are names that the user chose.
NAMED = {
    ("downloads",),
    ("tokenizers",),
    ("queries",),
    ("classifiers",),
    ("rewards",),
    ("models",),
    ("models", "*", "architecture"),
    ("methods",),
    ("influence", "directions"),
    ("influence", "averages"),
    ("influence", "rivals"),
    ("influence", "variants"),
    ("influence", "selections"),
    ("benchmarks",),
    ("plan", "records"),
    ("plan", "own_devices"),
}


def filled(path: Path) -> dict:
    found = resolve(read_yaml(path), [path], {}, REPOSITORY / "config/config.yaml")
    return with_defaults(Config, found.config)


def read_yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def leaves(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of everything that is not itself a section; lists of sections are entered."""
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from leaves(entry, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, entry in enumerate(value):
            yield from leaves(entry, (*path, index))
    else:
        yield path


def without_names(path: tuple) -> tuple:
    general: tuple = ()
    for part in path:
        general += ("*" if general in NAMED or isinstance(part, int) else part,)
    return general


def overlay(config: dict, key: str, value: object) -> dict:
    """The smallest overlay that gives a leaf a new value; lists are replaced whole."""
    parts = [int(part) if part.isdigit() else part for part in key.split(".")]
    changed = copy.deepcopy(config)
    node = changed
    for part in parts[:-1]:
        node = node[part]
    node[parts[-1]] = value
    # Down to the first list, or to the leaf.
    result: dict = {}
    inner = result
    for position, part in enumerate(parts):
        changed = changed[part]
        if position == len(parts) - 1 or isinstance(changed, list):
            inner[part] = changed
            break
        inner = inner.setdefault(part, {})
    return result


@pytest.fixture(scope="module")
def tiny() -> dict:
    return filled(REPOSITORY / TINY)


def test_every_leaf_has_an_expectation(tiny):
    written = {".".join(str(part) for part in path) for path in leaves(tiny)}
    assert written == set(CHANGES)


@pytest.mark.parametrize("path", SHIPPED)
def test_shipped_configs_are_valid(path):
    assert filled(REPOSITORY / path)["experiment"]


@pytest.mark.parametrize("path", SHIPPED)
def test_a_checked_config_is_one_that_changes_no_more(path):
    config = filled(REPOSITORY / path)
    assert with_defaults(Config, config) == config


@pytest.mark.parametrize(
    "section, name",
    [
        ("queries", "disjoint"),
        *(
            (f"influence.{section}", name)
            for section in ("directions", "averages", "rivals")
            for name in ("covariances", "eigenvalues", "gradients")
        ),
        ("influence.selections", "scores"),
        *(("classifiers", name) for name in ("prompt", "tokens", "empty")),
    ],
)
def test_a_name_that_the_workflow_takes_itself_is_refused(tiny, section, name):
    changed = copy.deepcopy(tiny)
    entries = changed
    for part in section.split("."):
        entries = entries[part]
    entries[name] = next(iter(entries.values()))
    with pytest.raises(InputError) as refused:
        with_defaults(Config, changed)
    assert str(refused.value) == f"{section}: '{name}' cannot be a name here"


def test_the_default_config_has_no_other_leaves(tiny):
    covered = {without_names(path) for path in leaves(tiny)}
    default = {without_names(path) for path in leaves(filled(REPOSITORY / "config/config.yaml"))}
    # A section that is empty there may have entries in the tiny config.
    sections = {path[:length] for path in covered for length in range(len(path))}
    assert default - covered - sections == set()


@pytest.mark.parametrize(
    "configs",
    [["config/overlays/full.yaml"], ["config/real_text.yaml", "config/overlays/full.yaml"]],
)
def test_every_method_can_run(repository, tmp_path, configs):
    """A dry run: over the default, and after the config of real texts."""
    arguments = ["--snakefile", repository / "workflow/Snakefile", "--directory", tmp_path]
    arguments += ["--cores", "1", "--dry-run", "--configfile"]
    ran = run_snakemake(repository, *arguments, *(repository / config for config in configs))
    assert ran.returncode == 0, ran.stdout
    methods = read_yaml(repository / "config/overlays/full.yaml")["evaluation"]["methods"]
    table = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", ran.stdout, re.M)}
    # RAD guides two models that others train; the proxy is one more.
    assert table["make_model"] == len(methods) - 2 + 1
    assert (table["read_pairs"], table["train_reward"]) == (2, 1)
    assert (table["make_corpus"], table["random_tokens"]) == (3, 1)


@pytest.mark.parametrize("below", [[], ["config/real_text.yaml"]])
def test_filters_at_equal_tokens_wait_for_the_mask(repository, tmp_path, below):
    arguments = ["--snakefile", repository / "workflow/Snakefile", "--directory", tmp_path]
    arguments += ["--cores", "1", "--dry-run", "--configfile"]
    configs = [*below, "config/overlays/equal_tokens.yaml"]
    ran = run_snakemake(repository, *arguments, *(repository / config for config in configs))
    assert ran.returncode == 0, ran.stdout
    table = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", ran.stdout, re.M)}
    # The documents are judged once for both filters; the four of them leave four corpora.
    assert (table["make_corpus"], table["select_tokens"], table["random_tokens"]) == (4, 1, 1)
    shards = read_yaml(repository / "config/real_text.yaml")["corpus"]["shards"] if below else 1
    assert table["classify_documents"] == shards


def test_expectations_change_something(tiny):
    for key, (value, _) in CHANGES.items():
        assert merged(tiny, overlay(tiny, key, value)) != tiny, key


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_leaf_reruns_what_depends_on_it(dry_runs, tiny, key):
    value, expected = CHANGES[key]
    printed = dry_runs.printed(TINY, overlay(tiny, key, value))
    if isinstance(expected, str):
        assert error_line(printed).startswith(f"error: config: {expected}")
    else:
        assert rules_to_run(printed) == expected


@pytest.mark.parametrize(
    "judge, expected",
    [
        ({"planted": "explicit"}, JUDGES),
        ({"words": "{planted}/words.txt"}, JUDGES),
        (read_yaml(REPOSITORY / TINY)["classifiers"]["implicit"], JUDGE_TEXTS),
    ],
)
def test_another_judge_judges_what_is_there(dry_runs, judge, expected):
    assert dry_runs.rules(TINY, {"classifiers": {"another": judge}}) == expected


def test_an_unchanged_config_reruns_nothing(dry_runs):
    assert dry_runs.rules(TINY) == set()


def test_the_order_of_keys_reruns_nothing(dry_runs, tiny):
    def reversed_keys(value):
        if isinstance(value, dict):
            return {key: reversed_keys(value[key]) for key in reversed(value)}
        return [reversed_keys(entry) for entry in value] if isinstance(value, list) else value

    reordered = reversed_keys(tiny)
    assert list(reordered) == list(tiny)[::-1]
    assert dry_runs.rules(reordered) == set()


@pytest.mark.parametrize(
    "section, first, second, expected",
    [
        ("training", "learning_rate", "weight_decay", TRAINING),
        ("generation", "top_p", "temperature", GENERATE),
        (
            "evaluation",
            "resamples",
            "ranking_resamples",
            FLUENCY | PAGES | ATTRIBUTION | VARIANT | PROXY_AGREEMENT,
        ),
        ("planted", "prompts", "pairs", set()),  # both are 10
    ],
)
def test_two_values_that_change_places(dry_runs, tiny, section, first, second, expected):
    values = tiny[section]
    swapped = {section: {first: values[second], second: values[first]}}
    assert dry_runs.rules(TINY, swapped) == expected


def test_a_section_on_the_command_line_is_refused_with_its_cure(finished):
    arguments = ["--configfile", TINY, "--cores", "1", "--dry-run", "--config"]
    printed = run_snakemake(finished, *arguments, "evaluation={threshold: 0.6}").stdout
    assert error_line(printed) == (
        "error: config: evaluation.threshold: '0.6' is not a number; write 0.6 without quotes, in "
        "a file: the values of sections that are given by --config arrive as text"
    )


def test_a_seed_on_the_command_line_reruns_everything(finished):
    arguments = ["--configfile", TINY, "--cores", "1", "--dry-run", "--config", "seed=2"]
    assert rules_to_run(run_snakemake(finished, *arguments).stdout) == EVERYTHING


def test_touching_every_file_reruns_nothing(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    files = [path for path in sorted(clone.rglob("*")) if path.is_file()]
    random.Random(0).shuffle(files)
    for path in files:
        if ".snakemake" not in path.parts:
            path.touch()
    assert rules_to_run(dry_run(clone)) == set()


def test_a_fresh_clone_with_the_results_reruns_nothing(finished, tmp_path):
    clone = tmp_path / "another place" / "clone"
    shutil.copytree(finished, clone, copy_function=shutil.copyfile)
    assert rules_to_run(dry_run(clone)) == set()


# Modules that several stages share, and what a change of their meaning reruns.
MODULES = {
    "scripts/ifguide/influence/selection.py": SELECTION,
    "scripts/ifguide/influence/score_files.py": SELECTION | AVERAGE | ATTRIBUTION,
    "scripts/ifguide/report/templating.py": SUMMARY | PAGES | {"write_card"},
    "scripts/ifguide/influence/query_direction.py": GRADIENT,
    "scripts/ifguide/data/downloads.py": set(),
    "scripts/ifguide/data/preferences.py": PAIRS | RIVAL_PAIRS | CORPUS_OVERLAP,
    "scripts/ifguide/data/near_passages.py": CORPUS_OVERLAP | LEARNED_OVERLAP,
    "scripts/ifguide/models/objective.py": TRAINING,
    "scripts/ifguide/models/training.py": TRAINING,
    "scripts/ifguide/evaluation/word_judge.py": JUDGES | RIVAL,
    "scripts/ifguide/evaluation/sequence_judge.py": CLASSIFIER | RIVAL,
    "scripts/ifguide/influence/token_classifier.py": RIVAL,
    "scripts/ifguide/evaluation/generation.py": GENERATE,
    "scripts/ifguide/methods/dpo.py": DPO,
    "scripts/ifguide/methods/rad.py": DECODED,
    "scripts/ifguide/methods/suppress.py": TARGET,
    "scripts/ifguide/methods/filter.py": FILTER,
    "scripts/measure_fluency.py": FLUENCY,
}
# What writes, reads, logs and places files, or only plans: no number changes with it.
PLUMBING = [
    "scripts/ifguide/workflow/command_line.py",
    "scripts/ifguide/workflow/layout.py",
    "scripts/ifguide/files/artifacts.py",
    "scripts/ifguide/methods/step.py",
    "scripts/ifguide/settings.py",
    "scripts/plan.py",
]


def append(clone: Path, module: str, text: str) -> None:
    with open(clone / module, "a", encoding="utf-8") as source:
        source.write(text)


def test_a_comment_or_docstring_in_any_module_reruns_nothing(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    for path in sorted((clone / "scripts").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        for node in [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))]:
            if ast.get_docstring(node, clean=False):
                text = text.replace(ast.get_docstring(node, clean=False), "Says it otherwise.")
        path.write_text(f"# A remark.\n{text}\n\n# Another.\n", encoding="utf-8")
    assert rules_to_run(dry_run(clone)) == set()


def test_logging_and_arguments_rerun_nothing(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    path = clone / "scripts/score_tokens.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("    log.info(", "    log.debug("), encoding="utf-8")
    append(clone, "scripts/make_direction.py", '\n\nif __name__ == "__main__":\n    print()\n')
    for module in PLUMBING:
        append(clone, module, "\nADDED = 1\n")
    assert rules_to_run(dry_run(clone)) == set()


@pytest.mark.parametrize("module", MODULES)
def test_a_changed_formula_reruns_the_rules_that_use_it(finished, tmp_path, module):
    clone = copy_run(finished, tmp_path / "clone")
    append(clone, module, "\nADDED = 1\n")
    assert rules_to_run(dry_run(clone)) == MODULES[module]


def test_a_changed_caption_or_template_is_shown(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    append(clone, "workflow/report/tokens.rst", "\nMore.\n")
    assert rules_to_run(dry_run(clone)) == REPORT
    append(clone, "scripts/ifguide/report/templates/page.html", "\n")
    assert rules_to_run(dry_run(clone)) == SUMMARY | PAGES | {"write_card"}


def test_what_a_step_says_of_itself_reruns_nothing(finished, tmp_path):
    """Its descriptions, needs and costs: what they give a job stands in its parameters."""
    clone = copy_run(finished, tmp_path / "clone")
    path = clone / "scripts/ifguide/methods/suppress.py"
    text = path.read_text(encoding="utf-8")
    told = text.replace("Weight of the penalty", "The weight of the penalty")
    added = "    def kept_share(self):\n        return 1.0\n\n    def needs(self)"
    told = told.replace("    def needs(self)", added)
    assert told.count("kept_share") == 1
    path.write_text(told, encoding="utf-8")
    append(clone, "scripts/ifguide/methods/rad.py", "\nif TYPE_CHECKING:\n    import torch\n")
    assert rules_to_run(dry_run(clone)) == set()


def test_untracked_code_keeps_what_is_finished_and_is_named(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    append(clone, "scripts/ifguide/influence/selection.py", "\nADDED = 1\n")
    (clone / "keep.yaml").write_text("track_code: false\n", encoding="utf-8")
    printed = dry_run(clone, "keep.yaml")
    assert rules_to_run(printed) == REPORT
    ran = run_snakemake(clone, "--configfile", TINY, "keep.yaml", "--cores", "1")
    assert ran.returncode == 0, ran.stdout
    report = (clone / "results/tiny/report.html").read_text(encoding="utf-8")
    assert "select_tokens (1 of 1 jobs)" in report
    assert "score_tokens (" not in report
    # A new artifact is made by the code of today, and nothing else is made again.
    assert rules_to_run(dry_run(clone, "keep.yaml")) == set()
    assert rules_to_run(dry_run(clone)) == SELECTION | REPORT


def test_a_given_directory_is_decoded_by_a_model_of_its_own(dry_runs, finished):
    given = {"path": str(finished / "results/tiny/models/target/none/0")}
    methods = {"given": {"start_from": given, "rad": {"reward": "toxicity"}}}
    overlay = {"methods": methods, "evaluation": {"methods": ["none", "given"]}}
    assert {"make_model", "generate_continuations"} <= dry_runs.rules(TINY, overlay)


def test_what_two_steps_of_a_method_need_alike_is_refused(dry_runs):
    suppress = {"selection": "top"}
    both = {"start_from": "none", "suppress": suppress, "dpo": {"pairs": "{planted}/pairs.tsv"}}
    printed = dry_runs.printed(TINY, {"methods": {"both": both}})
    assert error_line(printed).startswith("error: config: methods.both.")
    assert "acts at the same stage; make it another method" in error_line(printed)


def dry_run(clone: Path, *overlays: str) -> str:
    ran = run_snakemake(clone, "--configfile", TINY, *overlays, "--cores", "1", "--dry-run")
    assert ran.returncode == 0, ran.stdout
    return ran.stdout
