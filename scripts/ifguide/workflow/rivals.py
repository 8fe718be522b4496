"""The rivals of influence scores: what a rule waits for, and what its job is given.

A kind of rival has one branch here, one in the script that scores, and one in the plan.
"""

from ifguide.workflow.experiment import Experiment, settings_of, without
from ifguide.workflow.influence import Influence
from ifguide.workflow.judges import Judges
from ifguide.workflow.methods import UNCENSORED, Methods
from ifguide.workflow.sources import Sources, rival_pairs_key


class Rivals:
    """The section `influence.rivals` of an experiment."""

    def __init__(
        self,
        experiment: Experiment,
        sources: Sources,
        influence: Influence,
        methods: Methods,
        judges: Judges,
    ) -> None:
        self.experiment = experiment
        self.layout = experiment.layout
        self.sources = sources
        self.influence = influence
        self.methods = methods
        self.judges = judges

    # --- scores ---

    def inputs(self, rival: str) -> list[str]:
        """Return what a rule waits for, the corpus apart."""
        kind, options = self.influence.rival(rival)
        match kind:
            case "rho":
                proxy, seed = self.experiment.proxy, str(self.experiment.proxy_seed)
                return [
                    *self.methods.model_files(proxy, UNCENSORED, seed),
                    *self.methods.model_files(proxy, options["reference"], seed),
                ]
            case "saliency" | "ate":
                return [self.layout.documents, *self.judges.ready(options["classifier"])]
            case "token_classifier":
                return [self._learned_from(rival)]
        raise TypeError(f"{kind}: no rule makes rivals of this kind")

    def given(self, rival: str) -> str:
        """Return what a job is given, as JSON."""
        kind, options = self.influence.rival(rival)
        match kind:
            case "rho":
                proxy, seed = self.experiment.proxy, str(self.experiment.proxy_seed)
                return settings_of(
                    model=self.methods.model_directory(proxy, UNCENSORED, seed),
                    reference=self.methods.model_directory(proxy, options["reference"], seed),
                )
            case "saliency" | "ate":
                return settings_of(
                    documents=self.layout.documents, judge=self.judges.given(options["classifier"])
                )
            case "token_classifier":
                form = "pairs" if "pairs" in options else "texts"
                return settings_of(**{form: self._learned_from(rival)})
        raise TypeError(f"{kind}: no rule makes rivals of this kind")

    def _learned_from(self, rival: str) -> str:
        _, options = self.influence.rival(rival)
        if "pairs" in options:
            return self.layout.rival_pairs(rival)
        return self.layout.texts(options["texts"])

    # --- what they learn from ---

    @property
    def with_pairs(self) -> list[str]:
        """The rivals that learn from pairs of their own."""
        rivals = self.influence.settings["rivals"]
        return sorted(name for name in rivals if "pairs" in self.influence.rival(name)[1])

    @property
    def learned_pairs(self) -> list[str]:
        """The files of pairs from which rivals learn whose scores are asked for."""
        scored = self.influence.scored_rivals
        return [self.layout.rival_pairs(name) for name in self.with_pairs if name in scored]

    @property
    def learned_texts(self) -> list[str]:
        """The entries of `texts` from which they learn."""
        options = [self.influence.rival(name)[1] for name in self.influence.scored_rivals]
        return sorted({entry["texts"] for entry in options if "texts" in entry})

    def pairs_inputs(self, rival: str) -> list[str]:
        return self.sources.inputs(self._pairs(rival), rival_pairs_key(rival))

    def pairs_arguments(self, rival: str) -> list[str]:
        return self.sources.arguments(self._pairs(rival), rival_pairs_key(rival))

    def pairs_settings(self, rival: str) -> dict:
        return without(self._pairs(rival), "files", "hub", "revision")

    def _pairs(self, rival: str) -> dict:
        return self.influence.rival(rival)[1]["pairs"]
