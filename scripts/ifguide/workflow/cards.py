"""The cards of models: which model directories have one, and what a job that writes one is told.

A card is written after the evaluation, beside a model that is long finished, and belongs to no
other job: what is measured may change, and the model stays.
"""

from typing import Any

from ifguide.methods.step import Model
from ifguide.workflow.experiment import Experiment, settings_of, without
from ifguide.workflow.influence import Influence
from ifguide.workflow.layout import Layout
from ifguide.workflow.methods import UNCENSORED, Methods


class Cards:
    def __init__(self, experiment: Experiment, influence: Influence, methods: Methods) -> None:
        self.experiment = experiment
        self.config = experiment.config
        self.layout: Layout = experiment.layout
        self.influence = influence
        self.methods = methods

    @property
    def files(self) -> list[str]:
        return [self.layout.model_card(*map(str, made)) for made in self.models]

    @property
    def models(self) -> list[tuple[str, str, int]]:
        """Model, method and seed of every model directory that the results are made from."""
        seed = self.experiment.proxy_seed
        pending = [*self.methods.trained, *((p, UNCENSORED, seed) for p in self.influence.proxies)]
        found: dict[tuple[str, str, int], None] = {}
        while pending:
            made = pending.pop(0)
            if made not in found:
                found[made] = None
                model, method, seed = made
                pending += [(model, other, seed) for other in self._asked_for(model, method)]
        return list(found)

    def _asked_for(self, model: str, method: str) -> list[str]:
        """Return the methods whose models that of a method is made with."""
        start = self.methods.start_of(model, method)
        others = [start] if isinstance(start, str) else []
        others += [needed.need.method for needed in self.methods.needs(method, Model)]
        return [self.methods.weights_of(other) for other in others]

    # --- what a job is told and waits for ---

    def settings(self, wildcards: Any) -> str:
        """Return what the card tells of the config."""
        model, method = wildcards.model, wildcards.method
        entry = self.config["methods"][method]
        mask = self.methods.training_mask(method)
        selection = mask.need.selection if mask else None
        reads = bool(self.methods.training_files(model, method))
        return settings_of(
            experiment=self.config["experiment"],
            model=model,
            method=method,
            # How it is trained stands in the model's own record.
            entry=without(entry, "start_from", "training", "compare_with"),
            seed=int(wildcards.seed),
            start=self.methods.start_of(model, method),
            given=self.config["models"][model].get("path") if method == UNCENSORED else None,
            sources=self.config["corpus"]["sources"] if reads else [],
            suppressed=mask.need.tokens if mask else None,
            selection=self.influence.described(selection) if selection else None,
            judges={name: _told(entry) for name, entry in self.config["classifiers"].items()},
            sampling={name: self.config["generation"][name] for name in ("top_p", "temperature")},
            level=self.config["evaluation"]["level"],
        )

    def corpus(self, wildcards: Any) -> str:
        """Return the corpus whose tokens the model's own tokenizer made."""
        return self.experiment.corpus_of(wildcards.model)

    def corpus_inputs(self, wildcards: Any) -> list[str]:
        return self.experiment.corpus_files(self.corpus(wildcards), "tokens")

    def removal_inputs(self, wildcards: Any) -> list[str]:
        """Return what says which tokens the method drops or suppresses, and why."""
        found = self.methods.removal_inputs(wildcards.model, wildcards.method)
        mask = self.methods.training_mask(wildcards.method)
        if mask and mask.need.selection:
            found += [f"{self.influence.selection_folder(mask.need.selection)}/selection.json"]
        return list(dict.fromkeys(found))

    def removal_options(self, wildcards: Any) -> list[str]:
        """Return the options that name them; none where a method keeps nothing from training."""
        model, method = wildcards.model, wildcards.method
        if not self.methods.removal_inputs(model, method):
            return []
        options = self.methods.removal_options(model, method)
        mask = self.methods.training_mask(method)
        if mask and mask.need.selection:
            options += ["--selection", self.influence.selection_folder(mask.need.selection)]
        return options

    def metrics(self, wildcards: Any) -> list[str]:
        """Return what is measured of the model; nothing of one that is only a step on the way."""
        return self._metrics(wildcards.model, wildcards.method, int(wildcards.seed))

    def reference_metrics(self, wildcards: Any) -> list[str]:
        """Return the same of the uncensored model, to hold it against."""
        if wildcards.method == UNCENSORED or not self.metrics(wildcards):
            return []
        return self._metrics(wildcards.model, UNCENSORED, int(wildcards.seed))

    def _metrics(self, model: str, method: str, seed: int) -> list[str]:
        if (model, method, seed) not in self.methods.evaluated:
            return []
        return [
            f"{self.layout.evaluation(model, method, str(seed), benchmark)}/metrics.json"
            for benchmark in sorted(self.config["benchmarks"])
            if self.methods.is_measured_on(method, benchmark)
        ]

    def options(self, wildcards: Any) -> list[str]:
        """Return the options of a job that name what it waits for."""
        found = self.removal_options(wildcards)
        for option, paths in (
            ("--metrics", self.metrics(wildcards)),
            ("--reference", self.reference_metrics(wildcards)),
        ):
            found += [option, *paths] if paths else []
        return found


def _told(judge: dict) -> dict:
    """Return what a card tells of a judge: of a trained one, its kind and its texts."""
    if "train" not in judge:
        return judge
    return {"train": {key: judge["train"][key] for key in ("kind", "sources")}}
