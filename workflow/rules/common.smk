# The only functions of the workflow: paths, canonical settings, and the code that a rule depends on.

import ast
import functools
import glob
import os
import re
import sys
from pathlib import Path

import yaml

SOURCE = Path(workflow.current_basedir).parent.parent
sys.path.insert(0, str(SOURCE / "scripts"))

from ifguide.artifacts import canonical_json
from ifguide.config_schema import find_mistake, with_defaults

# Scripts run with the interpreter that runs Snakemake, unless conda or a container provides one.
if not workflow.deployment_settings.deployment_method:
    os.environ.update(
        PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    )
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def refuse_config(key, problem):
    """Stop with one line, which a traceback through the workflow would only bury."""
    raise SystemExit(f"error: config: {key}: {problem}")


def check_config():
    """Refuse a config that breaks the schema; fill in every default."""
    schema = yaml.safe_load((SOURCE / "workflow/schemas/config.schema.yaml").read_text("utf-8"))
    mistake = find_mistake(schema, dict(config))
    if mistake:
        raise SystemExit(f"error: config: {mistake}")
    filled = with_defaults(schema, dict(config))
    config.clear()
    config.update(filled)


check_config()

RESULTS = f"results/{config['experiment']}"
LOGS = f"logs/{config['experiment']}"
BENCHMARKS = f"{LOGS}/benchmarks"
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


def names(*sections):
    """A wildcard constraint: any of the names that the config gives in these sections."""
    found = sorted({name for section in sections for name in section}, key=len, reverse=True)
    return "|".join(found) or "none"


def benchmarks_of(*kinds):
    return [name for name, entry in config["benchmarks"].items() if entry["kind"] in kinds]


def check_names():
    """Refuse a name that nothing in the config defines."""
    models, methods, influence = config["models"], config["methods"], config["influence"]
    named = [("influence.model", influence["model"], models)]
    for name in config["evaluation"]["models"]:
        named.append(("evaluation.models", name, models))
    for name in config["evaluation"]["methods"]:
        named.append(("evaluation.methods", name, methods))
    for name, model in models.items():
        named.append((f"models.{name}.tokenizer", model["tokenizer"], config["tokenizers"]))
    for name, entry in config["queries"].items():
        if "match" in entry:
            named.append((f"queries.{name}.match.to", entry["match"]["to"], UNMATCHED_QUERIES))
    for name, direction in influence["directions"].items():
        for key, known in (
            ("toxic", config["queries"]),
            ("safe", config["queries"]),
            ("model", models),
        ):
            if direction[key]:
                named.append((f"influence.directions.{name}.{key}", direction[key], known))
    for name, average in influence["averages"].items():
        if name in influence["directions"]:
            refuse_config(f"influence.averages.{name}", "is also the name of a direction")
        key = f"influence.averages.{name}.directions"
        named += [(key, direction, influence["directions"]) for direction in average["directions"]]
    scored = {**influence["directions"], **influence["averages"]}
    for section in ("selections", "variants"):
        for name, entry in influence[section].items():
            named.append((f"influence.{section}.{name}.direction", entry["direction"], scored))
    for name, method in methods.items():
        if "suppress" in method:
            key = f"methods.{name}.suppress.selection"
            named.append((key, method["suppress"]["selection"], influence["selections"]))
        if "start_from" in method:
            named.append((f"methods.{name}.start_from", method["start_from"], methods))
    named.append(("report.benchmark", config["report"]["benchmark"], benchmarks_of("prompts")))
    if config["report"]["selection"]:
        key = "report.selection"
        named.append((key, config["report"]["selection"], influence["selections"]))
    for number, entry in enumerate(config["report"]["study"]):
        key = f"report.study.{number}.variants"
        named += [(key, variant, influence["variants"]) for variant in entry["variants"]]
    for key, name, known in named:
        if name not in known:
            refuse_config(key, f"{name!r} is none of {', '.join(sorted(known)) or 'nothing'}")


