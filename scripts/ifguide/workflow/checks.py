"""What a config must hold beyond the kinds of its values: one line with the key, before work."""

import csv
import glob
import os
import re
from pathlib import Path

from ifguide.data.repositories import check_patterns
from ifguide.errors import InputError
from ifguide.evaluation.sequence_labels import class_of
from ifguide.files.artifacts import read_json
from ifguide.methods.step import (
    Activations,
    DocumentToxicity,
    Generations,
    HeldOutScores,
    LabelledTexts,
    Mask,
    Model,
    Pairs,
    Probe,
    Ranking,
    Reward,
)
from ifguide.models.architectures import longest_block, read_architecture
from ifguide.models.devices import CALIBRATED, DEVICES
from ifguide.workflow.config.report import Report
from ifguide.workflow.config_sections import sections_below
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.influence import Influence
from ifguide.workflow.methods import OF_MODELS, Methods
from ifguide.workflow.planned_facts import planned_records
from ifguide.workflow.refusal import refuse_config
from ifguide.workflow.shown import Shown
from ifguide.workflow.sources import Sources, data_repository, not_expanded, require_no_wildcard
from ifguide.workflow.strengths import curves_of

# Folders have names of at most 255 bytes, and temporary ones have longer names.
LONGEST_NAME = 100
# Snakemake stops at a part of a path that stands some twenty times in a row.
REPETITION = re.compile(r"(.+?)\1{14,}")
# Keys whose values are a lower and an upper bound, wherever they stand.
RANGES = ("part", "toxicity", "prompt_toxicity", "continuation_toxicity")
PUBLISHED_FIGURES = Path(__file__).parents[3] / "config" / "published.csv"


def check_method_steps(config: dict, methods: dict) -> None:
    """Refuse a method whose steps do not fit together; methods: steps by method, as `steps_of`."""
    for name, steps in methods.items():
        key = f"methods.{name}"
        for step in steps:
            if mistake := step.mistake():
                option, problem = mistake
                refuse_config(f"{key}.{step.key()}.{option}", problem)
        for first, second in zip(steps, steps[1:], strict=False):
            if first.stage == second.stage:
                refuse_config(
                    f"{key}.{second.key()}",
                    f"does not go with {first.key()}, which acts at the same stage; make it "
                    "another method, and name that one in start_from",
                )
        for kind in (Pairs, Mask):
            needing = [s for s in steps if any(isinstance(n, kind) for n in s.needs().values())]
            if len(needing) > 1:
                refuse_config(
                    f"{key}.{needing[1].key()}",
                    f"needs what {needing[0].key()} needs too ({kind.__name__.lower()}); make it "
                    "another method, and name that one in start_from",
                )
        data = next((step for step in steps if step.stage == "data"), None)
        train = next((step for step in steps if step.stage == "train"), None)
        if data and train and any(isinstance(need, Mask) for need in train.needs().values()):
            refuse_config(
                key,
                f"give only one of {data.key()}, or {train.key()}: a mask speaks of the whole "
                "corpus",
            )
        if train and train.needs_start and "start_from" not in config["methods"][name]:
            refuse_config(f"{key}.start_from", f"missing: {train.key()} needs it")
        if train and not train.reads_corpus:
            # Its own options say how it trains.
            beside = [data.key()] if data else []
            beside += [part for part in ("training",) if part in config["methods"][name]]
            for other in beside:
                refuse_config(
                    f"{key}.{other}",
                    f"does not go with {train.key()}; make it another method, and name that one in "
                    "start_from",
                )


