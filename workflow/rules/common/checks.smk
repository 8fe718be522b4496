# What a config must hold beyond its schema: one line that names the key, before any work.

import glob
import os
import re
from pathlib import Path

from ifguide.models.architectures import longest_block, read_architecture
from ifguide.files.artifacts import read_json
from ifguide.errors import InputError
from ifguide.data.repositories import check_patterns


def check_names():
    """Refuse a name that nothing in the config defines."""
    models, methods, influence = config["models"], config["methods"], config["influence"]
    named = [("influence.model", influence["model"], models)]
    for name in config["evaluation"]["models"]:
        named.append(("evaluation.models", name, models))
    for name in config["evaluation"]["methods"]:
        named.append(("evaluation.methods", name, methods))
    for name, model in models.items():
        named.append((f"models.{name}.tokenizer", model["tokenizer"], config["tokenizers"]))
    for name, entry in config["queries"].items():
        if "match" in entry:
            named.append((f"queries.{name}.match.to", entry["match"]["to"], UNMATCHED_QUERIES))
    for name, direction in influence["directions"].items():
        for key, known in (
            ("toxic", config["queries"]),
            ("safe", config["queries"]),
            ("model", models),
        ):
            if direction[key]:
                named.append((f"influence.directions.{name}.{key}", direction[key], known))
    for name, average in influence["averages"].items():
        if name in influence["directions"]:
            refuse_config(f"influence.averages.{name}", "is also the name of a direction")
        key = f"influence.averages.{name}.directions"
        named += [(key, direction, influence["directions"]) for direction in average["directions"]]
    scored = {**influence["directions"], **influence["averages"]}
    for section in ("selections", "variants"):
        for name, entry in influence[section].items():
            named.append((f"influence.{section}.{name}.direction", entry["direction"], scored))
    for name, method in methods.items():
        for step in ("suppress", "filter"):
            if "selection" in method.get(step, {}):
                key = f"methods.{name}.{step}.selection"
                named.append((key, method[step]["selection"], influence["selections"]))
        for key in ("start_from", "decode"):
            if isinstance(method.get(key), str):
                named.append((f"methods.{name}.{key}", method[key], methods))
        if "rad" in method:
            named.append((f"methods.{name}.rad.reward", method["rad"]["reward"], config["rewards"]))
    named.append(("report.benchmark", config["report"]["benchmark"], benchmarks_of("prompts")))
    if config["report"]["selection"]:
        key = "report.selection"
        named.append((key, config["report"]["selection"], influence["selections"]))
    if config["report"]["proxy_agreement"]:
        key = "report.proxy_agreement.direction"
        named.append(
            (key, config["report"]["proxy_agreement"]["direction"], influence["directions"])
        )
    for number, entry in enumerate(config["report"]["study"]):
        key = f"report.study.{number}.variants"
        named += [(key, variant, influence["variants"]) for variant in entry["variants"]]
    named += [("plan.devices", device, planned_devices()) for device in config["plan"]["devices"]]
    named += [("plan.records", name, planned_records()) for name in config["plan"]["records"]]
    for key, name, known in named:
        if name not in known:
            refuse_config(key, f"{name!r} is none of {', '.join(sorted(known)) or 'nothing'}")


def check_models():
    """Refuse models and methods that cannot be trained, before anything is."""
    models, methods = config["models"], config["methods"]
    for name in methods:
        chain = [name]
        while isinstance(following := methods[chain[-1]].get("start_from"), str):
            if following in chain:
                refuse_config(f"methods.{name}.start_from", "begins with a model made from itself")
            chain.append(following)
    proxy = config["influence"]["model"]
    # The mask of a selection moves to other tokens; what else a selection can do does not.
    bound = [
        name
        for name in config["evaluation"]["methods"]
        if "selection" in methods[name].get("filter", {})
        or methods[name].get("suppress", {}).get("tokens") == "random"
    ]
    for name in config["evaluation"]["models"]:
        if bound and models[name]["tokenizer"] != models[proxy]["tokenizer"]:
            refuse_config(
                f"models.{name}.tokenizer",
                f"is not that of {proxy}, which scores the tokens, as methods.{bound[0]} needs; give "
                "both the same tokenizer",
            )
    proxies = {proxy, *(d["model"] or proxy for d in config["influence"]["directions"].values())}
    for name in sorted(proxies):
        if models[name]["tokenizer"] != models[proxy]["tokenizer"]:
            refuse_config(
                f"models.{name}.tokenizer",
                f"is not that of {proxy}; models that score tokens need the same tokenizer",
            )
    block_size = config["corpus"]["block_size"]
    for name in {*proxies, *config["evaluation"]["models"]}:
        positions = positions_of(name)
        if positions is not None and positions < block_size:
            refuse_config(
                "corpus.block_size",
                f"{block_size} is longer than the {positions} positions of models.{name}",
            )


def positions_of(model):
    """The positions that a model gives itself, None where they follow the block or are not known."""
    entry = config["models"][model]
    key = f"models.{model}"
    try:
        if "path" not in entry:
            return longest_block(read_architecture(entry["architecture"], f"{key}.architecture"))
        description = Path(entry["path"], "config.json")
        if not description.is_file():
            refuse_config(f"{key}.path", f"{entry['path']} is not the directory of a model")
        return longest_block(read_json(description))
    except InputError as error:
        raise SystemExit(f"error: config: {str(error).removeprefix('config key ')}") from None


