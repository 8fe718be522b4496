"""Config files before they are checked: keys that stand twice, and files that extend others."""

import json
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, TINY, content_of, copy_run, error_line, rules_to_run, run_snakemake
from ifguide.errors import InputError
from ifguide.workflow.config.files import read_config
from ifguide.workflow.config.overlays import Resolved, resolve

DEFAULT = REPOSITORY / "config/config.yaml"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- one file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("seed: 1\nseed: 2\n", "line 2: seed: stands twice (first in line 1); keep one"),
        (
            "models:\n  proxy:\n    training: {epochs: 1}\n    path: a\n    training: {}\n",
            "line 5: models.proxy.training: stands twice (first in line 3); keep one",
        ),
        (
            "corpus:\n  sources:\n    - {name: a, files: b}\n    - {name: a,\n       name: b}\n",
            "line 5: corpus.sources.1.name: stands twice (first in line 4); keep one",
        ),
        ("training: {clip: 1, clip: 2}\n", "line 1: training.clip: stands twice (first in line 1)"),
        ('{"seed": 1, "seed": 2}', ": seed: stands twice in one section; keep one"),
        ("seed: 1\ntraining: {clip: 1\n", "line 3: did not find expected ',' or '}'"),
        ("seed: 1\n\ttraining: 2\n", "line 2: found a tab character that violates indentation"),
        ("seed: *other\n", "line 1: found undefined alias"),
        ("seed: !!python/name:os.system\n", "line 1: could not determine a constructor"),
        ("- a\n- b\n", ": holds no sections of keys"),
        ("", ": holds no sections of keys"),
    ],
)
def test_a_mistaken_file_is_one_line(tmp_path, text, expected):
    path = written(tmp_path, "my.yaml", text)
    with pytest.raises(InputError) as refused:
        read_config(path)
    message = str(refused.value)
    assert message.startswith(str(path)) and expected in message and "\n" not in message


