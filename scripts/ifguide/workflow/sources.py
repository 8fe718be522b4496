"""Where data, tokenizers and architectures come from: files that the config names, and the hub."""

import functools
import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Formatter

from ifguide.data.file_lists import LONGEST_LIST, as_arguments, matching
from ifguide.data.repositories import Repository, fetched_files
from ifguide.evaluation.published_detoxify import PUBLISHED
from ifguide.files.artifacts import canonical_json, text_sha256
from ifguide.workflow.experiment import without
from ifguide.workflow.layout import PLANTED_FILES, Layout
from ifguide.workflow.refusal import refuse_config

WILDCARD = re.compile(r"\{\s*\w+\s*(,[^{}]*)?\}")
TOKENIZER_FILES = ("*.json", "*.txt", "*.model")
CLASSIFIER_FILES = ("*.safetensors", *TOKENIZER_FILES)
ARCHITECTURE_FILES = ("config.json",)


def data_repository(entry: dict) -> Repository:
    return Repository("dataset", entry["hub"], entry["revision"], (entry["files"],))


def model_repository(entry: dict, files: tuple[str, ...]) -> Repository:
    """Return those files of a hub model that one use of it needs."""
    return Repository("model", entry["hub"], entry["revision"], files)


def repository_name(repository: Repository) -> str:
    short = text_sha256(canonical_json(vars(repository)))[:12]
    return f"{repository.folder}-{short}"


def detoxify_base(name: str) -> Repository:
    """Return the model whose configuration and tokenizer a published Detoxify model uses."""
    return model_repository(PUBLISHED[name]["base"], TOKENIZER_FILES)


def is_repository(judge: dict) -> bool:
    """Whether a judge is a classifier in a hub repository: published Detoxify models are not."""
    return "hub" in judge and judge["hub"] not in PUBLISHED


def words_entry(judge: dict) -> dict:
    """Return the word list of a judge as an entry with `files`."""
    return {"files": judge["words"]}


def files_of_directory(directory: str, patterns: Iterable[str]) -> list[str]:
    """Return the files of a directory that one of some patterns matches, sorted."""
    escaped = glob.escape(directory)
    return sorted({p for pattern in patterns for p in glob.glob(os.path.join(escaped, pattern))})


def require_no_wildcard(path: str, key: str) -> None:
    """Refuse a path that Snakemake would read otherwise than it is written."""
    if WILDCARD.search(path):
        refuse_config(
            key, f"{path}: Snakemake takes what is in braces for a wildcard; rename the file"
        )


def rival_pairs_key(rival: str) -> str:
    """Return the key of the files from which a rival's encoder learns."""
    return f"influence.rivals.{rival}.token_classifier.pairs.files"


