"""The stages of a plan: which rules each of them is made of, and what one row of it speaks of."""

STAGES = {
    "fetch": ("fetch_file", "fetch_repository", "adopt_detoxify"),
    "corpus": (
        *(
            "plant",
            "read_documents",
            "make_tokenizer",
            "tokenize_part",
            "tokenize_documents",
            "tokenize_held_out",
        ),
    ),
    "queries and prompts": (
        *(
            "read_queries",
            "read_prompts",
            "read_passages",
            "read_pairs",
            "check_disjoint",
            "check_prompt_lengths",
        ),
    ),
    "classifier training": ("train_classifier", "train_reward"),
    "proxy training": (),
    "target training": ("make_model", "take_model"),
    "preference training": ("train_dpo",),
    "covariances": ("sum_covariances",),
    "eigenbases": ("decompose_covariances",),
    "eigenvalues": ("correct_eigenvalues", "merge_factors"),
    "query direction": ("measure_query_gradient", "make_direction"),
    "scores": ("score_tokens", "average_scores"),
    "judging scores": ("measure_attribution", "measure_variant", "measure_agreement"),
    "selection": ("select_tokens", "transfer_mask", "random_tokens"),
    "filters": ("classify_documents", "make_corpus"),
    "generation": ("generate_continuations",),
    "classification": ("classify_continuations",),
    "perplexity": ("measure_perplexity", "measure_lambada"),
    "report": (),  # whatever is left
}
STAGE_OF = {rule: stage for stage, rules in STAGES.items() for rule in rules}

# Rules whose scripts load no model libraries.
LIGHT = (
    *(
        "all",
        "fetch_file",
        "read_queries",
        "read_prompts",
        "read_passages",
        "read_pairs",
        "check_disjoint",
    ),
    *("measure_toxicity", "measure_removal"),
)


def stage_of(rule: str, wildcards: dict[str, str], proxies: list[list[str]]) -> str:
    """Return the stage of a job; proxies: model, method and seed of the models that score."""
    if rule == "make_model":
        trained = [wildcards[key] for key in ("model", "method", "seed")]
        return "proxy training" if trained in proxies else "target training"
    return STAGE_OF.get(rule, "report")


def subject_of(wildcards: dict[str, str]) -> str:
    """Return what a job works on, less what the jobs of one row differ in."""
    return "/".join(value for key, value in wildcards.items() if key not in ("shard", "seed"))
