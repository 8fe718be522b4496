# Where data, tokenizers and architectures come from: files that the config names, and the hub.

import glob
import os
from pathlib import Path

from ifguide.files.artifacts import text_sha256
from ifguide.evaluation.published_detoxify import PUBLISHED
from ifguide.data.repositories import Repository

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


DOWNLOADS = all_downloads()
REPOSITORIES = repositories()
