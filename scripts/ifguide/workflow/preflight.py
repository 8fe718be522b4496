"""Before the first long job: everything that a config names is opened, and every fault is told.

Files that a rule makes or fetches, and that are not there yet, are passed over. Of large corpora
only the beginning of some files is read, and of large models only the names of the tensors, so that
it takes seconds whatever the size of the experiment.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ifguide.data.benchmark_formats import (
    WITH_CONTINUATIONS,
    PromptRecord,
    read_labelled_texts,
    read_passages,
    read_prompt_records,
)
from ifguide.data.documents import ReadReport, read_documents
from ifguide.data.filtering import read_words
from ifguide.data.labelled_texts import TOXIC, divided
from ifguide.data.preferences import read_pair_records, read_pairs
from ifguide.data.prompt_lengths import room_for_prompts
from ifguide.data.prompts import LabelledText, read_labelled, read_lambada, read_prompts
from ifguide.data.records import file_format, first_parsed, refuse_malformed, require_files
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.judge_forms import open_judge
from ifguide.methods.step import Pairs, Words
from ifguide.models.architecture_checks import LONGEST_TRIED, check_decoder
from ifguide.models.loading import (
    configuration,
    first_line,
    load_model,
    load_whole,
    require_finite,
    require_vocabulary,
)
from ifguide.models.tracked_layers import linear_layers
from ifguide.workflow.methods import entry_of
from ifguide.workflow.parts import Parts
from ifguide.workflow.sources import (
    CLASSIFIER_FILES,
    TOKENIZER_FILES,
    is_repository,
    model_repository,
    words_entry,
)

# Yields the records of a file; malformed ones go to the list.
Records = Callable[[Path, list[str]], Iterator]

# What is read whole: files of records, of one entry together; the weights of one model.
LARGEST_DATA = 64 * 2**20
LARGEST_MODEL = 2 * 2**30
# Of a larger corpus: so many of its files, and so many records of each.
FILES_TRIED = 8
RECORDS_TRIED = 200
# Bytes of text that a compressed one may hold for each of its own.
COMPRESSION = 20
# The 256 bytes and the end of text.
SMALLEST_VOCABULARY = 257
# A text that every judge can judge.
PROBE = "The cat sees the dog."


class Preflight:
    """The parts of an experiment, and what was found wrong with what they name."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.config = parts.experiment.config
        self.seed = parts.experiment.seed
        self.findings: list[str] = []
        self.opened = 0

    def run(self) -> list[str]:
        """Return one line for each fault, in the order of the config, none twice."""
        tokenizers = self.check_tokenizers()
        self.check_corpus()
        self.check_queries()
        self.check_benchmarks()
        self.check_judges()
        self.check_models(tokenizers)
        self.check_needs()
        return list(dict.fromkeys(self.findings))

    # --- what all checks share ---

    def tried(self, key: str, open_it: Callable[[], Any]) -> Any:
        """Return what opening something that the config names at `key` gives, None at a fault."""
        self.opened += 1
        try:
            return open_it()
        except InputError as error:
            self.fault(key, error)
        except Exception as error:  # of whichever library reads it
            self.fault(key, f"cannot be opened ({type(error).__name__}: {first_line(error)})")
        return None

    def fault(self, key: str, problem: object) -> None:
        said = " ".join(str(problem).split())
        if said.startswith("config key "):
            # It names its key, unless that is one of several such as `models.*.path`.
            named, _, problem = said.removeprefix("config key ").partition(": ")
            said = f"{key if '*' in named else named}: {problem}"
        elif not said.startswith(f"{key}:"):
            said = f"{key}: {said}"
        self.findings.append(said)

    def files(self, entry: dict, key: str, *, plain: bool = False) -> list[Path]:
        """Return the files of an entry that are there: none of those a rule makes or fetches.

        plain: whether plain text will do. What the names alone tell of files to come is told.
        """
        files = self.parts.sources.files_here(entry, key)
        if not files:
            named = Path(entry["files"])
            if self.tried(key, lambda: file_format(named)) == "text" and not plain:
                self.fault(key, f"{named}: plain text, which has no fields; give a file of records")
        return files

    def read(self, key: str, files: list[Path], whole: Callable[[], Any], records: Records) -> Any:
        """Return what `whole` gives of files that are small together, None at a fault.

        Of larger ones no more than the first `records` of some are read, and None is returned.
        """
        if _bytes(files) <= LARGEST_DATA:
            return self.tried(key, whole)
        self.tried(key, lambda: require_files(files))
        for path in _spread(files, FILES_TRIED):
            first = partial(first_parsed, partial(records, path), RECORDS_TRIED)
            self.tried(key, first)
        return None

    # --- text ---

    def check_corpus(self) -> None:
        block_size = self.config["corpus"]["block_size"]
        most_tokens: float = 0
        marked: list[bool] = []
        for source in self.config["corpus"]["sources"]:
            key = f"corpus.sources.{source['name']}.files"
            # Where spans are asked for, or a field by its name, plain text will not do.
            plain = source.get("format") is not None or "spans" not in source
            files = self.files(source, key, plain=plain)
            if not files:
                most_tokens = float("inf")
                continue
            most_tokens += sum(map(_most_bytes, files))
            self.tried(key, lambda found=files: require_files(found))
            whole = _bytes(files) <= LARGEST_DATA
            tried = [files] if whole else [[path] for path in _spread(files, FILES_TRIED)]
            count = None if whole else RECORDS_TRIED
            for paths in tried:
                spans = self.tried(key, lambda s=source, p=paths, n=count: _marked(s, p, n))
                if "spans" in source:
                    marked += spans or []
            if not whole:
                marked.append(True)  # further on, perhaps
        # Of a corpus that cannot be read, its size is not the fault.
        if not self.findings and 0 < most_tokens < block_size:
            self.fault(
                "corpus.block_size",
                f"{block_size} is longer than the whole corpus, which has at most {most_tokens:.0f}"
                " tokens; set it far below that",
            )
        if marked and not any(marked):
            self.fault(
                "corpus.sources",
                "the `spans` mark nothing in any document, so that no token is known to be toxic; "
                "name the field that holds them, or remove `spans`",
            )

    def check_queries(self) -> None:
        read: dict[str, list] = {}
        for name, entry in self.config["queries"].items():
            key = f"queries.{name}.files"
            if entry["format"] not in WITH_CONTINUATIONS:
                self.fault(
                    f"queries.{name}.format",
                    f"{entry['format']} has no continuations, and the query direction is their "
                    f"gradient; use {' or '.join(WITH_CONTINUATIONS)}",
                )
                continue
            if not (files := self.files(entry, key)):
                continue
            whole = partial(read_prompts, entry, files, self.seed)
            found = self.read(key, files, whole, partial(_prompts_of, entry))
            if found is None:
                continue
            records, _ = found
            texts = [record.continuation for record in records]
            if without := texts.count(None):
                self.fault(
                    key,
                    f"{without} of {len(texts)} records have no continuation, and the query is "
                    "their gradient; leave them out",
                )
            elif not any(text.strip() for text in texts):
                self.fault(
                    key,
                    f"all {len(texts)} continuations are empty, and the query is their gradient",
                )
            elif "match" not in entry:
                read[name] = sorted((r.prompt, r.continuation) for r in records)
        for name, direction in self.config["influence"]["directions"].items():
            toxic, safe = read.get(direction["toxic"]), read.get(direction["safe"])
            if toxic is not None and toxic == safe:
                self.fault(
                    f"influence.directions.{name}.safe",
                    f"{direction['safe']} holds the same records as {direction['toxic']}, so that "
                    "their difference is zero; give them disjoint `continuation_toxicity`",
                )

    def check_benchmarks(self) -> None:
        block_size = self.config["corpus"]["block_size"]
        for name, entry in self.config["benchmarks"].items():
            key = f"benchmarks.{name}.files"
            if "files" not in entry:
                continue
            plain = entry["kind"] == "lambada" or entry["format"] == "text"
            if not (files := self.files(entry, key, plain=plain)):
                continue
            if entry["kind"] == "lambada":
                whole = partial(read_lambada, files, entry.get("limit"), self.seed, block_size)
                self.read(key, files, whole, read_passages)
            else:
                whole = partial(read_prompts, entry, files, self.seed)
                self.read(key, files, whole, partial(_prompts_of, entry))

    # --- judges, and what else learns from labelled texts ---

    def check_judges(self) -> None:
        for name, entry in self.config["classifiers"].items():
            key = f"classifiers.{name}"
            if "train" in entry:
                self.check_labelled(f"{key}.train", entry["train"])
            elif "words" in entry:
                if files := self.files(words_entry(entry), f"{key}.words", plain=True):
                    self.tried(f"{key}.words", lambda f=files: read_words(f))
            elif is_repository(entry):
                files = self.parts.sources.fetched(model_repository(entry, CLASSIFIER_FILES))
                if files and _bytes(files) <= LARGEST_MODEL:
                    self.tried(f"{key}.hub", lambda n=name: self.judge(n))
            elif "path" in entry or "checkpoint" in entry:
                given = "path" if "path" in entry else "checkpoint"
                folder = Path(entry[given]) if given == "path" else Path(entry[given]).parent
                if _bytes(folder.glob("*")) <= LARGEST_MODEL:
                    self.tried(f"{key}.{given}", lambda n=name: self.judge(n))
        for name, entry in self.config["rewards"].items():
            self.check_labelled(f"rewards.{name}.train", entry["train"])
        for name, entry in self.config["texts"].items():
            self.check_labelled(f"texts.{name}", entry)

    def judge(self, name: str) -> None:
        scores = open_judge(name, self.parts.judges.given(name)).scores([""], [PROBE])
        for field, values in scores.items():
            if not all(0 <= value <= 1 for value in values):
                raise InputError(f"gives {values[0]} as the probability of {field}")

    def check_labelled(self, key: str, entry: dict) -> None:
        """Check the labelled texts of an entry with `sources`, some of them held out or none."""
        sources: list[dict] = []
        paths: list[list[Path]] = []
        for number, source in enumerate(entry["sources"]):
            place = source["format"] if key.startswith("classifiers") else str(number)
            if not (files := self.files(source, f"{key}.sources.{place}.files")):
                return
            sources.append(source)
            paths.append(files)
        if _bytes(path for files in paths for path in files) <= LARGEST_DATA:
            whole = partial(read_labelled, sources, paths, self.seed)
            if (labelled := self.tried(f"{key}.sources", whole)) is not None:
                self.check_both_kinds(key, labelled, entry.get("held_out"))
            return
        for source, files in zip(sources, paths, strict=True):
            whole = partial(read_labelled, [source], [files], self.seed)
            self.read(f"{key}.sources", files, whole, partial(_labelled_of, source))

    def check_both_kinds(
        self, key: str, labelled: list[LabelledText], held_out: float | None
    ) -> None:
        toxic = sum(text.label >= TOXIC for text in labelled)
        if not 0 < toxic < len(labelled):
            kind = "toxic" if toxic else "harmless"
            self.fault(
                f"{key}.sources",
                f"all {len(labelled)} texts are {kind}, so that there is nothing to tell apart; "
                "add a source of the other kind",
            )
        elif held_out is not None:
            stage = "reward" if key.startswith("rewards") else "classifier"
            training, testing = divided(labelled, held_out, self.seed, stage)
            left = None if testing else "none to measure on"
            if len({text.label >= TOXIC for text in training}) < 2:
                left = "no two kinds to train on"
            if left:
                self.fault(
                    f"{key}.held_out",
                    f"{held_out:g} of {len(labelled)} texts leaves {left}; give more texts",
                )

    # --- models ---

    def check_tokenizers(self) -> dict[str, Any]:
        """Return the tokenizers that are given, by name."""
        found = {}
        for name, entry in self.config["tokenizers"].items():
            key = f"tokenizers.{name}"
            if "vocabulary_size" in entry:
                if entry["vocabulary_size"] < SMALLEST_VOCABULARY:
                    self.fault(
                        f"{key}.vocabulary_size",
                        f"{entry['vocabulary_size']} is too small; a byte-level tokenizer needs at "
                        f"least {SMALLEST_VOCABULARY} (256 bytes and the end-of-text token)",
                    )
                continue
            sources = self.parts.sources
            folder = sources.tokenizer(name)["path"]
            if "path" in entry or sources.fetched(model_repository(entry, TOKENIZER_FILES)):
                given = f"{key}.path" if "path" in entry else f"{key}.hub"
                tokenizer = self.tried(given, partial(_tokenizer, folder, given))
                if tokenizer is not None:
                    found[name] = tokenizer
        return found

    def check_models(self, tokenizers: dict[str, Any]) -> None:
        configurations = {}
        for name, entry in self.config["models"].items():
            if "path" in entry:
                tokenizer = tokenizers.get(entry["tokenizer"])
                described = self.check_given(f"models.{name}.path", entry["path"], tokenizer)
            else:
                described = self.check_architecture(name, tokenizers.get(entry["tokenizer"]))
            if described is not None:
                configurations[name] = described
        for name, entry in self.config["methods"].items():
            if isinstance(entry.get("start_from"), dict):
                self.check_given(
                    f"methods.{name}.start_from.path", entry["start_from"]["path"], None
                )
        models = {name: _without_values(found) for name, found in configurations.items()}
        self.check_layers(models)
        self.check_steps(models)
        self.check_room(configurations)

    def check_room(self, configurations: dict[str, Any]) -> None:
        """Refuse continuations that leave no room for a prompt."""
        for name in self.config["evaluation"]["models"]:
            if name not in configurations:
                continue
            positions = getattr(configurations[name], "max_position_embeddings", None)
            positions = positions or self.config["corpus"]["block_size"]
            for wanted in self.parts.evaluation.longest_continuations().values():
                room = partial(room_for_prompts, name, positions, wanted["tokens"], wanted["key"])
                self.tried(wanted["key"], room)

    def check_architecture(self, name: str, tokenizer: Any) -> Any:
        architecture = self.parts.sources.architecture(name)
        key = f"models.{name}.architecture"
        if "file" in architecture and not os.path.isfile(architecture["file"]):
            return None  # not fetched yet
        sizes = {
            "vocabulary_size": SMALLEST_VOCABULARY if tokenizer is None else len(tokenizer),
            # Positions that the config names are compared with the block before anything is read.
            "block_size": min(self.config["corpus"]["block_size"], LONGEST_TRIED),
            "end_of_text": 0 if tokenizer is None else tokenizer.eos_token_id,
        }

        def checked() -> Any:
            config = configuration(architecture, key, **sizes)
            check_decoder(config, key, sizes["block_size"])
            return config

        return self.tried(key, checked)

    def check_given(self, key: str, folder: str, tokenizer: Any) -> Any:
        """Check the directory of a language model: what it is, and each of its tensors."""

        def checked() -> Any:
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            check_decoder(config, f"{key}: {folder}", self.config["corpus"]["block_size"])
            load_whole(AutoModelForCausalLM, folder, device_map="meta")
            if _bytes(Path(folder).glob("*.safetensors")) <= LARGEST_MODEL:
                require_finite(load_model(folder, dtype="auto", verify=False), folder)
            if tokenizer is not None:
                require_vocabulary(folder, config.vocab_size, tokenizer)
            return config

        return self.tried(key, checked)

    def check_steps(self, models: dict[str, PreTrainedModel]) -> None:
        """Refuse a method for a model that its edit or decoding cannot act on."""
        for method in self.parts.methods.involved:
            for step in self.parts.methods.steps[method]:
                for name in self.config["evaluation"]["models"]:
                    if name in models and step.stage in ("edit", "decode"):
                        key = f"methods.{method}.{step.key()}"
                        self.tried(key, lambda s=step, m=models[name]: s.require_model(m))

    def check_layers(self, models: dict[str, PreTrainedModel]) -> None:
        """Refuse a direction that leaves out every layer of its model."""
        names: dict[str, list[str]] = {}
        for direction, entry in self.config["influence"]["directions"].items():
            model = entry["model"] or self.parts.experiment.proxy
            if not entry["layers"] or model not in models:
                continue
            if model not in names:
                names[model] = list(linear_layers(models[model]))
            if not any(re.search(entry["layers"], name) for name in names[model]):
                examples = ", ".join(names[model][:2])
                self.fault(
                    f"influence.directions.{direction}.layers",
                    f"{entry['layers']!r} is in no name of a tracked layer of models.{model}; "
                    f"names are such as {examples}",
                )

    # --- what methods need of files ---

    def check_needs(self) -> None:
        for name in self.config["methods"]:
            for needed in self.parts.methods.needs(name, Pairs, Words):
                entry = entry_of(needed.need)
                words = isinstance(needed.need, Words)
                if not (files := self.files(entry, needed.key, plain=words)):
                    continue
                if not words:
                    whole = partial(read_pairs, entry, files, self.seed)
                    self.read(needed.key, files, whole, partial(read_pair_records, entry))
                elif _bytes(files) <= LARGEST_DATA:
                    self.tried(needed.key, lambda f=files: read_words(f))