def check_models():
    """Refuse models and methods that cannot be trained, before anything is."""
    models, methods = config["models"], config["methods"]
    for name in methods:
        chain = [name]
        while following := methods[chain[-1]].get("start_from"):
            if following in chain:
                refuse_config(f"methods.{name}.start_from", "begins with a model made from itself")
            chain.append(following)
    proxy = config["influence"]["model"]
    suppressing = any("suppress" in methods[name] for name in config["evaluation"]["methods"])
    for name in config["evaluation"]["models"]:
        if suppressing and models[name]["tokenizer"] != models[proxy]["tokenizer"]:
            refuse_config(
                f"models.{name}.tokenizer",
                f"is not that of {proxy}, which scores the tokens; give both the same tokenizer",
            )
    proxies = {proxy, *(d["model"] or proxy for d in config["influence"]["directions"].values())}
    for name in sorted(proxies):
        if models[name]["tokenizer"] != models[proxy]["tokenizer"]:
            refuse_config(
                f"models.{name}.tokenizer",
                f"is not that of {proxy}; models that score tokens need the same tokenizer",
            )
    block_size = config["corpus"]["block_size"]
    for name in {*proxies, *config["evaluation"]["models"]}:
        for key in ("max_position_embeddings", "n_positions"):
            positions = models[name]["architecture"].get(key, block_size)
            if positions < block_size:
                refuse_config(
                    "corpus.block_size",
                    f"{block_size} is longer than models.{name}.architecture.{key}, {positions}",
                )


def check_study():
    """Refuse comparisons that this corpus, or these scores, cannot give."""
    influence = config["influence"]
    if influence["variants"] and not HAS_TRUTH:
        refuse_config("influence.variants", "no source of corpus.sources has `spans` to judge by")
    for name, entry in influence["directions"].items():
        try:
            re.compile(entry["layers"])
        except re.error as error:
            refuse_config(f"influence.directions.{name}.layers", f"no regular expression ({error})")
    for name, entry in influence["variants"].items():
        if entry["unmoved"] and entry["attribution"] != "position":
            refuse_config(f"influence.variants.{name}.unmoved", "only `position` scores are moved")
    suppressing = any("suppress" in config["methods"][m] for m in config["evaluation"]["methods"])
    if influence["scores"]["blocks"] and suppressing:
        refuse_config(
            "influence.scores.blocks",
            "a selection needs the scores of all blocks; set null, or compare only `none`",
        )


def check_agreement():
    """Refuse a comparison of factors for a direction that has none."""
    direction = config["influence"]["selections"][shown_selection()]["direction"]
    entry = config["influence"]["directions"].get(direction)
    if config["report"]["agreement_blocks"] and (not entry or entry["hessian"] == "identity"):
        refuse_config(
            "report.agreement_blocks",
            f"{direction}, whose selection the report shows, uses no factors; set 0",
        )


def check_queries():
    """Refuse query sets that do not say which side of a pair they take, or say it in vain."""
    for name, entry in config["queries"].items():
        if (entry["format"] == "paradetox") != ("side" in entry):
            refuse_config(f"queries.{name}.side", "goes with the format paradetox, which needs it")


def check_bounds():
    """Refuse a range that holds nothing."""
    for section in ("queries", "benchmarks"):
        for name, entry in config[section].items():
            for key in ("part", "prompt_toxicity", "continuation_toxicity"):
                if key in entry and entry[key][0] >= entry[key][1]:
                    refuse_config(f"{section}.{name}.{key}", f"{entry[key]} holds nothing")


def check_paths():
    """Refuse a path that nothing is at, and that no download or rule makes."""
    entries = [
        *((f"corpus.sources.{entry['name']}", entry) for entry in config["corpus"]["sources"]),
        *((f"queries.{name}", entry) for name, entry in config["queries"].items()),
        *((f"benchmarks.{name}", entry) for name, entry in config["benchmarks"].items()),
        *(
            (f"classifiers.{name}.train.sources.{number}", source)
            for name, entry in config["classifiers"].items()
            for number, source in enumerate(entry.get("train", {}).get("sources", []))
        ),
    ]
    for key, entry in entries:
        if "files" in entry:
            paths_of(entry, key)
    for key, path in [
        ("classifiers.explicit.checkpoint", config["classifiers"]["explicit"].get("checkpoint")),
        ("classifiers.implicit.path", config["classifiers"]["implicit"].get("path")),
        *(
            (f"tokenizers.{name}.path", entry.get("path"))
            for name, entry in config["tokenizers"].items()
        ),
        *(
            (f"models.{name}.architecture.file", entry["architecture"].get("file"))
            for name, entry in config["models"].items()
        ),
    ]:
        if path and not os.path.exists(path):
            refuse_config(key, f"{path} does not exist")


canonical = canonical_json


def settings_of(**sections):
    return canonical(sections)


def always(**sections):
    """Settings that no wildcard changes, as a function: braces in a plain string are wildcards."""
    return lambda wildcards: canonical(sections)


# --- code ---------------------------------------------------------------------------------------


