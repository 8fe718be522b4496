"""What the jobs that measure a model are told and wait for: each has all benchmarks of its kind.

A benchmark that says nothing about a method is among the outputs all the same, so that a rule's
outputs do not depend on its wildcards; such a file says why it is empty.
"""

from typing import Any

from ifguide.workflow.experiment import Experiment, settings_of
from ifguide.workflow.layout import shard_files
from ifguide.workflow.methods import UNCENSORED, Methods

# The output of a benchmark in the job that measures fluency, by kind.
FLUENCY_FILES = {
    "perplexity": "metrics.json",
    "lambada": "metrics.json",
    "prompts": "continuation_losses.json",
}


class Evaluation:
    """The section `evaluation` of an experiment, as its jobs divide it."""

    def __init__(self, experiment: Experiment, methods: Methods) -> None:
        self.experiment = experiment
        self.config = experiment.config
        self.layout = experiment.layout
        self.methods = methods

    # --- continuations and their toxicity ---

    @property
    def prompts(self) -> list[str]:
        """The benchmarks whose prompts are continued."""
        return self.experiment.measured_benchmarks("prompts")

    def generation(self) -> dict[str, dict]:
        """Return how continuations are sampled, by benchmark."""
        common = {key: value for key, value in self.config["generation"].items() if key != "shards"}
        entries = self.config["benchmarks"]
        return {name: {**common, **entries[name].get("generation", {})} for name in self.prompts}

    def continuations(self, *benchmarks: str) -> list[str]:
        """Return the files of continuations, benchmark by benchmark."""
        return [
            path
            for name in benchmarks
            for path in shard_files(
                f"{self.layout.evaluation(benchmark=name)}/continuations",
                self.config["generation"]["shards"],
                "jsonl",
            )
        ]

    def longest_continuations(self) -> dict[str, dict]:
        return {name: self.experiment.longest_continuation(name) for name in self.prompts}

    def losses(self) -> list[str]:
        """Return the losses of continuations, where the uncensored model is compared."""
        if not self.methods.has_reference:
            return []
        return self.layout.evaluations(self.prompts, FLUENCY_FILES["prompts"])

    # --- fluency ---

    def _kind(self, benchmark: str) -> str:
        return self.config["benchmarks"][benchmark]["kind"]

    @property
    def fluency(self) -> list[str]:
        """The benchmarks of one job: of those with prompts, what is measured are losses."""
        return self.experiment.measured_benchmarks(*FLUENCY_FILES)

    def fluency_outputs(self) -> list[str]:
        return [
            path
            for name in self.fluency
            for path in self.layout.evaluations([name], FLUENCY_FILES[self._kind(name)])
        ]

    def _fluent(self, method: str, kind: str) -> list[str]:
        """Return the benchmarks of a kind in which a method's fluency is measured."""
        unmeasured = self._unmeasured(method)
        return [
            name for name in self.fluency if self._kind(name) == kind and name not in unmeasured
        ]

    def _unmeasured(self, method: str) -> dict[str, str]:
        """Return why benchmarks are not measured, by name."""
        found = self.methods.unmeasured_on(method, *self.fluency)
        if not self.methods.has_reference:
            found |= dict.fromkeys(self.prompts, "the uncensored model is not compared")
        return found

    def fluency_settings(self, method: str) -> str:
        evaluation, generation = self.config["evaluation"], self.config["generation"]
        decodes = self.methods.step_at(method, "decode")
        return settings_of(
            kinds={name: self._kind(name) for name in self.fluency},
            unmeasured=self._unmeasured(method),
            steps=self.methods.stage_options(method, "decode"),
            sampling=(
                {key: generation[key] for key in ("top_p", "temperature")} if decodes else None
            ),
            continuations=evaluation["perplexity_continuations"],
            seed=self.experiment.seed,
            resamples=evaluation["resamples"],
            level=evaluation["level"],
        )

    def _uncensored(self, wildcards: Any) -> dict[str, str]:
        """Return the seeds of the uncensored models that a job reads texts with, by option."""
        method, seeds = wildcards.method, {}
        other = self.methods.reference_seed(method, wildcards.seed)
        if other is not None and self._fluent(method, "perplexity"):
            seeds["--reference"] = other
        if self._fluent(method, "prompts"):
            seeds["--uncensored"] = wildcards.seed
        return seeds

    def _texts(self, wildcards: Any) -> list[tuple[str, str]]:
        """Return the files of passages and of continuations that a job reads, by benchmark."""
        passages = [
            (name, self.layout.passages(name)) for name in self._fluent(wildcards.method, "lambada")
        ]
        return passages + [
            (name, path.format(**dict(wildcards.items())))
            for name in self._fluent(wildcards.method, "prompts")
            for path in self.continuations(name)
        ]

    def fluency_inputs(self, wildcards: Any) -> list[str]:
        """Return what a measurement of fluency waits for beside the model itself."""
        uncensored = [
            path
            for seed in self._uncensored(wildcards).values()
            for path in self.methods.model_files(wildcards.model, UNCENSORED, seed)
        ]
        corpus = []
        if self._fluent(wildcards.method, "perplexity"):
            corpus = self.experiment.held_out_files(wildcards.model)
        texts = [path for _, path in self._texts(wildcards)]
        return list(dict.fromkeys(uncensored + corpus + texts))

    def fluency_options(self, wildcards: Any) -> list[str]:
        """Return the options of a measurement of fluency that name what it waits for."""
        options = [
            argument
            for option, seed in self._uncensored(wildcards).items()
            for argument in (option, self.layout.model(wildcards.model, UNCENSORED, seed))
        ]
        if self._fluent(wildcards.method, "perplexity"):
            options += ["--corpus", self.experiment.held_out(wildcards.model)]
        return options + ["--texts", *(f"{name}={path}" for name, path in self._texts(wildcards))]