def _tokenizer(folder: str, key: str) -> Any:
    tokenizer = load_tokenizer(folder, key)
    if not tokenizer.is_fast:
        raise InputError(
            f"{folder}: no fast tokenizer, which gives the character offsets of tokens; give one "
            "with a tokenizer.json"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{folder}: it has no end-of-text token (eos_token); set one in its "
            "tokenizer_config.json"
        )
    return tokenizer


def _without_values(described: PretrainedConfig) -> PreTrainedModel:
    """Return a model of names and shapes: nothing of it is computed."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(described)


def _marked(source: dict, paths: list[Path], count: int | None) -> list[bool]:
    """Return of each document that is read whether its spans mark anything."""
    report = ReadReport()
    if count is not None:
        source = {**source, "limit": min(count, source.get("limit") or count)}
    marked = [bool(document.spans) for document in read_documents(source, paths, report)]
    if count is not None:
        # Fewer than those of a whole file, by which few are borne.
        refuse_malformed(report.first_malformed, len(marked) + report.skipped_malformed)
    return marked


def _prompts_of(entry: dict, path: Path, malformed: list[str]) -> Iterator[PromptRecord]:
    return read_prompt_records(entry["format"], path, entry, malformed)


def _labelled_of(source: dict, path: Path, malformed: list[str]) -> Iterator[tuple]:
    return read_labelled_texts(source["format"], path, malformed, source)


def _spread(files: list[Path], count: int) -> list[Path]:
    """Return at most `count` of the files, the first and the last among them."""
    step = max(1, (len(files) - 1) // (count - 1))
    return list(dict.fromkeys(files[::step][: count - 1] + files[-1:]))


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _most_bytes(path: Path) -> float:
    """Return how many bytes of text a file can hold: a token has at least one."""
    plain = path.suffix in (".jsonl", ".json", ".txt", ".text", ".csv", ".tsv", ".ndjson")
    return path.stat().st_size * (1 if plain else COMPRESSION)


def shown(preflight: Preflight, seconds: float) -> Iterator[str]:
    """Yield what a preflight prints: a line for each fault, or one that says that there is none."""
    for line in preflight.findings:
        yield f"error: config: {line}"
    if not preflight.findings:
        yield f"preflight: {preflight.opened} things opened in {seconds:.1f} s, nothing is wrong"
