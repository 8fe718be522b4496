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

from ifguide.artifacts import canonical_json, read_json, text_sha256
from ifguide.config_schema import find_mistake, with_defaults
from ifguide.errors import InputError
from ifguide.published_detoxify import PUBLISHED
from ifguide.repositories import Repository, check_patterns

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
PROXY_DIRECTORY = f"{RESULTS}/models/{PROXY}/none/{PROXY_SEED}"
INFLUENCE = f"{RESULTS}/influence/{PROXY}"
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
    for name, direction in influence["directions"].items():
        for side in ("toxic", "safe"):
            if direction[side]:
                named.append(
                    (f"influence.directions.{name}.{side}", direction[side], config["queries"])
                )
    for name, selection in influence["selections"].items():
        key = f"influence.selections.{name}.direction"
        named.append((key, selection["direction"], influence["directions"]))
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
    block_size = config["corpus"]["block_size"]
    for name in {proxy, *config["evaluation"]["models"]}:
        for key in ("max_position_embeddings", "n_positions"):
            positions = models[name]["architecture"].get(key, block_size)
            if positions < block_size:
                refuse_config(
                    "corpus.block_size",
                    f"{block_size} is longer than models.{name}.architecture.{key}, {positions}",
                )


def check_bounds():
    """Refuse a range that holds nothing."""
    for section in ("queries", "benchmarks"):
        for name, entry in config[section].items():
            for key in ("part", "prompt_toxicity", "continuation_toxicity"):
                if key in entry and entry[key][0] >= entry[key][1]:
                    refuse_config(f"{section}.{name}.{key}", f"{entry[key]} holds nothing")


def data_entries():
    """Every entry of the config that names data files, with its key."""
    return [
        *((f"corpus.sources.{entry['name']}", entry) for entry in config["corpus"]["sources"]),
        *((f"queries.{name}", entry) for name, entry in config["queries"].items()),
        *(
            (f"benchmarks.{name}", entry)
            for name, entry in config["benchmarks"].items()
            if "files" in entry
        ),
        *(
            (f"classifiers.{name}.train.sources.{source['format']}", source)
            for name, entry in config["classifiers"].items()
            for source in entry.get("train", {}).get("sources", [])
        ),
    ]


def check_paths():
    """Refuse a path that nothing is at, and that no download or rule makes."""
    for key, entry in data_entries():
        if "hub" in entry:
            try:
                check_patterns(data_repository(entry))
            except InputError as error:
                refuse_config(f"{key}.files", error)
        else:
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


def check_implicit_classifier():
    """Refuse a directory that is not the classifier that the config describes."""
    implicit = config["classifiers"]["implicit"]
    folder = implicit.get("path")
    if not folder:
        return
    try:
        described = read_json(Path(folder, "config.json"))
    except (OSError, InputError):
        refuse_config("classifiers.implicit.path", f"{folder} has no config.json that can be read")
    if not glob.glob(os.path.join(glob.escape(folder), "*.safetensors")):
        refuse_config(
            "classifiers.implicit.path",
            f"{folder} has no .safetensors weights; pickled ones are never loaded",
        )
    labels = list(described.get("id2label", {0: "LABEL_0", 1: "LABEL_1"}).values())
    label = implicit.get("toxic_label", 1)
    if not 2 <= len(labels) > label:
        refuse_config(
            "classifiers.implicit.toxic_label",
            f"{label}, but the classifier in {folder} has the labels {', '.join(map(str, labels))}",
        )


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


# --- the hub --------------------------------------------------------------------------------------

TOKENIZER_FILES = ("*.json", "*.txt", "*.model")
CLASSIFIER_FILES = ("*.safetensors", *TOKENIZER_FILES)
ARCHITECTURE_FILES = ("config.json",)


def data_repository(entry):
    return Repository("dataset", entry["hub"], entry["revision"], (entry["files"],))


def model_repository(entry, files):
    """Those files of a hub model that one use of it needs."""
    return Repository("model", entry["hub"], entry["revision"], files)


def flat_name(repository):
    return "--".join(Path(repository.hub).parts)


def repository_directory(repository):
    """Where the files of a hub repository lie, once they are fetched."""
    folder = flat_name(repository)
    return os.path.join(
        config["data_dir"], "hub", f"{repository.kind}s", folder, repository.revision
    )


def repository_name(repository):
    short = text_sha256(canonical(vars(repository)))[:12]
    return f"{flat_name(repository)}-{short}"


def repository_record(repository):
    """The file that a rule waits for before it reads what a repository holds."""
    return f"{RESULTS}/fetched/hub/{repository_name(repository)}.json"


def tokenizer_of(name):
    """The settings of a tokenizer; a repository stands as the directory that it is fetched to."""
    entry = config["tokenizers"][name]
    if "hub" not in entry:
        return entry
    return {"path": repository_directory(model_repository(entry, TOKENIZER_FILES))}


def tokenizer_input(name):
    """What a rule must wait for before it takes or trains a tokenizer, the documents apart."""
    entry = config["tokenizers"][name]
    if "hub" in entry:
        return repository_record(model_repository(entry, TOKENIZER_FILES))
    return f"{entry['path']}/tokenizer.json" if "path" in entry else []


