"""Directions, scores, selections and masks: their folders and files, by the names in the config.

What is called a direction here may be an entry of `averages` or `rivals` as well: it has scores.
"""

from collections.abc import Iterable

from ifguide.methods.step import Mask
from ifguide.workflow.experiment import UNCENSORED, Experiment, settings_of, without
from ifguide.workflow.layout import moved_mask, random_mask, shard_files

# Columns of the study's table that say how scores came about.
SCORE_COLUMNS = (
    *("scores", "proxy", "toxic", "safe", "hessian", "relative_damping", "layers"),
    "attribution",
)


class Influence:
    """What belongs to the sections `influence` and `queries` of an experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.layout = experiment.layout
        self.settings = experiment.config["influence"]

    # --- directions ---

    def is_rival(self, direction: str) -> bool:
        return direction in self.settings["rivals"]

    def averaged(self, direction: str) -> list[str]:
        """Return the directions whose mean scores an entry of `averages` has; else itself.

        A rival has none.
        """
        if self.is_rival(direction):
            return []
        average = self.settings["averages"].get(direction)
        return average["directions"] if average else [direction]

    def model_of(self, direction: str) -> str:
        """Return the model of a direction; an average stands in the folder of its first one.

        A rival stands beside the directions of the proxy.
        """
        if self.is_rival(direction):
            return self.experiment.proxy
        first = self.averaged(direction)[0]
        return self.settings["directions"][first]["model"] or self.experiment.proxy

    def folder(self, direction: str) -> str:
        return self.layout.direction(self.model_of(direction), direction)

    def direction_files(self, direction: str) -> list[str]:
        """Return the files that tell what the scores of a direction are made from."""
        if self.is_rival(direction):
            return [self.layout.rival_file(self.model_of(direction), direction)]
        return [
            self.layout.direction_file(self.model_of(name), name)
            for name in self.averaged(direction)
        ]

    def gradient_file(self, model: str, direction: str, side: str) -> str | list:
        queries = self.settings["directions"][direction][side]
        return self.layout.gradient(model, queries) if queries else []

    def query_inputs(self, model: str, queries: str) -> str:
        """Return the records of a query set, or what a model without a method writes itself."""
        if queries in self.experiment.config["own_generations"]:
            seed = self.experiment.proxy_seed
            return self.layout.own_generations(queries, model, UNCENSORED, seed)
        return self.layout.queries(queries)

    # --- scores ---

    def scored_with(self, direction: str, attribution: str) -> str:
        """Return the settings in the records of scores, by which a reader knows them."""
        scores = self.settings["scores"]
        if average := self.settings["averages"].get(direction):
            return settings_of(
                **average, attribution=attribution, scores={"blocks": scores["blocks"]}
            )
        if self.is_rival(direction):
            return settings_of(
                **self.rival_settings(direction), attribution=attribution, seed=self.experiment.seed
            )
        return settings_of(attribution=attribution, scores=scores, seed=self.experiment.seed)

    def rival(self, direction: str) -> tuple[str, dict]:
        """Return the kind of a rival, and its options."""
        ((kind, options),) = self.settings["rivals"][direction].items()
        return kind, options

    def rival_settings(self, direction: str) -> dict:
        """Return what the scores of a rival depend on, but for where its inputs lie."""
        kind, options = self.rival(direction)
        scores = self.settings["scores"]
        # Language models read blocks as they do for `loss` scores.
        used = ("blocks", *(("batch_size", "logits_budget_mib") if kind == "rho" else ()))
        return {
            kind: without(options, "texts", "pairs"),
            "scores": {key: scores[key] for key in used},
        }

    @property
    def scored_rivals(self) -> list[str]:
        return sorted({name for name, _ in self.scored if self.is_rival(name)})

    @property
    def references(self) -> list[str]:
        """The methods with whose models rivals compare the proxy."""
        options = [self.rival(name)[1] for name in self.scored_rivals]
        return sorted({entry["reference"] for entry in options if "reference" in entry})

    def ranking_name(self, direction: str, attribution: str) -> str:
        """Return the name of a ranking by scores as they are, in the summary."""
        return direction if self.is_rival(direction) else f"{direction}/{attribution}"

    def scores_folder(self, direction: str, attribution: str) -> str:
        return self.layout.scores(self.model_of(direction), direction, attribution)

    def score_files(self, direction: str, attribution: str, suffix: str = "npy") -> list[str]:
        folder = self.scores_folder(direction, attribution)
        return shard_files(folder, self.experiment.shards, suffix)

    @property
    def measured(self) -> list[tuple[str, str]]:
        """The (direction, attribution) pairs whose scores are measured as they are."""
        selected = {
            (s["direction"], s["attribution"]) for s in self.settings["selections"].values()
        }
        asked = {
            (direction, attribution)
            for direction, entry in self.settings["directions"].items()
            for attribution in entry["measure"]
        }
        return sorted(selected | asked)

    @property
    def scored(self) -> list[tuple[str, str]]:
        """All (direction, attribution) pairs that are scored."""
        ranked = {(v["direction"], v["attribution"]) for v in self.variants.values()}
        return sorted({*self.measured} | ranked)

    @property
    def proxies(self) -> list[str]:
        """The models whose gradients are taken."""
        directions = {name for entry, _ in self.scored for name in self.averaged(entry)}
        return sorted({self.model_of(name) for name in directions} | {self.experiment.proxy})

    # --- rankings that are only judged ---

    @property
    def variants(self) -> dict[str, dict]:
        """The variants: without known spans there is nothing to judge a ranking by."""
        return self.settings["variants"] if self.experiment.has_truth else {}

    def variant_file(self, variant: str, name: str = "attribution.json") -> str:
        entry = self.settings["variants"][variant]
        folder = self.scores_folder(entry["direction"], entry["attribution"])
        return f"{folder}/{variant}/{name}"

    def spelled_out(self, variant: str) -> dict[str, str]:
        """Return the settings of a variant as text, by the columns of the study's table."""
        entry = self.settings["variants"][variant]
        if self.is_rival(entry["direction"]):
            return self._spelled_out(entry, scores=self.rival(entry["direction"])[0])
        parts = [self.settings["directions"][name] for name in self.averaged(entry["direction"])]
        return self._spelled_out(
            entry,
            scores=f"mean of {len(parts)}" if len(parts) > 1 else "one",
            proxy=_joined(part["model"] or self.experiment.proxy for part in parts),
            toxic=_joined(part["toxic"] for part in parts),
            safe=_joined(part["safe"] or "none" for part in parts),
            hessian=_joined(part["hessian"] for part in parts),
            relative_damping=_joined(
                "–" if part["hessian"] == "identity" else f"{part['relative_damping']:g}"
                for part in parts
            ),
            layers=_joined(part["layers"] or "all" for part in parts),
            attribution=entry["attribution"] + (", unmoved" if entry["unmoved"] else ""),
        )

    def _spelled_out(self, entry: dict, **of_scores: str) -> dict[str, str]:
        """Return all columns, a dash where a setting is none of these scores'."""
        weight = {"none": "none", "inverse_document_frequency": "IDF"}[entry["token_weight"]]
        if weight != "none" and entry["token_weight_power"] != 1:
            weight += f"^{entry['token_weight_power']:g}"
        pooling = f"{entry['pooling']:g}"
        if entry["pooling"] and entry["pool_over"] == "context":
            pooling += " over contexts"
        found = {column: of_scores.get(column, "–") for column in SCORE_COLUMNS}
        return {**found, "pooling": pooling, "token_weight": weight}

    def studied_queries(self, variants: Iterable[str]) -> list[str]:
        directions = [
            self.settings["directions"][name]
            for variant in variants
            for name in self.averaged(self.settings["variants"][variant]["direction"])
        ]
        named = {direction[side] for direction in directions for side in ("toxic", "safe")}
        return sorted(named & set(self.experiment.config["queries"]))

    # --- selections and masks ---

    def selection_folder(self, selection: str) -> str:
        direction = self.settings["selections"][selection]["direction"]
        return f"{self.folder(direction)}/{selection}"

    def decoy_sources(self, selection: str) -> list[str]:
        """Return the sources whose scores are a selection's decoys: those that are harmless."""
        limit = self.settings["selections"][selection]["limit"]
        if not isinstance(limit, dict) or limit.get("decoys") != "harmless":
            return []
        sources = self.experiment.config["corpus"]["sources"]
        return [source["name"] for source in sources if source["harmless"]]

    def equal_to(self, selection: str) -> str | None:
        """Return the selection as many of whose tokens another one takes, if it does."""
        limit = self.settings["selections"][selection]["limit"]
        return limit.get("tokens_of") if isinstance(limit, dict) else None

    def equal_selection_files(self, selection: str) -> list[str]:
        """Return the record of the selection as many of whose tokens another one takes."""
        other = self.equal_to(selection)
        return [f"{self.selection_folder(other)}/selection.json"] if other else []

    def selected_by(self, selection: str, suffix: str = "npy") -> list[str]:
        """Return the files of the scores that a selection is made from."""
        entry = self.settings["selections"][selection]
        return self.score_files(entry["direction"], entry["attribution"], suffix)

    def described(self, selection: str) -> dict:
        """Return a selection's name and entry, and that of its direction: what a card tells."""
        entry = self.settings["selections"][selection]
        scored = {
            **self.settings["directions"],
            **self.settings["averages"],
            **self.settings["rivals"],
        }
        # What is only measured along a direction is no part of a selection.
        direction = without(scored[entry["direction"]], "measure")
        return {"name": selection, "entry": entry, "direction": direction}

    def mask_files(self, folder: str) -> list[str]:
        """Return the record and the masks of a selection."""
        return [
            f"{folder}/selection.json",
            *shard_files(f"{folder}/mask", self.experiment.shards),
        ]

    def mask_folder(self, mask: Mask, tokenizer: str) -> str | None:
        """Return the folder of a mask in a tokenizer's tokens; None of the known toxic tokens."""
        if mask.selection is None:
            return None
        folder = self.selection_folder(mask.selection)
        if mask.tokens == "random":
            return random_mask(folder)
        if tokenizer == self.experiment.tokenizer_of(self.experiment.proxy):
            return folder
        return moved_mask(folder, tokenizer)


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(texts))
