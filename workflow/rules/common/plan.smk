# What a plan is told beside the config: where files lie, made or not, and settings as rules resolve them.

from ifguide.models.devices import CALIBRATED, DEVICES


def planned_devices():
    """The names of the devices that a plan can name."""
    plan = config["plan"]
    return [*DEVICES, *plan["own_devices"], *([CALIBRATED] if plan["calibration"] else [])]


def planned_facts():
    return {
        "planted": PLANTED,
        "truth": HAS_TRUTH,
        "sources": [
            paths_of(entry, f"corpus.sources.{entry['name']}")
            for entry in config["corpus"]["sources"]
        ],
        "corpora": {name: f"{RESULTS}/corpus/{name}" for name in config["tokenizers"]},
        "architectures": {name: architecture_of(name) for name in config["models"]},
        "trainings": {
            model: {
                method: (
                    dpo_training_of(model, method)
                    if method in methods_with("dpo")
                    else training_of(model, method)
                )
                for method in config["methods"]
            }
            for model in config["models"]
        },
        "proxies": [[proxy, "none", str(PROXY_SEED)] for proxy in PROXIES],
        "classifiers": {
            "explicit": os.path.dirname(EXPLICIT_CHECKPOINT),
            "implicit": IMPLICIT_DIRECTORY,
        },
        "records": planned_records(),
    }


def planned_records():
    """The sets of records that jobs read, by the key of the config, and what reports on each."""
    reports = {
        **{f"queries.{name}": f"queries/{name}.json" for name in config["queries"]},
        **{f"benchmarks.{name}": f"prompts/{name}.json" for name in benchmarks_of("prompts")},
        **{f"benchmarks.{name}": f"passages/{name}.json" for name in benchmarks_of("lambada")},
        **{f"methods.{name}": f"pairs/{name}.json" for name in methods_with("dpo")},
    }
    records = {}
    for key, entry in data_entries():
        name = ".".join(key.split(".")[:2])
        if name == "corpus.sources":
            continue
        counted = f"{RESULTS}/{reports[name]}" if name in reports else None
        part = {"paths": paths_of(entry, key)} | {
            wanted: entry[wanted]
            for wanted in ("part", "limit", "continuation_toxicity")
            if entry.get(wanted) is not None
        }
        records.setdefault(name, {"report": counted, "entries": []})["entries"].append(part)
    return records
