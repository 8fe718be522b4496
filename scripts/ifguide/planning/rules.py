"""Every rule that has jobs: the stage of the plan that it belongs to, and what a job of it does.

A new rule is one line of RULES. Its stage is an entry of the plan's table, which has the stages in
the order of their first rules; its work is a function of the experiment and the rule's wildcards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ifguide.errors import InputError
from ifguide.models.work import Work
from ifguide.planning import data_rules, evaluation_rules, influence_rules, training_rules
from ifguide.planning.experiment import Experiment


def no_work(experiment: Experiment, **_: str) -> Work:
    """Nothing beyond the start of a process that loads the libraries of models."""
    return Work()


def no_libraries(experiment: Experiment, **_: str) -> Work:
    """Nothing beyond the start of a process that loads no libraries of models."""
    return Work(loads=False)


@dataclass(frozen=True)
class Rule:
    """How a rule is planned; of_proxies: its stage where it makes a model that scores tokens."""

    stage: str
    work: Callable[..., Work]
    of_proxies: str | None = None


RULES = {
    "fetch_file": Rule("fetch", no_libraries),
    "fetch_repository": Rule("fetch", no_work),
    "adopt_detoxify": Rule("fetch", no_work),
    "plant": Rule("corpus", data_rules.plant),
    "read_documents": Rule("corpus", data_rules.read_documents),
    "make_tokenizer": Rule("corpus", data_rules.make_tokenizer),
    "tokenize_part": Rule("corpus", data_rules.tokenize_part),
    "tokenize_documents": Rule("corpus", data_rules.tokenize_documents),
    "tokenize_held_out": Rule("corpus", data_rules.tokenize_held_out),
    "read_queries": Rule("queries and prompts", no_libraries),
    "read_prompts": Rule("queries and prompts", no_libraries),
    "read_passages": Rule("queries and prompts", no_libraries),
    "read_pairs": Rule("queries and prompts", no_libraries),
    "read_rival_pairs": Rule("queries and prompts", no_libraries),
    "read_texts": Rule("queries and prompts", no_libraries),
    "read_judge_texts": Rule("queries and prompts", no_libraries),
    "read_reward_texts": Rule("queries and prompts", no_libraries),
    "check_disjoint": Rule("queries and prompts", no_libraries),
    "measure_contamination": Rule("contamination", data_rules.measure_contamination),
    "measure_learned_contamination": Rule("contamination", no_libraries),
    "check_prompt_lengths": Rule("queries and prompts", no_work),
    "train_classifier": Rule("classifier training", training_rules.train_classifier),
    "train_reward": Rule("classifier training", training_rules.train_reward),
    "make_model": Rule("target training", training_rules.make_model, of_proxies="proxy training"),
    "measure_activations": Rule("what methods learn", training_rules.measure_activations),
    "fit_probe": Rule("what methods learn", no_work),
    "sample_own_generations": Rule("what methods learn", training_rules.sample_own_generations),
    "prepare_decoding": Rule("what methods learn", training_rules.prepare_decoding),
    "take_model": Rule("target training", training_rules.take_model),
    "sum_covariances": Rule("covariances", influence_rules.sum_covariances),
    "decompose_covariances": Rule("eigenbases", influence_rules.decompose_covariances),
    "correct_eigenvalues": Rule("eigenvalues", influence_rules.correct_eigenvalues),
    "merge_factors": Rule("eigenvalues", influence_rules.merge_factors),
    "measure_query_gradient": Rule("query direction", influence_rules.measure_query_gradient),
    "make_direction": Rule("query direction", influence_rules.make_direction),
    "score_tokens": Rule("scores", influence_rules.score_tokens),
    "average_scores": Rule("scores", influence_rules.average_scores),
    "score_rival": Rule("scores", influence_rules.score_rival),
    "measure_attribution": Rule("judging scores", influence_rules.measure_attribution),
    "measure_variant": Rule("judging scores", influence_rules.measure_attribution),
    "measure_agreement": Rule("judging scores", influence_rules.measure_agreement),
    "select_tokens": Rule("selection", influence_rules.select_tokens),
    "transfer_mask": Rule("selection", influence_rules.transfer_mask),
    "random_tokens": Rule("selection", influence_rules.select_tokens),
    "export_spans": Rule("export", influence_rules.export_spans),
    "export_labels": Rule("export", influence_rules.export_labels),
    "classify_documents": Rule("filters", data_rules.classify_documents),
    "make_corpus": Rule("filters", data_rules.make_corpus),
    "generate_continuations": Rule("generation", evaluation_rules.generate_continuations),
    "classify_continuations": Rule("classification", evaluation_rules.classify_continuations),
    "measure_judges": Rule("classification", no_work),
    "measure_fluency": Rule("perplexity", evaluation_rules.measure_fluency),
    "measure_toxicity": Rule("report", no_libraries),
    "measure_removal": Rule("report", no_libraries),
    "measure_erasure": Rule("report", no_work),
    "measure_relearning": Rule("what lasts", evaluation_rules.measure_relearning),
    "measure_loss_curve": Rule("what lasts", evaluation_rules.measure_loss_curve),
    "tabulate_lasting": Rule("report", no_work),
    "measure_proxy_agreement": Rule("report", no_work),
    "summarize": Rule("report", no_work),
    "draw_figures": Rule("report", no_work),
    "draw_study": Rule("report", no_work),
    "describe_documents": Rule("report", no_work),
    "write_pages": Rule("report", no_work),
    "write_result": Rule("report", no_work),
    "write_card": Rule("report", no_work),
    "build_report": Rule("report", no_work),
    "all": Rule("report", no_libraries),
}
# In the order of the plan's rows.
STAGES = tuple(
    dict.fromkeys(
        stage for rule in RULES.values() for stage in (rule.of_proxies, rule.stage) if stage
    )
)


def planned_rule(name: str) -> Rule:
    """Return how a rule is planned. Raises InputError for a rule that is not in RULES."""
    if name not in RULES:
        raise InputError(
            f"the plan does not know the rule {name}; add it to RULES in "
            "scripts/ifguide/planning/rules.py, with its stage and its work (no_work, if it has "
            "none beyond its start)"
        )
    return RULES[name]


def stage_of(name: str, wildcards: Mapping[str, str], proxies: list[list[str]]) -> str:
    """Return the stage of a job; proxies: model, method and seed of the models that score."""
    rule = planned_rule(name)
    made = [wildcards.get(key) for key in ("model", "method", "seed")]
    return rule.of_proxies if rule.of_proxies and made in proxies else rule.stage
