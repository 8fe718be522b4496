"""The study of token scores: matched queries, averages, halves, weights, agreement, its table."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from ifguide.data.benchmark_formats import PromptRecord, split_after_common_words
from ifguide.data.corpus import train_tokenizer
from ifguide.data.matching import matched
from ifguide.data.prompts import read_prompts
from ifguide.errors import InputError
from ifguide.evaluation import metrics
from ifguide.evaluation.ranking_agreement import agreement
from ifguide.influence.query_direction import encode_records, restricted
from ifguide.influence.score_averages import mean_scores, root_mean_square
from ifguide.influence.token_weights import (
    PRIOR_OCCURRENCES,
    TokenRanking,
    inverse_document_frequency,
    unmoved,
)
from ifguide.influence.truth_splits import truth_splits
from ifguide.report.study import study_markdown, study_table
from ifguide.report.study_figures import variants_by_question
from test_metrics import precision_at

WORDS = ["you", "are", "a", "very", "bad", "and", "nice", "person", "here", "today"]


def random_records(count, seed):
    generator = np.random.default_rng(seed)

    def text():
        return " ".join(generator.choice(WORDS, generator.integers(0, 6)))

    return [
        PromptRecord(text(), text(), "toxic", None, round(float(generator.random()), 1), None)
        for _ in range(count)
    ]


def distance(record, candidate, by):
    """The distance as its definition words it, on lists and sets."""

    def words(text):
        return re.findall(r"\w+", text.lower())

    total = 0.0
    if "prompt_toxicity" in by:
        total += abs(candidate.prompt_toxicity - record.prompt_toxicity)
    if "length" in by:
        one, two = (len(words(r.prompt) + words(r.continuation)) for r in (record, candidate))
        total += abs(one - two) / max(one, two) if max(one, two) else 0.0
    if "words" in by:
        one, two = set(words(record.prompt)), set(words(candidate.prompt))
        total += 1 - (len(one & two) / len(one | two) if one | two else 1.0)
    return total


@pytest.mark.parametrize(
    "by",
    [
        ["words"],
        ["length"],
        ["prompt_toxicity"],
        ["prompt_toxicity", "words"],
        ["prompt_toxicity", "length", "words"],
    ],
)
def test_each_record_gets_the_nearest_candidate(by):
    records, candidates = random_records(40, 1), random_records(30, 2)
    found = matched(records, candidates, by)
    for record, chosen in zip(records, found, strict=True):
        distances = [distance(record, candidate, by) for candidate in candidates]
        assert distance(record, chosen, by) == pytest.approx(min(distances), abs=1e-12)
        if distances.count(min(distances)) > 1 and len(by) == 1:
            assert chosen is candidates[distances.index(min(distances))]


def test_a_partner_does_not_depend_on_the_other_records():
    records, candidates = random_records(20, 3), random_records(15, 4)
    together = matched(records, candidates, ["prompt_toxicity", "words"])
    alone = [matched([record], candidates, ["prompt_toxicity", "words"])[0] for record in records]
    assert together == alone


def test_an_unknown_toxicity_and_no_candidate_are_refused():
    unknown = [PromptRecord("a", "b", "toxic", None, None, None)]
    with pytest.raises(InputError, match="toxicity of a prompt is not known"):
        matched(random_records(1, 0), unknown, ["prompt_toxicity"])
    with pytest.raises(InputError, match="no record is left"):
        matched(unknown, [], ["words"])


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ("you are a fool", "you are a person", ("you are a", " fool", " person")),
        ("you fool", "you fool there", ("you", " fool", " fool there")),
        ("fool", "person", ("", "fool", "person")),
    ],
)
def test_both_sides_of_a_pair_follow_their_common_words(first, second, expected):
    assert split_after_common_words(first, second) == expected


def test_the_sides_of_pairs_are_sampled_together(tmp_path):
    lines = [f"you {a} {b} fool\tyou {a} {b} person" for a in "abcdef" for b in "ghijkl"]
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(["toxic\tneutral1", *lines, "\tempty"]) + "\n", encoding="utf-8")
    sides = [
        read_prompts({"format": "paradetox", "side": side, "limit": 9, "part": [0, 0.6]}, [path], 5)
        for side in ("toxic", "neutral")
    ]
    toxic, neutral = (records for records, _ in sides)
    assert [r.prompt for r in toxic] == [r.prompt for r in neutral]
    assert {r.continuation for r in toxic} == {" fool"}
    assert {r.continuation for r in neutral} == {" person"}
    assert len({r.prompt for r in toxic}) == 9


def test_an_empty_prompt_is_the_end_of_text():
    tokenizer = train_tokenizer(["some text"], 260)
    (record,) = encode_records(tokenizer, [("", "some")], positions=10)
    assert record.ids[0] == tokenizer.eos_token_id
    assert record.continuation_start == 1


def test_averages_weigh_directions_alike():
    generator = np.random.default_rng(0)
    scores = [
        [scale * generator.normal(size=(3, 5)).astype(np.float32) for _ in range(2)]
        for scale in (1.0, 1e6)
    ]
    scales = [root_mean_square(shards) for shards in scores]
    stacked = [np.concatenate(shards).astype(np.float64) for shards in scores]
    assert scales == pytest.approx([np.sqrt(np.mean(s**2)) for s in stacked])
    mean = np.concatenate([mean_scores([a, b], scales) for a, b in zip(*scores, strict=True)])
    expected = sum(s / np.sqrt(np.mean(s**2)) for s in stacked) / 2
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    assert mean.dtype == np.float32


def test_the_average_of_a_direction_with_itself_is_the_direction():
    scores = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    scores[1] = np.nan  # a block that was not scored
    np.testing.assert_array_equal(mean_scores([scores, scores], [1.0, 1.0]), scores)
    assert root_mean_square([scores]) == root_mean_square([scores[[0, 2, 3]]])


def test_a_direction_without_scores_is_refused():
    with pytest.raises(InputError, match="all scores of a direction are 0"):
        root_mean_square([np.zeros((2, 3), np.float32)])


def test_halves_are_disjoint_and_together_everything():
    generator = np.random.default_rng(0)
    documents = np.sort(generator.integers(0, 500, 4000)) * 3
    truth = generator.random(4000) < 0.02
    splits = truth_splits(truth, documents, seed=1)
    assert splits["all"].all()
    assert not (splits["choose"] & splits["report"]).any()
    assert (splits["choose"] | splits["report"]).all()
    assert not set(documents[splits["choose"]]) & set(documents[splits["report"]])
    with_truth = np.isin(documents, documents[truth])
    np.testing.assert_array_equal(splits["toxic"], with_truth)
    for half in ("choose", "report"):
        np.testing.assert_array_equal(splits[f"{half}_toxic"], splits[half] & with_truth)
        assert 0.4 < splits[half].mean() < 0.6
    # The half of a document does not depend on which other documents there are.
    kept = documents > 600
    again = truth_splits(truth[kept], documents[kept], seed=1)
    np.testing.assert_array_equal(again["choose"], splits["choose"][kept])
    assert (truth_splits(truth, documents, seed=2)["choose"] != splits["choose"]).any()


def ranked(scores, tokens, documents=None, **settings):
    """All shards, ranked piece by piece as a selection does."""
    documents = documents or [np.zeros(ids.shape, np.int32) for ids in tokens]
    as_scored = {"token_weight": "none", "token_weight_power": 1.0}
    settings = {"unmoved": False, "pooling": 0.0, "pool_over": "token", **as_scored, **settings}
    ranking = TokenRanking(scores, tokens, documents, settings, 10)
    return [ranking(*shard) for shard in zip(scores, tokens, documents, strict=True)]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_weights_multiply_scores(power):
    generator = np.random.default_rng(2)
    tokens = [generator.integers(0, 9, (4, 6)) for _ in range(2)]
    scores = [generator.normal(size=(4, 6)).astype(np.float32) for _ in range(2)]
    found = ranked(
        scores, tokens, token_weight="inverse_document_frequency", token_weight_power=power
    )
    weights = inverse_document_frequency(tokens, 10)
    for shard, ids, weighted in zip(scores, tokens, found, strict=True):
        for row, column in np.ndindex(shard.shape):
            expected = shard[row, column] * float(weights[ids[row, column]]) ** power
            assert weighted[row, column] == pytest.approx(expected, rel=1e-5)
    plain = ranked(scores, tokens, token_weight_power=power)
    assert all(a is b for a, b in zip(plain, scores, strict=True))


@pytest.mark.parametrize("pooling", [0.0, 0.3, 1.0])
def test_pooling_mixes_a_score_with_the_mean_of_its_token(pooling):
    generator = np.random.default_rng(5)
    tokens = [generator.integers(0, 5, (4, 6)) for _ in range(2)]
    documents = [np.zeros((4, 6), np.int32) for _ in range(2)]
    scores = [generator.normal(size=(4, 6)).astype(np.float32) for _ in range(2)]
    for shard in scores:
        shard[:, 0] = 0
    documents[1][3, 4:], scores[1][3, 4:] = -1, 0  # padding
    scores[0][1] = np.nan  # a block that was not scored
    occurrences = {token: [] for token in range(5)}
    for shard, ids, owners in zip(scores, tokens, documents, strict=True):
        for row, column in np.ndindex(4, 6):
            if column and owners[row, column] >= 0 and not np.isnan(shard[row, column]):
                occurrences[ids[row, column]].append(float(shard[row, column]))
    found = ranked(scores, tokens, documents, pooling=pooling)
    for shard, ids, owners, pooled in zip(scores, tokens, documents, found, strict=True):
        for row, column in np.ndindex(4, 6):
            score = shard[row, column]
            if column and owners[row, column] >= 0 and not np.isnan(score):
                mean = np.mean(occurrences[ids[row, column]])
                expected = (1 - pooling) * score + pooling * mean
                assert pooled[row, column] == pytest.approx(expected, rel=1e-5, abs=1e-6)
            else:
                np.testing.assert_equal(pooled[row, column], score)


@pytest.mark.parametrize("pooling", [0.4, 1.0])
def test_pooling_over_contexts_mixes_the_means_beside_either_neighbour(pooling):
    generator = np.random.default_rng(7)
    tokens = [generator.integers(0, 3, (5, 6)) for _ in range(2)]
    documents = [np.zeros((5, 6), np.int32) for _ in range(2)]
    scores = [generator.normal(size=(5, 6)).astype(np.float32) for _ in range(2)]
    for shard in scores:
        shard[:, 0] = 0
    documents[0][4, 3:], scores[0][4, 3:] = -1, 0  # padding
    scores[1][2] = np.nan  # a block that was not scored
    seen = {}

    def contexts(row, column):
        """The token with what stands before it, and with what follows it, if anything does."""
        after = row[column + 1] if column + 1 < len(row) else None
        return ("before", row[column - 1], row[column]), ("after", row[column], after)

    def labels(shard, owners):
        for row, column in np.ndindex(shard.shape):
            if column and owners[row, column] >= 0 and not np.isnan(shard[row, column]):
                yield row, column

    for shard, ids, owners in zip(scores, tokens, documents, strict=True):
        for row, column in labels(shard, owners):
            for key in (ids[row, column], *contexts(ids[row], column)):
                seen.setdefault(key, []).append(float(shard[row, column]))
    found = ranked(scores, tokens, documents, pooling=pooling, pool_over="context")
    for shard, ids, owners, pooled in zip(scores, tokens, documents, found, strict=True):
        judged = np.zeros(shard.shape, bool)
        for row, column in labels(shard, owners):
            judged[row, column] = True
            mean = np.mean(seen[ids[row, column]])
            shrunk = [
                (sum(seen[key]) + PRIOR_OCCURRENCES * mean) / (len(seen[key]) + PRIOR_OCCURRENCES)
                for key in contexts(ids[row], column)
            ]
            expected = (1 - pooling) * shard[row, column] + pooling * np.mean(shrunk)
            assert pooled[row, column] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        np.testing.assert_array_equal(pooled[~judged], shard[~judged])


def test_unmoved_scores_stand_before_their_labels():
    scores = np.array([[0, 1, 2, 3], [0, np.nan, np.nan, np.nan]], np.float32)
    moved_back = unmoved(scores)
    # The first label's place is no label itself.
    np.testing.assert_array_equal(moved_back[0], [0, 2, 3, 0])
    assert np.isnan(moved_back[1]).all()


@pytest.mark.parametrize("pooling", [0.0, 0.5])
def test_a_ranking_moves_scores_before_it_pools_them(pooling):
    generator = np.random.default_rng(6)
    tokens = [generator.integers(0, 5, (4, 6)) for _ in range(2)]
    scores = [generator.normal(size=(4, 6)).astype(np.float32) for _ in range(2)]
    found = ranked(scores, tokens, pooling=pooling, unmoved=True)
    expected = ranked([unmoved(shard) for shard in scores], tokens, pooling=pooling)
    np.testing.assert_array_equal(found, expected)


def test_lift_is_the_precision_at_the_top_over_the_base():
    generator = np.random.default_rng(3)
    truth = generator.random(5000) < 0.05
    scores = np.round(truth + generator.normal(size=5000), 2)
    found = metrics.ranking_intervals(truth, scores, np.arange(5000) // 10, resamples=5)
    expected = precision_at(truth, scores, 0.001) / truth.mean()
    assert found["lift_at_0.001"].value == pytest.approx(expected)


def test_only_the_named_layers_keep_their_part():
    direction = {name: torch.ones(2) for name in ("layers.0.mlp.weight", "layers.1.mlp.weight")}
    kept = restricted(direction, r"layers\.1\.")
    assert {name: float(t.sum()) for name, t in kept.items()} == {
        "layers.0.mlp.weight": 0.0,
        "layers.1.mlp.weight": 2.0,
    }
    assert restricted(direction, "") == direction
    with pytest.raises(InputError, match=r"influence\.directions.*layers"):
        restricted(direction, "missing")


def test_agreement_of_rankings():
    generator = np.random.default_rng(4)
    scores = generator.normal(size=200)
    assert agreement(scores, 3 * scores + 1, 0.05) == {
        "spearman": pytest.approx(1.0),
        "kendall": pytest.approx(1.0),
        "top_overlap": 1.0,
    }
    assert agreement(-scores, scores, 0.05) == {
        "spearman": pytest.approx(-1.0),
        "kendall": pytest.approx(-1.0),
        "top_overlap": 0.0,
    }
    other = scores + generator.normal(size=200)
    found = agreement(other, scores, 0.1)
    signs = [
        np.sign(scores[i] - scores[j]) * np.sign(other[i] - other[j])
        for i, j in itertools.combinations(range(200), 2)
    ]
    assert found["kendall"] == pytest.approx(np.mean(signs))
    highest = set(np.argsort(scores)[-20:]) & set(np.argsort(other)[-20:])
    assert found["top_overlap"] == len(highest) / 20


def measured(choose, report):
    """The attribution.json of a variant, with these areas over the base rate."""
    rows = [
        {"split": split, "metric": metric, "value": value, "ci_low": value - 0.2,
         "ci_high": value + 0.2, "n": 10}
        for half, value in (("choose", choose), ("report", report))
        for split in (half, f"{half}_toxic")
        for metric in ("auprc", "auprc_over_base", "auroc", "lift_at_0.001")
    ]  # fmt: skip
    return {"rows": rows}


STUDY = [
    {"question": "Which Hessian?", "variants": ["plain", "damped"]},
    {"question": "Which weight?", "variants": ["plain", "idf"]},
]
SETTINGS = {name: {"hessian": f"hessian of {name}"} for name in ("plain", "damped", "idf")}
MEASURED = {"plain": measured(3.0, 2.9), "damped": measured(2.0, 4.5), "idf": measured(4.0, 3.5)}


def test_the_choice_never_sees_the_reported_half():
    table = study_table(STUDY, SETTINGS, MEASURED)
    assert list(table["variant"]) == ["plain", "damped", "plain", "idf"]
    assert list(table["chosen"]) == [False, False, False, True]
    assert list(table["report_auprc_over_base"]) == [2.9, 4.5, 2.9, 3.5]
    text = study_markdown(table, ["hessian"])
    assert "| **idf** | hessian of idf | 4.00 [3.80, 4.20] | 3.50 [3.30, 3.70] |" in text


def test_of_a_half_without_known_tokens_nothing_is_chosen():
    """As where one document alone has a toxic token, and stands in the other half."""
    nothing = measured(3.0, 2.9)
    for row in nothing["rows"]:
        if row["split"].startswith("choose"):
            row |= {"value": None, "ci_low": None, "ci_high": None, "n": 0}
    table = study_table(STUDY, SETTINGS, dict.fromkeys(MEASURED, nothing))
    assert not table["chosen"].any()
    assert "| plain | hessian of plain | – | 2.90 [2.70, 3.10] |" in study_markdown(
        table, ["hessian"]
    )
    variants_by_question(table)


def test_the_figure_shows_every_variant_below_its_question():
    table = study_table(STUDY, SETTINGS, MEASURED)
    figure = variants_by_question(table)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(table["variant"])
    weights = [label.get_fontweight() for label in axes.get_yticklabels()]
    assert weights == ["normal", "normal", "normal", "bold"]
    assert {text.get_text() for text in axes.texts} == {"Which Hessian?", "Which weight?"}
    for container, half in zip(axes.containers, ("choose", "report"), strict=True):
        line = container.lines[0]
        np.testing.assert_array_equal(line.get_xdata(), table[f"{half}_auprc_over_base"])


RESULTS = "results/tiny"


def test_a_finished_study(finished):
    table = pd.read_csv(finished / RESULTS / "study.csv")
    assert list(table["variant"]) == ["unmoved", "rare"]
    assert "toxic (" in table["toxic"][0] and "matched (" in table["safe"][1]
    for name in ("study.md", "figures/study.svg", "figures/study.png"):
        assert (finished / RESULTS / name).stat().st_size > 0
    records = [
        (finished / RESULTS / f"queries/{name}.jsonl").read_text().splitlines()
        for name in ("toxic", "matched")
    ]
    assert len(records[0]) == len(records[1])


def test_a_finished_average(finished):
    influence = finished / RESULTS / "influence"
    names = ("proxy/differential", "target/plain", "proxy/mean")
    one, two, mean = (
        np.load(influence / name / "scores/loss/shard-00000.npy").astype(np.float64)
        for name in names
    )
    record = json.loads((influence / "proxy/mean/scores/loss/shard-00000.json").read_text())
    expected = one / record["scales"]["differential"] + two / record["scales"]["plain"]
    np.testing.assert_allclose(mean, expected / 2, rtol=1e-5, atol=1e-7)


def test_a_finished_comparison_of_factors(finished):
    table = pd.read_csv(finished / RESULTS / "influence/proxy/differential/ranking_agreement.csv")
    assert list(table["blocks"]) == [4, 8, 16, 32, 64]
    last = table.iloc[-1]
    assert last["spearman"] == pytest.approx(1) and last["top_overlap"] == 1
    assert table["spearman"].iloc[3] > table["spearman"].iloc[0]
    assert (finished / RESULTS / "figures/ranking_agreement.svg").exists()
