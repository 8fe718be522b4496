"""Every name in a config that stands for a section or an entry: a wrong one is refused."""

import copy
import json

import pytest
import yaml

from conftest import REPOSITORY, TINY
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.config.json_schema import json_schema
from ifguide.workflow.parts import open_experiment

WRONG = "nowhere"
# What is not in the tiny config, but may name something.
BESIDE = {
    "queries": {"near": {"format": "realtoxicityprompts", "files": "{planted}/queries.jsonl"}},
    "models": {"early": {"checkpoint": {"of": "proxy", "at": 0.5}}},
    "methods": {
        "expert": {"start_from": "none", "learn_texts": {"texts": "labelled", "kind": "nontoxic"}},
        "classes": {"start_from": "none", "class_conditional": {"texts": "labelled"}},
        "dexperts": {"dexperts": {"expert": "expert", "anti_expert": "expert"}},
        "gedi": {"gedi": {"classes": "classes"}},
        "output_fusion": {"output_fusion": {"calibration": "expert"}},
        "irepair": {
            "start_from": "none",
            "irepair": {"pairs": "{planted}/pairs.tsv", "clean_texts": "labelled"},
        },
        "sgeat": {"start_from": "none", "sgeat": {"generations": "own"}},
    },
    "report": {
        "choose_on": "realtoxicityprompts",
        "groups": "realtoxicityprompts",
        "published_models": ["Pythia-160M"],
        "selection": "top",
    },
    "evaluation": {"benchmarks": ["realtoxicityprompts", "heldout"]},
    "lasting": {"texts": "labelled", "benchmark": "realtoxicityprompts", "curve": ["early"]},
}
# Paths of all that names something, with a star for each name that the user gave.
NAMING = [
    "models.proxy.tokenizer",
    "models.early.checkpoint.of",
    "queries.matched.match.to",
    "methods.word_filter.compare_with",
    "methods.repair.start_from",
    "methods.toxicity_filter.filter.classifier",
    "methods.word_filter_equal.filter.drop_tokens_of",
    "methods.standard_influence.filter.selection",
    "methods.ifguide.suppress.selection",
    "methods.rad.rad.reward",
    "methods.expert.learn_texts.texts",
    "methods.classes.class_conditional.texts",
    "methods.dexperts.dexperts.expert",
    "methods.dexperts.dexperts.anti_expert",
    "methods.gedi.gedi.classes",
    "methods.output_fusion.output_fusion.calibration",
    "methods.irepair.irepair.clean_texts",
    "methods.sgeat.sgeat.generations",
    "influence.model",
    "influence.directions.differential.toxic",
    "influence.directions.differential.safe",
    "influence.directions.differential.model",
    "influence.averages.mean.directions.0",
    "influence.variants.rare.direction",
    "influence.selections.top.direction",
    "influence.selections.words.limit.tokens_of",
    "evaluation.models.0",
    "evaluation.methods.1",
    "evaluation.benchmarks.1",
    "lasting.texts",
    "lasting.benchmark",
    "lasting.curve.0",
    "report.benchmark",
    "report.choose_on",
    "report.selection",
    "report.groups",
    "report.published_models.0",
    "report.study.0.variants.1",
    "report.proxy_agreement.direction",
    "plan.devices.0",
]


def tiny() -> dict:
    config = yaml.safe_load((REPOSITORY / TINY).read_text("utf-8"))
    for section, entries in BESIDE.items():
        config[section] = {**config.get(section, {}), **copy.deepcopy(entries)}
    return with_defaults(Config, config)


def refusal(config: dict) -> str:
    with pytest.raises(SystemExit) as refused:
        open_experiment(with_defaults(Config, config))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_config_itself_is_sound():
    open_experiment(tiny())


@pytest.mark.parametrize("path", NAMING)
def test_a_name_of_nothing_is_refused(path):
    config = tiny()
    *parents, last = path.split(".")
    node = config
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    assert node[int(last) if isinstance(node, list) else last] != WRONG
    node[int(last) if isinstance(node, list) else last] = WRONG
    key = path.removesuffix(f".{last}") if last.isdigit() else path
    assert refusal(config).startswith(f"error: config: {key}: '{WRONG}' is none of ")


def test_no_name_is_left_out():
    """What the schema says is the name of something stands above."""
    described = {"Name of", "Names of", "Benchmark of", "Benchmark whose", "Selection whose"}
    known = {path.rpartition(".")[2] for path in NAMING}
    known |= {path.split(".")[-2] for path in NAMING if path.rpartition(".")[2].isdigit()}
    free = {"experiment", "overlay", "name"}  # names that are given here
    schema = json_schema(Config)
    found = set()
    for model in [schema, *schema["$defs"].values()]:
        for key, field in model.get("properties", {}).items():
            if any(field.get("description", "").startswith(word) for word in described):
                found.add(key)
    assert found - free - known == set()


