"""One job measures all benchmarks: what it keeps of them, on a finished run, by real runs."""

import json
from pathlib import Path

import pytest

from conftest import TINY, copy_run, jobs_to_run, run_snakemake
from ifguide.files.kept import KeptOutputs, record_of
from ifguide.workflow.layout import Layout

LAYOUT = Layout("tiny")
MEASURED = ("generate_continuations", "classify_continuations", "measure_fluency")
FOLDERS = {
    (method, benchmark): Path(LAYOUT.evaluation("target", method, "0", benchmark))
    for method in ("none", "word_filter", "ifguide", "rad")
    for benchmark in ("realtoxicityprompts", "toxigen", "lambada", "heldout")
    if (method, benchmark) != ("rad", "heldout")
}
FILES = ("continuations/shard-00000.jsonl", "generations.jsonl", "continuation_losses.json")


def measured(clone: Path) -> dict[Path, tuple[int, bytes]]:
    """The place on the disk and the content of all that is measured of the tiny config."""
    found = {}
    for folder in FOLDERS.values():
        for name in (*FILES, "metrics.json"):
            path = clone / folder / name
            if path.is_file():
                found[folder / name] = path.stat().st_ino, path.read_bytes()
    return found


def evaluate(clone: Path, overlay: dict) -> dict[str, int]:
    """Measure under an overlay of the tiny config, as it runs; return the jobs of each rule."""
    (clone / "overlay.yaml").write_text(json.dumps(overlay), encoding="utf-8")
    arguments = ["evaluate", "--cores", "2", "--configfile", TINY, "overlay.yaml"]
    printed = run_snakemake(clone, *arguments, "--dry-run").stdout
    jobs = {} if "Nothing to be done" in printed else jobs_to_run(printed)
    ran = run_snakemake(clone, *arguments)
    assert ran.returncode == 0, ran.stdout
    return jobs


def kept_in_log(clone: Path, rule: str, method: str, *wildcards: str) -> set[str]:
    """The benchmarks of which a job says that it keeps them."""
    path = clone / LAYOUT.log(rule, "model").replace("{model}.log", "target")
    log = path.joinpath(method, "0", *wildcards).with_suffix(".log").read_text("utf-8")
    lines = [line for line in log.splitlines() if ": kept, " in line]
    return {name for name in (b for _, b in FOLDERS) if any(f"/{name}/" in line for line in lines)}


@pytest.fixture(scope="module")
def clone(finished, tmp_path_factory) -> Path:
    return copy_run(finished, tmp_path_factory.mktemp("kept") / "clone")


ADDED = {
    "benchmarks": {
        "development": {
            "kind": "prompts",
            "format": "realtoxicityprompts",
            "files": "{planted}/development.jsonl",
        }
    }
}


def test_what_is_there_is_kept_when_a_benchmark_is_added(clone):
    before = measured(clone)
    jobs = evaluate(clone, ADDED)
    assert {rule: jobs[rule] for rule in MEASURED} == dict.fromkeys(MEASURED, 4)
    assert measured(clone) == before
    for method in ("none", "rad"):
        prompts = {"realtoxicityprompts", "toxigen"}
        assert kept_in_log(clone, "generate_continuations", method, "00000") == prompts
        assert kept_in_log(clone, "classify_continuations", method) == prompts
        assert kept_in_log(clone, "measure_fluency", method) == prompts | {"heldout", "lambada"}
        added = clone / LAYOUT.evaluation("target", method, "0", "development")
        assert json.loads((added / "metrics.json").read_text("utf-8"))["rows"]


def test_an_overlay_of_other_benchmarks_leaves_what_it_does_not_ask_for(clone):
    before = measured(clone)
    asked = {"evaluation": {"benchmarks": ["development", "heldout"]}}
    evaluate(clone, ADDED | asked | {"report": {"benchmark": "development"}})
    assert measured(clone) == before
    evaluate(clone, {})
    assert measured(clone) == before
    assert evaluate(clone, {}) == {}


def test_another_judge_generates_nothing(clone):
    before = measured(clone)
    jobs = evaluate(clone, {"classifiers": {"another": {"planted": "explicit"}}})
    assert set(jobs) == {"classify_continuations", "measure_toxicity", "evaluate"}
    after = measured(clone)
    changed = {path.name for path in before if after[path] != before[path]}
    assert changed == {"generations.jsonl", "metrics.json"}
    scores = [
        json.loads(line) for line in after[FOLDERS["none", "toxigen"] / FILES[1]][1].splitlines()
    ]
    assert all(record["another"] in (0.0, 1.0) for record in scores)


def test_a_change_of_one_benchmark_remakes_that_one(clone):
    evaluate(clone, {})
    before = measured(clone)
    evaluate(clone, {"benchmarks": {"toxigen": {"generation": {"max_new_tokens": 5}}}})
    after = measured(clone)
    changed = {path for path in before if after[path] != before[path]}
    assert {path.name for path in changed} == {Path(name).name for name in FILES} | {"metrics.json"}
    assert all("toxigen" in path.parts for path in changed)


def test_of_an_unmeasured_benchmark_there_is_the_reason_and_no_row(clone):
    path = clone / LAYOUT.evaluation("target", "rad", "0", "heldout") / "metrics.json"
    written = json.loads(path.read_text("utf-8"))
    assert written["rows"] == []
    assert "perplexity" in written["unmeasured"]
    summary = (clone / LAYOUT.shown("summary.csv")).read_text("utf-8")
    assert not any(line.startswith("target,rad,heldout") for line in summary.splitlines())


def test_outputs_get_their_names_together(tmp_path):
    made_from = {tmp_path / "a.json": {"of": 1}, tmp_path / "b.json": {"of": 2}}
    first, second = made_from
    outputs = KeptOutputs(made_from)
    outputs.place(first).write_text("1")
    # An attempt that failed here left `a.json` finished, for a job that makes it from the same.
    assert KeptOutputs(made_from).unfinished == [second]
    assert KeptOutputs({first: {"of": 3}}).unfinished == [first]
    outputs.place(second).write_text("2")
    outputs.publish()
    assert not KeptOutputs(made_from).missing
    assert sorted(path.name for path in tmp_path.glob(".*.finished")) == []
    record_of(first).write_text("{", encoding="utf-8")
    assert KeptOutputs(made_from).missing == [first]
