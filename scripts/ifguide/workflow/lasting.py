"""The section `lasting` of an experiment: which models are relearned, and what jobs are told."""

from ifguide.evaluation.judge import LEADING
from ifguide.workflow.experiment import Experiment, settings_of
from ifguide.workflow.judges import Judges
from ifguide.workflow.methods import UNCENSORED, Methods


class Lasting:
    """What lasts of the compared methods; of nothing where the config does not have the section."""

    def __init__(self, experiment: Experiment, methods: Methods, judges: Judges) -> None:
        self.experiment = experiment
        self.config = experiment.config
        self.settings: dict = experiment.config.get("lasting", {})
        self.layout = experiment.layout
        self.methods = methods
        self.judges = judges

    @property
    def benchmark(self) -> str | None:
        """The benchmark of prompts that relearned models continue."""
        return self.experiment.relearned_benchmark

    @property
    def texts(self) -> list[str]:
        """The entries of `texts` that are learned."""
        return [self.settings["texts"]] if self.settings else []

    @property
    def relearned(self) -> list[str]:
        """The methods whose models are relearned: without the uncensored one there is no level."""
        compared = [m for m in self.config["evaluation"]["methods"] if self.methods.makes_model(m)]
        return list(dict.fromkeys([UNCENSORED, *compared])) if self.settings else []

    @property
    def decoded(self) -> list[str]:
        """The compared methods that have no model of their own."""
        compared = self.config["evaluation"]["methods"]
        return [method for method in compared if not self.methods.makes_model(method)]

    def _of_all(self, *methods: str) -> list[tuple[str, str, int]]:
        evaluation = self.config["evaluation"]
        return [
            (model, method, seed)
            for model in evaluation["models"]
            for method in methods
            for seed in evaluation["seeds"]
        ]

    @property
    def relearning(self) -> list[str]:
        return [self.layout.relearning(*made) for made in self._of_all(*self.relearned)]

    @property
    def curves(self) -> list[str]:
        if not self.settings.get("curve"):
            return []
        return [self.layout.loss_curve(model, seed) for model, _, seed in self._of_all(UNCENSORED)]

    @property
    def tables(self) -> list[str]:
        if not self.settings:
            return []
        return [self.layout.shown("lasting.csv"), self.layout.shown("pages/lasting.html")]

    # --- what jobs are told and wait for ---

    def relearning_settings(self) -> str:
        chosen = ("learning_rate", "batch_size", "steps", "prompts", "continuations")
        common = self.config["generation"]
        return settings_of(
            **{key: self.settings[key] for key in chosen},
            max_length=self.config["texts"][self.settings["texts"]]["max_length"],
            sampling={key: common[key] for key in ("top_p", "temperature")}
            | {"max_new_tokens": self.experiment.longest_continuation(self.benchmark)["tokens"]},
            judges=self.judges.given_of(LEADING),
            threshold=self.config["evaluation"]["threshold"],
            seed=self.experiment.seed,
        )

    def curve_models(self, model: str) -> list[str]:
        """Return the models whose uncensored losses a model's methods are compared with."""
        return list(dict.fromkeys([*self.settings["curve"], model]))
