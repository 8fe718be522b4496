"""How many tokens and records an experiment has, before and after it has read them.

What a finished stage has counted comes first, then what the config says, then an estimate from the
files that are here. Every number keeps a text that says where it comes from.
"""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from ifguide.data.documents import read_documents
from ifguide.data.file_lists import from_arguments
from ifguide.data.planted import PlantedSettings, document_drawer, draw_records
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json
from ifguide.methods.step import Step, steps_of

ASSUMED_RECORDS = 10_000
ASSUMED = "assumed, as nothing says how many (config key plan.records)"
# Local files up to this size are read for their characters; of larger ones the bytes are counted.
LARGEST_READ = 64 * 2**20
PLANTED_SAMPLE = 100


class Count(NamedTuple):
    value: float
    source: str


class Counts:
    """Numbers of tokens and records of one experiment."""

    def __init__(self, config: dict, facts: dict) -> None:
        """facts: where the files of the experiment lie, as the workflow tells (`planned_facts`)."""
        self.config = config
        self.plan = config["plan"]
        self.facts = facts
        # Every number that was asked for, by what it counts.
        self.found: dict[str, Count] = {}

    def tokens(self, tokenizer: str) -> float:
        """Return the tokens of the training corpus."""
        return self._once(f"tokens of the corpus, {tokenizer}", self._tokens, tokenizer)

    def held_out_tokens(self, tokenizer: str) -> float:
        return self._once(f"held-out tokens, {tokenizer}", self._held_out_tokens, tokenizer)

    def training_tokens(self, tokenizer: str, method: str) -> float:
        """Return the tokens that a method trains on in one epoch."""
        steps = steps_of(self.config["methods"][method])
        step = next((step for step in steps if step.stage == "data"), None)
        if step is None:
            return self.tokens(tokenizer)
        name = f"tokens that {method} leaves, {tokenizer}"
        return self._once(name, self._kept_tokens, tokenizer, method, step)

    def records(self, name: str) -> float:
        """Return the records of a set: `queries.NAME`, `benchmarks.NAME`, `methods.NAME`, …"""
        return self._once(f"records of {name}", self._records, name)

    def notes(self) -> list[str]:
        """Return a line for every number that was asked for: where it comes from."""
        return [
            f"{name}: {count.value:,.0f} ({count.source})" for name, count in self.found.items()
        ]

    def _once(self, name: str, count, *arguments) -> float:
        if name not in self.found:
            self.found[name] = count(*arguments)
        return self.found[name].value

    # --- tokens ---

    def _meta(self, path: str) -> dict | None:
        return read_json(path) if Path(path).is_file() else None

    def _tokens(self, tokenizer: str) -> Count:
        folder = self.facts["corpora"][tokenizer]
        if meta := self._meta(f"{folder}/meta.json"):
            return Count(meta["tokens"], f"counted in {folder}/meta.json")
        if self.plan["tokens"]:
            return Count(self.plan["tokens"], "config key plan.tokens")
        characters, source = self._characters(held_out=False)
        return self._from_characters(characters, source)

    def _held_out_tokens(self, tokenizer: str) -> Count:
        folder = self.facts["corpora"][tokenizer]
        if meta := self._meta(f"{folder}/held_out/meta.json"):
            return Count(meta["tokens"], f"counted in {folder}/held_out/meta.json")
        if self.plan["tokens"]:
            shares = [source["held_out"] for source in self.config["corpus"]["sources"]]
            share = fmean([share for share in shares if share < 1] or [0])
            value = self.plan["tokens"] * share / (1 - share)
            return Count(value, "config key plan.tokens and the mean of corpus.sources.*.held_out")
        characters, source = self._characters(held_out=True)
        return self._from_characters(characters, source)

    def _kept_tokens(self, tokenizer: str, method: str, step: Step) -> Count:
        folder = f"{self.facts['corpora'][tokenizer]}/filtered/{method}"
        if meta := self._meta(f"{folder}/meta.json"):
            return Count(meta["tokens"], f"counted in {folder}/meta.json")
        share = step.kept_share()
        kept = f"{share:.3g}" if share < 1 else "all, at most"
        return Count(share * self.tokens(tokenizer), f"{kept} of the corpus")

    def _from_characters(self, characters: float, source: str) -> Count:
        per_token = self.plan["characters_per_token"]
        return Count(characters / per_token, f"{source}; plan.characters_per_token: {per_token:g}")

    def _characters(self, *, held_out: bool) -> tuple[float, str]:
        """Return the characters of the training documents or of those held out."""
        total, sources = 0.0, []
        for entry, paths in zip(
            self.config["corpus"]["sources"], self.facts["sources"], strict=True
        ):
            characters, source = self._source_characters(entry, paths)
            total += characters * (entry["held_out"] if held_out else 1 - entry["held_out"])
            sources.append(source)
        return total, " and ".join(dict.fromkeys(sources))

    def _source_characters(self, entry: dict, paths: list[str]) -> tuple[float, str]:
        paths = from_arguments(paths)
        name = self._planted_name(paths)
        if name and not Path(paths[0]).is_file():
            settings = PlantedSettings.from_config(self.config["planted"])
            draw = document_drawer(settings, self.config["seed"], name == "held_out")
            count = getattr(settings, name)
            sample = draw_records(
                self.config["seed"], name, min(count, PLANTED_SAMPLE), draw, "text"
            )
            mean = fmean(len(record["text"]) for record in sample)
            return count * mean, f"planted documents, mean of {len(sample)}"
        files = [Path(path) for path in paths if Path(path).is_file()]
        if not files:
            raise InputError(
                f"config key plan.tokens: missing, and the files of corpus source {entry['name']} "
                "are not here yet; give the number of tokens, or fetch the files first"
            )
        size = sum(path.stat().st_size for path in files)
        if size > LARGEST_READ:
            return float(size), "bytes of local files"
        documents = read_documents(entry, files)
        return float(sum(len(document.text) for document in documents)), "local files, read"

    def _planted_name(self, paths: Iterable[str]) -> str | None:
        """Return the planted setting that counts the documents of a file, None of another file."""
        names = [Path(path).stem for path in paths if path.startswith(self.facts["planted"] + "/")]
        return names[0] if names else None

    # --- records ---

    def _records(self, name: str) -> Count:
        entry = self.facts["records"][name]
        report = entry["report"]
        if report and Path(report).is_file():
            return Count(_kept(read_json(report)), f"counted in {report}")
        if name in self.plan["records"]:
            return Count(self.plan["records"][name], f"config key plan.records.{name}")
        counts = [self._entry_records(part) for part in entry["entries"]]
        sources = " and ".join(dict.fromkeys(source for _, source in counts))
        return Count(sum(value for value, _ in counts), sources)

    def _entry_records(self, entry: dict) -> Count:
        found, source = self._file_records(entry)
        low, high = entry.get("part", [0.0, 1.0])
        found *= high - low
        limit = entry.get("limit")
        if isinstance(limit, dict):
            limit = sum(limit.values()) if {"toxic", "nontoxic"} <= set(limit) else None
        if limit and (limit < found or source == ASSUMED):
            return Count(limit, "config key limit, at most")
        return Count(found, source)

    def _file_records(self, entry: dict) -> tuple[float, str]:
        paths = from_arguments(entry["paths"])
        name = self._planted_name(paths)
        if name:
            return self._planted_records(name, entry), "config section planted"
        files = [Path(path) for path in paths if Path(path).is_file()]
        if not files:
            return ASSUMED_RECORDS, ASSUMED
        if all(path.suffix == ".json" for path in files):
            return float(sum(_json_records(path) for path in files)), "local files"
        lines = 0
        for path in files:
            with open(path, "rb") as content:
                lines += sum(1 for _ in content)
        return float(lines), "lines of local files, at most"

    def _planted_records(self, name: str, entry: dict) -> float:
        planted = self.config["planted"]
        if name == "queries":
            return planted["queries"] * (1 if "continuation_toxicity" in entry else 2)
        setting, times = {
            "prompts": ("prompts", 2),
            "development": ("development", 2),
            "toxigen": ("statements", 1),
            "lambada": ("passages", 1),
            "explicit_labelled": ("labelled", 1),
            "implicit_labelled": ("labelled", 1),
            "hostile_labelled": ("labelled", 1),
            "pairs": ("pairs", 1),
            "bold": ("bold", 5),
        }.get(name, ("documents", 1))
        return planted[setting] * times


def _kept(report: dict) -> int:
    """Return the records that a report says were written; those of prompts are counted by split."""
    if "matched" in report:
        return report["matched"]["records"]
    kept = report["kept"]
    return sum(kept.values()) if isinstance(kept, dict) else kept


def _json_records(path: Path) -> int:
    """Return the records of a JSON file: the members of its list, or of the lists in its groups."""

    def members(value) -> int:
        if isinstance(value, dict):
            return sum(members(entry) for entry in value.values())
        return len(value) if isinstance(value, list) else 1

    return members(read_json(path))