@functools.cache
def modules_of(path):
    """The modules of this project that a Python file imports, anywhere in it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


# --- files that the config names ------------------------------------------------------------------


def pattern_of(entry, key):
    try:
        return entry["files"].format(planted=PLANTED, data_dir=config["data_dir"])
    except (KeyError, IndexError, ValueError):
        refuse_config(
            f"{key}.files",
            f"{entry['files']!r}: only {{planted}} and {{data_dir}} are filled in",
        )


def downloads_of(pattern):
    """The downloads whose file a pattern in the config stands for."""
    return [
        name
        for name, download in config["downloads"].items()
        if Path(config["data_dir"], download["path"]).match(pattern)
    ]


def paths_of(entry, key):
    """The paths that an entry's `files` names, whether they exist yet or not."""
    pattern = pattern_of(entry, key)
    if pattern.startswith(f"{PLANTED}/"):
        if Path(pattern).name not in PLANTED_FILES:
            refuse_config(
                f"{key}.files",
                f"the planted corpus has no file {Path(pattern).name}; it has {', '.join(PLANTED_FILES)}",
            )
        return [pattern]
    downloads = downloads_of(pattern)
    if downloads:
        return sorted(
            os.path.join(config["data_dir"], config["downloads"][name]["path"])
            for name in downloads
        )
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        refuse_config(f"{key}.files", f"no file matches {pattern}")
    return found


def inputs_of(entry, key):
    """What a rule must wait for before it reads an entry's files."""
    downloads = downloads_of(pattern_of(entry, key))
    if downloads:
        return [f"{RESULTS}/fetched/{name}.json" for name in downloads]
    return paths_of(entry, key)


def source_inputs(entries, key):
    return [
        path
        for entry in entries
        if "files" in entry
        for path in inputs_of(entry, f"{key}.{entry.get('name', entry.get('format', ''))}")
    ]


def source_paths(entries, key):
    """One list of paths for each entry, as JSON."""
    return canonical(
        [
            (
                paths_of(entry, f"{key}.{entry.get('name', entry.get('format', ''))}")
                if "files" in entry
                else []
            )
            for entry in entries
        ]
    )


check_names()
check_models()
check_queries()
check_study()
check_bounds()
check_paths()


# --- what a result depends on --------------------------------------------------------------------


def without(entry, *keys):
    return {key: value for key, value in entry.items() if key not in keys}


def shards(count):
    return [f"{shard:05d}" for shard in range(count)]


def corpus_of(model):
    return f"{RESULTS}/corpus/{config['models'][model]['tokenizer']}"


def corpus_files(tokenizer, *columns):
    folder = f"{RESULTS}/corpus/{tokenizer}"
    return [f"{folder}/meta.json"] + [
        f"{folder}/{column}/shard-{shard}.npy"
        for column in columns
        for shard in shards(config["corpus"]["shards"])
    ]


def model_files(model, method, seed):
    folder = f"{RESULTS}/models/{model}/{method}/{seed}"
    return [f"{folder}/{name}" for name in ("model.safetensors", "config.json", "training.json")]


def model_directory(wildcards):
    return f"{RESULTS}/models/{wildcards.model}/{wildcards.method}/{wildcards.seed}"


def proxy_directory(wildcards):
    return f"{RESULTS}/models/{wildcards.model}/none/{PROXY_SEED}"


def training_of(model, method):
    """The training settings: the defaults, what the model changes, then what the method does."""
    return {
        **config["training"],
        **config["models"][model].get("training", {}),
        **config["methods"][method].get("training", {}),
    }


def training_options(wildcards):
    """The mask and the model that a method begins with, where it has them."""
    options = []
    if selection_of(wildcards.method):
        options += ["--mask", selection_of(wildcards.method)]
    if start := config["methods"][wildcards.method].get("start_from"):
        options += ["--start-from", f"{RESULTS}/models/{wildcards.model}/{start}/{wildcards.seed}"]
    return options


def name_of_model(path):
    """model/method/seed of a file in a model directory."""
    return "/".join(Path(path).parts[-4:-1])


def gradient_file(wildcards, side):
    queries = config["influence"]["directions"][wildcards.direction][side]
    folder = f"{RESULTS}/influence/{wildcards.model}/gradients"
    return f"{folder}/{queries}.safetensors" if queries else []


def averaged(direction):
    """The directions whose mean scores an entry of `averages` has; of a direction, itself."""
    average = config["influence"]["averages"].get(direction)
    return average["directions"] if average else [direction]


def influence_model(direction):
    """The model that a direction belongs to; an average stands in the folder of its first one."""
    return config["influence"]["directions"][averaged(direction)[0]]["model"] or PROXY


def influence_folder(direction):
    return f"{RESULTS}/influence/{influence_model(direction)}/{direction}"


def selection_folder(selection):
    direction = config["influence"]["selections"][selection]["direction"]
    return f"{influence_folder(direction)}/{selection}"


def variant_file(variant):
    entry = config["influence"]["variants"][variant]
    folder = influence_folder(entry["direction"])
    return f"{folder}/scores/{entry['attribution']}/{variant}/attribution.json"


