"""What a plan is told beside the config: where files lie, and settings as rules resolve them."""

from ifguide.data.file_lists import LONGEST_LIST
from ifguide.methods.step import Pairs
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.influence import Influence
from ifguide.workflow.judges import Judges
from ifguide.workflow.methods import UNCENSORED, Methods
from ifguide.workflow.sources import Sources


def planned_facts(
    experiment: Experiment,
    sources: Sources,
    influence: Influence,
    methods: Methods,
    judges: Judges,
) -> dict:
    config, layout = experiment.config, experiment.layout
    longest = LONGEST_LIST // (len(config["corpus"]["sources"]) + len(sources.data_entries()))
    return {
        "planted": layout.planted,
        "truth": experiment.has_truth,
        "sources": [
            sources.arguments(entry, f"corpus.sources.{entry['name']}.files", longest)
            for entry in config["corpus"]["sources"]
        ],
        "corpora": {name: layout.corpus(name) for name in config["tokenizers"]},
        "architectures": {name: sources.architecture(name) for name in config["models"]},
        "trainings": {
            model: {method: methods.training(model, method) for method in config["methods"]}
            for model in config["models"]
        },
        "trains": {method: methods.trains(method) for method in config["methods"]},
        "proxies": [[proxy, UNCENSORED, str(experiment.proxy_seed)] for proxy in influence.proxies],
        "classifiers": {name: judges.directory(name) for name in judges},
        "records": planned_records(experiment, sources, methods, longest),
    }


def planned_records(
    experiment: Experiment, sources: Sources, methods: Methods, longest: int = LONGEST_LIST
) -> dict:
    """Return the sets of records that jobs read, by the key of the config, and their reports."""
    config, layout = experiment.config, experiment.layout
    reports = {
        **{f"queries.{name}": layout.queries_report(name) for name in config["queries"]},
        **{
            f"benchmarks.{name}": layout.prompts_report(name)
            for name in experiment.benchmarks_of("prompts")
        },
        **{
            f"benchmarks.{name}": layout.passages_report(name)
            for name in experiment.benchmarks_of("lambada")
        },
        **{f"texts.{name}": layout.texts_report(name) for name in config["texts"]},
        **{
            f"classifiers.{name}": layout.judge_texts_report(name)
            for name, entry in config["classifiers"].items()
            if "train" in entry
        },
        **{f"rewards.{name}": layout.reward_texts_report(name) for name in config["rewards"]},
        **{f"methods.{name}": layout.pairs_report(name) for name in methods.with_need(Pairs)},
        **{
            f"influence.rivals.{name}": layout.rival_pairs_report(name)
            for name in config["influence"]["rivals"]
        },
    }
    records: dict[str, dict] = {}
    for key, entry in sources.data_entries():
        name = ".".join(key.split(".")[: 3 if key.startswith("influence.") else 2])
        if name == "corpus.sources":
            continue
        part = {"paths": sources.arguments(entry, key, longest)} | {
            wanted: entry[wanted]
            for wanted in ("part", "limit", "continuation_toxicity")
            if entry.get(wanted) is not None
        }
        records.setdefault(name, {"report": reports.get(name), "entries": []})
        records[name]["entries"].append(part)
    return records
