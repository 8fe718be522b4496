"""One experiment: its checked config, and what every rule asks of it."""

import re
from collections.abc import Iterable

from ifguide.files.artifacts import canonical_json
from ifguide.workflow.layout import Layout, column_files
from ifguide.workflow.refusal import refuse_config

UNCENSORED = "none"  # the method whose model is the uncensored one


def settings_of(**sections: object) -> str:
    """Return the settings of a rule in one form, whatever the order of their keys."""
    return canonical_json(sections)


def without(entry: dict, *keys: str) -> dict:
    return {key: value for key, value in entry.items() if key not in keys}


def names(*sections: Iterable[str]) -> str:
    """Return a wildcard constraint: any of the names in these sections, or nothing at all."""
    found = sorted({name for section in sections for name in section}, key=len, reverse=True)
    return "|".join(map(re.escape, found)) or "(?!)"


class Experiment:
    """The config, all defaults filled in, and where the files of the experiment lie."""

    def __init__(self, config: dict, layout: Layout) -> None:
        self.config = config
        self.layout = layout
        self.seed: int = config["seed"]
        self.seeds: list[int] = config["evaluation"]["seeds"]
        self.proxy: str = config["influence"]["model"]
        self.proxy_seed: int = self.seeds[0]
        self.shards: int = config["corpus"]["shards"]
        self.has_truth = any("spans" in source for source in config["corpus"]["sources"])
        self._fill_in_checkpoints()

    def _fill_in_checkpoints(self) -> None:
        """Give every checkpoint the tokenizer, architecture and training of its model."""
        models = self.config["models"]
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
                    f"{of!r} is none of the models trained from an architecture: "
                    f"{', '.join(trained)}",
                )
            # The record of a run repeats what is filled in here.
            for key in without(entry, "checkpoint"):
                if entry[key] != trained[of].get(key):
                    refuse_config(
                        f"models.{name}.{key}", f"a checkpoint takes this from {of}; remove the key"
                    )
            entry.update(trained[of])

    # --- names ---

    def benchmarks_of(self, *kinds: str) -> list[str]:
        return [name for name, entry in self.config["benchmarks"].items() if entry["kind"] in kinds]

    def measured_benchmarks(self, *kinds: str) -> list[str]:
        """Return the benchmarks of some kinds that are asked for, whatever the order of the keys.

        They are the outputs of one job: a benchmark that is not asked for keeps what it has.
        """
        asked = self.config["evaluation"]["benchmarks"]
        return sorted(name for name in self.benchmarks_of(*kinds) if asked is None or name in asked)

    @property
    def relearned_benchmark(self) -> str | None:
        """The benchmark whose prompts relearned models continue, None where none is relearned."""
        if "lasting" not in self.config:
            return None
        report = self.config["report"]
        own = self.config["lasting"]["benchmark"]
        return own or report["choose_on"] or report["benchmark"]

    def tokenizer_of(self, model: str) -> str:
        return self.config["models"][model]["tokenizer"]

    def longest_continuation(self, benchmark: str) -> dict:
        """Return the new tokens after a prompt, and the config key that says so."""
        own = self.config["benchmarks"][benchmark].get("generation", {})
        if "max_new_tokens" in own:
            key = f"benchmarks.{benchmark}.generation.max_new_tokens"
            return {"tokens": own["max_new_tokens"], "key": key}
        return {
            "tokens": self.config["generation"]["max_new_tokens"],
            "key": "generation.max_new_tokens",
        }

    # --- the corpus ---

    @property
    def columns(self) -> list[str]:
        """The columns of a corpus, and whether each token is toxic where that is known."""
        return ["tokens", "documents"] + (["truth"] if self.has_truth else [])

    def corpus_of(self, model: str) -> str:
        return self.layout.corpus(self.tokenizer_of(model))

    def corpus_files(self, folder: str, *columns: str) -> list[str]:
        """Return the record of a corpus, and the files of some of its columns."""
        return [f"{folder}/meta.json", *column_files(folder, self.shards, columns)]

    def held_out(self, model: str) -> str:
        """Return the folder of the held-out documents, in the tokens of a model."""
        return self.layout.held_out(self.tokenizer_of(model))

    def held_out_files(self, model: str) -> list[str]:
        folder = self.held_out(model)
        return [f"{folder}/meta.json", *column_files(folder, 1, self.columns)]

    @property
    def dropped_overlap(self) -> dict | None:
        """From which overlap with a test prompt on a document is left out, where any is."""
        if not self.config["corpus"]["drop_overlap"]:
            return None
        return {key: self.config["contamination"][key] for key in ("ngram", "share")}

    @property
    def dropped_prompts(self) -> list[str]:
        """The prompts that no document may hold then."""
        benchmarks = self.benchmarks_of("prompts") if self.dropped_overlap else []
        return [self.layout.prompts(name) for name in benchmarks]

    @property
    def unmatched_queries(self) -> list[str]:
        return [name for name, entry in self.config["queries"].items() if "match" not in entry]