class Checks:
    """The checks of one experiment, in the order in which they are worth reading."""

    def __init__(
        self,
        experiment: Experiment,
        sources: Sources,
        influence: Influence,
        methods: Methods,
        shown: Shown,
    ) -> None:
        self.experiment = experiment
        self.config = experiment.config
        self.sources = sources
        self.influence = influence
        self.methods = methods
        self.shown = shown

    def run(self) -> None:
        self.check_forms_of_names()
        self.check_names()
        self.check_models()
        self.check_queries()
        self.check_study()
        self.check_methods()
        self.check_rivals()
        self.check_bounds()
        self.check_paths()
        self.check_sequence_classifiers()
        self.check_agreement()
        self.check_lasting()

    def check_forms_of_names(self) -> None:
        """Refuse names that no folder can have, or that Snakemake takes for an endless chain."""
        config, influence = self.config, self.config["influence"]
        named = [("experiment", config["experiment"]), ("overlay", config["overlay"] or "")]
        for section in ("tokenizers", "queries", "classifiers", "models", "methods", "rewards"):
            named += [(section, name) for name in config[section]]
        named += [("benchmarks", name) for name in config["benchmarks"]]
        for section in ("directions", "averages", "variants", "selections"):
            named += [(f"influence.{section}", name) for name in influence[section]]
        for key, name in named:
            if len(name) > LONGEST_NAME:
                short = f"{name[:20]}..."
                refuse_config(
                    key, f"{short!r} has {len(name)} characters; give at most {LONGEST_NAME}"
                )
            if REPETITION.search(name):
                refuse_config(key, f"{name!r} repeats itself too often; give another name")

    def check_names(self) -> None:
        """Refuse a name that nothing in the config defines, and one that stands for two."""
        config = self.config
        sources = [source["name"] for source in config["corpus"]["sources"]]
        for number, name in enumerate(sources):
            if name in sources[:number]:
                refuse_config(
                    f"corpus.sources.{number}.name",
                    f"{name!r} is also the name of another source, whose counts it would take; "
                    "give each its own, or one of them the files of both",
                )
        models, methods, influence = config["models"], config["methods"], config["influence"]
        named = [("influence.model", influence["model"], models)]
        for name in config["evaluation"]["models"]:
            named.append(("evaluation.models", name, models))
        for name in config["evaluation"]["methods"]:
            named.append(("evaluation.methods", name, methods))
        for name, model in models.items():
            named.append((f"models.{name}.tokenizer", model["tokenizer"], config["tokenizers"]))
        unmatched = self.experiment.unmatched_queries
        for name, entry in config["queries"].items():
            if "match" in entry:
                named.append((f"queries.{name}.match.to", entry["match"]["to"], unmatched))
        for name, direction in influence["directions"].items():
            for key, known in (
                ("toxic", {**config["queries"], **config["own_generations"]}),
                ("safe", config["queries"]),
                ("model", models),
            ):
                if direction[key]:
                    named.append((f"influence.directions.{name}.{key}", direction[key], known))
        for name, average in influence["averages"].items():
            if name in influence["directions"]:
                refuse_config(f"influence.averages.{name}", "is also the name of a direction")
            key = f"influence.averages.{name}.directions"
            named += [(key, part, influence["directions"]) for part in average["directions"]]
        for name in influence["rivals"]:
            if name in influence["directions"] or name in influence["averages"]:
                key = f"influence.rivals.{name}"
                refuse_config(key, "is also the name of a direction or an average")
            named += self._names_of_rival(name)
        scored = {**influence["directions"], **influence["averages"], **influence["rivals"]}
        for section in ("selections", "variants"):
            for name, entry in influence[section].items():
                named.append((f"influence.{section}.{name}.direction", entry["direction"], scored))
        for name in influence["selections"]:
            if other := self.influence.equal_to(name):
                key = f"influence.selections.{name}.limit.tokens_of"
                named.append((key, other, influence["selections"]))
        for name, method in methods.items():
            if isinstance(method.get("start_from"), str):
                named.append((f"methods.{name}.start_from", method["start_from"], methods))
            if "compare_with" in method:
                others = [other for other in methods if other != name]
                named.append((f"methods.{name}.compare_with", method["compare_with"], others))
            for needed in self.methods.needs(name):
                match needed.need:
                    case LabelledTexts(wanted) | Activations(wanted) | Probe(wanted):
                        named.append((needed.key, wanted, config["texts"]))
                    case Generations(wanted):
                        named.append((needed.key, wanted, config["own_generations"]))
                    case Model(wanted):
                        named.append((needed.key, wanted, methods))
                    case DocumentToxicity(classifier=wanted):
                        named.append((needed.key, wanted, config["classifiers"]))
                    case Mask(selection=str(wanted)) | Ranking(selection=wanted):
                        named.append((needed.key, wanted, influence["selections"]))
                    case Reward(name=wanted):
                        named.append((needed.key, wanted, config["rewards"]))
        for name, entry in config["own_generations"].items():
            if name in config["queries"]:
                refuse_config(f"own_generations.{name}", "is also the name of a query set")
            for key, known in (("queries", config["queries"]), ("judges", config["classifiers"])):
                named += [(f"own_generations.{name}.{key}", one, known) for one in entry[key]]
        report = config["report"]
        asked = config["evaluation"]["benchmarks"]
        named += [("evaluation.benchmarks", name, config["benchmarks"]) for name in asked or []]
        prompts = self.experiment.benchmarks_of("prompts")
        measured = [name for name in prompts if asked is None or name in asked]
        named.append(("report.benchmark", report["benchmark"], measured))
        if report["choose_on"]:
            named.append(("report.choose_on", report["choose_on"], measured))
        if report["groups"] != Report.model_fields["groups"].default:
            named.append(("report.groups", report["groups"], prompts))
        named += [
            ("report.published_models", name, published_models())
            for name in report["published_models"]
        ]
        if report["selection"]:
            named.append(("report.selection", report["selection"], influence["selections"]))
        if report["proxy_agreement"]:
            key = "report.proxy_agreement.direction"
            named.append((key, report["proxy_agreement"]["direction"], influence["directions"]))
        if "lasting" in config:
            lasting = config["lasting"]
            named.append(("lasting.texts", lasting["texts"], config["texts"]))
            named.append(("lasting.benchmark", self.experiment.relearned_benchmark, measured))
            named += [("lasting.curve", name, models) for name in lasting["curve"]]
        for number, entry in enumerate(report["study"]):
            key = f"report.study.{number}.variants"
            named += [(key, variant, influence["variants"]) for variant in entry["variants"]]
        plan = config["plan"]
        devices = [*DEVICES, *plan["own_devices"], *([CALIBRATED] if plan["calibration"] else [])]
        named += [("plan.devices", device, devices) for device in plan["devices"]]
        records = planned_records(self.experiment, self.sources, self.methods)
        named += [("plan.records", name, records) for name in plan["records"]]
        for key, name, known in named:
            if name not in known:
                refuse_config(key, f"{name!r} is none of {', '.join(sorted(known)) or 'nothing'}")

    def _names_of_rival(self, rival: str) -> list[tuple[str, str, dict]]:
        """Return the names that a rival's options hold: key, name, and what it is one of."""
        kind, options = self.influence.rival(rival)
        known = {
            "reference": self.config["methods"],
            "classifier": self.config["classifiers"],
            "texts": self.config["texts"],
        }
        return [
            (f"influence.rivals.{rival}.{kind}.{option}", options[option], entries)
            for option, entries in known.items()
            if option in options
        ]

    def check_models(self) -> None:
        """Refuse models and methods that cannot be trained, before anything is."""
        models = self.config["models"]
        self._check_cycles()
        proxy = self.experiment.proxy
        # The mask of a selection moves to other tokens; what else a selection can do does not.
        bound = [
            name
            for name in self.config["evaluation"]["methods"]
            for needed in self.methods.needs(name, Mask, Ranking)
            if isinstance(needed.need, Ranking) or needed.need.tokens == "random"
        ]
        for name in self.config["evaluation"]["models"]:
            if bound and models[name]["tokenizer"] != models[proxy]["tokenizer"]:
                refuse_config(
                    f"models.{name}.tokenizer",
                    f"is not that of {proxy}, which scores the tokens, as methods.{bound[0]} "
                    "needs; give both the same tokenizer",
                )
        directions = self.config["influence"]["directions"].values()
        proxies = {proxy, *(entry["model"] or proxy for entry in directions)}
        for name in sorted(proxies):
            if models[name]["tokenizer"] != models[proxy]["tokenizer"]:
                refuse_config(
                    f"models.{name}.tokenizer",
                    f"is not that of {proxy}; models that score tokens need the same tokenizer",
                )
        block_size = self.config["corpus"]["block_size"]
        for name in {*proxies, *self.config["evaluation"]["models"]}:
            positions = self._positions_of(name)
            if positions is not None and positions < block_size:
                refuse_config(
                    "corpus.block_size",
                    f"{block_size} is longer than the {positions} positions of models.{name}",
                )

    def _check_cycles(self) -> None:
        """Refuse a method whose model is made from itself."""
        methods = self.config["methods"]
        made_from = {
            name: {
                f"methods.{name}.start_from": entry.get("start_from"),
                **{needed.key: needed.need.method for needed in self.methods.needs(name, Model)},
            }
            for name, entry in methods.items()
        }

        def follow(name: str, chain: list[str], first: str | None) -> None:
            for key, other in made_from[name].items():
                if not isinstance(other, str):
                    continue
                if other in [*chain, name]:
                    refuse_config(first or key, "begins with a model made from itself")
                follow(other, [*chain, name], first or key)

        for name in methods:
            follow(name, [], None)

    def _positions_of(self, model: str) -> int | None:
        """Return the positions of a model, None where they follow the block or are not known."""
        entry = self.config["models"][model]
        key = f"models.{model}"
        try:
            if "path" not in entry:
                described = read_architecture(entry["architecture"], f"{key}.architecture")
            else:
                description = Path(entry["path"], "config.json")
                if not description.is_file():
                    refuse_config(
                        f"{key}.path",
                        f"{entry['path']} is not the directory of a model"
                        f"{not_expanded(entry['path'])}",
                    )
                described = read_architecture({"file": str(description)}, f"{key}.path")
        except InputError as error:
            raise SystemExit(f"error: config: {str(error).removeprefix('config key ')}") from None
        positions = longest_block(described)
        if not isinstance(positions, int | None):
            refuse_config(key, f"{positions!r} is not a number of positions; write a whole number")
        return positions

    def check_study(self) -> None:
        """Refuse comparisons that this corpus, or these scores, cannot give."""
        influence = self.config["influence"]
        for name, entry in influence["directions"].items():
            try:
                re.compile(entry["layers"])
            except re.error as error:
                key = f"influence.directions.{name}.layers"
                refuse_config(key, f"no regular expression ({error})")
        for section in ("selections", "variants"):
            for name, entry in influence[section].items():
                if entry["unmoved"] and entry["attribution"] != "position":
                    key = f"influence.{section}.{name}.unmoved"
                    refuse_config(key, "only `position` scores are moved")
                if entry["attribution"] != "loss" and self.influence.is_rival(entry["direction"]):
                    key = f"influence.{section}.{name}.attribution"
                    refuse_config(key, f"{entry['direction']} is a rival, with one kind of scores")
        for name, entry in influence["selections"].items():
            other = self.influence.equal_to(name)
            if other and self.influence.equal_to(other):
                refuse_config(
                    f"influence.selections.{name}.limit.tokens_of",
                    f"{other} takes as many as another one itself; name that one",
                )
            limit = entry["limit"]
            harmless = isinstance(limit, dict) and limit.get("decoys") == "harmless"
            if harmless and not self.influence.decoy_sources(name):
                refuse_config(
                    f"influence.selections.{name}.limit.decoys",
                    "no entry of corpus.sources has `harmless: true`; set negative",
                )
        masks = self.methods.with_need(Mask, Ranking)
        suppressing = any(method in masks for method in self.config["evaluation"]["methods"])
        if influence["scores"]["blocks"] and suppressing:
            refuse_config(
                "influence.scores.blocks",
                "a selection needs the scores of all blocks; set null, or compare only `none`",
            )

    def check_rivals(self) -> None:
        """Refuse rivals that are made from selected tokens, or from a judge without weights."""
        for name in self.config["influence"]["rivals"]:
            kind, options = self.influence.rival(name)
            key = f"influence.rivals.{name}.{kind}"
            if kind == "rho":
                reference = options["reference"]
                if not self.methods.makes_model(reference):
                    refuse_config(f"{key}.reference", f"{reference!r} has no weights of its own")
                makers = self.methods.with_models_of([reference])
                for needed in (n for m in makers for n in self.methods.needs(m, Mask, Ranking)):
                    refuse_config(
                        f"{key}.reference",
                        f"{reference!r} rests on {needed.key}: selected or known tokens; name a "
                        "method that learns from harmless text by a filter or texts of its own",
                    )
            judge = self.config["classifiers"].get(options.get("classifier"), {})
            if kind == "saliency" and not {"planted", "words"}.isdisjoint(judge):
                refuse_config(
                    f"{key}.classifier",
                    f"{options['classifier']} looks for words and has no gradient; name a judge "
                    "that is trained, given or published",
                )

    def check_agreement(self) -> None:
        """Refuse to compare factors that are not there, or scores that cannot be compared."""
        report = self.config["report"]
        direction = self.config["influence"]["selections"][self.shown.selection]["direction"]
        entry = self.config["influence"]["directions"].get(direction)
        if report["agreement_blocks"] and (not entry or entry["hessian"] == "identity"):
            refuse_config(
                "report.agreement_blocks",
                f"{direction}, whose selection the report shows, uses no factors; set 0",
            )
        if report["proxy_agreement"]:
            target = self.config["evaluation"]["models"][0]
            proxy = self.influence.model_of(report["proxy_agreement"]["direction"])
            if self.experiment.tokenizer_of(target) != self.experiment.tokenizer_of(proxy):
                refuse_config(
                    "report.proxy_agreement",
                    f"{proxy} and {target} have different tokenizers, so that their scores speak "
                    "of different tokens; remove it",
                )
            if target == proxy:
                refuse_config(
                    "report.proxy_agreement.direction", f"belongs to {target} itself; name another"
                )

    def check_lasting(self) -> None:
        """Refuse to measure what lasts without known toxic text, or by models that do not fit."""
        if "lasting" not in self.config:
            return
        if not self.experiment.has_truth:
            refuse_config(
                "lasting", "toxic text is known by the `spans` of a corpus source; name some"
            )
        curve = self.config["lasting"]["curve"]
        compared = self.config["evaluation"]["models"]
        for name in dict.fromkeys([*curve, *(compared if curve else [])]):
            if "path" in self.config["models"][name]:
                cure = "leave the curve out" if name in compared else "name one that is trained"
                refuse_config(
                    "lasting.curve",
                    f"models.{name} is given, and what its training cost is not known; {cure}",
                )
            if self.experiment.tokenizer_of(name) != self.experiment.tokenizer_of(compared[0]):
                refuse_config(
                    "lasting.curve",
                    f"models.{name} has another tokenizer than {compared[0]}, so that their losses "
                    "do not compare; name models of one tokenizer",
                )

    def check_queries(self) -> None:
        """Refuse query sets that do not say which side of a pair they take, or say it in vain."""
        for name, entry in self.config["queries"].items():
            if (entry["format"] == "paradetox") != ("side" in entry):
                refuse_config(
                    f"queries.{name}.side", "goes with the format paradetox, which needs it"
                )

    def check_methods(self) -> None:
        """Refuse a method that begins with no model, or suppresses what is not known."""
        methods = self.config["methods"]
        for name, entry in methods.items():
            base = entry.get("start_from")
            if isinstance(base, str) and not self.methods.makes_model(base):
                refuse_config(
                    f"methods.{name}.start_from",
                    f"{base!r} acts while text is sampled and has no weights of its own; name "
                    f"{self.methods.weights_of(base)!r}",
                )
            for needed in self.methods.needs(name, Mask):
                if needed.need.selection is None and not self.experiment.has_truth:
                    refuse_config(needed.key, "truth needs a corpus source whose `spans` are known")

            for needed in self.methods.needs(name, *OF_MODELS):
                on = self.methods.acts_on(self.config["evaluation"]["models"][0], needed)
                if not isinstance(on, str):
                    refuse_config(
                        f"methods.{name}.start_from",
                        f"{needed.step} learns from a model, whose method has to be named: "
                        "`none`, or another entry of methods",
                    )
            for needed in self.methods.needs(name, Model):
                if not self.methods.makes_model(needed.need.method):
                    refuse_config(needed.key, f"{needed.need.method!r} has no weights of its own")
            for needed in self.methods.needs(name, HeldOutScores):
                if "train" not in self.config["classifiers"][needed.need.classifier]:
                    refuse_config(
                        needed.key,
                        f"no text was held out from {needed.need.classifier}, which is not trained "
                        "here; give a number",
                    )
        compared = self.config["evaluation"]["methods"]
        for name, control in self.methods.controls.items():
            if variants := curves_of(self.config).get(control):
                refuse_config(
                    f"methods.{name}.compare_with",
                    f"{control!r} has several strengths; name one of them, such as "
                    f"{next(iter(variants))!r}",
                )
            if control not in compared:
                refuse_config(
                    f"methods.{name}.compare_with",
                    f"{control!r} is not compared; add it to evaluation.methods",
                )

    def check_bounds(self) -> None:
        """Refuse a range that holds nothing."""
        for key, section in sections_below(self.config):
            for name in RANGES:
                if isinstance(section.get(name), list):
                    _check_range(f"{key}.{name}", section[name])
        for section in ("selections", "variants"):
            for name, entry in self.config["influence"][section].items():
                key = f"influence.{section}.{name}"
                if entry.get("limit") == 0:
                    refuse_config(f"{key}.limit", "0 selects no token; set it above 0")
                if entry.get("quantile") == 1 and not isinstance(entry["limit"], dict):
                    refuse_config(f"{key}.quantile", "1 selects no token; set it below 1")

    def check_paths(self) -> None:
        """Refuse a path that nothing is at, and that no download or rule makes."""
        for key, entry in self.sources.data_entries():
            if "hub" in entry:
                try:
                    check_patterns(data_repository(entry))
                except InputError as error:
                    refuse_config(key, error)
            else:
                self.sources.paths(entry, key)
        config = self.config
        for key, path in [
            *(
                (f"classifiers.{name}.{key}", entry.get(key))
                for name, entry in config["classifiers"].items()
                for key in ("checkpoint", "path")
            ),
            *(
                (f"tokenizers.{name}.path", entry.get("path"))
                for name, entry in config["tokenizers"].items()
            ),
            *(
                (f"models.{name}.architecture.file", entry.get("architecture", {}).get("file"))
                for name, entry in config["models"].items()
            ),
            *(
                (
                    f"methods.{name}.start_from.path",
                    os.path.join(entry["start_from"]["path"], "config.json"),
                )
                for name, entry in config["methods"].items()
                if isinstance(entry.get("start_from"), dict)
            ),
            *(
                (f"models.{name}.path", entry.get("path"))
                for name, entry in config["models"].items()
            ),
        ]:
            if path and not os.path.exists(path):
                refuse_config(key, f"{path} does not exist{not_expanded(path)}")
            if path:
                require_no_wildcard(path, key)

    def check_sequence_classifiers(self) -> None:
        """Refuse a directory that is not the classifier that the config describes."""
        for name, judge in self.config["classifiers"].items():
            if "path" in judge:
                _check_sequence_classifier(f"classifiers.{name}", judge)