def spelled_out(variant):
    """The settings of a variant as text, by the columns of the study's table."""
    entry = config["influence"]["variants"][variant]
    parts = [config["influence"]["directions"][name] for name in averaged(entry["direction"])]

    def joined(texts):
        return " + ".join(dict.fromkeys(texts))

    weight = {"none": "none", "inverse_document_frequency": "IDF"}[entry["token_weight"]]
    if weight != "none" and entry["token_weight_power"] != 1:
        weight += f"^{entry['token_weight_power']:g}"
    return {
        "scores": f"mean of {len(parts)}" if len(parts) > 1 else "one",
        "proxy": joined(part["model"] or PROXY for part in parts),
        "toxic": joined(part["toxic"] for part in parts),
        "safe": joined(part["safe"] or "none" for part in parts),
        "hessian": joined(part["hessian"] for part in parts),
        "relative_damping": joined(
            "–" if part["hessian"] == "identity" else f"{part['relative_damping']:g}"
            for part in parts
        ),
        "layers": joined(part["layers"] or "all" for part in parts),
        "attribution": entry["attribution"] + (", unmoved" if entry["unmoved"] else ""),
        "pooling": f"{entry['pooling']:g}",
        "token_weight": weight,
    }


def studied_queries(variants):
    entries = [config["influence"]["variants"][variant] for variant in variants]
    directions = [
        config["influence"]["directions"][name]
        for entry in entries
        for name in averaged(entry["direction"])
    ]
    return sorted({d[side] for d in directions for side in ("toxic", "safe")} - {None})


def agreement_file():
    """The comparison of rankings by the factors' sample, where the config asks for it."""
    if not config["report"]["agreement_blocks"]:
        return []
    direction = config["influence"]["selections"][shown_selection()]["direction"]
    return f"{influence_folder(direction)}/ranking_agreement.csv"


def shown_selection():
    """The selection that the report shows: the order of keys in the config must not choose it."""
    compared = [
        config["methods"][name]["suppress"]["selection"]
        for name in config["evaluation"]["methods"]
        if "suppress" in config["methods"][name]
    ]
    wanted = config["report"]["selection"]
    return wanted or next(iter(compared), min(config["influence"]["selections"]))


def selection_of(method):
    suppress = config["methods"][method].get("suppress")
    return suppress and selection_folder(suppress["selection"])


def score_files(direction, attribution, suffix="npy"):
    return [
        f"{influence_folder(direction)}/scores/{attribution}/shard-{shard}.{suffix}"
        for shard in shards(config["corpus"]["shards"])
    ]


EVALUATED = [
    (model, method, seed)
    for model in config["evaluation"]["models"]
    for method in config["evaluation"]["methods"]
    for seed in SEEDS
]
# The (direction, attribution) pairs whose scores are measured as they are, and all that are scored.
MEASURED = sorted(
    {(s["direction"], s["attribution"]) for s in config["influence"]["selections"].values()}
    | {
        (direction, attribution)
        for direction, entry in config["influence"]["directions"].items()
        for attribution in entry["measure"]
    }
)
SCORED = sorted(
    {*MEASURED}
    | {(v["direction"], v["attribution"]) for v in config["influence"]["variants"].values()}
)
PROXIES = sorted({influence_model(d) for entry, _ in SCORED for d in averaged(entry)} | {PROXY})
check_agreement()


# --- messages -------------------------------------------------------------------------------------


def write_run_config():
    import importlib.metadata
    import platform
    import subprocess

    commit = subprocess.run(
        ["git", "-C", str(SOURCE), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ("snakemake", "torch", "transformers", "tokenizers", "datasets", "detoxify", "numpy")
    record = {
        "config": config,
        "commit": commit.stdout.strip() or None,
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "seed": SEED,
        "training_seeds": SEEDS,
        "hardware": {
            "machine": platform.machine(),
            "processor": platform.processor(),
            "cores": os.cpu_count(),
        },
    }
    os.makedirs(RESULTS, exist_ok=True)
    path = Path(RESULTS, "run_config.yaml")
    temporary = path.with_suffix(".partial")
    temporary.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")
    os.replace(temporary, path)


def print_results():
    table = Path(RESULTS, "results_table.txt")
    if table.exists():
        print(table.read_text(encoding="utf-8"))
        print(
            f"report   {RESULTS}/report.html\nfigures  {RESULTS}/figures/\ntable    {RESULTS}/summary.csv"
        )


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
    benchmark=names(config["benchmarks"]),
    classifier="explicit|implicit",
    download=names(config["downloads"]),
    shard=r"\d{5}",
