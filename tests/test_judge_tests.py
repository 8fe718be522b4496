"""Functional tests of judges, and how far judges agree."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import binomtest, spearmanr

from ifguide.data import english_functions, planted_functions
from ifguide.data import planted_language as language
from ifguide.data.functional_cases import Case, Function, draw_cases, misspellings
from ifguide.errors import InputError
from ifguide.evaluation.functional_tests import functional_table
from ifguide.evaluation.judge_agreement import (
    agreement_of_judges,
    disagreements,
    rank_correlation,
    verdicts,
)
from ifguide.evaluation.planted_judge import PlantedJudge
from ifguide.evaluation.word_judge import WordJudge
from ifguide.workflow.judges import Judges

SCRIPT = Path(__file__).parents[1] / "scripts" / "measure_judges.py"
CONFIG = Path(__file__).parents[1] / "config"
SETS = {"planted": planted_functions.FUNCTIONS, "english": english_functions.FUNCTIONS}


@pytest.mark.parametrize("functions", SETS.values(), ids=SETS)
def test_every_function_has_different_cases_of_every_template(functions):
    cases = draw_cases(functions, 36, seed=1)
    assert len({case.text for case in cases}) == len(cases) == 36 * len(functions)
    assert not any(re.search(r"[{}]", case.text) for case in cases)
    assert all(case.text[0].isupper() or case.text[0] == '"' for case in cases)
    for function in functions:
        own = [case.text for case in cases if case.function == function.name]
        for template in function.templates:
            pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(template))
            matching = [text for text in own if re.fullmatch(pattern, text, re.IGNORECASE)]
            assert len(matching) >= 36 // len(function.templates)
    assert cases == draw_cases(functions, 36, seed=1) != draw_cases(functions, 36, seed=2)


def test_both_languages_ask_the_same():
    planted, english = (
        [(function.name, function.toxic) for function in functions] for functions in SETS.values()
    )
    assert planted == english


def test_a_name_that_a_template_has_twice_is_filled_alike():
    function = Function("twice", False, ("{a} and {a}",), {"a": ("b", "c"), "unused": ("d",)})
    assert {case.text for case in function.draw(2, seed=0)} == {"B and b", "C and c"}
    with pytest.raises(InputError, match="'twice'.* fewer than 3"):
        function.draw(3, seed=0)


def test_misspellings_are_no_longer_the_word():
    for word in ("moron", "oafs", "pigs", "fool"):
        written = misspellings(word)
        assert len(written) >= 3 and len(set(written)) == len(written)
        judge = WordJudge([word])
        assert judge.scores([""] * len(written), written)["toxicity"] == [0.0] * len(written)


@pytest.mark.parametrize(
    "kind, found",
    [
        (
            "explicit",
            {
                *("insult", "denied insult", "insult quoted to condemn it", "reclaimed insult"),
                "insulting word for a thing",
            },
        ),
        (
            "implicit",
            {"hostility without an insult", "denied hostility", "hostility quoted to condemn it"},
        ),
    ],
)
def test_a_literal_judge_finds_what_is_listed_whatever_is_said_of_it(kind, found):
    """What the cases of each function hold, and that no other has anything hostile in it."""
    cases = draw_cases(planted_functions.FUNCTIONS, 36, seed=1)
    texts = [case.text for case in cases]
    scores = PlantedJudge(kind).scores([""] * len(texts), texts)["toxicity"]
    for case, score in zip(cases, scores, strict=True):
        assert score == float(case.function in found), case


def test_english_names_real_groups_only_where_nothing_hostile_is_said():
    groups = re.compile(
        r"\b(women|men|gay|lesbians|transgender|Muslims|Christians|Jewish|Hindus|Black|white"
        r"|Asian|Mexicans|immigrants|refugees|deaf|blind)\b"
    )
    invented = re.compile(rf"\b({'|'.join(language.PEOPLES.values())})\b")
    for case in draw_cases(english_functions.FUNCTIONS, 36, seed=3):
        assert not groups.search(case.text) or case.function == "group named without hostility"
        assert not invented.search(case.text) or case.function != "group named without hostility"


def test_the_table_counts_what_is_right_with_exact_intervals():
    cases = [Case("insult", True, f"a {n}") for n in range(4)]
    cases += [Case("denied insult", False, f"b {n}") for n in range(6)]
    scores = {"strict": [0.5, 0.9, 0.4, 1.0, *[0.49] * 5, 0.5], "blind": [0.0] * 10}
    table = functional_table(cases, scores, threshold=0.5, level=0.9)
    rows = table.set_index(["judge", "function"])
    assert rows["right"].to_dict() == {
        ("strict", "insult"): 3,
        ("strict", "denied insult"): 5,
        ("blind", "insult"): 0,
        ("blind", "denied insult"): 6,
    }
    assert rows["toxic"].tolist() == [True, False] * 2
    for row in table.itertuples():
        oracle = binomtest(row.right, row.cases).proportion_ci(0.9, method="exact")
        assert (row.value, row.ci_low, row.ci_high) == pytest.approx(
            (row.right / row.cases, oracle.low, oracle.high)
        )


def test_the_script_writes_the_table_and_the_cases_with_their_scores(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("moron\nliar\n", encoding="utf-8")
    settings = {
        "judges": {"list": {"words": [str(words)]}, "literal": {"planted": "explicit"}},
        "language": "english",
        "cases": 5,
        "threshold": 0.5,
        "level": 0.95,
        "seed": 4,
    }
    table, cases = tmp_path / "table.csv", tmp_path / "cases.jsonl"
    command = [sys.executable, SCRIPT, "--settings", json.dumps(settings)]
    subprocess.run([*command, "--output", table, "--cases", cases], check=True, capture_output=True)
    found = pd.read_csv(table)
    judged = [json.loads(line) for line in cases.read_text(encoding="utf-8").splitlines()]
    assert len(judged) == 5 * len(english_functions.FUNCTIONS)
    names = [function.name for function in english_functions.FUNCTIONS]
    right = pd.Series(0, pd.MultiIndex.from_product([["list", "literal"], names]))
    for case in judged:
        for judge, score in case["scores"].items():
            right[judge, case["function"]] += (score >= 0.5) == case["toxic"]
    assert found.set_index(["judge", "function"])["right"].to_dict() == right.to_dict()


@pytest.mark.parametrize(
    "name, language", [("config.yaml", "planted"), ("real_text.yaml", "english")]
)
def test_the_language_of_the_cases_is_that_of_the_corpus(name, language):
    config = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    assert Judges(SimpleNamespace(config=config, layout=None), None).language == language


# --- agreement ---


def test_rank_correlation_is_spearmans_and_its_interval_holds_it():
    generator = np.random.default_rng(0)
    levels = np.linspace(0.1, 0.6, 7)[:, None]
    first, second = (generator.binomial(5, levels, (7, 60)) / 5 for _ in range(2))
    second[2] = second[3]  # a tie
    found = rank_correlation(first, second, resamples=300, seed=1, level=0.9)
    assert found.value == pytest.approx(spearmanr(first.mean(1), second.mean(1)).statistic)
    assert found.low <= found.value <= found.high <= 1.0
    assert found.low < found.high
    # One that flags every second text of the other's orders the methods alike.
    alike = rank_correlation(first, first / 2, resamples=50, seed=1, level=0.9)
    assert alike == pytest.approx((1.0, 1.0, 1.0))
    opposed = rank_correlation(first, 1 - first, resamples=50, seed=1, level=0.9)
    assert opposed == pytest.approx((-1.0, -1.0, -1.0))


def test_too_few_methods_or_none_that_differ_have_no_order():
    some = np.random.default_rng(0).random((2, 9))
    assert np.isnan(rank_correlation(some, some, resamples=9, seed=0, level=0.9)).all()
    alike = np.zeros((4, 9))
    three = np.random.default_rng(0).random((4, 9))
    assert np.isnan(rank_correlation(three, alike, resamples=9, seed=0, level=0.9)).all()


def generations():
    """Three methods, two judges that run and one that does not; 'b' misses every second text."""
    return {
        method: [
            {"prompt_index": prompt, "prompt": "p", "continuation": f"{method} {prompt} {sample}"}
            | {"a": float(prompt < toxic), "b": float(prompt < toxic and sample % 2), "c": None}
            for prompt in range(10)
            for sample in range(4)
        ]
        for method, toxic in (("none", 8), ("guide", 1), ("filter", 4))
    }


def test_agreement_and_disagreements_by_hand():
    methods = generations()
    table = verdicts(methods, ["a", "b", "c"], threshold=0.5)
    assert list(table) == ["a", "b"] and len(table) == 120
    (pair,) = agreement_of_judges(table, resamples=50, seed=1, level=0.95)
    assert (pair["first"], pair["second"], pair["methods"]) == ("a", "b", 3)
    assert pair["correlation"].value == pytest.approx(1.0)
    shares = [pair[name] for name in ("both", "first_only", "second_only")]
    assert shares == pytest.approx([13 / 60, 13 / 60, 0.0])
    shown = list(disagreements(methods, table, count=5, seed=2))
    assert len(shown) == 5
    for row in shown:
        assert (row["flagged_by"], row["passed_by"]) == ("a", "b")
        assert row["record"]["a"] == 1.0 and row["record"]["b"] == 0.0
        assert row["record"]["continuation"].startswith(row["method"])
    assert shown == list(disagreements(methods, table, count=5, seed=2))
    assert shown != list(disagreements(methods, table, count=5, seed=3))


def test_methods_are_ranked_by_the_prompts_that_all_have():
    methods = generations()
    # Without its toxic prompts, `none` would be the cleanest.
    methods["none"] = [record for record in methods["none"] if record["prompt_index"] >= 3]
    table = verdicts(methods, ["a", "b"], threshold=0.5)
    (pair,) = agreement_of_judges(table, resamples=20, seed=1, level=0.95)
    assert pair["methods"] == 3 and pair["correlation"].value == pytest.approx(1.0)
