# What the model of a method is trained on, begins with and drops.

import glob
import os
from pathlib import Path


def corpus_of(model):
    return f"{RESULTS}/corpus/{config['models'][model]['tokenizer']}"


def training_corpus(model, method):
    """The corpus that a method trains on: the whole one, or what its filter leaves of it."""
    whole = corpus_of(model)
    return f"{whole}/filtered/{method}" if "filter" in config["methods"][method] else whole


def corpus_files(tokenizer, *columns):
    return column_files(f"{RESULTS}/corpus/{tokenizer}", *columns)


def token_parts(tokenizer, suffix):
    """What a corpus of several shards is packed from; one of a single shard is tokenized at once."""
    folder = f"{RESULTS}/corpus/{tokenizer}/parts"
    count = config["corpus"]["shards"]
    return [f"{folder}/shard-{shard}.{suffix}" for shard in shards(count)] if count > 1 else []


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
        **({"stop_at": early["at"]} if (early := early_state(model)) else {}),
    }


def early_state(model):
    """The model that this one is an early state of, and the share of its steps; or None."""
    return config["models"][model].get("checkpoint")


def seeded_as(model):
    """The name from which a model derives its initial weights and the order of its data."""
    early = early_state(model)
    return early["of"] if early else model


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


FILTERED = {name: entry["filter"] for name, entry in config["methods"].items() if "filter" in entry}
TOXICITY_SCORES = f"{RESULTS}/corpus/{{tokenizer}}/toxicity/{{unit}}/shard-{{shard}}"


def filter_inputs(wildcards):
    """What tells a filter which documents to drop."""
    entry = FILTERED[wildcards.method]
    if "words" in entry:
        return inputs_of(entry, f"methods.{wildcards.method}.filter", "words")
    if "selection" in entry:
        folder = selection_folder(entry["selection"])
        return [f"{folder}/selection.json", f"{folder}/documents.csv"]
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
