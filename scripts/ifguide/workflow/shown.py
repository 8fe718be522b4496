"""What the report shows: which selection, comparisons, figures, and the metrics of all of them."""

from ifguide.methods.step import Mask, Reward
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.influence import Influence
from ifguide.workflow.methods import UNCENSORED, Methods

# So many methods stand side by side in the figures that name them in a legend.
FEW_METHODS = 10


class Shown:
    """The section `report` of an experiment, and what it is made of."""

    def __init__(self, experiment: Experiment, influence: Influence, methods: Methods) -> None:
        self.experiment = experiment
        self.config = experiment.config
        self.settings = experiment.config["report"]
        self.layout = experiment.layout
        self.influence = influence
        self.methods = methods
        self.benchmark: str = self.settings["benchmark"]

    @property
    def selection(self) -> str:
        """The selection that is shown: the order of keys in the config must not choose it."""
        if self.settings["selection"]:
            return self.settings["selection"]
        compared = [
            needed.need.selection
            for method in self.config["evaluation"]["methods"]
            for needed in self.methods.needs(method, Mask)
            if needed.need.selection
        ]
        # Of influence, unless there is none: the figures of rivals are the comparison's.
        selections = self.config["influence"]["selections"]
        rivals = [
            name
            for name, entry in selections.items()
            if self.influence.is_rival(entry["direction"])
        ]
        return next(iter(compared), min(set(selections) - set(rivals) or selections))

    @property
    def method(self) -> str | None:
        """The method of which the result speaks: the first compared that suppresses a selection.

        One of several strengths, where one of them is chosen, goes by the name of them all.
        """
        first = next(iter(self.methods.suppressing), None)
        curves = self.choice.get("curves", {})
        return next((method for method, curve in curves.items() if first in curve), first)

    @property
    def selection_folder(self) -> str:
        return self.influence.selection_folder(self.selection)

    @property
    def share(self) -> float | None:
        """The share of the tokens that this selection takes, None where the config does not say."""
        limit = self.config["influence"]["selections"][self.selection]["limit"]
        return None if isinstance(limit, dict) else limit

    @property
    def selection_record(self) -> list[str]:
        """The record that says how many tokens it takes, where the config does not."""
        return [] if self.share is not None else [f"{self.selection_folder}/selection.json"]

    @property
    def selection_options(self) -> list[str]:
        return ["--selection", *self.selection_record] if self.selection_record else []

    @property
    def scores(self) -> tuple[str, str]:
        """The direction and attribution of the selection that is shown."""
        entry = self.config["influence"]["selections"][self.selection]
        return entry["direction"], entry["attribution"]

    @property
    def choice(self) -> dict:
        """How each method with several strengths is shown at one: `evaluation.choice.Choice`."""
        if not self.settings["choose_on"]:
            return {}
        return {
            "curves": self.methods.curves,
            "benchmark": self.settings["choose_on"],
            "within": self.settings["choose_within"],
        }

    @property
    def field(self) -> dict:
        """What the figure of the whole field is told; empty where few methods are compared."""
        compared = self.config["evaluation"]["methods"]
        if not self.methods.curves and len(compared) <= FEW_METHODS:
            return {}
        first = [UNCENSORED, *([self.method] if self.method else [])]
        model = self.config["evaluation"]["models"][0]
        return {"curves": self.methods.curves, "first": first, "model": model}

    # --- comparisons, where the config asks for them ---

    @property
    def agreement(self) -> str | list:
        """The comparison of rankings by the factors' sample."""
        if not self.settings["agreement_blocks"]:
            return []
        return f"{self.influence.folder(self.scores[0])}/ranking_agreement.csv"

    @property
    def proxy_agreement(self) -> str | list:
        """The comparison of proxy and target by their token scores."""
        if not self.settings["proxy_agreement"]:
            return []
        model = self.config["evaluation"]["models"][0]
        direction = self.settings["proxy_agreement"]["direction"]
        return f"{self.layout.direction(model, direction)}/proxy_agreement.json"

    @property
    def study(self) -> list[dict]:
        """The questions of the study: without known spans there is nothing to answer them by."""
        return self.settings["study"] if self.experiment.has_truth else []

    @property
    def studied(self) -> list[str]:
        return list(dict.fromkeys(variant for entry in self.study for variant in entry["variants"]))

    # --- figures and metrics ---

    @property
    def trained_judges(self) -> bool:
        return any("train" in entry for entry in self.config["classifiers"].values())

    @property
    def has_categories(self) -> bool:
        """Whether the explicit judge tells categories apart: a given Detoxify model does."""
        return not {"checkpoint", "hub"}.isdisjoint(self.config["classifiers"]["explicit"])

    @property
    def continuations(self) -> dict[str, int]:
        """The continuations of each prompt, by benchmark."""
        return {
            benchmark: self.config["benchmarks"][benchmark]
            .get("generation", {})
            .get("continuations", self.config["generation"]["continuations"])
            for benchmark in self.experiment.benchmarks_of("prompts")
        }

    @property
    def figures(self) -> list[str]:
        return (
            [
                "toxicity_by_method",
                "toxicity_against_perplexity",
                "toxicity_against_share",
                "toxicity_by_group",
                "training_losses",
                "decoys",
            ]
            + (["toxicity_against_fluency"] if self.field else [])
            + (["toxicity_by_category"] if self.has_categories else [])
            + (["precision_recall"] if self.experiment.has_truth else [])
            + (["ranking_agreement"] if self.agreement else [])
            + (["proxy_agreement"] if self.proxy_agreement else [])
        )

    @property
    def attribution_metrics(self) -> list[str]:
        measured = self.influence.measured if self.experiment.has_truth else []
        return [
            f"{self.influence.scores_folder(direction, attribution)}/attribution.json"
            for direction, attribution in measured
        ] + [self.influence.variant_file(variant) for variant in self.influence.variants]

    @property
    def precision_recall_curves(self) -> list[str]:
        measured = self.influence.measured if self.experiment.has_truth else []
        variants = [name for name in self.influence.variants if name not in self.studied]
        return [
            f"{self.influence.scores_folder(direction, attribution)}/precision_recall.csv"
            for direction, attribution in measured
        ] + [self.influence.variant_file(name, "precision_recall.csv") for name in variants]

    @property
    def classifier_metrics(self) -> list[str]:
        trained = [
            f"{self.layout.classifier(name)}/quality.json"
            for name, entry in self.config["classifiers"].items()
            if "train" in entry
        ]
        rewards = {
            self.layout.reward(needed.need.name, self.experiment.tokenizer_of(model))
            for model, method, _ in self.methods.evaluated
            for needed in self.methods.needs(method, Reward)
        }
        return trained + [f"{folder}/quality.json" for folder in sorted(rewards)]

    @property
    def removal_metrics(self) -> list[str]:
        return [
            self.layout.removal(model, method)
            for model in self.config["evaluation"]["models"]
            for method in self.methods.removing
        ]

    @property
    def erasure(self) -> str | list:
        """The harmless phrases that masks erase from the first model."""
        model = self.config["evaluation"]["models"][0]
        return self.layout.erasure(model) if self.methods.suppressing else []

    @property
    def losses(self) -> dict[str, str]:
        """The files of losses that can stand on one axis, by model/method/seed."""
        seed = self.experiment.proxy_seed
        proxies = [(proxy, UNCENSORED, seed) for proxy in self.influence.proxies]
        return {
            f"{model}/{method}/{seed}": f"{self.layout.model(model, method, seed)}/losses.csv"
            for model, method, seed in dict.fromkeys([*proxies, *self.methods.trained])
            if self.methods.trains(method)
            and all(step.losses_of_tokens for step in self.methods.steps[method])
        }
