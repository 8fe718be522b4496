"""How large the jobs of one experiment are: its models, corpora and methods, and what they have."""

import functools
from pathlib import Path

import torch

from ifguide.errors import InputError
from ifguide.files.artifacts import read_json
from ifguide.methods.step import (
    Activations,
    Generations,
    LabelledTexts,
    Probe,
    Reward,
    Stage,
    Step,
    steps_of,
)
from ifguide.models import footprints
from ifguide.models.loading import build_model
from ifguide.models.model_shapes import ModelShape, model_shape
from ifguide.planning.counts import Counts

# Width and depth of published encoders: RoBERTa's and BERT's base size, and RoBERTa's large one.
BASE_ENCODER, LARGE_ENCODER = (768, 12), (1024, 24)
UNKNOWN_VOCABULARY = 50304


class Experiment:
    """The sizes of one experiment."""

    def __init__(self, config: dict, facts: dict) -> None:
        """facts: what the workflow tells of files and resolved settings (`planned_facts`)."""
        self.config = config
        self.facts = facts
        self.counts = Counts(config, facts)
        self.block_size = config["corpus"]["block_size"]
        self.shards = config["corpus"]["shards"]
        self.shape = functools.cache(self._shape)
        self.steps = functools.cache(self._steps)

    def tokenizer_of(self, model: str) -> str:
        return self.config["models"][model]["tokenizer"]

    def tokens(self, model: str) -> float:
        """Return the tokens of the corpus as a model reads it."""
        return self.counts.tokens(self.tokenizer_of(model))

    def bytes_a_token(self, tokenizer: str) -> int:
        """Return the bytes that a corpus has for each of its tokens, in all of its columns."""
        model = next(
            (m for m, entry in self.config["models"].items() if entry["tokenizer"] == tokenizer),
            None,
        )
        vocabulary = self._vocabulary(model) if model else UNKNOWN_VOCABULARY
        marks = footprints.MARK if self.facts["truth"] else 0
        return footprints.token_bytes(vocabulary) + footprints.DOCUMENT_ID + marks

    def classifier(self, name: str) -> tuple[int, int]:
        """Return the width and the number of blocks of a classifier: 0 of a judge that has none."""
        entry = self.config["classifiers"][name]
        if "train" in entry:
            return entry["train"]["hidden_size"], entry["train"]["layers"]
        folder = self.facts["classifiers"][name]
        if folder is None:
            return 0, 0
        if Path(folder, "config.json").is_file():
            described = read_json(Path(folder, "config.json"))
            return described["hidden_size"], described["num_hidden_layers"]
        return LARGE_ENCODER if "revision" in entry or "path" in entry else BASE_ENCODER

    def benchmarks(self, kind: str, method: str | None = None) -> list[str]:
        """Return the benchmarks of a kind that are asked for; only where they measure a method."""
        asked = self.config["evaluation"]["benchmarks"]
        steps = self.steps(method).values() if method else ()
        return [
            name
            for name, entry in self.config["benchmarks"].items()
            if entry["kind"] == kind
            and (asked is None or name in asked)
            and all(kind in step.measured_on for step in steps)
        ]

    @property
    def dropped_benchmarks(self) -> int:
        """Of how many benchmarks the corpus may hold no prompt."""
        prompts = [e for e in self.config["benchmarks"].values() if e["kind"] == "prompts"]
        return len(prompts) if self.config["corpus"]["drop_overlap"] else 0

    def sampling(self, benchmark: str) -> dict:
        """Return the settings by which continuations of a benchmark's prompts are sampled."""
        own = self.config["benchmarks"][benchmark].get("generation", {})
        return self.config["generation"] | own

    def _steps(self, method: str) -> dict[Stage, Step]:
        return {step.stage: step for step in steps_of(self.config["methods"][method])}

    def _shape(self, model: str) -> ModelShape:
        key = f"models.{model}.architecture"
        architecture = self.facts["architectures"][model]
        hub = self.config["models"][model].get("architecture", {}).get("hub")
        if hub and not Path(architecture["file"]).is_file():
            raise InputError(
                f"config key {key}.hub: {hub} has not been fetched; run snakemake fetch, or give a "
                "published `name`"
            )
        with torch.device("meta"):
            built = build_model(
                architecture,
                key,
                vocabulary_size=self._vocabulary(model),
                block_size=self.block_size,
                end_of_text=0,
                seed=0,
            )
        return model_shape(built)

    def _vocabulary(self, model: str) -> int:
        tokenizer = self.tokenizer_of(model)
        meta = Path(self.facts["corpora"][tokenizer], "meta.json")
        if meta.is_file():
            return read_json(meta)["vocabulary_size"]
        own = self.facts["architectures"][model].get("vocab_size")
        return (
            self.config["tokenizers"][tokenizer].get("vocabulary_size") or own or UNKNOWN_VOCABULARY
        )


class PlannedCorpus:
    """Sizes of a job in which a method's data step acts: `step.Sizes` without a model."""

    def __init__(self, experiment: Experiment, method: str, tokenizer: str) -> None:
        self.experiment = experiment
        self.method = method
        self.tokenizer = tokenizer

    @property
    def block_size(self) -> int:
        return self.experiment.block_size

    @property
    def corpus_tokens(self) -> float:
        return self.experiment.counts.tokens(self.tokenizer)

    def records(self, need: str) -> float:
        """Files that a step names itself are counted as one set, that of its method."""
        for step in self.experiment.steps(self.method).values():
            match step.needs().get(need):
                case Generations(name):
                    entry = self.experiment.config["own_generations"][name]
                    return entry["prompts"] * entry["continuations"]
                case LabelledTexts(texts) | Activations(texts) | Probe(texts):
                    return self.experiment.counts.records(f"texts.{texts}")
        return self.experiment.counts.records(f"methods.{self.method}")

    def encoder_of(self, reward: Reward) -> tuple[int, int]:
        train = self.experiment.config["rewards"][reward.name]["train"]
        return train["hidden_size"], train["layers"]


class PlannedModel(PlannedCorpus):
    """Sizes of a job in which a step of a method acts on a model: all of `step.Sizes`."""

    def __init__(
        self,
        experiment: Experiment,
        method: str,
        model: str,
        *,
        rows: float = 0,
        new_tokens: int = 0,
    ) -> None:
        super().__init__(experiment, method, experiment.tokenizer_of(model))
        self.model = model
        self.rows = rows
        self.new_tokens = new_tokens

    @property
    def corpus_tokens(self) -> float:
        return self.experiment.counts.training_tokens(self.tokenizer, self.method)

    @property
    def shape(self) -> ModelShape:
        return self.experiment.shape(self.model)

    @property
    def training(self) -> dict:
        return self.experiment.facts["trainings"][self.model][self.method]
