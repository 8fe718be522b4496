"""Methods: their steps, what their models are made from, and what a rule waits for.

A kind of need has one rule that makes it, and one branch here that names its files: what a rule
waits for (`inputs`) and what the job is given (`given`).
"""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from ifguide.methods.step import (
    PREPARED,
    STRENGTHS,
    Activations,
    DocumentToxicity,
    Generations,
    HeldOutScores,
    LabelledTexts,
    Mask,
    Model,
    Need,
    Pairs,
    Probe,
    Ranking,
    Reward,
    Step,
    Words,
)
from ifguide.workflow.experiment import UNCENSORED, Experiment, settings_of, without
from ifguide.workflow.influence import Influence
from ifguide.workflow.layout import MODEL_FILES, shard_files
from ifguide.workflow.sources import Sources
from ifguide.workflow.strengths import curves_of

# Needs that are made with the model on which a step acts.
OF_MODELS = (Activations, Probe, Generations)


class Needed(NamedTuple):
    """A need of a step, by the key of the option that names it."""

    method: str
    step: str
    name: str
    need: Need

    @property
    def key(self) -> str:
        return f"methods.{self.method}.{self.step}.{self.name}"


def needs_of(method: str, steps: Iterable[Step]) -> Iterator[Needed]:
    """Yield what the steps of a method need."""
    for step in steps:
        for name, need in step.needs().items():
            yield Needed(method, step.key(), name, need)


def needed_files(steps: Mapping[str, list[Step]]) -> dict[str, dict]:
    """Return what steps need of the user's files, as entries with `files`, by the config's key."""
    return {
        needed.key: entry_of(needed.need)
        for method in steps
        for needed in needs_of(method, steps[method])
        if isinstance(needed.need, Pairs | Words)
    }


def entry_of(need: Pairs | Words) -> dict:
    return {name: value for name, value in asdict(need).items() if value is not None}


