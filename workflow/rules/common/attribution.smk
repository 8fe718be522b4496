# Directions, scores, selections and masks: their folders and files.


def gradient_file(wildcards, side):
    queries = config["influence"]["directions"][wildcards.direction][side]
    folder = f"{RESULTS}/influence/{wildcards.model}/gradients"
    return f"{folder}/{queries}.safetensors" if queries else []


def averaged(direction):
    """The directions whose mean scores an entry of `averages` has; of a direction, itself."""
    average = config["influence"]["averages"].get(direction)
    return average["directions"] if average else [direction]


def influence_model(direction):
    """The model that a direction belongs to; an average stands in the folder of its first one."""
    return config["influence"]["directions"][averaged(direction)[0]]["model"] or PROXY


def influence_folder(direction):
    return f"{RESULTS}/influence/{influence_model(direction)}/{direction}"


def selection_folder(selection):
    direction = config["influence"]["selections"][selection]["direction"]
    return f"{influence_folder(direction)}/{selection}"


def selection_files(folder):
    """The record and the masks of a selection."""
    masks = [f"{folder}/mask/shard-{shard}.npy" for shard in shards(config["corpus"]["shards"])]
    return [f"{folder}/selection.json", *masks]


def variant_file(variant):
    entry = config["influence"]["variants"][variant]
    folder = influence_folder(entry["direction"])
    return f"{folder}/scores/{entry['attribution']}/{variant}/attribution.json"


def spelled_out(variant):
    """The settings of a variant as text, by the columns of the study's table."""
    entry = config["influence"]["variants"][variant]
    parts = [config["influence"]["directions"][name] for name in averaged(entry["direction"])]

    def joined(texts):
        return " + ".join(dict.fromkeys(texts))

    weight = {"none": "none", "inverse_document_frequency": "IDF"}[entry["token_weight"]]
    if weight != "none" and entry["token_weight_power"] != 1:
        weight += f"^{entry['token_weight_power']:g}"
    return {
        "scores": f"mean of {len(parts)}" if len(parts) > 1 else "one",
        "proxy": joined(part["model"] or PROXY for part in parts),
        "toxic": joined(part["toxic"] for part in parts),
        "safe": joined(part["safe"] or "none" for part in parts),
        "hessian": joined(part["hessian"] for part in parts),
        "relative_damping": joined(
            "–" if part["hessian"] == "identity" else f"{part['relative_damping']:g}"
            for part in parts
        ),
        "layers": joined(part["layers"] or "all" for part in parts),
        "attribution": entry["attribution"] + (", unmoved" if entry["unmoved"] else ""),
        "pooling": f"{entry['pooling']:g}",
        "token_weight": weight,
    }


def studied_queries(variants):
    entries = [config["influence"]["variants"][variant] for variant in variants]
    directions = [
        config["influence"]["directions"][name]
        for entry in entries
        for name in averaged(entry["direction"])
    ]
    return sorted({d[side] for d in directions for side in ("toxic", "safe")} - {None})


def agreement_file():
    """The comparison of rankings by the factors' sample, where the config asks for it."""
    if not config["report"]["agreement_blocks"]:
        return []
    direction = config["influence"]["selections"][shown_selection()]["direction"]
    return f"{influence_folder(direction)}/ranking_agreement.csv"


def proxy_agreement_file():
    """The comparison of proxy and target by their token scores, where the config asks for it."""
    if not config["report"]["proxy_agreement"]:
        return []
    model = config["evaluation"]["models"][0]
    direction = config["report"]["proxy_agreement"]["direction"]
    return f"{RESULTS}/influence/{model}/{direction}/proxy_agreement.json"


def shown_selection():
    """The selection that the report shows: the order of keys in the config must not choose it."""
    compared = [
        config["methods"][name]["suppress"]["selection"]
        for name in config["evaluation"]["methods"]
        if "selection" in config["methods"][name].get("suppress", {})
    ]
    wanted = config["report"]["selection"]
    return wanted or next(iter(compared), min(config["influence"]["selections"]))


def mask_folder(model, method):
    """The folder of the mask that a method suppresses, in the tokens of the model's tokenizer.

    None where the method needs no selection.
    """
    suppress = config["methods"][method].get("suppress", {})
    if "selection" not in suppress:
        return None
    folder = selection_folder(suppress["selection"])
    if suppress["tokens"] == "random":
        return f"{folder}/random"
    tokenizer = config["models"][model]["tokenizer"]
    if tokenizer == config["models"][PROXY]["tokenizer"]:
        return folder
    return f"{folder}/transfer/{tokenizer}"


def mask_files(wildcards):
    """What says which tokens a method suppresses."""
    suppress = config["methods"][wildcards.method].get("suppress")
    if suppress and suppress["tokens"] == "truth":
        return corpus_files(config["models"][wildcards.model]["tokenizer"], "truth")
    folder = mask_folder(wildcards.model, wildcards.method)
    return selection_files(folder) if folder else []


def direction_files(direction):
    return [f"{influence_folder(name)}/direction.safetensors" for name in averaged(direction)]


def scored_with(direction, attribution):
    """The settings in the records of scores, by which a reader knows them from others."""
    scores = config["influence"]["scores"]
    if average := config["influence"]["averages"].get(direction):
        return settings_of(**average, attribution=attribution, scores={"blocks": scores["blocks"]})
    return settings_of(attribution=attribution, scores=scores, seed=SEED)


def score_files(direction, attribution, suffix="npy"):
    return [
        f"{influence_folder(direction)}/scores/{attribution}/shard-{shard}.{suffix}"
        for shard in shards(config["corpus"]["shards"])
    ]