class Sources:
    """The files that a config names, and what a rule must wait for before it reads them."""

    def __init__(self, config: dict, layout: Layout, needed: dict[str, dict]) -> None:
        """needed: entries with `files` that steps of methods need, by their keys in the config."""
        self.config = config
        self.layout = layout
        self.needed = needed
        self._matching = functools.cache(matching)
        self.downloads = self._downloads()
        self.repositories = self._repositories()

    # --- the hub ---

    def directory_of(self, repository: Repository) -> str:
        """Return where the files of a hub repository lie, once they are fetched."""
        kind = f"{repository.kind}s"
        below = os.path.join("hub", kind, repository.folder, repository.revision)
        return os.path.join(self.config["data_dir"], below)

    def record_of(self, repository: Repository) -> str:
        """Return the file that a rule waits for before it reads what a repository holds."""
        return self.layout.fetched_repository(repository_name(repository))

    def fetched(self, repository: Repository) -> list[Path]:
        """Return the files of a repository that are here already: none, or all."""
        return fetched_files(repository, self.directory_of(repository))

    def files_here(self, entry: dict, key: str) -> list[Path]:
        """Return the data files of an entry that are there: none that a rule makes or fetches."""
        if "hub" in entry:
            return self.fetched(data_repository(entry))
        return [Path(path) for path in self.paths(entry, key) if os.path.exists(path)]

    def _repositories(self) -> dict[str, tuple[Repository, str]]:
        """Return each repository that the config names, and how a user can do without it."""
        config = self.config
        found = [
            (
                data_repository(entry),
                f"give local `files` in {key.removesuffix('.files')}, without `hub`",
            )
            for key, entry in self.data_entries()
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
        for name, entry in config["classifiers"].items():
            if is_repository(entry):
                instead = f"give a local directory in classifiers.{name}.path"
                found.append((model_repository(entry, CLASSIFIER_FILES), instead))
            elif "hub" in entry:
                instead = f"give a local checkpoint in classifiers.{name}.checkpoint"
                found.append((detoxify_base(entry["hub"]), instead))
        return {repository_name(repository): (repository, instead) for repository, instead in found}

    # --- tokenizers and architectures ---

    def tokenizer(self, name: str) -> dict:
        """Return the settings of a tokenizer; a repository stands as its directory."""
        entry = self.config["tokenizers"][name]
        if "hub" not in entry:
            return entry
        return {"path": self.directory_of(model_repository(entry, TOKENIZER_FILES))}

    def tokenizer_input(self, name: str) -> str | list:
        """Return what a rule waits for before it makes a tokenizer, the documents apart."""
        entry = self.config["tokenizers"][name]
        if "hub" in entry:
            return self.record_of(model_repository(entry, TOKENIZER_FILES))
        if "path" not in entry:
            return []
        whole = f"{entry['path']}/tokenizer.json"
        return (
            whole if os.path.exists(whole) else files_of_directory(entry["path"], TOKENIZER_FILES)
        )

    def architecture(self, model: str) -> dict:
        """Return a model's architecture; that of a directory or repository is its config.json."""
        entry = self.config["models"][model]
        architecture = entry.get("architecture") or {
            "file": os.path.join(entry["path"], "config.json")
        }
        if "hub" not in architecture:
            return architecture
        folder = self.directory_of(model_repository(architecture, ARCHITECTURE_FILES))
        return {"file": f"{folder}/config.json", **without(architecture, "hub", "revision")}

    def architecture_inputs(self, model: str) -> list[str]:
        """Return what rules wait for before they read a model's architecture."""
        architecture = self.config["models"][model].get("architecture") or self.architecture(model)
        if "hub" in architecture:
            return [self.record_of(model_repository(architecture, ARCHITECTURE_FILES))]
        return [architecture["file"]] if "file" in architecture else []

    # --- files ---

    def _downloads(self) -> dict[str, dict]:
        """Return the downloads of the config, and the weights of published Detoxify models."""
        downloads = dict(self.config["downloads"])
        for entry in self.config["classifiers"].values():
            if (name := entry.get("hub")) in PUBLISHED:
                url = PUBLISHED[name]["url"]
                weights = {"url": url, "sha256": None, "path": f"detoxify/{Path(url).name}"}
                # A download of this name in the config stands for a mirror, or pins the checksum.
                downloads.setdefault(f"detoxify-{name}", weights)
        return downloads

    def download_path(self, name: str) -> str:
        return os.path.join(self.config["data_dir"], self.downloads[name]["path"])

    def _pattern(self, entry: dict, key: str) -> str:
        filled_in = {"planted": self.layout.planted, "data_dir": self.config["data_dir"]}
        try:
            fields = {field for _, field, _, _ in Formatter().parse(entry["files"])}
            if fields - {None} <= filled_in.keys():
                return entry["files"].format(**filled_in)
        except ValueError:
            pass  # a brace alone, or what is more than a name
        refuse_config(key, f"{entry['files']!r}: only {{planted}} and {{data_dir}} are filled in")

    def _downloads_of(self, pattern: str) -> list[str]:
        """Return the downloads whose file a pattern in the config stands for."""
        return [
            name
            for name, download in self.config["downloads"].items()
            if Path(self.config["data_dir"], download["path"]).match(pattern)
        ]

    def paths(self, entry: dict, key: str) -> list[str]:
        """Return the paths that an entry's `files` names, whether they exist yet or not.

        key: that of the field in the config, for the message where nothing is there.
        """
        if "hub" in entry:
            # A pattern, because only the hub knows which files match.
            folder = self.directory_of(data_repository(entry))
            return [os.path.join(glob.escape(folder), entry["files"])]
        pattern = self._pattern(entry, key)
        if pattern.startswith(f"{self.layout.planted}/"):
            if Path(pattern).name not in PLANTED_FILES:
                refuse_config(
                    key,
                    f"the planted corpus has no file {Path(pattern).name}; it has "
                    f"{', '.join(PLANTED_FILES)}",
                )
            return [pattern]
        if downloads := self._downloads_of(pattern):
            return sorted(map(self.download_path, downloads))
        # A file's own name may have what a pattern reads otherwise.
        found = [pattern] if os.path.isfile(pattern) else self._matching(pattern)
        if not found:
            refuse_config(
                key, f"no file matches {pattern}{not_expanded(pattern) or _brackets(pattern)}"
            )
        for path in found:
            require_no_wildcard(path, key)
        return found

    def arguments(self, entry: dict, key: str, longest: int = LONGEST_LIST) -> list[str]:
        """Return the same as arguments of a job, which may stand for more paths than they are."""
        paths = self.paths(entry, key)
        return as_arguments(paths, None if "hub" in entry else self._pattern(entry, key), longest)

    def inputs(self, entry: dict, key: str) -> list[str]:
        """Return what a rule waits for before it reads an entry's files."""
        if "hub" in entry:
            return [self.record_of(data_repository(entry))]
        if downloads := self._downloads_of(self._pattern(entry, key)):
            return [self.layout.fetched(name) for name in downloads]
        return self.paths(entry, key)

    def source_inputs(self, entries: Iterable[dict], key: str) -> list[str]:
        return [path for entry in entries for path in self.inputs(entry, _source_key(entry, key))]

    def source_arguments(self, entries: Sequence[dict], key: str) -> str:
        """Return one list of arguments for each entry, as JSON."""
        longest = LONGEST_LIST // max(1, len(entries))
        return canonical_json([self.arguments(e, _source_key(e, key), longest) for e in entries])

    def labelled_sources(self, entry: dict) -> dict:
        """Return the settings by which the labelled texts of an entry with `sources` are read."""
        sources = [without(source, "files", "hub", "revision") for source in entry["sources"]]
        return {"sources": sources, "limit": entry.get("limit")}

    def data_entries(self) -> list[tuple[str, dict]]:
        """Return every entry of the config that names data files, with the entry's key."""
        config = self.config
        return [
            *self.needed.items(),
            *(
                (f"rewards.{name}.train.sources.{number}.files", source)
                for name, entry in config["rewards"].items()
                for number, source in enumerate(entry["train"]["sources"])
            ),
            *(
                (f"texts.{name}.sources.{number}.files", source)
                for name, entry in config["texts"].items()
                for number, source in enumerate(entry["sources"])
            ),
            *(
                (rival_pairs_key(name), options["pairs"])
                for name, entry in config["influence"]["rivals"].items()
                for options in entry.values()
                if "pairs" in options
            ),
            *(
                (f"corpus.sources.{entry['name']}.files", entry)
                for entry in config["corpus"]["sources"]
            ),
            *((f"queries.{name}.files", entry) for name, entry in config["queries"].items()),
            *(
                (f"benchmarks.{name}.files", entry)
                for name, entry in config["benchmarks"].items()
                if "files" in entry
            ),
            *(
                (f"classifiers.{name}.train.sources.{source['format']}.files", source)
                for name, entry in config["classifiers"].items()
                for source in entry.get("train", {}).get("sources", [])
            ),
            *(
                (f"classifiers.{name}.words", words_entry(entry))
                for name, entry in config["classifiers"].items()
                if "words" in entry
            ),
        ]


def not_expanded(pattern: str) -> str:
    """Return which sign of a path only a shell would expand, if one is there."""
    if pattern.startswith("~") or "$" in pattern:
        sign = "~" if pattern.startswith("~") else "$"
        return f"; `{sign}` is not expanded in a config, write the whole path"
    return ""


def _brackets(pattern: str) -> str:
    if "[" in pattern:
        return "; `[` begins a set of characters in a pattern, write `[[]` for the sign itself"
    return ""


def _source_key(entry: dict, key: str) -> str:
    return f"{key}.{entry.get('name', entry.get('format', ''))}.files"