class Methods:
    """The methods of an experiment, compared or not."""

    def __init__(
        self,
        experiment: Experiment,
        sources: Sources,
        influence: Influence,
        steps: Mapping[str, list[Step]],
    ) -> None:
        """steps: of each method, in the order of their stages."""
        self.experiment = experiment
        self.config = experiment.config
        self.layout = experiment.layout
        self.sources = sources
        self.influence = influence
        self.steps = steps

    # --- what a method is ---

    def step_at(self, method: str, *stages: str) -> Step | None:
        return next((step for step in self.steps[method] if step.stage in stages), None)

    def needs(self, method: str, *kinds: type) -> list[Needed]:
        """Return what the steps of a method need, of some kinds only where they are given."""
        found = list(needs_of(method, self.steps[method]))
        return [needed for needed in found if not kinds or isinstance(needed.need, kinds)]

    def modules_of(self, method: str, stages: Sequence[str]) -> tuple[str, ...]:
        """Return the modules of a method's steps at some stages."""
        return tuple(type(s).__module__ for s in self.steps[method] if s.stage in stages)

    def shares_steps(self, method: str) -> bool:
        """Whether several processes may share the training of a method's model."""
        step = self.step_at(method, "train")
        return step.shares_steps if step else self.trains(method)

    def with_stage(self, *stages: str) -> list[str]:
        return [method for method in self.steps if self.step_at(method, *stages)]

    def with_need(self, *kinds: type) -> list[str]:
        return [method for method in self.steps if self.needs(method, *kinds)]

    def trains(self, method: str) -> bool:
        """Whether a model is trained: one that is only edited or decoded is taken as it is."""
        entry = self.config["methods"][method]
        return (
            self.step_at(method, "data", "train") is not None
            or "training" in entry
            or self.step_at(method, "edit", "decode") is None
        )

    def makes_model(self, method: str) -> bool:
        """Whether a method has a model of its own: one from a given directory has, too."""
        entry = self.config["methods"][method]
        return (
            self.trains(method)
            or self.step_at(method, "edit") is not None
            or isinstance(entry.get("start_from"), dict)
        )

    def weights_of(self, method: str) -> str:
        """Return the method whose model a method uses: another one's where it makes none."""
        if self.makes_model(method):
            return method
        return self.weights_of(self.config["methods"][method].get("start_from", UNCENSORED))

    def ancestors(self, method: str) -> list[str]:
        """Return a method, the one that its model begins with, and so on back to the first."""
        start = self.config["methods"][method].get("start_from")
        return [method, *(self.ancestors(start) if isinstance(start, str) else [])]

    def start_of(self, model: str, method: str) -> str | dict | None:
        """Return the method whose model this one begins with, or a directory that is given."""
        entry = self.config["methods"][method]
        if "start_from" in entry:
            return entry["start_from"]
        given = "path" in self.config["models"][model] and method != UNCENSORED
        return UNCENSORED if given or not self.trains(method) else None

    def early_state(self, model: str) -> dict | None:
        """Return the model that this one is an early state of, and the share of its steps."""
        return self.config["models"][model].get("checkpoint")

    def training(self, model: str, method: str) -> dict:
        """Return the training settings: the defaults, what the model changes, then the method."""
        early = self.early_state(model)
        settings = {
            **self.config["training"],
            **self.config["models"][model].get("training", {}),
            **self.config["methods"][method].get("training", {}),
            **({"stop_at": early["at"]} if early else {}),
        }
        step = self.step_at(method, "train")
        return step.training(settings) if step else settings

    def training_settings(self, model: str, method: str) -> dict:
        """Return what the weights of a method's model depend on beside data, steps and seeds."""
        if not self.trains(method):
            return {"trains": False}
        return {
            "trains": True,
            "architecture": self.sources.architecture(model),
            # How often to save changes no weight.
            "training": without(self.training(model, method), "checkpoint_steps"),
        }

    def seeded_as(self, model: str) -> str:
        """Return the name from which a model derives its initial weights and order of data."""
        early = self.early_state(model)
        return early["of"] if early else model

    # --- what is compared ---

    @property
    def evaluated(self) -> list[tuple[str, str, int]]:
        """Model, method and seed of all that is compared."""
        evaluation = self.config["evaluation"]
        return [
            (model, method, seed)
            for model in evaluation["models"]
            for method in evaluation["methods"]
            for seed in evaluation["seeds"]
        ]

    @property
    def has_reference(self) -> bool:
        """Whether the uncensored model is compared, so that others can be measured against it."""
        return UNCENSORED in self.config["evaluation"]["methods"]

    def reference_seed(self, method: str, seed: str) -> str | None:
        """Return the training seed of the uncensored model that a method's model is held against.

        Its own; of the uncensored model itself that of the first other one, which tells how far
        apart seeds are. None where there is none.
        """
        others = [str(other) for other in self.experiment.seeds if str(other) != str(seed)]
        seeds = others[:1] if method == UNCENSORED else [seed]
        return seeds[0] if seeds and self.has_reference else None

    @property
    def trained(self) -> list[tuple[str, str, int]]:
        """The same with the methods whose models they use."""
        return list(dict.fromkeys((m, self.weights_of(a), seed) for m, a, seed in self.evaluated))

    def with_models_of(self, methods: Iterable[str]) -> list[str]:
        """Return methods, and those whose models they begin with, decode or need."""
        found: set[str] = set()
        pending = list(methods)
        while pending:
            method = pending.pop()
            if method not in found:
                found.add(method)
                pending += self.ancestors(method)
                pending += [needed.need.method for needed in self.needs(method, Model)]
        return sorted(found)

    @property
    def involved(self) -> list[str]:
        """The compared methods and the references of rivals, with those whose models they use."""
        compared = self.config["evaluation"]["methods"]
        return self.with_models_of([*compared, *self.influence.references])

    @property
    def paired(self) -> list[str]:
        """The involved methods that learn from pairs."""
        return [method for method in self.involved if self.needs(method, Pairs)]

    @property
    def learned_texts(self) -> list[str]:
        """The labelled texts from which involved methods learn."""
        needed = {
            needed.need.texts
            for method in self.involved
            for needed in self.needs(method, LabelledTexts, Activations, Probe)
        }
        return sorted(needed)

    @property
    def learned_rewards(self) -> list[str]:
        """The reward models that involved methods use."""
        needed = (one for method in self.involved for one in self.needs(method, Reward))
        return sorted({one.need.name for one in needed})

    def is_measured_on(self, method: str, benchmark: str) -> bool:
        kind = self.config["benchmarks"][benchmark]["kind"]
        asked = self.experiment.measured_benchmarks(kind)
        return benchmark in asked and not self.unmeasured_on(method, benchmark)

    def unmeasured_on(self, method: str, *benchmarks: str) -> dict[str, str]:
        """Return why some benchmarks say nothing about a method, by benchmark."""
        kinds = {name: self.config["benchmarks"][name]["kind"] for name in benchmarks}
        return {
            name: step.unmeasured
            for step in self.steps[method]
            for name, kind in kinds.items()
            if kind not in step.measured_on
        }

    @property
    def metrics(self) -> list[str]:
        return [
            f"{self.layout.evaluation(model, method, seed, benchmark)}/metrics.json"
            for model, method, seed in self.evaluated
            for benchmark in self.config["benchmarks"]
            if self.is_measured_on(method, benchmark)
        ]

    def unmeasured(self) -> dict[str, str]:
        """Return why compared methods are not measured on some kinds of benchmarks."""
        return {
            method: step.unmeasured
            for method in self.config["evaluation"]["methods"]
            for step in self.steps[method]
            if step.unmeasured
        }

    @property
    def controls(self) -> dict[str, str]:
        """Return what compared methods are compared with beside the uncensored model."""
        entries = self.config["methods"]
        named = {
            method: entries[method]["compare_with"]
            for method in self.config["evaluation"]["methods"]
            if "compare_with" in entries[method]
        }
        return {method: control for method, control in named.items() if control != UNCENSORED}

    @property
    def curves(self) -> dict[str, dict[str, float]]:
        """Return the strengths of compared methods that name several, by method and variant."""
        compared = self.config["evaluation"]["methods"]
        curves = curves_of(self.config)
        return {method: curve for method, curve in curves.items() if {*curve} & {*compared}}

    @property
    def removing(self) -> list[str]:
        """The compared methods that keep tokens from training."""
        return [
            method
            for method in self.config["evaluation"]["methods"]
            if self.step_at(method, "data") or self.training_mask(method)
        ]

    def training_mask(self, method: str) -> Needed | None:
        """Return the mask of the tokens that a method suppresses in training."""
        train = self.step_at(method, "train")
        masks = [m for m in self.needs(method, Mask) if train and m.step == train.key()]
        return next(iter(masks), None)

    @property
    def suppressing(self) -> list[str]:
        """The compared methods that suppress the tokens of a selection."""
        masks = {m: self.training_mask(m) for m in self.config["evaluation"]["methods"]}
        return [method for method, mask in masks.items() if mask and mask.need.selection]

    def training_mask_folder(self, model: str, method: str) -> str | None:
        """Return the folder of a method's mask; None of the known toxic tokens."""
        mask = self.training_mask(method).need
        return self.influence.mask_folder(mask, self.experiment.tokenizer_of(model))

    # --- files of models ---

    def model_directory(self, model: str, method: str, seed: str) -> str:
        return self.layout.model(model, self.weights_of(method), seed)

    def model_files(self, model: str, method: str, seed: str) -> list[str]:
        folder = self.model_directory(model, method, seed)
        return [f"{folder}/{name}" for name in MODEL_FILES]

    def given_files(self, model: str) -> list[str]:
        """Return the files of a model directory that the config names."""
        folder = self.config["models"][model]["path"]
        return sorted(
            path
            for pattern in ("*.json", "*.safetensors")
            for path in glob.glob(f"{glob.escape(folder)}/{pattern}")
        )

    def start_directory(self, model: str, method: str, seed: str) -> str | None:
        start = self.start_of(model, method)
        if isinstance(start, dict):
            return start["path"]
        return self.model_directory(model, start, seed) if start else None

    def start_files(self, model: str, method: str, seed: str) -> list[str]:
        """Return the files of the model that a method begins with."""
        start = self.start_of(model, method)
        if isinstance(start, dict):
            weights = sorted(glob.glob(f"{glob.escape(start['path'])}/*.safetensors"))
            return [f"{start['path']}/config.json", *weights]
        return self.model_files(model, start, seed) if start else []

    def training_corpus(self, model: str, method: str) -> str:
        """Return the corpus that a method trains on: all of it, or what its data step keeps."""
        if self.step_at(method, "data"):
            return self.layout.kept_corpus(self.experiment.tokenizer_of(model), method)
        return self.experiment.corpus_of(model)

    def training_files(self, model: str, method: str) -> list[str]:
        """Return the files of the corpus that a method trains on, where it reads one."""
        step = self.step_at(method, "train")
        if not self.trains(method) or (step and not step.reads_corpus):
            return []
        return self.experiment.corpus_files(self.training_corpus(model, method), "tokens")

    # --- needs ---

    def acts_on(self, model: str, needed: Needed) -> str | dict | None:
        """Return the method on whose model a step acts: that of `start_from` before it decodes.

        None of a model that is trained from nothing; a directory has no name.
        """
        step = next(s for s in self.steps[needed.method] if s.key() == needed.step)
        if step.stage == "decode":
            return self.weights_of(needed.method)
        start = self.start_of(model, needed.method)
        return self.weights_of(start) if isinstance(start, str) else start

    def inputs(
        self, needed: Needed, tokenizer: str, model: str | None = None, seed: str | None = None
    ) -> list[str]:
        """Return what a rule waits for before a step is given what it needs.

        model, seed: of the model that the rule makes or decodes; a data step knows none.
        """
        experiment, influence = self.experiment, self.influence
        match needed.need:
            case Mask(selection=None):
                return experiment.corpus_files(self.layout.corpus(tokenizer), "truth")
            case Mask() as mask:
                return influence.mask_files(influence.mask_folder(mask, tokenizer))
            case Ranking(selection):
                folder = influence.selection_folder(selection)
                return [f"{folder}/selection.json", f"{folder}/documents.csv"]
            case DocumentToxicity(unit, classifier):
                folder = self.layout.document_toxicity(tokenizer, classifier, unit)
                return shard_files(folder, experiment.shards)
            case HeldOutScores(classifier):
                return [self.layout.calibration(classifier)]
            case Words() as words:
                return self.sources.inputs(entry_of(words), needed.key)
            case Pairs():
                return [self.layout.pairs(needed.method)]
            case Reward(name):
                folder = self.layout.reward(name, tokenizer)
                return [
                    f"{folder}/{file}"
                    for file in ("model.safetensors", "config.json", "tokenizer.json")
                ]
            case LabelledTexts(texts):
                return [self.layout.texts(texts)]
            case Activations(texts):
                return [self.layout.activations(texts, model, self.acts_on(model, needed), seed)]
            case Probe(texts):
                return [self.layout.probe(texts, model, self.acts_on(model, needed), seed)]
            case Generations(name):
                of = self.acts_on(model, needed)
                return [self.layout.own_generations(name, model, of, seed)]
            case Model(method):
                return self.model_files(model, method, seed)
        raise TypeError(f"{needed.need}: no rule makes needs of this kind")

    def given(
        self, needed: Needed, tokenizer: str, model: str | None = None, seed: str | None = None
    ) -> list[str]:
        """Return the files and folders that a job is given of a need."""
        influence = self.influence
        match needed.need:
            case Mask() as mask:
                folder = influence.mask_folder(mask, tokenizer)
                return [folder] if folder else []
            case Ranking(selection):
                return [influence.selection_folder(selection)]
            case Words() as words:
                return self.sources.arguments(entry_of(words), needed.key)
            case Reward(name):
                return [self.layout.reward(name, tokenizer)]
            case Model(method):
                return [self.model_directory(model, method, seed)]
        return self.inputs(needed, tokenizer, model, seed)

    def stage_inputs(
        self,
        method: str,
        stages: Sequence[str],
        tokenizer: str,
        model: str | None = None,
        seed: str | None = None,
    ) -> list[str]:
        """Return what the steps of some stages wait for."""
        return [
            path
            for needed in self._needs_at(method, stages)
            for path in self.inputs(needed, tokenizer, model, seed)
        ]

    def stage_given(
        self,
        method: str,
        stages: Sequence[str],
        tokenizer: str,
        model: str | None = None,
        seed: str | None = None,
    ) -> str:
        """Return what the steps of some stages are given, as JSON: step, need, paths."""
        return settings_of(**self._given_of_stages(method, stages, tokenizer, model, seed))

    def _given_of_stages(
        self,
        method: str,
        stages: Sequence[str],
        tokenizer: str,
        model: str | None,
        seed: str | None,
    ) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = {}
        for needed in self._needs_at(method, stages):
            given = self.given(needed, tokenizer, model, seed)
            found.setdefault(needed.step, {})[needed.name] = given
        return found

    def stage_options(self, method: str, *stages: str) -> dict[str, dict]:
        """Return the options of the steps of some stages, by their keys."""
        entry = self.config["methods"][method]
        return {
            step.key(): entry[step.key()] for step in self.steps[method] if step.stage in stages
        }

    def _needs_at(self, method: str, stages: Sequence[str]) -> list[Needed]:
        keys = [step.key() for step in self.steps[method] if step.stage in stages]
        return [needed for needed in self.needs(method) if needed.step in keys]

    def needed_inputs(self, wildcards: Any, *stages: str) -> list[str]:
        """Return what the steps of a job's method wait for, at some stages."""
        model, seed = wildcards.model, wildcards.seed
        tokenizer = self.experiment.tokenizer_of(model)
        return self.stage_inputs(wildcards.method, stages, tokenizer, model, seed)

    def needed_given(self, wildcards: Any, *stages: str) -> str:
        """Return what the steps of a job's method are given, at some stages."""
        model, seed = wildcards.model, wildcards.seed
        tokenizer = self.experiment.tokenizer_of(model)
        return self.stage_given(wildcards.method, stages, tokenizer, model, seed)

    def own_sampling(self, name: str) -> dict:
        """Return how a model's own continuations are sampled, but for their judges."""
        entry = self.config["own_generations"][name]
        of_text = without(entry, "queries", "prompts", "judges")
        return {"sampling": of_text, "prompts": entry["prompts"]}

    # --- decoding ---

    @property
    def preparing(self) -> list[str]:
        """The methods whose decode step fits something before it decodes."""
        decoding = {method: self.step_at(method, "decode") for method in self.steps}
        return [method for method, step in decoding.items() if step and step.prepares()]

    def _prepared(self, wildcards: Any) -> str:
        """Return what a method has fitted: one of several strengths, for all of them."""
        curves = curves_of(self.config)
        graded = [method for method, curve in curves.items() if wildcards.method in curve]
        method = next(iter(graded), wildcards.method)
        return self.layout.prepared(wildcards.model, method, wildcards.seed)

    def preparation(self, method: str) -> dict[str, dict]:
        """Return the options by which a decode step fits what it needs: not by its strength."""
        step = self.step_at(method, "decode")
        options = self.config["methods"][method][step.key()]
        return {step.key(): without(options, STRENGTHS, step.strength or STRENGTHS)}

    def decode_inputs(self, wildcards: Any) -> list[str]:
        """Return what the decode step of a job's method waits for."""
        inputs = self.needed_inputs(wildcards, "decode")
        prepared = [self._prepared(wildcards)] if wildcards.method in self.preparing else []
        return inputs + prepared

    def decode_given(self, wildcards: Any) -> str:
        """Return what the decode step of a job's method is given."""
        model, method, seed = wildcards.model, wildcards.method, wildcards.seed
        tokenizer = self.experiment.tokenizer_of(model)
        given = self._given_of_stages(method, ["decode"], tokenizer, model, seed)
        if method in self.preparing:
            key = self.step_at(method, "decode").key()
            given.setdefault(key, {})[PREPARED] = [self._prepared(wildcards)]
        return settings_of(**given)

    # --- what is kept from training ---

    def removal_inputs(self, model: str, method: str) -> list[str]:
        """Return what says which tokens a method drops or suppresses."""
        if self.step_at(method, "data"):
            return [f"{self.training_corpus(model, method)}/dropped.json"]
        mask = self.training_mask(method)
        return self.inputs(mask, self.experiment.tokenizer_of(model)) if mask else []

    def removal_options(self, model: str, method: str) -> list[str]:
        if self.step_at(method, "data"):
            return ["--dropped", *self.removal_inputs(model, method)]
        folder = self.training_mask_folder(model, method)
        return ["--mask", folder] if folder else ["--truth"]

    def pairs_inputs(self, method: str) -> list[str]:
        """Return what a rule waits for before it reads the pairs of a method."""
        (needed,) = self.needs(method, Pairs)
        return self.sources.inputs(entry_of(needed.need), needed.key)

    def pairs_arguments(self, method: str) -> list[str]:
        (needed,) = self.needs(method, Pairs)
        return self.sources.arguments(entry_of(needed.need), needed.key)

    def pairs_settings(self, method: str) -> dict:
        (needed,) = self.needs(method, Pairs)
        return without(entry_of(needed.need), "files")
