"""Splits by record: no record, and no sibling of a text, on two sides of a split."""

import copy
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, environment, error_line
from ifguide.data.labelled_texts import divided
from ifguide.data.preferences import read_pairs
from ifguide.data.prompts import LabelledText, read_labelled, read_prompts
from ifguide.files.artifacts import read_json, write_jsonl
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.part_names import fill_in_parts

SEED = 3
PARTS = {"judges": [0.0, 0.25], "methods": [0.25, 0.6], "development": [0.6, 0.7]}
PARTS["tests"] = [0.7, 1.0]


def scored(text: str, toxicity: float) -> dict:
    return {"text": text, "toxicity": toxicity}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Files of every format, of which a record has several texts wherever the format allows it."""
    folder = tmp_path_factory.mktemp("records")
    files = {
        name: folder / f"{name}.jsonl" for name in ("realtoxicityprompts", "labelled", "preference")
    }
    write_jsonl(
        files["realtoxicityprompts"],
        [
            {
                "prompt": scored(f"prompt {n // 2}", n // 2 % 5 / 4),
                "continuation": scored(f" continuation {n}", n % 3 / 2),
            }
            for n in range(400)
        ],
    )
    write_jsonl(files["labelled"], [{"text": f"text {n}", "toxic": n % 2} for n in range(200)])
    pairs = [(f"question {n // 3} ", f"good {n}", f"bad {n}") for n in range(300)]
    fields = ("prompt", "chosen", "rejected")
    write_jsonl(files["preference"], [dict(zip(fields, pair, strict=True)) for pair in pairs])
    files["paradetox"] = folder / "paradetox.tsv"
    rows = [f"toxic {n}\tneutral {n} a\tneutral {n} b\t" for n in range(200)]
    files["paradetox"].write_text("\n".join(["toxic\tneutral1\tneutral2\tneutral3", *rows]))
    files["toxigen"] = folder / "toxigen.json"
    statements = [{"text": f"statement {n}", "label": "hate"} for n in range(200)]
    files["toxigen"].write_text(json.dumps(statements))
    return files


def readers(files: dict[str, Path]):
    """Of each way to read a file, the function that returns a part's records, texts by record."""

    def labelled(format):
        def read(part):
            found = read_labelled([{"format": format, "part": part}], [[files[format]]], SEED)
            return {(one.record, one.text) for one in found}

        return read

    def prompts(format, **settings):
        def read(part):
            asked = {"format": format, "part": part, **settings}
            found, _ = read_prompts(asked, [files[format]], SEED)
            return {(one.identity, one.prompt) for one in found}

        return read

    def pairs(format):
        def read(part):
            found, _ = read_pairs({"format": format, "part": part}, [files[format]], SEED)
            return {(one.record, text) for one in found for text in (one.chosen, one.rejected)}

        return read

    return {
        "realtoxicityprompts": [labelled("realtoxicityprompts"), prompts("realtoxicityprompts")],
        "paradetox": [
            labelled("paradetox"),
            prompts("paradetox", side="toxic"),
            prompts("paradetox", side="neutral"),
            pairs("paradetox"),
        ],
        "toxigen": [labelled("toxigen"), prompts("toxigen")],
        "labelled": [labelled("labelled")],
        "preference": [pairs("preference")],
    }


@pytest.mark.parametrize(
    "format", ["realtoxicityprompts", "paradetox", "toxigen", "labelled", "preference"]
)
def test_uses_share_no_record_however_each_reads_the_file(files, format):
    ways = readers(files)[format]
    records = {
        (way, use): {record for record, _ in read(part)}
        for way, read in enumerate(ways)
        for use, part in PARTS.items()
    }
    assert all(records.values())
    for (_, use), (_, other) in itertools.combinations(records, 2):
        pairs = [
            (records[first], records[second])
            for first in records
            for second in records
            if first[1] == use and second[1] == other and use != other
        ]
        assert not any(one & another for one, another in pairs)
    # Of whatever reads the file, a use gets the same records, and all of them are someone's.
    for use in PARTS:
        assert len({frozenset(records[way, use]) for way in range(len(ways))}) == 1
    every = {record for record, _ in ways[0](None)}
    assert set.union(*(records[0, use] for use in PARTS)) == every


def test_siblings_fall_on_one_side(files):
    for format in ("realtoxicityprompts", "paradetox", "preference"):
        read = readers(files)[format][-1 if format == "preference" else 0]
        whole = read(None)
        for part in PARTS.values():
            own = {record for record, _ in read(part)}
            assert read(part) == {pair for pair in whole if pair[0] in own}
    assert len(whole) > len({record for record, _ in whole})


def test_what_is_held_out_has_no_sibling_in_training():
    texts = [
        LabelledText(f"{n} {k}", 0.0, "paradetox", f"{n}") for n in range(300) for k in range(3)
    ]
    training, testing = divided(texts, 0.15, 4, "classifier")
    assert not {x.record for x in training} & {x.record for x in testing}
    assert sorted(training + testing) == sorted(texts)
    assert 0.1 < len(testing) / len(texts) < 0.2
    again = divided(texts[::-1], 0.15, 4, "classifier")[1]
    assert set(again) == set(testing)
    # Of texts that are records themselves, as in the planted files, by the text.
    own = [text._replace(record=text.text) for text in texts]
    assert {x.text for x in divided(own, 0.5, 1, "classifier")[1]} != {x.text for x in testing}