def test_two_sources_of_one_name():
    config = tiny()
    config["corpus"]["sources"][1]["name"] = "documents"
    assert refusal(config).startswith(
        "error: config: corpus.sources.1.name: 'documents' is also the name of another source"
    )


@pytest.mark.parametrize(
    "path, value, expected",
    [
        ("queries.toxic.part", [0.9, 0.1], "[0.9, 0.1] ends before it begins; write [0.1, 0.9]"),
        ("queries.toxic.part", [0.5, 0.5], "[0.5, 0.5] holds nothing"),
        ("queries.toxic.continuation_toxicity", [0.9, 0.1], "[0.9, 0.1] ends before it begins"),
        ("benchmarks.toxigen.part", [0.9, 0.1], "[0.9, 0.1] ends before it begins"),
        ("classifiers.explicit.train.sources.0.toxicity", [0.9, 0.1], "[0.9, 0.1] ends before"),
        ("rewards.toxicity.train.sources.0.toxicity", [0.9, 0.1], "[0.9, 0.1] ends before"),
        ("texts.labelled.sources.0.part", [0.9, 0.1], "[0.9, 0.1] ends before"),
        ("methods.dpo.dpo.part", [0.9, 0.1], "[0.9, 0.1] ends before"),
        ("influence.selections.top.limit", 0, "0 selects no token; set it above 0"),
        ("influence.selections.top.limit", 0.0, "0 selects no token; set it above 0"),
        ("influence.selections.top.quantile", 1, "1 selects no token; set it below 1"),
    ],
)
def test_a_range_or_a_limit_that_holds_nothing(path, value, expected):
    config = tiny()
    node = config
    *parents, last = path.split(".")
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    node[last] = value
    assert refusal(config).startswith(f"error: config: {path}: {expected}")


@pytest.mark.parametrize(
    "change, expected",
    [
        (
            {"corpus": {"sources": [{"name": "a", "files": "{planted}/documents.jsonl"}]}},
            "lasting: toxic text is known by the `spans` of a corpus source; name some",
        ),
        (
            {"models": {"given": {"tokenizer": "bpe", "path": "tests"}}},
            "lasting.curve: models.given is given, and what its training cost is not known; name",
        ),
        (
            {"models": {"given": {"tokenizer": "other", "architecture": {"name": "gpt2"}}}},
            "lasting.curve: models.given has another tokenizer than target, so that their losses",
        ),
    ],
    ids=str,
)
def test_what_lasts_needs_known_toxic_text_and_comparable_models(change, expected):
    config = tiny()
    config["tokenizers"]["other"] = copy.deepcopy(config["tokenizers"]["bpe"])
    for section, entries in change.items():
        config[section] |= entries
    if "models" in change:
        config["lasting"]["curve"] = ["given"]
    assert refusal(config).startswith(f"error: config: {expected}")


@pytest.mark.parametrize(
    "section, entry, expected",
    [
        ("tokenizers", {"path": "$HOME/x"}, "path: $HOME/x does not exist; `$` is not expanded"),
        ("tokenizers", {"path": "~/x"}, "path: ~/x does not exist; `~` is not expanded in a con"),
        ("tokenizers", {"path": "in {x}"}, "path: in {x}: Snakemake takes what is in braces for"),
        ("classifiers", {"checkpoint": "~/j.ckpt"}, "checkpoint: ~/j.ckpt does not exist; `~` is"),
        ("classifiers", {"checkpoint": "in {x}/j"}, "checkpoint: in {x}/j: Snakemake takes what"),
        ("queries", {"files": "{planted.x}"}, "files: '{planted.x}': only {planted} and {data_di"),
        ("queries", {"files": "{data_dir[0]}/a"}, "files: '{data_dir[0]}/a': only {planted} and"),
        ("queries", {"files": "~/[a].jsonl"}, "files: no file matches ~/[a].jsonl; `~` is not ex"),
    ],
)
def test_a_path_that_leads_elsewhere(tmp_path, monkeypatch, section, entry, expected):
    (tmp_path / "in {x}").mkdir()
    (tmp_path / "in {x}/j").touch()
    monkeypatch.chdir(tmp_path)
    config = tiny()
    known = {"queries": {"format": "realtoxicityprompts"}}.get(section, {})
    config[section]["other"] = {**known, **entry}
    assert refusal(config).startswith(f"error: config: {section}.other.{expected}")


@pytest.mark.parametrize(
    "described",
    [[1], {"id2label": ["a", "b"]}, {"id2label": None}, {"id2label": {"one": "a"}}, 3, "text"],
)
def test_a_configuration_that_is_none_of_a_classifier(tmp_path, described):
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    config = tiny()
    config["classifiers"]["other"] = {"path": str(tmp_path), "toxic_label": 1}
    assert refusal(config).startswith(
        f"error: config: classifiers.other.path: {tmp_path}/config.json is not that of a classifier"
    )
