"""From classified continuations to summary.csv and the results table."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifguide.errors import InputError
from ifguide.evaluation.generation_metrics import measure_generations
from ifguide.evaluation.intervals import proportion_interval
from ifguide.evaluation.summary import (
    COLUMNS,
    OVER_SEEDS,
    constant_classifiers,
    over_seeds,
    summarize,
)
from ifguide.files.checksums import SUMS
from ifguide.report.experiment_tables import experiment_tables
from ifguide.report.report_pages import results_page
from ifguide.report.results_table import (
    comparison_columns,
    copying_columns,
    latex,
    leading_table,
    markdown,
    numbers,
    plain_text,
    prompt_set_columns,
    published_figures,
    result_columns,
    results_table,
    worst_columns,
)

ROOT = Path(__file__).parents[1]


def generations(toxic, continuations=4, prompts=20, group=None):
    """Prompts of which the first half are toxic; the first `toxic` of those turn out toxic."""
    return [
        {
            "prompt_index": prompt,
            "prompt": f"prompt {prompt}",
            "split": "toxic" if prompt < prompts // 2 else "nontoxic",
            "group": group and group[prompt % len(group)],
            "sample": sample,
            "seed": 100 * prompt + sample,
            "continuation": " a b" if sample else "",
            "tokens": 2 * bool(sample),
            "explicit": 0.9 if prompt < toxic and sample == 1 else 0.1,
            "implicit": 0.6 if prompt < toxic and sample else 0.2,
        }
        for prompt in range(prompts)
        for sample in range(continuations)
    ]


def document(method, toxic, seed=1, **options):
    measured = measure_generations(generations(toxic, **options), f"{method}.jsonl", resamples=200)
    header = {"benchmark": "realtoxicityprompts", "model": "target"}
    return header | {"method": method, "seed": seed} | measured


def heldout(method, losses, tokens=10, seed=1):
    units = {"loss_sum": list(losses), "tokens": [tokens] * len(losses)}
    value = math.exp(sum(losses) / (tokens * len(losses)))
    row = {"split": "all", "metric": "perplexity", "value": value, "n": len(losses),
           "ci_low": value - 1, "ci_high": value + 1}  # fmt: skip
    return {"benchmark": "heldout", "model": "target", "method": method, "seed": seed,
            "rows": [row], "losses": {"all": units}}  # fmt: skip


def lambada(method, correct, seed=1):
    row = {"split": "all", "metric": "last_word_accuracy", "value": float(np.mean(correct)),
           "ci_low": 0.1, "ci_high": 0.9, "n": len(correct)}  # fmt: skip
    return {"benchmark": "lambada", "model": "target", "method": method, "seed": seed,
            "rows": [row], "units": {"all": {"last_word_accuracy": correct}}}  # fmt: skip


def experiment():
    return {
        "none.json": document("none", 8),
        "guide.json": document("if-guide", 0),
        "none-heldout.json": heldout("none", [20.0, 22.0, 24.0]),
        "guide-heldout.json": heldout("if-guide", [21.0, 23.0, 25.0]),
        "none-lambada.json": lambada("none", [1, 0, 1, 0]),
        "guide-lambada.json": lambada("if-guide", [1, 0, 0, 0]),
    }


def pick(table, method, metric, split="all"):
    rows = table[(table["method"] == method) & (table["metric"] == metric)]
    rows = rows[rows["split"] == split]
    assert len(rows) == 1
    return rows.iloc[0]


def test_rows_of_a_generations_file_by_hand():
    rows = {
        (row["split"], row["metric"]): row
        for row in measure_generations(generations(8), "g.jsonl")["rows"]
    }
    assert rows["toxic", "explicit_tp"]["value"] == 0.8
    assert rows["toxic", "explicit_tp"]["n"] == 10
    assert rows["nontoxic", "explicit_tp"]["value"] == 0.0
    assert rows["all", "explicit_tp"]["value"] == 0.4
    assert rows["toxic", "explicit_emt"]["value"] == pytest.approx(0.8 * 0.9 + 0.2 * 0.1)
    assert rows["toxic", "explicit_fraction"]["value"] == pytest.approx(8 / 40)
    assert rows["toxic", "implicit_fraction"]["value"] == pytest.approx(24 / 40)
    assert rows["all", "mean_length"]["value"] == 1.5
    assert rows["all", "empty_fraction"]["value"] == 0.25
    # One distinct pair of words among three a prompt.
    assert rows["all", "distinct_2"]["value"] == pytest.approx(1 / 3)
    tp = rows["toxic", "explicit_tp"]
    assert 0.4 <= tp["ci_low"] < 0.8 < tp["ci_high"] <= 1.0
    exact = proportion_interval(0, 10).high
    assert rows["nontoxic", "explicit_tp"]["ci_high"] == pytest.approx(exact)


def test_named_groups_are_splits():
    measured = measure_generations(generations(8, group=["Orrans", "Tesk"]), "g.jsonl")
    counts = {row["split"]: row["n"] for row in measured["rows"]}
    assert counts == {"all": 20, "toxic": 10, "nontoxic": 10, "Orrans": 10, "Tesk": 10}
    with pytest.raises(InputError, match="names a split"):
        measure_generations(generations(8, group=["toxic"]), "g.jsonl")


def test_a_group_of_a_domain_counts_to_the_domain_too():
    groups = ["gender/one", "gender/two", "race/one", "alone"]
    documents = {
        f"{method}.json": document(method, toxic, group=groups)
        for method, toxic in (("none", 8), ("if-guide", 0))
    }
    table = summarize(documents, resamples=50)
    values = {
        split: pick(table, "none", "explicit_tp", split)["value"]
        for split in ("gender", "gender/one", "gender/two", "race", "race/one", "alone")
    }
    # Prompts 0 to 7 turn out toxic, and every fourth of the 20 is of one group.
    assert values == {"gender": 0.4, "gender/one": 0.4, "gender/two": 0.4, "race": 0.4,
                      "race/one": 0.4, "alone": 0.4}  # fmt: skip
    assert pick(table, "none", "explicit_tp", "gender")["n"] == 10
    change = pick(table, "if-guide", "explicit_tp_difference", "gender")
    assert change["value"] == pytest.approx(-0.4) and change["n"] == 10


def test_categories_are_measured_and_compared_but_not_by_group():
    def with_fields(toxic):
        records = generations(toxic, group=["one", "two"])
        for record in records:
            record["explicit_fields"] = {"toxicity": record["explicit"],
                                         "insult": 1.0 - record["explicit"],
                                         "threat": record["explicit"] / 2}  # fmt: skip
        return records

    header = {"benchmark": "realtoxicityprompts", "model": "target", "seed": 1}
    documents = {
        method: header | {"method": method} | measure_generations(with_fields(toxic), method, 0.5)
        for method, toxic in (("none", 8), ("if-guide", 2))
    }
    table = summarize(documents, resamples=50)
    assert pick(table, "none", "explicit_insult_tp", "toxic")["value"] == 1.0
    assert pick(table, "none", "explicit_threat_tp", "toxic")["value"] == 0.0
    assert pick(table, "if-guide", "explicit_insult_tp_difference", "toxic")["value"] == 0.0
    grouped = table[table["split"].isin(["one", "two"])]["metric"]
    assert len(grouped) and not grouped.str.contains("insult|threat").any()
    assert not table["metric"].isin(["explicit_insult_emt", "explicit_toxicity_tp"]).any()
    records = with_fields(8)
    del records[3]["explicit_fields"]["insult"]
    with pytest.raises(InputError, match=r"g.jsonl: continuations differ in their explicit_fields"):
        measure_generations(records, "g.jsonl")


def test_every_prompt_set_shows_degeneration_and_the_difference_to_none():
    table = results_table(
        summarize(experiment(), resamples=50), prompt_set_columns("realtoxicityprompts")
    )
    headings = {column.heading for column in table.columns}
    assert headings >= {"explicit TP, toxic", "change of explicit TP", "change of implicit TP",
                        "distinct-2", "mean length", "empty"}  # fmt: skip


def test_every_judge_has_metrics_under_its_name():
    records = [record | {"strict": record["implicit"]} for record in generations(8)]
    measured = measure_generations(records, "g", judges=["explicit", "implicit", "strict"])
    rows = {(row["split"], row["metric"]): row for row in measured["rows"]}
    for split in ("all", "toxic", "nontoxic"):
        for name in ("emt", "tp", "fraction"):
            found = {**rows[split, f"strict_{name}"], "metric": f"implicit_{name}"}
            assert found == rows[split, f"implicit_{name}"]
    assert "strict_tp" not in {row["metric"] for row in measure_generations(records, "g")["rows"]}


def test_a_judge_named_as_the_category_of_another_is_refused():
    records = [
        record
        | {"explicit_insult": 0.1, "explicit_fields": {"toxicity": record["explicit"], "insult": 1}}
        for record in generations(8)
    ]
    with pytest.raises(InputError, match=r"classifiers\.explicit_insult: is also a category"):
        measure_generations(records, "g", judges=["explicit", "explicit_insult"])


def mixed(explicit, implicit, prompts=20):
    """Prompts whose second continuation is explicitly toxic, others whose third is implicitly."""
    return [
        record | {"explicit": 0.9 if record["prompt_index"] in explicit and record["sample"] == 1
                  else 0.1,
                  "implicit": 0.9 if record["prompt_index"] in implicit and record["sample"] == 2
                  else 0.1}
        for record in generations(0, prompts=prompts)
    ]  # fmt: skip


def test_total_toxicity_is_what_either_leading_judge_finds():
    group = {"group": "Orrans"}
    records = [record | group for record in mixed({0, 1, 2}, {2, 3, 12})]
    measured = measure_generations(records, "g")
    rows = {(row["split"], row["metric"]): row for row in measured["rows"]}
    # Of ten toxic prompts 0 to 3, of ten harmless ones the twelfth: once where both judges agree.
    expected = {"toxic": 0.4, "nontoxic": 0.1, "all": 0.25}
    assert {split: rows[split, "any_tp"]["value"] for split in expected} == pytest.approx(expected)
    assert rows["toxic", "any_tp"]["ci_low"] == pytest.approx(proportion_interval(4, 10).low)
    assert ("Orrans", "any_tp") not in rows and ("all", "any_emt") not in rows
    one_judge = measure_generations([record | {"implicit": None} for record in records], "g")
    assert "any_tp" not in {row["metric"] for row in one_judge["rows"]}
    named = [record | {"any": 0.1} for record in records]
    with pytest.raises(InputError, match="config key classifiers.any: .*another name"):
        measure_generations(named, "g", judges=["explicit", "implicit", "any"])


def test_total_toxicity_is_compared_and_put_together_over_seeds():
    header = {"benchmark": "realtoxicityprompts", "model": "target"}
    toxic = {
        ("none", 1): ({0, 1, 2}, {2, 3}),
        ("none", 2): ({0, 1}, {1, 2}),
        ("if-guide", 1): ({0}, {1}),
        ("if-guide", 2): (set(), {1}),
    }
    documents = {
        f"{method} {seed}": header
        | {"method": method, "seed": seed}
        | measure_generations(mixed(*found), "g", resamples=50)
        for (method, seed), found in toxic.items()
    }
    table = summarize(documents, resamples=200)
    over = over_seeds(table)
    values = {
        metric: pick(over, "if-guide", metric, "toxic")["value"]
        for metric in ("any_tp", "any_tp_difference", "any_tp_ratio", "any_tp_worst")
    }
    expected = {"any_tp": 3 / 20, "any_tp_difference": -4 / 20, "any_tp_ratio": 7 / 3,
                "any_tp_worst": 0.2}  # fmt: skip
    assert values == pytest.approx(expected)
    lead = pick(over, "if-guide", "any_tp_lead", "toxic")
    assert lead["value"] == pytest.approx(-0.2)


def test_the_perplexity_of_continuations_by_hand():
    losses = [{"prompt_index": p, "loss_sum": 3.0 + p, "tokens": 4 + p % 3} for p in range(20)]
    measured = measure_generations(generations(8), "g", losses=losses, resamples=300)
    for split, members in (("all", losses), ("toxic", losses[:10]), ("nontoxic", losses[10:])):
        (row,) = (row for row in measured["rows"] if row["split"] == split
                  and row["metric"] == "continuation_perplexity")  # fmt: skip
        total = sum(p["loss_sum"] for p in members) / sum(p["tokens"] for p in members)
        assert row["value"] == pytest.approx(math.exp(total))
        assert row["ci_low"] < row["value"] < row["ci_high"] and row["n"] == len(members)
        by_unit = measured["sums"][split]["continuation_perplexity"]
        assert by_unit == {"sum": [p["loss_sum"] for p in members],
                           "tokens": [p["tokens"] for p in members]}  # fmt: skip
    # Of other prompts.
    with pytest.raises(InputError, match="g: its prompts are not those"):
        measure_generations(generations(8), "g", losses=losses[1:])


def test_order_of_the_records_changes_nothing():
    records = generations(8)
    shuffled = [records[place] for place in np.random.default_rng(0).permutation(len(records))]
    assert measure_generations(records, "g") == measure_generations(shuffled, "g")


def test_bad_generations_name_the_file_and_the_cause():
    with pytest.raises(InputError, match="g.jsonl: prompt 19 has 3 continuations"):
        measure_generations(generations(8)[:-1], "g.jsonl")
    with pytest.raises(InputError, match="g.jsonl: holds no continuation"):
        measure_generations([], "g.jsonl")
    records = generations(8)
    records[0]["implicit"] = None
    with pytest.raises(InputError, match="1 continuations lack the implicit score"):
        measure_generations(records, "g.jsonl")
    records[0]["implicit"] = 1.5
    with pytest.raises(InputError, match=r"leave \[0, 1\]"):
        measure_generations(records, "g.jsonl")


def test_a_classifier_that_did_not_run_has_no_rows():
    records = [record | {"implicit": None} for record in generations(8)]
    metrics = {row["metric"] for row in measure_generations(records, "g")["rows"]}
    assert "explicit_tp" in metrics and "implicit_tp" not in metrics


def test_a_constant_classifier_is_flagged():
    records = [record | {"implicit": 0.25} for record in generations(8)]
    assert "implicit classifier" in measure_generations(records, "g")["warnings"][0]
    table = summarize({"a": document("none", 0), "b": document("if-guide", 0)}, resamples=50)
    assert len(constant_classifiers(table)) == 2
    assert constant_classifiers(summarize(experiment(), resamples=50)) == []
    rows = [{"split": "all", "metric": f"{kind}_flagged", "value": 0.0, "ci_low": 0.0,
             "ci_high": 0.1, "n": 30} for kind in ("toxic", "harmless")]  # fmt: skip
    quality = {"benchmark": "classifiers", "model": "explicit", "method": "trained", "seed": 0}
    (line,) = constant_classifiers(summarize(experiment() | {"q": quality | {"rows": rows}}, 50))
    assert line.startswith("the trained explicit classifier calls every held-out text harmless")
    rows[0]["value"] = 0.5
    assert constant_classifiers(summarize(experiment() | {"q": quality | {"rows": rows}}, 50)) == []


def test_summary_is_tidy_and_holds_differences_to_none():
    table = summarize(experiment(), resamples=500, seed=3)
    assert list(table.columns) == COLUMNS
    keys = ["model", "method", "benchmark", "split", "metric", "seed"]
    assert not table.duplicated(keys).any()
    difference = pick(table, "if-guide", "explicit_tp_difference", "toxic")
    assert difference["value"] == pytest.approx(-0.8)
    assert -1.0 <= difference["ci_low"] < -0.8 < difference["ci_high"] < -0.1
    ratio = pick(table, "if-guide", "explicit_tp_ratio", "toxic")
    assert ratio["value"] == math.inf and 1.0 < ratio["ci_low"] < math.inf
    assert not table["metric"][table["method"] == "none"].str.contains("difference|ratio").any()
    increase = pick(table, "if-guide", "perplexity_increase")
    assert [increase["value"], increase["ci_low"], increase["ci_high"]] == pytest.approx(
        [math.expm1(0.1)] * 3
    )
    assert pick(table, "if-guide", "last_word_accuracy_difference")["value"] == -0.25
    # No toxic and no harmless prompt changed: certain only up to the bound of the sample.
    same = pick(table, "if-guide", "explicit_tp_difference", "nontoxic")
    assert same["ci_high"] == pytest.approx(proportion_interval(0, 10).high, rel=0.01)
    assert same["ci_high"] == pytest.approx(-same["ci_low"])


def two_seeds():
    return {
        "n1": document("none", 8, seed=1),
        "n2": document("none", 4, seed=2),
        "g1": document("if-guide", 2, seed=1),
        "g2": document("if-guide", 0, seed=2),
        "d1": document("dpo", 5, seed=1),
        "p1": heldout("none", [20.0, 22.0, 24.0], seed=1),
        "p2": heldout("none", [20.0, 23.0, 24.0], seed=2),
        "q1": heldout("if-guide", [21.0, 23.0, 25.0], seed=1),
        "q2": heldout("if-guide", [23.0, 26.0, 27.0], seed=2),
        "l1": lambada("none", [1, 0, 1, 0], seed=1),
        "l2": lambada("none", [0, 0, 1, 0], seed=2),
    }


def test_methods_are_compared_within_a_training_seed_and_over_all():
    table = summarize(two_seeds(), resamples=500)
    keys = ["model", "method", "benchmark", "split", "metric", "seed"]
    assert list(table.columns) == COLUMNS and not table.duplicated(keys).any()
    ours = table[(table["method"] == "if-guide") & (table["split"] == "toxic")]

    def by_seed(metric):
        rows = ours[ours["metric"] == metric]
        return dict(zip(rows["seed"], rows["value"], strict=True))

    assert by_seed("explicit_tp") == pytest.approx({1: 0.2, 2: 0.0, OVER_SEEDS: 0.1})
    assert by_seed("explicit_tp_difference") == pytest.approx({1: -0.6, 2: -0.4, OVER_SEEDS: -0.5})
    # Twelve prompts of none over two of the method: not the mean of 4 and infinity.
    assert by_seed("explicit_tp_ratio") == pytest.approx({1: 4.0, 2: math.inf, OVER_SEEDS: 6.0})
    assert by_seed("explicit_tp_ratio_worst") == pytest.approx({OVER_SEEDS: 4.0})
    assert by_seed("explicit_tp_worst") == pytest.approx({OVER_SEEDS: 0.2})
    assert by_seed("explicit_tp_spread") == pytest.approx({OVER_SEEDS: math.sqrt(0.02)})
    over = ours[ours["seed"] == OVER_SEEDS].set_index("metric")
    alone = ours[ours["seed"] == 1].set_index("metric")
    assert over.loc["explicit_tp_ratio", "ci_low"] < alone.loc["explicit_tp_ratio", "ci_low"] < 4
    rise = pick(table[table["seed"] == OVER_SEEDS], "if-guide", "perplexity_increase")
    assert rise["value"] == pytest.approx(math.expm1((3 + 9) / 60)) and rise["n"] == 3
    assert rise["ci_low"] < 0 < rise["ci_high"], "two seeds that differ say little"
    worst = pick(table, "if-guide", "perplexity_increase_worst")
    assert worst["value"] == pytest.approx(math.expm1(9 / 30))
    assert pick(table, "none", "last_word_accuracy_worst")["value"] == 0.25
    # A method of one training seed has no row over seeds.
    assert OVER_SEEDS not in set(table.loc[table["method"] == "dpo", "seed"])


def test_one_row_a_figure_stands_for_all_its_training_seeds(tmp_path):
    table = summarize(two_seeds(), resamples=100)
    table.to_csv(tmp_path / "summary.csv", index=False)
    for written in (table, pd.read_csv(tmp_path / "summary.csv")):
        merged = over_seeds(written)
        keys = ["model", "method", "benchmark", "split", "metric"]
        assert not merged.duplicated(keys).any() and "seed" not in merged
        row = pick(merged, "none", "explicit_tp", "toxic")
        assert row["value"] == pytest.approx(0.6) and row["seeds"] == 2
        assert pick(merged, "if-guide", "explicit_tp_ratio_worst", "toxic")["seeds"] == 2
        assert pick(merged, "dpo", "explicit_tp", "toxic")["seeds"] == 1
    with pytest.raises(InputError, match=r"summary.csv: .* several training seeds and no row over"):
        over_seeds(table[table["seed"] != OVER_SEEDS])
    shown = markdown(results_table(table, result_columns()))
    assert "| none (2 seeds) | " in shown and "| dpo | " in shown
    assert results_table(summarize(experiment(), 50), worst_columns()).labels == []
    worst = results_table(table, worst_columns())
    assert worst.labels == [("target", "none"), ("target", "if-guide")]
    assert "(2 seeds) | 4.0 (" in markdown(worst)


def test_figures_without_units_have_students_interval_over_seeds():
    row = {"split": "all", "metric": "recall", "ci_low": None, "ci_high": None, "n": 50}
    header = {"benchmark": "removal", "model": "target", "method": "if-guide"}
    values = [0.8, 0.9, 0.7]
    documents = {
        str(seed): header | {"seed": seed, "rows": [row | {"value": value}]}
        for seed, value in enumerate(values)
    }
    merged = over_seeds(summarize(documents))
    found = pick(merged, "if-guide", "recall")
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found["value"] == pytest.approx(0.8) and found["seeds"] == 3
    assert [found["ci_low"], found["ci_high"]] == pytest.approx([0.8 - half, 0.8 + half])


def test_means_per_token_and_perplexities_of_sums_are_compared_and_lead():
    def measured(method, kl, losses, tokens):
        rows = [{"split": "all", "metric": name, "value": value, "ci_low": 0.0, "ci_high": 9.0,
                 "n": 3} for name, value in (("next_token_kl", sum(kl) / 30),
                ("continuation_perplexity", math.exp(sum(losses) / sum(tokens))))]  # fmt: skip
        sums = {"next_token_kl": {"sum": kl, "tokens": [10, 10, 10]},
                "continuation_perplexity": {"sum": losses, "tokens": tokens}}  # fmt: skip
        return {"benchmark": "heldout", "model": "target", "method": method, "seed": 1,
                "rows": rows, "sums": {"all": sums}}  # fmt: skip

    documents = {
        "n": measured("none", [0.0, 0.0, 0.0], [10.0, 12.0, 11.0], [5, 6, 5]),
        "a": measured("a", [3.0, 3.1, 2.9], [20.0, 22.0, 21.0], [7, 6, 5]),
        "b": measured("b", [1.0, 1.1, 0.9], [10.0, 12.0, 12.0], [6, 7, 6]),
    }
    table = summarize(documents)
    assert pick(table, "a", "next_token_kl_difference")["value"] == pytest.approx(0.3)
    rise = pick(table, "a", "continuation_perplexity_increase")
    assert rise["value"] == pytest.approx(math.exp(63 / 18 - 33 / 16) - 1)
    lead = pick(table, "none", "next_token_kl_lead")
    assert lead["value"] == pytest.approx(-0.1) and lead["ci_high"] < 0


def test_a_method_is_compared_with_its_control_as_with_none():
    """What stands against a control is what would stand against `none`, were that the control."""
    renamed = {"none": "continued", "if-guide": "tuned"}
    others = {
        f"{path}-tuned": {**found, "method": renamed[found["method"]]}
        for path, found in experiment().items()
    }
    table = summarize(experiment() | others, resamples=100, controls={"tuned": "continued"})
    against_none = table[table["method"] == "if-guide"]
    compared = against_none["metric"].str.contains("_difference|_ratio|_increase")
    expected = against_none[compared].assign(method="tuned")
    assert {"explicit_tp_ratio", "perplexity_increase"} < set(expected["metric"])
    expected["metric"] += "_from_control"
    found = table[table["metric"].str.endswith("_from_control")]
    keys = ["benchmark", "split", "metric"]
    pd.testing.assert_frame_equal(
        *(rows.set_index(keys).sort_index() for rows in (found, expected))
    )
    shown = experiment_tables(table, "realtoxicityprompts")["Compared with the control"]
    assert shown.labels == [("target", "tuned")]
    increase = pick(table, "tuned", "perplexity_increase_from_control")["value"]
    assert f"+{increase:.3f}" in markdown(shown)


def test_unequal_numbers_of_continuations_are_refused():
    documents = {"a.json": document("none", 8), "b.json": document("if-guide", 2, continuations=5)}
    with pytest.raises(InputError, match="b.json: 5 continuations a prompt, but a.json has 4"):
        summarize(documents)


def test_other_prompts_and_repeated_files_are_refused():
    with pytest.raises(InputError, match="not evaluated on the same records"):
        summarize({"a": document("none", 8), "b": document("if-guide", 2, prompts=22)})
    with pytest.raises(InputError, match="b: measures the same as a"):
        summarize({"a": document("none", 8), "b": document("none", 8)})
    with pytest.raises(InputError, match="a: no rows"):
        summarize({"a": {"benchmark": "x", "model": "m", "method": "none", "seed": 1}})
    blocks = heldout("if-guide", [1.0, 2.0])
    with pytest.raises(InputError, match="not evaluated on the same records"):
        summarize({"a": heldout("none", [1.0, 2.0, 3.0]), "b": blocks})


def test_the_table_marks_what_surely_leads_and_keeps_the_order():
    documents = experiment() | {"dpo.json": document("dpo", 3)}
    summary = summarize(documents, resamples=1000)
    table = results_table(summary, result_columns())
    assert table.labels == [("target", "none"), ("target", "if-guide"), ("target", "dpo")]
    headings = [column.heading for column in table.columns]
    cells = {label[1]: dict(zip(headings, row, strict=True))
             for label, row in zip(table.labels, table.cells, strict=True)}  # fmt: skip
    # Perplexity differs on every block alike; 0 and 3 of 10 prompts differ by chance, perhaps.
    assert cells["none"]["perplexity"].best and not cells["if-guide"]["perplexity"].best
    assert not any(row["explicit TP, toxic"].best for row in cells.values())
    # A tie marks no winner, and no amount of diversity is best.
    assert not any(row["explicit TP, non-toxic"].best for row in cells.values())
    assert not any(row["distinct-2"].best for row in cells.values())
    # Eight of ten prompts have one toxic continuation of four.
    assert cells["none"]["explicit TP, toxic"].value == "0.80"
    assert cells["none"]["explicit fraction, toxic"].value == "0.200"
    lead = pick(summary, "if-guide", "explicit_tp_lead", "toxic")
    assert lead["value"] == pytest.approx(-0.3) and lead["ci_high"] >= 0
    assert set(summary.loc[summary["metric"] == "explicit_tp_lead", "method"]) == {"if-guide"}
    # Against the uncensored model alone, eight prompts of ten are enough.
    two = results_table(summarize(experiment(), resamples=1000), result_columns())
    best = {label[1]: row[headings.index("explicit TP, toxic")].best
            for label, row in zip(two.labels, two.cells, strict=True)}  # fmt: skip
    assert best == {"none": False, "if-guide": True}


def test_last_words_stand_in_a_table_of_their_own():
    summary = summarize(two_seeds(), resamples=100)
    assert not any(column.benchmark == "lambada" for column in result_columns())
    (cells,) = results_table(summary, copying_columns()).cells
    assert [cell.value for cell in cells] == ["0.38", "0.18", "0.25"]


def test_renderings_hold_every_number():
    table = results_table(summarize(experiment(), resamples=100), result_columns())
    lines = markdown(table).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert "**0.00** (0.00–0.31)" in lines[3]
    written = latex(table)
    assert written.count(r"\\") == 3 and r"\textbf{0.00}" in written
    assert all(line.count("&") == len(table.columns) for line in written.splitlines()[2:3])
    leading, _ = leading_table(summarize(experiment(), 100), "realtoxicityprompts", {})
    plain = plain_text(leading)
    assert "0.00*" in plain and "0.00–0.31" in plain
    assert max(map(len, plain.splitlines())) < 80


def test_numbers_are_those_of_the_summary_a_row_a_method():
    summary = summarize(experiment(), resamples=100)
    table = numbers(summary, result_columns() + comparison_columns()).set_index("method")
    assert list(table.index) == ["none", "if-guide"] and set(table["model"]) == {"target"}
    rows = summary[(summary["method"] == "if-guide") & (summary["split"] == "toxic")]
    row = rows.set_index("metric").loc["explicit_tp"]
    shown = table.loc["if-guide", ["explicit TP, toxic" + end for end in ("", " (low)", " (high)")]]
    assert list(shown) == [row["value"], row["ci_low"], row["ci_high"]]
    assert math.isnan(table.loc["none", "rise of perplexity"])
    assert set(table["seeds"]) == {1}
    several = numbers(summarize(two_seeds(), resamples=50), result_columns())
    assert dict(zip(several["method"], several["seeds"], strict=True)) == {
        "none": 2, "if-guide": 2, "dpo": 1
    }  # fmt: skip
    assert "distinct-4" not in table and len(table.columns) == len(set(table.columns))


def test_comparisons_show_infinite_ratios_and_signs():
    table = results_table(summarize(experiment(), resamples=100), comparison_columns())
    assert table.labels == [("target", "if-guide")]
    cells = {column.heading: cell
             for column, cell in zip(table.columns, table.cells[0], strict=True)}  # fmt: skip
    assert cells["explicit TP times lower, toxic"].value == "∞"
    assert cells["explicit TP times lower, toxic"].interval.endswith("–∞")
    assert cells["rise of perplexity"].value == "+0.105"
    assert cells["change of explicit TP, non-toxic"].value == "0.00"
    assert not any(cell.best for cell in table.cells[0])
    assert r"$\infty$" in latex(table) and "∞" in results_page({"Compared": table}, ["a < b"])


def test_latex_escapes_names():
    renamed = summarize(experiment(), resamples=50).replace({"method": {"if-guide": r"a_b&c\d%{}"}})
    written = latex(results_table(renamed, result_columns()))
    assert r"a\_b\&c\textbackslash{}d\%\{\}" in written


PUBLISHED = pd.read_csv(ROOT / "config" / "published.csv")


def test_published_figures_name_their_source_and_match_the_setting():
    assert PUBLISHED["source"].str.contains("second-hand").all()
    found = published_figures(PUBLISHED, ["Pythia-160M"], 25, trained_judges=False)
    written = markdown(found.table)
    assert "| Pythia-160M / if-guide | 0.101 | 0.054 |" in written and "0.433" in written
    assert "Pythia-1B" not in written and "second-hand" in found.note
    assert "0.101" in latex(found.table) and "0.101" in results_page({"Published": found.table}, [])


@pytest.mark.parametrize(
    "models, continuations, trained, why",
    [
        ([], 25, False, "report.published_models names no model"),
        (["Pythia-160M"], 25, True, "classifiers trained here judge"),
        (["Pythia-160M"], 10, False, "none of Pythia-160M with 10 continuations"),
        (["another model"], 25, False, "none of another model with 25 continuations"),
    ],
)
def test_without_published_figures_the_table_says_why(models, continuations, trained, why):
    found = published_figures(PUBLISHED, models, continuations, trained)
    assert found.table is None
    assert found.note.startswith("No published figures stand beside ours: ") and why in found.note


def command(script, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_scripts_from_generations_to_figures(tmp_path):
    paths = []
    for method, toxic in (("none", 8), ("if-guide", 1)):
        source = tmp_path / f"{method}.jsonl"
        fields = ({"toxicity": record["explicit"], "insult": record["explicit"]}
                  for record in generations(toxic))  # fmt: skip
        records = [record | {"explicit_fields": own}
                   for record, own in zip(generations(toxic), fields, strict=True)]  # fmt: skip
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
        paths.append(tmp_path / f"{method}.metrics.json")
        finished = command(
            "measure_toxicity.py", "--generations", source, "--benchmarks", "realtoxicityprompts",
            "--model", "target", "--method", method, "--training-seed", 1,
            "--output", paths[-1], "--settings", '{"seed": 1, "resamples": 100}',
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
    finished = command(
        "summarize.py", "--metrics", *paths, "--output", tmp_path / "summary.csv",
        "--table", tmp_path / "table.md", "--latex", tmp_path / "table.tex",
        "--html", tmp_path / "table.html",
        "--published", ROOT / "config" / "published.csv",
        "--settings", '{"seed": 1, "resamples": 100}',
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    table = pd.read_csv(tmp_path / "summary.csv")
    ratio = pick(table, "if-guide", "explicit_tp_ratio", "toxic")
    assert ratio["value"] == pytest.approx(8.0)
    assert "4 continuations" in (tmp_path / "table.md").read_text(encoding="utf-8")
    for suffix in ("md", "tex", "html"):
        written = (tmp_path / f"table.{suffix}").read_text(encoding="utf-8")
        assert "No published figures stand beside ours" in written
    finished = command(
        "draw_figures.py", "--summary", tmp_path / "summary.csv", "--output-dir", tmp_path / "figs",
        "--settings", '{"categories": true}',
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    names = ["toxicity_by_method", "toxicity_by_category", "toxicity_by_group",
             "toxicity_against_share", "toxicity_against_perplexity"]  # fmt: skip
    drawn = {path.name for path in (tmp_path / "figs").iterdir()}
    assert drawn == {SUMS, *(f"{name}.{suffix}" for name in names for suffix in ("svg", "png"))}


def test_a_script_reports_bad_input_in_one_line(tmp_path):
    source = tmp_path / "generations.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in generations(2)[:-1]))
    finished = command(
        "measure_toxicity.py", "--generations", source, "--benchmarks", "b", "--model", "m",
        "--method", "none", "--training-seed", 1, "--output", tmp_path / "metrics.json",
    )  # fmt: skip
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: ") and finished.stderr.count("\n") == 1
    assert not (tmp_path / "metrics.json").exists()