def architecture_of(model):
    """A model's architecture; a repository's stands as the configuration file fetched from it."""
    architecture = config["models"][model]["architecture"]
    if "hub" not in architecture:
        return architecture
    folder = repository_directory(model_repository(architecture, ARCHITECTURE_FILES))
    return {"file": f"{folder}/config.json", **without(architecture, "hub", "revision")}


def architecture_inputs(model):
    """What rules must wait for before they read a model's architecture."""
    architecture = config["models"][model]["architecture"]
    if "hub" in architecture:
        return [repository_record(model_repository(architecture, ARCHITECTURE_FILES))]
    return [architecture["file"]] if "file" in architecture else []


def repositories():
    """Each repository that the config names, by name, and how a user can do without it."""
    found = [
        (data_repository(entry), f"give local `files` in {key}, without `hub`")
        for key, entry in data_entries()
        if "hub" in entry
    ]
    for name, entry in config["tokenizers"].items():
        if "hub" in entry:
            instead = f"give a local directory in tokenizers.{name}.path"
            found.append((model_repository(entry, TOKENIZER_FILES), instead))
    for name, entry in config["models"].items():
        if "hub" in entry["architecture"]:
            instead = f"give a local config.json in models.{name}.architecture.file"
            found.append((model_repository(entry["architecture"], ARCHITECTURE_FILES), instead))
    explicit, implicit = config["classifiers"]["explicit"], config["classifiers"]["implicit"]
    if "hub" in implicit:
        instead = "give a local directory in classifiers.implicit.path"
        found.append((model_repository(implicit, CLASSIFIER_FILES), instead))
    if "hub" in explicit:
        instead = "give a local checkpoint in classifiers.explicit.checkpoint"
        found.append((detoxify_base(explicit["hub"]), instead))
    return {repository_name(repository): (repository, instead) for repository, instead in found}


def detoxify_base(name):
    """The model whose configuration and tokenizer a published Detoxify model uses."""
    return model_repository(PUBLISHED[name]["base"], TOKENIZER_FILES)


def all_downloads():
    """The downloads of the config, and the weights of a published Detoxify model."""
    downloads = dict(config["downloads"])
    name = config["classifiers"]["explicit"].get("hub")
    if name:
        url = PUBLISHED[name]["url"]
        weights = {"url": url, "sha256": None, "path": f"detoxify/{Path(url).name}"}
        # A download of this name in the config stands for a mirror, or pins the checksum.
        downloads.setdefault(f"detoxify-{name}", weights)
    return downloads


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
    if "hub" in entry:
        # A pattern, because only the hub knows which files match.
        folder = repository_directory(data_repository(entry))
        return [os.path.join(glob.escape(folder), entry["files"])]
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
    if "hub" in entry:
        return [repository_record(data_repository(entry))]
    downloads = downloads_of(pattern_of(entry, key))
    if downloads:
        return [f"{RESULTS}/fetched/{name}.json" for name in downloads]
    return paths_of(entry, key)


def source_inputs(entries, key):
    return [
        path
        for entry in entries
        for path in inputs_of(entry, f"{key}.{entry.get('name', entry.get('format', ''))}")
    ]


def source_paths(entries, key):
    """One list of paths for each entry, as JSON."""
    return canonical(
        [
            paths_of(entry, f"{key}.{entry.get('name', entry.get('format', ''))}")
            for entry in entries
        ]
    )


check_names()
check_models()
check_bounds()
check_paths()
check_implicit_classifier()

DOWNLOADS = all_downloads()
REPOSITORIES = repositories()


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


def longest_continuation(benchmark):
    """The new tokens after a prompt, and the config key that says so."""
    own = config["benchmarks"][benchmark].get("generation", {})
    if "max_new_tokens" in own:
        key = f"benchmarks.{benchmark}.generation.max_new_tokens"
        return {"tokens": own["max_new_tokens"], "key": key}
    return {
        "tokens": config["generation"]["max_new_tokens"],
        "key": "generation.max_new_tokens",
    }


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


def selection_folder(selection):
    direction = config["influence"]["selections"][selection]["direction"]
    return f"{INFLUENCE}/{direction}/{selection}"


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
        f"{INFLUENCE}/{direction}/scores/{attribution}/shard-{shard}.{suffix}"
        for shard in shards(config["corpus"]["shards"])
    ]


EVALUATED = [
    (model, method, seed)
    for model in config["evaluation"]["models"]
    for method in config["evaluation"]["methods"]
    for seed in SEEDS
]
# Every (direction, attribution) whose scores something needs: those of selections, and those that
# are only measured against the truth.
SCORED = sorted(
    {(s["direction"], s["attribution"]) for s in config["influence"]["selections"].values()}
    | {
        (direction, attribution)
        for direction, entry in config["influence"]["directions"].items()
        for attribution in entry["measure"]
    }
)


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
    packages = (
        "snakemake",
        "torch",
        "transformers",
        "tokenizers",
        "huggingface_hub",
        "detoxify",
        "numpy",
    )
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
    direction=names(config["influence"]["directions"]),
    attribution="loss|position",
    selection=names(config["influence"]["selections"]),
    queries=names(config["queries"]),
    benchmark=names(config["benchmarks"]),
    classifier="explicit|implicit",
    download=names(DOWNLOADS),
    repository="|".join(map(re.escape, REPOSITORIES)) or "none",
    shard=r"\d{5}",