def check_study():
    """Refuse comparisons that this corpus, or these scores, cannot give."""
    influence = config["influence"]
    for name, entry in influence["directions"].items():
        try:
            re.compile(entry["layers"])
        except re.error as error:
            refuse_config(f"influence.directions.{name}.layers", f"no regular expression ({error})")
    for section in ("selections", "variants"):
        for name, entry in influence[section].items():
            if entry["unmoved"] and entry["attribution"] != "position":
                key = f"influence.{section}.{name}.unmoved"
                refuse_config(key, "only `position` scores are moved")
    suppressing = any("suppress" in config["methods"][m] for m in config["evaluation"]["methods"])
    if influence["scores"]["blocks"] and suppressing:
        refuse_config(
            "influence.scores.blocks",
            "a selection needs the scores of all blocks; set null, or compare only `none`",
        )


def check_agreement():
    """Refuse a comparison of factors that are not there, or of scores that cannot be compared."""
    direction = config["influence"]["selections"][shown_selection()]["direction"]
    entry = config["influence"]["directions"].get(direction)
    if config["report"]["agreement_blocks"] and (not entry or entry["hessian"] == "identity"):
        refuse_config(
            "report.agreement_blocks",
            f"{direction}, whose selection the report shows, uses no factors; set 0",
        )
    if config["report"]["proxy_agreement"]:
        target = config["evaluation"]["models"][0]
        proxy = influence_model(config["report"]["proxy_agreement"]["direction"])
        if config["models"][target]["tokenizer"] != config["models"][proxy]["tokenizer"]:
            refuse_config(
                "report.proxy_agreement",
                f"{proxy} and {target} have different tokenizers, so that their scores speak of "
                "different tokens; remove it",
            )
        if target == proxy:
            refuse_config(
                "report.proxy_agreement.direction", f"belongs to {target} itself; name another"
            )


def check_queries():
    """Refuse query sets that do not say which side of a pair they take, or say it in vain."""
    for name, entry in config["queries"].items():
        if (entry["format"] == "paradetox") != ("side" in entry):
            refuse_config(f"queries.{name}.side", "goes with the format paradetox, which needs it")


def check_methods():
    """Refuse a method whose parts do not fit together or have nothing to work on."""
    methods = config["methods"]
    for name, method in methods.items():
        for key, alone in (("dpo", ("start_from",)), ("decode", ("rad",)), ("rad", ("decode",))):
            if key not in method:
                continue
            for other in method:
                if other not in (key, *alone):
                    refuse_config(
                        f"methods.{name}.{other}",
                        f"does not go with {key}; make it another method, and name that one in"
                        f" {'start_from' if key == 'dpo' else 'decode'}",
                    )
            for other in alone:
                if other not in method:
                    refuse_config(f"methods.{name}.{other}", f"missing: {key} needs it")
        for key in ("start_from", "decode"):
            base = method.get(key)
            if isinstance(base, str) and "decode" in methods[base]:
                refuse_config(
                    f"methods.{name}.{key}",
                    f"{base!r} acts while text is sampled and has no weights of its own",
                )
        suppress = method.get("suppress")
        if suppress and "filter" in method:
            refuse_config(
                f"methods.{name}",
                "give only one of filter, or suppress: a mask speaks of the whole corpus",
            )
        if suppress and suppress["tokens"] == "truth":
            if "selection" in suppress:
                refuse_config(f"methods.{name}.suppress.selection", "is not used by tokens: truth")
            if not HAS_TRUTH:
                refuse_config(
                    f"methods.{name}.suppress.tokens",
                    "truth needs a corpus source whose `spans` are known",
                )
        elif suppress and "selection" not in suppress:
            refuse_config(
                f"methods.{name}.suppress.selection",
                "missing: Name of an entry of `influence.selections`.",
            )


def check_bounds():
    """Refuse a range that holds nothing."""
    for section in ("queries", "benchmarks"):
        for name, entry in config[section].items():
            for key in ("part", "prompt_toxicity", "continuation_toxicity"):
                if key in entry and entry[key][0] >= entry[key][1]:
                    refuse_config(f"{section}.{name}.{key}", f"{entry[key]} holds nothing")


def check_paths():
    """Refuse a path that nothing is at, and that no download or rule makes."""
    for key, entry in data_entries():
        if "hub" in entry:
            try:
                check_patterns(data_repository(entry))
            except InputError as error:
                refuse_config(f"{key}.files", error)
        else:
            paths_of(entry, key)
    for name, method in config["methods"].items():
        if "words" in method.get("filter", {}):
            paths_of(method["filter"], f"methods.{name}.filter", "words")
    for key, path in [
        ("classifiers.explicit.checkpoint", config["classifiers"]["explicit"].get("checkpoint")),
        ("classifiers.implicit.path", config["classifiers"]["implicit"].get("path")),
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
        *((f"models.{name}.path", entry.get("path")) for name, entry in config["models"].items()),
    ]:
        if path and not os.path.exists(path):
            refuse_config(key, f"{path} does not exist")


def check_implicit_classifier():
    """Refuse a directory that is not the classifier that the config describes."""
    implicit = config["classifiers"]["implicit"]
    folder = implicit.get("path")
    if not folder:
        return
    try:
        described = read_json(Path(folder, "config.json"))
    except (OSError, InputError):
        refuse_config("classifiers.implicit.path", f"{folder} has no config.json that can be read")
    if not glob.glob(os.path.join(glob.escape(folder), "*.safetensors")):
        refuse_config(
            "classifiers.implicit.path",
            f"{folder} has no .safetensors weights; pickled ones are never loaded",
        )
    labels = list(described.get("id2label", {0: "LABEL_0", 1: "LABEL_1"}).values())
    label = implicit.get("toxic_label", 1)
    if not 2 <= len(labels) > label:
        refuse_config(
            "classifiers.implicit.toxic_label",
            f"{label}, but the classifier in {folder} has the labels {', '.join(map(str, labels))}",
        )


check_names()
check_models()
check_queries()
check_study()
check_methods()
check_bounds()
check_paths()
check_implicit_classifier()
