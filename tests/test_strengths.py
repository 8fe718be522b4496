"""A method at several strengths: a method of each, and the one that development prompts choose."""

import copy

import pandas as pd
import pytest
import yaml

from conftest import TINY, error_line
from ifguide.evaluation.choice import at_chosen_strengths, choice_note, choose
from ifguide.report.field_figure import toxicity_against_fluency
from ifguide.workflow.strengths import curves_of, spread_out

CURVES = {"graded": {"graded-0_5": 0.5, "graded-1": 1.0, "graded-2": 2.0}}
CHOICE = {"curves": CURVES, "benchmark": "development", "within": 0.05}
GRID = {"methods": {"rad": {"rad": {"reward": "toxicity", "strengths": [0, 10, 2.5]}}}}


def config() -> dict:
    return {
        "methods": {"none": {}, "rad": {"start_from": "none", **GRID["methods"]["rad"]}},
        "evaluation": {"methods": ["none", "rad"]},
    }


def row(method: str, benchmark: str, split: str, metric: str, value: float) -> dict:
    names = dict(model="m", method=method, benchmark=benchmark, split=split, metric=metric)
    return {**names, "value": value, "ci_low": value, "ci_high": value, "n": 10, "seed": "0"}


def measured(toxicity: dict[str, float], rises: dict[str, float]) -> pd.DataFrame:
    """Development TP and rises of perplexity, by variant; the test's TP is as they do not say."""
    rows = [row(name, "development", "toxic", "any_tp", tp) for name, tp in toxicity.items()]
    rows += [
        row(name, "realtoxicityprompts", "toxic", "any_tp", place / 10)
        for place, name in enumerate([*toxicity, "none"])
    ]
    rows += [
        row(name, "heldout", "all", "perplexity_increase", rise) for name, rise in rises.items()
    ]
    return pd.DataFrame([*rows, row("none", "heldout", "all", "perplexity", 3.0)])


def test_each_strength_is_a_method_with_the_other_options_of_its_own():
    spread = config()
    spread_out(spread)
    assert spread["evaluation"]["methods"] == ["none", "rad-0", "rad-10", "rad-2_5"]
    assert spread["methods"]["rad-2_5"] == {
        "start_from": "none",
        "rad": {"reward": "toxicity", "beta": 2.5},
    }
    assert curves_of(spread) == {"rad": {"rad-0": 0, "rad-10": 10, "rad-2_5": 2.5}}


def test_the_record_of_a_run_spreads_out_to_itself():
    once = config()
    spread_out(once)
    again = copy.deepcopy(once)
    spread_out(again)
    assert again == once


def test_a_variant_with_the_name_of_another_method_is_refused():
    taken = config()
    taken["methods"]["rad-10"] = {"start_from": "none"}
    with pytest.raises(SystemExit, match=r"methods\.rad\.rad\.strengths: .*'rad-10'"):
        spread_out(taken)


@pytest.mark.parametrize(
    ("strengths", "line"),
    [
        ([], "methods.rad.rad.strengths"),
        ([1, 1], "methods.rad.rad.strengths"),
        ([-1], "methods.rad.rad.strengths.0"),
        ("1", "methods.rad.rad.strengths"),
    ],
)
def test_a_grid_that_holds_nothing_is_refused(dry_runs, strengths, line):
    overlay = {"methods": {"rad": {"rad": {"reward": "toxicity", "strengths": strengths}}}}
    assert error_line(dry_runs.printed(TINY, overlay)).startswith(f"error: config: {line}")


def test_a_step_without_a_strength_has_no_grid(dry_runs):
    overlay = {"methods": {"word_filter": {"filter": {"words": "a.txt", "strengths": [1]}}}}
    assert "strengths" in error_line(dry_runs.printed(TINY, overlay))


def test_a_control_of_several_strengths_is_refused(dry_runs):
    graded = {"suppress": {"selection": "top", "strengths": [0.5, 1.0]}}
    overlay = {"methods": {"ifguide": graded}}
    line = error_line(dry_runs.printed(TINY, overlay))
    assert line.startswith("error: config: methods.word_filter.compare_with: 'ifguide' has several")


def test_the_least_toxic_strength_within_the_price_is_chosen():
    toxicity = {"graded-0_5": 0.4, "graded-1": 0.2, "graded-2": 0.0}
    rises = {"graded-0_5": 0.01, "graded-1": 0.05, "graded-2": 0.06}
    summary = measured(toxicity, rises)
    assert choose(summary, **CHOICE) == {"graded": "graded-1"}
    assert choose(summary, **{**CHOICE, "within": 0.1}) == {"graded": "graded-2"}
    assert choose(summary, **{**CHOICE, "within": 0.0}) == {"graded": "graded-0_5"}
    assert choose(measured(dict.fromkeys(toxicity, 0.1), rises), **CHOICE) == {
        "graded": "graded-0_5"
    }
    assert choose(measured(toxicity, {}), **CHOICE) == {"graded": "graded-2"}


def test_test_prompts_choose_nothing():
    toxicity = {"graded-0_5": 0.4, "graded-1": 0.2, "graded-2": 0.3}
    summary = measured(toxicity, dict.fromkeys(toxicity, 0.0))
    of_test = summary["benchmark"] == "realtoxicityprompts"
    swapped = summary.assign(value=summary["value"].where(~of_test, 1 - summary["value"]))
    assert choose(summary, **CHOICE) == choose(swapped, **CHOICE) == {"graded": "graded-1"}


def test_the_chosen_strength_stands_under_the_name_of_the_method():
    toxicity = {"graded-0_5": 0.4, "graded-1": 0.2, "graded-2": 0.3}
    summary = measured(toxicity, dict.fromkeys(toxicity, 0.0))
    shown = at_chosen_strengths(summary, CHOICE)
    assert set(shown["method"]) == {"none", "graded"}
    of_method = summary[summary["method"] == "graded-1"].drop(columns="method")
    found = shown[shown["method"] == "graded"].drop(columns="method")
    pd.testing.assert_frame_equal(found, of_method)
    assert "graded 1" in choice_note(summary, CHOICE)
    assert at_chosen_strengths(summary, {}) is summary


def test_the_field_marks_what_is_chosen_and_names_every_method():
    toxicity = {"graded-0_5": 0.4, "graded-1": 0.2, "graded-2": 0.3, "worse": 0.9}
    rises = {"graded-0_5": 0.0, "graded-1": 0.1, "graded-2": 5.0, "worse": 0.2}
    summary = measured(toxicity, rises)
    figure = toxicity_against_fluency(
        summary,
        "realtoxicityprompts",
        curves=CURVES,
        chosen={"graded": "graded-1"},
        first=["none"],
        model="m",
    )
    axes, key = figure.axes
    assert {text.get_text() for text in axes.texts} == {"none", "graded", "1"}
    assert [text.get_text() for text in key.texts] == ["1  worse"]
    marked = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_markersize() == 7]
    assert [1.1, 0.1] in marked  # TP of the test's prompts at the chosen strength
    curve = next(
        line for line in axes.lines if line.get_marker() == "." and len(line.get_xdata()) > 1
    )
    assert list(curve.get_xdata()) == [1.0, 1.1]  # the strongest lies beyond the axis


def test_a_grid_is_compared_in_the_workflow(dry_runs):
    overlay = {
        **yaml.safe_load(yaml.safe_dump(GRID)),
        "evaluation": {"methods": ["none", "rad"]},
        "report": {"choose_on": "toxigen"},
    }
    printed = dry_runs.printed(TINY, overlay)
    for name in ("rad-0", "rad-10", "rad-2_5"):
        assert f"continuations by target/{name}" in printed
