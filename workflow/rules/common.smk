# The only functions of the workflow: paths, canonical settings, and the code that a rule depends on.

import ast
import functools
import glob
import os
import platform
import re
import shlex
import sys
from pathlib import Path

import yaml

SOURCE = Path(workflow.current_basedir).parent.parent
sys.path.insert(0, str(SOURCE / "scripts"))

from ifguide.architectures import longest_block, read_architecture
from ifguide.artifacts import canonical_json, read_json, text_sha256, write_text
from ifguide.config_schema import find_mistake, with_defaults
from ifguide.errors import InputError
from ifguide.provenance import code_state, machine, package_versions, thread_settings
from ifguide.published_detoxify import PUBLISHED
from ifguide.repositories import Repository, check_patterns
from ifguide.run_lock import hold_run_lock

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
        for step in ("suppress", "filter"):
            if "selection" in method.get(step, {}):
                key = f"methods.{name}.{step}.selection"
                named.append((key, method[step]["selection"], influence["selections"]))
        for key in ("start_from", "decode"):
            if isinstance(method.get(key), str):
                named.append((f"methods.{name}.{key}", method[key], methods))
        if "rad" in method:
            named.append((f"methods.{name}.rad.reward", method["rad"]["reward"], config["rewards"]))
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
        while isinstance(following := methods[chain[-1]].get("start_from"), str):
            if following in chain:
                refuse_config(f"methods.{name}.start_from", "begins with a model made from itself")
            chain.append(following)
    proxy = config["influence"]["model"]
    # The mask of a selection moves to other tokens; what else a selection can do does not.
    bound = [
        name
        for name in config["evaluation"]["methods"]
        if "selection" in methods[name].get("filter", {})
        or methods[name].get("suppress", {}).get("tokens") == "random"
    ]
    for name in config["evaluation"]["models"]:
        if bound and models[name]["tokenizer"] != models[proxy]["tokenizer"]:
            refuse_config(
                f"models.{name}.tokenizer",
                f"is not that of {proxy}, which scores the tokens, as methods.{bound[0]} needs; give "
                "both the same tokenizer",
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
        positions = positions_of(name)
        if positions is not None and positions < block_size:
            refuse_config(
                "corpus.block_size",
                f"{block_size} is longer than the {positions} positions of models.{name}",
            )


def positions_of(model):
    """The positions that a model gives itself, None where they follow the block or are not known."""
    entry = config["models"][model]
    key = f"models.{model}"
    try:
        if "path" not in entry:
            return longest_block(read_architecture(entry["architecture"], f"{key}.architecture"))
        description = Path(entry["path"], "config.json")
        if not description.is_file():
            refuse_config(f"{key}.path", f"{entry['path']} is not the directory of a model")
        return longest_block(read_json(description))
    except InputError as error:
        raise SystemExit(f"error: config: {str(error).removeprefix('config key ')}") from None


def check_study():
    """Refuse comparisons that this corpus, or these scores, cannot give."""
    influence = config["influence"]
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


def check_methods():
    """Refuse a method whose parts do not fit together or have nothing to work on."""
    methods = config["methods"]
    for name, method in methods.items():
        for key, alone in (("dpo", ("start_from",)), ("decode", ("rad",)), ("rad", ("decode",))):
            if key not in method:
                continue
            for other in method:
                if other not in (key, *alone):
                    refuse_config(
                        f"methods.{name}.{other}",
                        f"does not go with {key}; make it another method, and name that one in"
                        f" {'start_from' if key == 'dpo' else 'decode'}",
                    )
            for other in alone:
                if other not in method:
                    refuse_config(f"methods.{name}.{other}", f"missing: {key} needs it")
        for key in ("start_from", "decode"):
            base = method.get(key)
            if isinstance(base, str) and "decode" in methods[base]:
                refuse_config(
                    f"methods.{name}.{key}",
                    f"{base!r} acts while text is sampled and has no weights of its own",
                )
        suppress = method.get("suppress")
        if suppress and "filter" in method:
            refuse_config(
                f"methods.{name}",
                "give only one of filter, or suppress: a mask speaks of the whole corpus",
            )
        if suppress and suppress["tokens"] == "truth":
            if "selection" in suppress:
                refuse_config(f"methods.{name}.suppress.selection", "is not used by tokens: truth")
            if not HAS_TRUTH:
                refuse_config(
                    f"methods.{name}.suppress.tokens",
                    "truth needs a corpus source whose `spans` are known",
                )
        elif suppress and "selection" not in suppress:
            refuse_config(
                f"methods.{name}.suppress.selection",
                "missing: Name of an entry of `influence.selections`.",
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
        *(
            (f"methods.{name}.dpo", pairs_of(name))
            for name, method in config["methods"].items()
            if "dpo" in method
        ),
        *(
            (f"rewards.{name}.train.sources.{number}", source)
            for name, entry in config["rewards"].items()
            for number, source in enumerate(entry["train"]["sources"])
        ),
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
    for name, method in config["methods"].items():
        if "words" in method.get("filter", {}):
            paths_of(method["filter"], f"methods.{name}.filter", "words")
    for key, path in [
        ("classifiers.explicit.checkpoint", config["classifiers"]["explicit"].get("checkpoint")),
        ("classifiers.implicit.path", config["classifiers"]["implicit"].get("path")),
        *(
            (f"tokenizers.{name}.path", entry.get("path"))
            for name, entry in config["tokenizers"].items()
        ),
        *(
            (f"models.{name}.architecture.file", entry.get("architecture", {}).get("file"))
            for name, entry in config["models"].items()
        ),
        *(
            (
                f"methods.{name}.start_from.path",
                os.path.join(entry["start_from"]["path"], "config.json"),
            )
            for name, entry in config["methods"].items()
            if isinstance(entry.get("start_from"), dict)
        ),
        *((f"models.{name}.path", entry.get("path")) for name, entry in config["models"].items()),
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


def growing(amount):
    """Memory or time: once the amount at the first attempt, twice at the second, …"""
    return lambda wildcards, attempt: amount * attempt


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


def repository_directory(repository):
    """Where the files of a hub repository lie, once they are fetched."""
    return os.path.join(
        config["data_dir"], "hub", f"{repository.kind}s", repository.folder, repository.revision
    )


def repository_name(repository):
    short = text_sha256(canonical(vars(repository)))[:12]
    return f"{repository.folder}-{short}"


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
    """A model's architecture; that of a directory or repository is its configuration file."""
    entry = config["models"][model]
    architecture = entry.get("architecture") or {"file": os.path.join(entry["path"], "config.json")}
    if "hub" not in architecture:
        return architecture
    folder = repository_directory(model_repository(architecture, ARCHITECTURE_FILES))
    return {"file": f"{folder}/config.json", **without(architecture, "hub", "revision")}


def architecture_inputs(model):
    """What rules must wait for before they read a model's architecture."""
    architecture = config["models"][model].get("architecture") or architecture_of(model)
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
        if "hub" in entry.get("architecture", {}):
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


def pattern_of(entry, key, field="files"):
    try:
        return entry[field].format(planted=PLANTED, data_dir=config["data_dir"])
    except (KeyError, IndexError, ValueError):
        refuse_config(
            f"{key}.{field}",
            f"{entry[field]!r}: only {{planted}} and {{data_dir}} are filled in",
        )


def downloads_of(pattern):
    """The downloads whose file a pattern in the config stands for."""
    return [
        name
        for name, download in config["downloads"].items()
        if Path(config["data_dir"], download["path"]).match(pattern)
    ]


def paths_of(entry, key, field="files"):
    """The paths that a field of an entry names, whether they exist yet or not."""
    if "hub" in entry:
        # A pattern, because only the hub knows which files match.
        folder = repository_directory(data_repository(entry))
        return [os.path.join(glob.escape(folder), entry["files"])]
    pattern = pattern_of(entry, key, field)
    if pattern.startswith(f"{PLANTED}/"):
        if Path(pattern).name not in PLANTED_FILES:
            refuse_config(
                f"{key}.{field}",
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
        refuse_config(f"{key}.{field}", f"no file matches {pattern}")
    return found


def inputs_of(entry, key, field="files"):
    """What a rule must wait for before it reads an entry's files."""
    if "hub" in entry:
        return [repository_record(data_repository(entry))]
    downloads = downloads_of(pattern_of(entry, key, field))
    if downloads:
        return [f"{RESULTS}/fetched/{name}.json" for name in downloads]
    return paths_of(entry, key, field)


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


def pairs_of(method):
    """Where the pairs of a method come from, as an entry with `files`."""
    settings = config["methods"][method]["dpo"]
    return {
        "files": settings["pairs"],
        **{key: settings[key] for key in ("format", "part", "limit") if key in settings},
    }


check_names()
check_models()
check_queries()
check_study()
check_methods()
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


def training_corpus(model, method):
    """The corpus that a method trains on: the whole one, or what its filter leaves of it."""
    whole = corpus_of(model)
    return f"{whole}/filtered/{method}" if "filter" in config["methods"][method] else whole


def corpus_files(tokenizer, *columns):
    return column_files(f"{RESULTS}/corpus/{tokenizer}", *columns)


def column_files(folder, *columns):
    return [f"{folder}/meta.json"] + [
        f"{folder}/{column}/shard-{shard}.npy"
        for column in columns
        for shard in shards(config["corpus"]["shards"])
    ]


def weights_of(method):
    """The method whose model a method uses: another one's where it acts while text is sampled."""
    return config["methods"][method].get("decode", method)


def ancestors(method):
    """A method, the one that its model begins with, and so on back to the first."""
    start = config["methods"][method].get("start_from")
    return [method, *(ancestors(start) if isinstance(start, str) else [])]


def methods_with(key):
    return [name for name, method in config["methods"].items() if key in method]


def only(names_of_methods):
    """A wildcard constraint: one of these names, or nothing at all where there is none."""
    return names(names_of_methods) if names_of_methods else "(?!)"


def model_files(model, method, seed):
    folder = f"{RESULTS}/models/{model}/{weights_of(method)}/{seed}"
    return [f"{folder}/{name}" for name in ("model.safetensors", "config.json", "training.json")]


def given_files(model):
    """The files of a model directory that the config names."""
    folder = config["models"][model]["path"]
    return sorted(
        path
        for pattern in ("*.json", "*.safetensors")
        for path in glob.glob(os.path.join(glob.escape(folder), pattern))
    )


def model_directory(wildcards):
    method = weights_of(wildcards.method)
    return f"{RESULTS}/models/{wildcards.model}/{method}/{wildcards.seed}"


def start_directory(wildcards):
    """The model that a method begins with: one made here, or any directory."""
    start = start_of(wildcards.model, wildcards.method)
    if isinstance(start, dict):
        return start["path"]
    return f"{RESULTS}/models/{wildcards.model}/{start}/{wildcards.seed}"


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


def dpo_training_of(model, method):
    """The settings of `training` by which a model is trained on pairs; every step is one batch."""
    own = ("epochs", "batch_size", "learning_rate", "warmup")
    settings = config["methods"][method]["dpo"]
    return {
        **config["training"],
        **config["models"][model].get("training", {}),
        **{key: settings[key] for key in own},
        "max_steps": None,
        "accumulation": 1,
    }


def training_options(wildcards):
    """The mask and the model that a method begins with, where it has them."""
    options = []
    if mask := mask_folder(wildcards.model, wildcards.method):
        options += ["--mask", mask]
    if start_of(wildcards.model, wildcards.method):
        options += ["--start-from", start_directory(wildcards)]
    return options


def start_files(wildcards):
    """The files of the model that a method begins with: one made here, or any directory."""
    start = start_of(wildcards.model, wildcards.method)
    if isinstance(start, dict):
        weights = sorted(glob.glob(f"{glob.escape(start['path'])}/*.safetensors"))
        return [f"{start['path']}/config.json", *weights]
    return model_files(wildcards.model, start, wildcards.seed) if start else []


def reward_of(model, method):
    """The folder of the reward model that a method decodes with, or None."""
    guided = config["methods"][method].get("rad")
    tokenizer = config["models"][model]["tokenizer"]
    return guided and f"{RESULTS}/rewards/{guided['reward']}/{tokenizer}"


def start_of(model, method):
    """The method whose model this one fine-tunes: as the config says, or a model that is given."""
    given = "none" if "path" in config["models"][model] and method != "none" else None
    return config["methods"][method].get("start_from", given)


def launcher(wildcards, resources):
    """Python, or one Python for each process: the GPUs of the job, or its CPU processes."""
    processes = max(resources.get("gpu", 0), resources.get("processes", 1))
    if processes <= 1:
        return ["python"]
    return [
        "python",
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]


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
        if "selection" in config["methods"][name].get("suppress", {})
    ]
    wanted = config["report"]["selection"]
    return wanted or next(iter(compared), min(config["influence"]["selections"]))


def mask_folder(model, method):
    """The folder of the mask that a method suppresses, in the tokens of the model's tokenizer.

    None where the method needs no selection.
    """
    suppress = config["methods"][method].get("suppress", {})
    if "selection" not in suppress:
        return None
    folder = selection_folder(suppress["selection"])
    if suppress["tokens"] == "random":
        return f"{folder}/random"
    tokenizer = config["models"][model]["tokenizer"]
    if tokenizer == config["models"][PROXY]["tokenizer"]:
        return folder
    return f"{folder}/transfer/{tokenizer}"


def mask_files(wildcards):
    """What says which tokens a method suppresses."""
    suppress = config["methods"][wildcards.method].get("suppress")
    if suppress and suppress["tokens"] == "truth":
        return corpus_files(config["models"][wildcards.model]["tokenizer"], "truth")
    folder = mask_folder(wildcards.model, wildcards.method)
    return [f"{folder}/selection.json"] if folder else []


FILTERED = {name: entry["filter"] for name, entry in config["methods"].items() if "filter" in entry}
TOXICITY_SCORES = f"{RESULTS}/corpus/{{tokenizer}}/toxicity/{{unit}}/shard-{{shard}}"


def filter_inputs(wildcards):
    """What tells a filter which documents to drop."""
    entry = FILTERED[wildcards.method]
    if "words" in entry:
        return inputs_of(entry, f"methods.{wildcards.method}.filter", "words")
    if "selection" in entry:
        return [f"{selection_folder(entry['selection'])}/selection.json"]
    return toxicity_scores(wildcards.tokenizer, entry["unit"])


def filter_options(wildcards):
    entry = FILTERED[wildcards.method]
    if "words" in entry:
        return ["--words", *paths_of(entry, f"methods.{wildcards.method}.filter", "words")]
    if "selection" in entry:
        return ["--selection", selection_folder(entry["selection"])]
    return ["--scores", *toxicity_scores(wildcards.tokenizer, entry["unit"])]


def toxicity_scores(tokenizer, unit):
    return [
        TOXICITY_SCORES.format(tokenizer=tokenizer, unit=unit, shard=shard) + ".npy"
        for shard in shards(config["corpus"]["shards"])
    ]


def removal_inputs(wildcards):
    """What says which tokens a method drops or suppresses."""
    if wildcards.method in FILTERED:
        return [f"{training_corpus(wildcards.model, wildcards.method)}/filter.json"]
    return mask_files(wildcards)


def removal_options(wildcards):
    if wildcards.method in FILTERED:
        return ["--filter", *removal_inputs(wildcards)]
    folder = mask_folder(wildcards.model, wildcards.method)
    return ["--mask", folder] if folder else ["--truth"]


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


# --- start and end --------------------------------------------------------------------------------


def begin_run():
    """Lock the results folder and write down what the run is made with; no dry run gets here."""
    try:
        hold_run_lock(f"{RESULTS}/.run.lock")
        write_run_config()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def write_run_config():
    record = {
        "config": config,
        **code_state(SOURCE),
        "command": shlex.join(sys.argv),
        "python": platform.python_version(),
        "packages": package_versions(),
        "seed": SEED,
        "training_seeds": SEEDS,
        # None on a cluster, where each job has its own.
        "cores": workflow.resource_settings.cores,
        "threads": thread_settings(),
        "hardware": machine(),
    }
    write_text(f"{RESULTS}/run_config.yaml", yaml.safe_dump(record, sort_keys=False))


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
    reward=names(config["rewards"]),
    benchmark=names(config["benchmarks"]),
    classifier="explicit|implicit",
    unit="document|block",
    download=names(DOWNLOADS),
    repository="|".join(map(re.escape, REPOSITORIES)) or "none",
    shard=r"\d{5}",