def _check_range(key: str, bounds: list[float]) -> None:
    low, high = bounds
    if low > high:
        refuse_config(key, f"{bounds} ends before it begins; write [{high:g}, {low:g}]")
    if low == high and not low == high == 1:  # a bound of 1 includes 1
        refuse_config(key, f"{bounds} holds nothing")


def published_models() -> list[str]:
    """Return the models whose published figures can stand beside ours."""
    with open(PUBLISHED_FIGURES, encoding="utf-8", newline="") as lines:
        return sorted({row["model"] for row in csv.DictReader(lines)})


def _check_sequence_classifier(key: str, judge: dict) -> None:
    folder = judge["path"]
    try:
        described = read_json(Path(folder, "config.json"))
        names = described.get("id2label", {0: "LABEL_0", 1: "LABEL_1"})
        labels = {int(index): str(name) for index, name in names.items()}
    except (OSError, InputError):
        refuse_config(f"{key}.path", f"{folder} has no config.json that can be read")
    except (AttributeError, TypeError, ValueError):
        refuse_config(
            f"{key}.path", f"{folder}/config.json is not that of a classifier with labels"
        )
    if not glob.glob(os.path.join(glob.escape(folder), "*.safetensors")):
        refuse_config(
            f"{key}.path", f"{folder} has no .safetensors weights; pickled ones are never loaded"
        )
    try:
        class_of(judge["toxic_label"], labels, described.get("problem_type"))
    except InputError as error:
        refuse_config(f"{key}.toxic_label", f"{folder}: {error}")
