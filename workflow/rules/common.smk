# The functions of the workflow are here and in common/; rules have none. Here: the checked config,
# canonical settings, and the code that a rule depends on.

import ast
import functools
import os
import re
import sys
from pathlib import Path

import yaml

SOURCE = Path(workflow.current_basedir).parent.parent
sys.path.insert(0, str(SOURCE / "scripts"))

from ifguide.files.artifacts import canonical_json
from ifguide.errors import InputError
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.overlays import resolve

# Scripts run with the interpreter that runs Snakemake, unless conda or a container provides one.
if not workflow.deployment_settings.deployment_method:
    os.environ.update(
        PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    )
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Only the fetch rules may use the network; what the user says of the hub is kept for them. A job
# that parses the workflow again, on another machine perhaps, finds both as they are.
os.environ.setdefault("FETCH_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
os.environ.update(HF_HUB_OFFLINE="1")


def refuse_config(key, problem):
    """Stop with one line, which a traceback through the workflow would only bury."""
    raise SystemExit(f"error: config: {key}: {problem}")


def check_config():
    """Put the config over what it extends, refuse a mistaken one, fill in every default."""
    given = config
    try:
        # Here, because the steps of methods that are installed may not fit together.
        from ifguide.workflow.config.experiment import Config

        # What another workflow gives this one, as its module, is whole.
        if not workflow.modifier.skip_configfile:
            settings = workflow.config_settings
            found = resolve(
                settings.overwrite_config,
                settings.configfiles,
                settings.config,
                SOURCE / "config/config.yaml",
            )
            given = found.config
            workflow.configfiles += found.beneath
        if "extends" in given:
            raise InputError("extends: is followed in files that --configfile names; merge the two")
        filled = with_defaults(Config, given)
    except InputError as error:
        raise SystemExit(f"error: config: {error}") from None
    config.clear()
    config.update(filled)


check_config()

RESULTS = f"results/{config['experiment']}"
LOGS = f"logs/{config['experiment']}"
BENCHMARKS = f"{LOGS}/benchmarks"
# What the report shows, and its logs. Those of an overlay lie beside those of what it extends, with
# which it shares all else.
TABLES, TABLE_LOGS = (
    f"{folder}/overlays/{config['overlay']}" if config["overlay"] else folder
    for folder in (RESULTS, LOGS)
)
TABLE_BENCHMARKS = f"{TABLE_LOGS}/benchmarks"
SEED = config["seed"]
SEEDS = config["evaluation"]["seeds"]
PROXY = config["influence"]["model"]
PROXY_SEED = SEEDS[0]
PLANTED = f"{RESULTS}/planted"
PLANTED_FILES = [
    "documents.jsonl",
    "held_out.jsonl",
    "queries.jsonl",
    "prompts.jsonl",
    "toxigen.json",
    "lambada.jsonl",
    "explicit_labelled.jsonl",
    "implicit_labelled.jsonl",
    "pairs.tsv",
    "words.txt",
    "bold.json",
]
UNMATCHED_QUERIES = [name for name, entry in config["queries"].items() if "match" not in entry]
HAS_TRUTH = any("spans" in source for source in config["corpus"]["sources"])
# Without known spans there is nothing to judge a ranking by.
VARIANTS = config["influence"]["variants"] if HAS_TRUTH else {}
STUDY = config["report"]["study"] if HAS_TRUTH else []


def names(*sections):
    """A wildcard constraint: any of the names that the config gives in these sections."""
    found = sorted({name for section in sections for name in section}, key=len, reverse=True)
    return "|".join(found) or "none"


def benchmarks_of(*kinds):
    return [name for name, entry in config["benchmarks"].items() if entry["kind"] in kinds]


canonical = canonical_json


def settings_of(**sections):
    return canonical(sections)


def always(**sections):
    """Settings that no wildcard changes, as a function: braces in a plain string are wildcards."""
    return lambda wildcards: canonical(sections)


def growing(amount):
    """Memory or time: once the amount at the first attempt, twice at the second, …"""
    return lambda wildcards, attempt: amount * attempt


def without(entry, *keys):
    return {key: value for key, value in entry.items() if key not in keys}


def shards(count):
    return [f"{shard:05d}" for shard in range(count)]


def expand_checkpoints():
    """Give every checkpoint the tokenizer, architecture and training of its model."""
    models = config["models"]
    trained = {
        name: entry
        for name, entry in models.items()
        if "architecture" in entry and "checkpoint" not in entry
    }
    for name, entry in models.items():
        if "checkpoint" not in entry:
            continue
        of = entry["checkpoint"]["of"]
        if of not in trained:
            refuse_config(
                f"models.{name}.checkpoint.of",
                f"{of!r} is none of the models trained from an architecture: {', '.join(trained)}",
            )
        # The record of a run repeats what is filled in here.
        for key in without(entry, "checkpoint"):
            if entry[key] != trained[of].get(key):
                refuse_config(
                    f"models.{name}.{key}", f"a checkpoint takes this from {of}; remove the key"
                )
        entry.update(trained[of])


expand_checkpoints()


def statements_in(node):
    """All statements below a node: a fraction of the nodes that `ast.walk` yields."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield child
            yield from statements_in(child)


@functools.cache
def modules_of(path):
    """The modules of this project that a Python file imports, anywhere in it."""
    imported = set()
    for node in statements_in(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    candidates = [SOURCE.joinpath("scripts", *name.split(".")) for name in sorted(imported)]
    files = [candidate.with_suffix(".py") for candidate in candidates]
    return [file for file in files if file.exists()]


def code(script):
    """The script and every module of this project that it needs, the script first."""
    found = [SOURCE / "scripts" / script]
    for path in found:
        found += [module for module in modules_of(path) if module not in found]
    # Relative paths: the record of a job's inputs must hold in any clone.
    return [os.path.relpath(path) for path in found]


include: "common/sources.smk"
include: "common/methods.smk"
include: "common/attribution.smk"
include: "common/plan.smk"
include: "common/checks.smk"


EVALUATED = [
    (model, method, seed)
    for model in config["evaluation"]["models"]
    for method in config["evaluation"]["methods"]
    for seed in SEEDS
]
# The same with the methods whose models they use.
TRAINED = list(dict.fromkeys((m, weights_of(method), seed) for m, method, seed in EVALUATED))
# The methods trained on pairs that a compared method is, begins with, or decodes.
PAIRED = sorted(
    {
        name
        for method in config["evaluation"]["methods"]
        for name in ancestors(weights_of(method))
        if "dpo" in config["methods"][name]
    }
)
# The (direction, attribution) pairs whose scores are measured as they are, and all that are scored.
MEASURED = sorted(
    {(s["direction"], s["attribution"]) for s in config["influence"]["selections"].values()}
    | {
        (direction, attribution)
        for direction, entry in config["influence"]["directions"].items()
        for attribution in entry["measure"]
    }
)
SCORED = sorted({*MEASURED} | {(v["direction"], v["attribution"]) for v in VARIANTS.values()})
PROXIES = sorted({influence_model(d) for entry, _ in SCORED for d in averaged(entry)} | {PROXY})
check_agreement()
# The groups of results in the report, which shows them by name.
CATEGORIES = {
    "trained": "1. What was trained",
    "found": "2. What was found",
    "changed": "3. What changed",
    "cost": "4. What it cost",
}


include: "common/run.smk"


wildcard_constraints:
    tokenizer=names(config["tokenizers"]),
    model=names(config["models"]),
    method=names(config["methods"]),
    seed="|".join(str(seed) for seed in SEEDS),
    direction=names(config["influence"]["directions"], config["influence"]["averages"]),
    attribution="loss|position",
    selection=names(config["influence"]["selections"]),
    variant=names(config["influence"]["variants"]),
    queries=names(config["queries"]),
    reward=names(config["rewards"]),
    benchmark=names(config["benchmarks"]),
    classifier="explicit|implicit",
    unit="document|block",
    download=names(DOWNLOADS),
    repository="|".join(map(re.escape, REPOSITORIES)) or "none",
    shard=r"\d{5}",