def test_sections_that_take_keys_from_another_repeat_none(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb: &b {z: 3}\nc: {<<: *a, x: 4}\nd: [*a, *a]\ne: {<<: *a, <<: *b}\n"
    content = read_config(written(tmp_path, "my.yaml", text))
    assert content["c"] == {"x": 4, "y": 2}
    assert content["e"] == {"x": 1, "y": 2, "z": 3}


def test_numbers_of_json_stay_numbers(tmp_path):
    content = {"training": {"epsilon": 1e-8, "epochs": 4}}
    assert read_config(written(tmp_path, "my.json", json.dumps(content))) == content


# --- several files --------------------------------------------------------------------------------


def resolved(*paths: Path, default: Path = DEFAULT, **single: object) -> Resolved:
    """What Snakemake gives the workflow when it is called with these files, resolved."""
    from snakemake.utils import update_config

    given: dict = {}
    for path in paths:
        update_config(given, read_config(path))
    update_config(given, single)
    return resolve(given, paths, single, default)


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    texts = {
        "default": "experiment: default\ntraining: {clip: 1, epochs: 1}\n",
        "whole": "experiment: whole\ntraining: {clip: 2}\nevaluation: {seeds: [0, 1]}\n",
        "over/first": "extends: ../whole.yaml\ntraining: {clip: 3}\nseed: 3\n",
        "over/second": "extends: first.yaml\nevaluation: {seeds: [5]}\nseed: 4\n",
        "over/own": "extends: ../whole.yaml\nexperiment: own\n",
        "over/named": "extends: ../whole.yaml\noverlay: other\n",
        "over/bare": "extends: ../bare.yaml\n",
        "bare": "seed: 9\n",
    }
    return {name: written(tmp_path, f"{name}.yaml", text) for name, text in texts.items()}


@pytest.mark.parametrize(
    "names, expected",
    [
        ([], {"experiment": "default", "training": {"clip": 1, "epochs": 1}}),
        (["bare"], {"experiment": "default", "training": {"clip": 1, "epochs": 1}, "seed": 9}),
        (["whole"], {"experiment": "whole", "training": {"clip": 2}}),
        (
            ["over/first"],
            {"experiment": "whole", "training": {"clip": 3}, "seed": 3, "overlay": "first"},
        ),
        # Lists are replaced whole; the overlay that was given names the tables.
        (
            ["over/second"],
            {
                **{"experiment": "whole", "training": {"clip": 3}, "seed": 4},
                **{"evaluation": {"seeds": [5]}, "overlay": "second"},
            },
        ),
        # What is extended lies beneath a file that was given before.
        (["bare", "over/first"], {"experiment": "whole", "seed": 3, "overlay": "first"}),
        (["over/first", "bare"], {"experiment": "whole", "seed": 9, "overlay": "first"}),
        (["over/first", "over/second"], {"training": {"clip": 3}, "seed": 4, "overlay": "second"}),
        # After a file that stands alone, an overlay changes that one.
        (
            ["default", "over/first"],
            {
                **{"experiment": "default", "training": {"clip": 3, "epochs": 1}, "seed": 3},
                "overlay": "first",
            },
        ),
        (["over/own"], {"experiment": "own", "training": {"clip": 2}}),
        (["over/named"], {"experiment": "whole", "overlay": "other"}),
        (
            ["over/bare"],
            {"experiment": "default", "training": {"clip": 1, "epochs": 1}, "overlay": "bare"},
        ),
    ],
)
def test_what_files_make_together(files, names, expected):
    config = resolved(*(files[name] for name in names), default=files["default"]).config
    for key, value in expected.items():
        assert config[key] == value, key
    assert config.get("overlay") == expected.get("overlay")
    assert "extends" not in config


def test_the_command_line_wins(files):
    config = resolved(files["over/first"], experiment="mine", overlay="shown").config
    assert (config["experiment"], config["overlay"]) == ("mine", "shown")


def test_the_files_beneath_are_named(files):
    assert resolved(files["over/second"]).beneath == [files["whole"], files["over/first"]]
    assert resolved(files["whole"]).beneath == []
    assert resolved(files["bare"]).beneath == [DEFAULT]


@pytest.mark.parametrize(
    "texts, expected",
    [
        ({"a.yaml": "extends: b.yaml\n"}, "a.yaml: extends: b.yaml does not exist"),
        ({"a.yaml": "extends: 3\n"}, "a.yaml: extends: 3 is not a path"),
        (
            {"a.yaml": "extends: b.yaml\n", "b.yaml": "extends: a.yaml\n"},
            "a.yaml: extends itself: ",
        ),
        ({"a.yaml": "extends: a.yaml\n"}, "a.yaml: extends itself: "),
        (
            {"a.yaml": "extends: b.yaml\n", "b.yaml": "experiment: b\nseed: 1\nseed: 2\n"},
            "b.yaml, line 3: seed: stands twice (first in line 2); keep one",
        ),
        (
            {"a b.yaml": "extends: c.yaml\n", "c.yaml": "experiment: c\n"},
            "a b.yaml: the name of this file cannot be that of a folder; name it by `overlay: ",
        ),
    ],
)
def test_files_that_cannot_be_extended(tmp_path, texts, expected):
    paths = [written(tmp_path, name, text) for name, text in texts.items()]
    with pytest.raises(InputError) as refused:
        resolved(paths[0])
    assert str(refused.value).startswith(f"{tmp_path}/{expected}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(p.stem for p in (REPOSITORY / "config/overlays").iterdir()))
def test_a_shipped_overlay_alone_is_that_over_what_it_extends(name):
    overlay = REPOSITORY / f"config/overlays/{name}.yaml"
    extended = (overlay.parent / read_config(overlay)["extends"]).resolve()
    alone = resolved(overlay).config
    assert alone == resolved(extended, overlay).config
    assert (alone["overlay"], alone["experiment"]) == (name, read_config(extended)["experiment"])


# --- in a run -------------------------------------------------------------------------------------


def dry_run(clone: Path, *arguments: str | Path) -> str:
    return run_snakemake(clone, "--cores", "1", "--dry-run", *arguments).stdout


def test_a_key_that_stands_twice_stops_the_command(finished, tmp_path):
    path = written(tmp_path, "my.yaml", "training: {clip: 1}\nseed: 1\ntraining: {epochs: 1}\n")
    printed = dry_run(finished, "--configfile", TINY, path)
    assert error_line(printed) == (
        f"error: config: {path}, line 3: training: stands twice (first in line 1); keep one"
    )


def to_make(clone: Path, config: Path) -> set[str]:
    """The files that a run would make."""
    ran = run_snakemake(clone, "--cores", "1", "--configfile", config, "--summary")
    rows = [line.split("\t") for line in ran.stdout.splitlines() if line.startswith("results/")]
    assert rows, ran.stdout
    return {row[0] for row in rows if row[-1] != "no update"}


def test_an_overlay_lies_beside_what_it_extends(finished, tmp_path):
    """Its tables are others, its logs too; all that it shares is there already."""
    clone = copy_run(finished, tmp_path / "clone")
    overlay = written(clone, "fewer.yaml", f"extends: {TINY}\nreport: {{prompts: 3}}\n")
    printed = dry_run(clone, "--configfile", overlay)
    assert rules_to_run(printed) == {
        *("measure_judges", "summarize", "draw_figures", "write_result", "write_pages"),
        *("measure_learned_contamination", "draw_study", "build_report"),
    }
    made = to_make(clone, overlay)
    assert all(path.startswith("results/tiny/overlays/fewer/") for path in made)
    before = content_of(clone, "results/tiny", "logs/tiny")
    ran = run_snakemake(
        clone, "results/tiny/overlays/fewer/summary.csv", "--cores", "1", "--configfile", overlay
    )
    assert ran.returncode == 0, ran.stdout
    after = content_of(clone, "results/tiny", "logs/tiny")
    assert {path: after[path] for path in before} == before
    new = {str(Path(path).parent) for path in after.keys() - before.keys()}
    assert new == {
        "results/tiny/overlays/fewer",
        "logs/tiny/overlays/fewer",
        "logs/tiny/benchmarks/overlays/fewer",
    }
    # Nor does the run that it extends have anything to do.
    assert rules_to_run(dry_run(clone, "--configfile", TINY)) == set()


def test_the_resolved_config_is_the_same_overlay(finished, tmp_path):
    """The report and the plan call the workflow again, with the whole config in one file."""
    overlay = written(tmp_path, "fewer.yaml", f"extends: {finished / TINY}\n")
    whole = written(tmp_path, "config.json", json.dumps(resolved(overlay).config))
    made = to_make(finished, whole)
    assert made == to_make(finished, overlay)
    assert "results/tiny/overlays/fewer/report.html" in made


def test_a_module_is_given_a_whole_config(finished, tmp_path):
    written(
        tmp_path,
        "Snakefile",
        "module ifguide:\n"
        f"    snakefile: {json.dumps(str(finished / 'workflow/Snakefile'))}\n"
        "    config: config\n"
        "use rule * from ifguide\n",
    )
    path = written(tmp_path, "my.yaml", yaml.safe_dump({"extends": str(finished / TINY)}))
    assert error_line(dry_run(tmp_path, "--configfile", path)).startswith(
        "error: config: extends: is followed in files that --configfile names"
    )