# The config


def real_text() -> dict:
    written = yaml.safe_load((REPOSITORY / "config/real_text.yaml").read_text(encoding="utf-8"))
    config = with_defaults(Config, written)
    fill_in_parts(config)
    return config


def test_real_text_gives_judges_methods_and_tests_disjoint_parts():
    config = real_text()
    made_by_methods = [
        *config["queries"].values(),
        *(source for one in config["rewards"].values() for source in one["train"]["sources"]),
        *config["classifiers"]["filter"]["train"]["sources"],
        *(
            {"files": entry["dpo"]["pairs"], **entry["dpo"]}
            for entry in config["methods"].values()
            if "dpo" in entry
        ),
    ]
    judges = [
        source
        for name in ("explicit", "implicit")
        for source in config["classifiers"][name]["train"]["sources"]
    ]
    tests = [entry for entry in config["benchmarks"].values() if entry["kind"] == "prompts"]
    compared = 0
    for one, other in itertools.combinations((made_by_methods, judges, tests), 2):
        for first, second in itertools.product(one, other):
            if first["files"] == second["files"]:
                compared += 1
                (low, high), (lower, higher) = first["part"], second["part"]
                assert high <= lower or higher <= low, (first, second)
    assert compared > 10
    filters = [entry["filter"] for entry in config["methods"].values() if "filter" in entry]
    assert {entry.get("classifier", "filter") for entry in filters} == {"filter"}


def test_a_use_stands_for_its_range_wherever_a_part_is_taken():
    config = {
        "parts": copy.deepcopy(PARTS),
        "queries": {"toxic": {"part": "methods"}, "other": {"part": [0.1, 0.2]}},
        "methods": {"dpo": {"dpo": {"part": "methods"}}, "none": {}},
        "classifiers": {"explicit": {"train": {"sources": [{"part": "judges"}, {}]}}},
    }
    fill_in_parts(config)
    assert config["queries"] == {"toxic": {"part": [0.25, 0.6]}, "other": {"part": [0.1, 0.2]}}
    assert config["methods"]["dpo"]["dpo"]["part"] == [0.25, 0.6]
    assert config["classifiers"]["explicit"]["train"]["sources"] == [{"part": [0.0, 0.25]}, {}]


def test_parts_that_overlap_are_refused():
    config = {"parts": {**PARTS, "tests": [0.65, 1.0]}}
    with pytest.raises(SystemExit) as refused:
        fill_in_parts(config)
    assert str(refused.value) == (
        "error: config: parts.tests: [0.65, 1.0] overlaps with [0.6, 0.7] of development; parts "
        "share no record"
    )


# The check of the workflow


def check_disjoint(tmp_path: Path, judge: list[LabelledText]) -> subprocess.CompletedProcess[str]:
    files = {"toxic": "queries", "explicit": "judges", "rtp": "prompts", "texts": "texts"}
    prompt = {"continuation": " on", "split": "toxic", "group": None}
    prompt |= {"prompt_toxicity": 0.5, "continuation_toxicity": 0.5}
    write_jsonl(tmp_path / "toxic.jsonl", [{"prompt": "a query", **prompt}])
    write_jsonl(tmp_path / "rtp.jsonl", [{"prompt": "a test", **prompt}])
    write_jsonl(tmp_path / "explicit.jsonl", [text._asdict() for text in judge])
    write_jsonl(tmp_path / "texts.jsonl", [LabelledText("b", 1.0, "labelled", "b")._asdict()])
    options = [x for name, kind in files.items() for x in (f"--{kind}", tmp_path / f"{name}.jsonl")]
    command = [sys.executable, REPOSITORY / "scripts/check_disjoint.py", *options]
    command += ["--output", tmp_path / "disjoint.json"]
    return subprocess.run(
        list(map(str, command)), env=environment(), capture_output=True, text=True, check=False
    )


def test_a_judge_that_learned_from_the_record_of_a_test_prompt_is_refused(tmp_path):
    sibling = LabelledText(" and its continuation", 1.0, "realtoxicityprompts", "a test")
    ran = check_disjoint(tmp_path, [sibling])
    assert ran.returncode == 1
    assert error_line(ran.stderr).startswith(
        "error: classifiers.explicit shares 1 records with benchmarks.rtp"
    )


def test_what_made_a_judge_and_a_method_is_counted(tmp_path):
    sibling = LabelledText(" on", 1.0, "realtoxicityprompts", "a query")
    other = LabelledText("c", 1.0, "labelled", "c")
    ran = check_disjoint(tmp_path, [sibling, other])
    assert ran.returncode == 0, ran.stderr
    record = read_json(tmp_path / "disjoint.json")
    assert record["shared_by_judges"] == [
        {"judge": "classifiers.explicit", "records": 2, "with": "queries.toxic", "shared": 1}
    ]
