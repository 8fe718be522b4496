"""The stages of a plan: which rules each of them is made of, and what one row of it speaks of."""

STAGES = {
    "fetch": ("fetch_file", "fetch_repository", "published_detoxify"),
    "corpus": (
        *("plant", "documents", "tokenizer", "tokenize_part", "tokenize", "tokenize_held_out"),
    ),
    "queries and prompts": (
        *("queries", "prompts", "passages", "pairs", "disjoint", "prompt_lengths"),
    ),
    "classifier training": ("train_classifier", "train_reward"),
    "proxy training": (),
    "target training": ("train_model", "take_model"),
    "preference training": ("train_dpo",),
    "covariances": ("covariance",),
    "eigenbases": ("eigenbases",),
    "eigenvalues": ("eigenvalues", "merge_factors"),
    "query direction": ("query_gradient", "direction"),
    "scores": ("score", "average_scores"),
    "judging scores": ("attribution", "variant", "agreement"),
    "selection": ("select_tokens", "transfer_mask", "random_tokens"),
    "filters": ("classify_documents", "filter_documents"),
    "generation": ("generate",),
    "classification": ("classify",),
    "perplexity": ("perplexity", "lambada"),
    "report": (),  # whatever is left
}
STAGE_OF = {rule: stage for stage, rules in STAGES.items() for rule in rules}

# Rules whose scripts load no model libraries.
LIGHT = (
    *("all", "fetch_file", "queries", "prompts", "passages", "pairs", "disjoint"),
    *("toxicity", "removal"),
)


def stage_of(rule: str, wildcards: dict[str, str], proxies: list[list[str]]) -> str:
    """Return the stage of a job; proxies: model, method and seed of the models that score."""
    if rule == "train_model":
        trained = [wildcards[key] for key in ("model", "method", "seed")]
        return "proxy training" if trained in proxies else "target training"
    return STAGE_OF.get(rule, "report")


def subject_of(wildcards: dict[str, str]) -> str:
    """Return what a job works on, less what the jobs of one row differ in."""
    return "/".join(value for key, value in wildcards.items() if key not in ("shard", "seed"))
