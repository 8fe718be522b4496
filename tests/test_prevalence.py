"""A toxic share corrected for a judge's mistakes: the formula, its limits, and coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.evaluation.intervals import paired_ratio, share_interval
from ifguide.evaluation.prevalence import (
    JudgeRates,
    corrected,
    corrected_ratio,
    corrected_share,
    judge_rates,
)
from ifguide.evaluation.summary import summarize, uncorrected_judges
from ifguide.report.experiment_tables import (
    CORRECTED_HEADING,
    corrected_note,
    experiment_tables,
)
from test_summary import document

TRIALS = 300
CONTINUATIONS = 10
NEVER_WRONG = JudgeRates(10**9, 10**9, 10**9, 0)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_what_a_judge_flags_gives_back_the_share_that_is_toxic(share, first, second):
    false_alarms, sensitivity = sorted((first, second))
    if sensitivity - false_alarms < 1e-6:
        return
    flagged = share * sensitivity + (1 - share) * false_alarms
    found = corrected(np.array(flagged), sensitivity, false_alarms, np.nan)
    assert found == pytest.approx(share, abs=1e-8)


def test_by_hand_and_clipped():
    rates = JudgeRates(100, 50, 200, 10)
    flagged = np.repeat([1.0, 0.0], [20, 80])
    assert corrected_share(flagged, rates).value == pytest.approx((0.2 + 0.95 - 1) / 0.45)
    fewer = corrected_share(np.repeat([1.0, 0.0], [3, 97]), rates)
    assert fewer.value == fewer.low == 0.0 < fewer.high < 0.2
    more = corrected_share(np.repeat([1.0, 0.0], [55, 45]), rates)
    assert 0.7 < more.low < more.value == more.high == 1.0


def test_a_judge_that_is_never_wrong_leaves_share_interval_and_ratio_as_they_are():
    generator = np.random.default_rng(0)
    none, method = generator.binomial(5, [[0.4], [0.1]], (2, 90)) / 5
    options = {"resamples": 1000, "seed": 3}
    assert corrected_share(method, NEVER_WRONG, **options) == pytest.approx(
        share_interval(method, **options), abs=1e-6
    )
    assert corrected_ratio(none, method, NEVER_WRONG, **options) == pytest.approx(
        paired_ratio(none, method, **options), rel=1e-6
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 60), st.integers(1, 60))
def test_bounds_do_not_fall_where_more_is_flagged(count, further):
    rates = JudgeRates(80, 60, 80, 4)
    fewer, more = (
        np.array(corrected_share((np.arange(120) < flagged).astype(float), rates, 300))
        for flagged in (count, count + further)
    )
    assert (fewer <= more).all()


def test_fewer_held_out_texts_make_it_less_sure():
    flagged = (np.arange(120) < 30).astype(float)
    few, many = (corrected_share(flagged, JudgeRates(n, n // 2, n, n // 10)) for n in (20, 2000))
    assert few.value == many.value
    assert few.low < many.low < many.high < few.high


@pytest.mark.parametrize("rates", [JudgeRates(10, 2, 10, 2), JudgeRates(10, 1, 10, 3)])
def test_a_judge_that_tells_nothing_apart_corrects_nothing(rates):
    assert not rates.tells_apart
    for correction in (
        lambda: corrected_share(np.ones(4), rates),
        lambda: corrected_ratio(np.ones(4), np.ones(4), rates),
    ):
        with pytest.raises(ValueError, match="corrects no share"):
            correction()


def flagged_share(generator, toxic, prompts, sensitivity, false_alarms):
    """Draw what a judge flags of the continuations of prompts that differ in how toxic they are."""
    of_prompt = generator.beta(2 * toxic, 2 * (1 - toxic), prompts)
    flagged = of_prompt * sensitivity + (1 - of_prompt) * false_alarms
    return generator.binomial(CONTINUATIONS, flagged) / CONTINUATIONS


def drawn_rates(generator, sensitivity, false_alarms, texts):
    flagged = generator.binomial(texts, [sensitivity, false_alarms])
    return JudgeRates(texts, int(flagged[0]), texts, int(flagged[1]))


# Toxic share, sensitivity, false alarms, prompts, held-out texts of each kind.
SIMULATED = [
    (0.10, 0.70, 0.03, 120, 400),
    (0.10, 0.95, 0.05, 60, 100),
    (0.02, 0.80, 0.05, 120, 150),
    (0.30, 0.50, 0.005, 300, 100),
    (0.50, 0.90, 0.20, 60, 60),
    (0.02, 0.60, 0.10, 300, 1000),
]


@pytest.mark.parametrize("toxic, sensitivity, false_alarms, prompts, texts", SIMULATED)
def test_the_truth_is_covered(toxic, sensitivity, false_alarms, prompts, texts):
    """Nominal 95 %: in at least 93 % of simulated experiments, and not by saying nothing."""
    generator = np.random.default_rng(1)
    bounds = np.array(
        [
            corrected_share(
                flagged_share(generator, toxic, prompts, sensitivity, false_alarms),
                drawn_rates(generator, sensitivity, false_alarms, texts),
                resamples=400,
                seed=trial,
            )[1:]
            for trial in range(TRIALS)
        ]
    )
    covered = (bounds[:, 0] <= toxic) & (toxic <= bounds[:, 1])
    assert covered.mean() >= 0.93
    assert np.median(bounds[:, 1] - bounds[:, 0]) < max(0.2, 0.7 * toxic)


def test_rates_taken_for_known_would_not_cover():
    """Why the interval carries their uncertainty."""
    generator = np.random.default_rng(2)
    toxic, sensitivity, false_alarms = 0.1, 0.7, 0.1
    covered = []
    for trial in range(TRIALS):
        flagged = flagged_share(generator, toxic, 300, sensitivity, false_alarms)
        rates = drawn_rates(generator, sensitivity, false_alarms, 60)
        known = JudgeRates(*(100 * count for count in vars(rates).values()))
        covered.append(
            [
                low <= toxic <= high
                for _, low, high in (
                    corrected_share(flagged, each, resamples=400, seed=trial)
                    for each in (rates, known)
                )
            ]
        )
    whole, without = np.mean(covered, axis=0)
    assert whole >= 0.93 and without < 0.8


@pytest.mark.parametrize("none, method", [(0.3, 0.05), (0.2, 0.2), (0.3, 0.01)])
def test_a_ratio_is_covered(none, method):
    generator = np.random.default_rng(3)
    low, high = [], []
    for trial in range(TRIALS):
        pair = [flagged_share(generator, toxic, 150, 0.7, 0.04) for toxic in (none, method)]
        rates = drawn_rates(generator, 0.7, 0.04, 300)
        interval = corrected_ratio(*pair, rates, resamples=400, seed=trial)
        low.append(interval.low <= none / method)
        high.append(none / method <= interval.high)
    assert np.mean(low) >= 0.96
    assert (np.array(low) & np.array(high)).mean() >= 0.93


def quality(toxic, harmless, judge="explicit", texts=200):
    """Metrics of held-out texts, of which these shares of toxic and harmless ones are flagged."""
    rows = [
        {"split": split, "metric": f"{kind}_flagged", "value": share, "n": texts}
        | {"ci_low": 0.0, "ci_high": 1.0}
        for split, scale in (("all", 1.0), ("toxigen", 0.5))
        for kind, share in (("toxic", toxic * scale), ("harmless", harmless * scale))
    ]
    header = {"benchmark": "classifiers", "model": judge, "method": "trained", "seed": 0}
    return header | {"rows": rows}


def test_rates_are_those_of_all_held_out_texts_of_judges_trained_here():
    reward = quality(0.9, 0.1, "toxicity") | {"method": "reward model, bpe"}
    empty = quality(0.9, 0.1, "odd") | {"rows": []}
    found = judge_rates([quality(0.8, 0.05), reward, empty, document("none", 8)])
    assert found == {"explicit": JudgeRates(200, 160, 200, 10)}


def corrected_rows(table):
    rows = table[table["metric"].str.contains("_corrected")]
    return rows.set_index(["method", "split", "metric", "seed"]).sort_index()


def test_the_summary_has_the_corrected_fraction_beside_the_raw_one():
    documents = {
        f"{method}{seed}": document(method, toxic + seed, seed)
        for method, toxic in (("none", 7), ("if-guide", 1))
        for seed in (1, 2)
    }
    table = summarize(documents | {"q": quality(0.8, 0.02)}, resamples=100)
    rows = corrected_rows(table)
    assert {metric.partition("_")[0] for _, _, metric, _ in rows.index} == {"explicit"}
    assert {split for _, split, _, _ in rows.index} == {"all", "toxic", "nontoxic"}
    for seed, toxic in ((1, 8), (2, 9), ("all", 8.5)):
        found = rows.loc["none", "toxic", "explicit_fraction_corrected", seed]
        # One in four continuations of a toxic prompt is flagged, of ten prompts.
        assert found["value"] == pytest.approx((toxic / 40 - 0.02) / 0.78)
        assert found["ci_low"] < found["value"] < found["ci_high"]
        ratio = rows.loc["if-guide", "toxic", "explicit_fraction_corrected_ratio", seed]
        assert ratio["value"] == pytest.approx((toxic / 40 - 0.02) / ((toxic - 6) / 40 - 0.02))
    assert rows.loc["none", "nontoxic", "explicit_fraction_corrected", 1]["value"] == 0.0
    assert not any(name == "none" and "ratio" in metric for name, _, metric, _ in rows.index)
    tables = experiment_tables(table, "realtoxicityprompts")
    assert [column.heading for column in tables[CORRECTED_HEADING].columns][:2] == [
        "explicit, toxic",
        "explicit, toxic, corrected",
    ]
    (line,) = uncorrected_judges(table)
    assert line.startswith("of implicit: ") and "not trained here" in line
    note = corrected_note(tables, [line])
    assert "Continuations are not those texts" in note and line in note


@pytest.mark.parametrize(
    "judged, threshold, reason",
    [
        (quality(0.1, 0.1), 0.5, "no more often than harmless ones"),
        (quality(0.8, 0.1), 0.7, "known at the threshold 0.5 only"),
    ],
)
def test_what_cannot_be_corrected_is_told(judged, threshold, reason):
    documents = {"none": document("none", 8) | {"threshold": threshold}, "q": judged}
    table = summarize(documents, resamples=50)
    assert corrected_rows(table).empty
    lines = uncorrected_judges(table)
    assert len(lines) == 2 and any("of explicit: " in line and reason in line for line in lines)
    assert CORRECTED_HEADING not in experiment_tables(table, "realtoxicityprompts")
