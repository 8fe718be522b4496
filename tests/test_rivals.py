"""Rivals of influence in the workflow: scores, selections of equal tokens, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from conftest import TINY, copy_run, error_line, run_snakemake
from ifguide.data.corpus import open_corpus
from ifguide.files.artifacts import read_json
from ifguide.files.tensor_files import read_tensors
from ifguide.influence.selection_files import open_mask
from ifguide.models.loading import HiddenStates, load_model, token_losses
from ifguide.workflow.layout import Layout

LAYOUT = Layout("tiny")
SMALL = {"max_length": 32, "hidden_size": 16, "layers": 1, "heads": 2, "epochs": 1}
RIVALS = {
    "excess": {"rho": {"reference": "word_filter"}},
    "salient": {"saliency": {"classifier": "implicit"}},
    "detoxify": {"saliency": {"classifier": "explicit"}},
    "effect": {"ate": {"classifier": "nouns", "fewest_occurrences": 2}},
    "labels": {"token_classifier": {"texts": "labelled", **SMALL}},
}
NOUNS = ["fool", "idiot", "moron", "pig"]
OVERLAY = {
    "classifiers": {"nouns": {"words": "nouns.txt"}},
    "influence": {
        "rivals": RIVALS,
        "selections": {
            name: {"direction": name, "window": 1, "limit": {"tokens_of": "top"}} for name in RIVALS
        },
        "variants": {"pooled": {"direction": "effect", "pooling": 0.5}},
    },
    "methods": {name: {"suppress": {"selection": name}} for name in RIVALS},
}


@pytest.fixture(scope="module")
def scored(finished, tmp_path_factory) -> Path:
    """A finished tiny run in which every kind of rival has scored, and selects as many tokens."""
    clone = copy_run(finished, tmp_path_factory.mktemp("scored") / "clone")
    (clone / "nouns.txt").write_text("\n".join(NOUNS), encoding="utf-8")
    (clone / "rivals.yaml").write_text(yaml.safe_dump(OVERLAY), encoding="utf-8")
    targets = [f"{LAYOUT.scores('proxy', 'effect', 'loss')}/pooled/attribution.json"]
    for name in RIVALS:
        targets.append(LAYOUT.removal("target", name))
        targets.append(f"{LAYOUT.scores('proxy', name, 'loss')}/attribution.json")
    ran = run_snakemake(clone, *targets, "--configfile", TINY, "rivals.yaml", "--cores", "2")
    assert ran.returncode == 0, ran.stdout
    return clone


def scores_of(clone: Path, rival: str) -> np.ndarray:
    folder = clone / LAYOUT.scores("proxy", rival, "loss")
    return np.concatenate([np.load(path) for path in sorted(folder.glob("shard-*.npy"))])


@pytest.mark.parametrize("rival", [*RIVALS, "tagger"])
def test_every_candidate_has_a_score_and_nothing_else_has(scored, rival):
    corpus = open_corpus(scored / LAYOUT.corpus("bpe"))
    tokens = np.concatenate(corpus.tokens.shards)
    scores = scores_of(scored, rival)
    assert scores.shape == tokens.shape and scores.dtype == np.float32
    assert np.isfinite(scores).all() and len(np.unique(scores)) > 1
    assert (scores[:, 0] == 0).all()
    padding = np.concatenate(corpus.documents.shards) < 0
    assert padding.any() and (scores[padding] == 0).all()
    if rival != "excess":  # which has a loss for an end of text as well
        assert (scores[tokens == corpus.meta["end_of_text"]] == 0).all()


def test_excess_loss_is_that_of_the_two_models(scored):
    corpus = open_corpus(scored / LAYOUT.corpus("bpe"))
    rows = [0, 5, len(corpus.tokens) - 2]
    tokens = torch.from_numpy(corpus.tokens.rows(rows).astype(np.int64))
    losses = [
        token_losses(HiddenStates(load_model(scored / LAYOUT.model("proxy", method, "0"))), tokens)
        for method in ("word_filter", "none")
    ]
    expected = (losses[0] - losses[1]).detach().numpy()
    np.testing.assert_allclose(scores_of(scored, "excess")[rows], expected, atol=1e-5)


def test_the_words_that_a_judge_looks_for_have_an_effect_and_find_their_tokens(scored):
    tensors, described = read_tensors(scored / LAYOUT.rival_file("proxy", "effect"))
    effects = dict(
        zip(yaml.safe_load(described["words"]), tensors["effects"].tolist(), strict=True)
    )
    assert len(effects) > 100
    assert {word for word, effect in effects.items() if effect > 0} == set(NOUNS)
    assert all(effects[word] > 0.8 for word in NOUNS)
    record = read_json(scored / LAYOUT.scores("proxy", "effect", "loss") / "attribution.json")
    assert record["method"] == "effect"
    found = {row["metric"]: row["value"] for row in record["rows"] if row["split"] == "all"}
    assert found["lift_at_0.001"] == pytest.approx(1 / record["base_rate"])


def test_selections_take_as_many_tokens_as_the_one_they_name(scored):
    corpus = open_corpus(scored / LAYOUT.corpus("bpe"))
    top, _ = open_mask(scored / LAYOUT.selection("proxy", "differential", "top"), corpus)
    wanted = sum(int(shard.sum()) for shard in top.shards)
    for name in RIVALS:
        mask, record = open_mask(scored / LAYOUT.selection("proxy", name, name), corpus)
        assert sum(int(shard.sum()) for shard in mask.shards) == wanted
        assert record["selected_tokens"] == record["limit_tokens"] == wanted
        removal = read_json(scored / LAYOUT.removal("target", name))
        shares = {row["metric"]: row["value"] for row in removal["rows"]}
        assert shares["removed_share"] == pytest.approx(wanted / corpus.meta["tokens"])


def test_a_rival_stands_in_the_summary_and_the_study_under_its_own_name(scored):
    summary = pd.read_csv(scored / LAYOUT.shown("summary.csv"))
    ranked = summary[summary["benchmark"] == "attribution"]
    assert {"tagger", "differential/loss"} <= set(ranked["method"])


def test_a_sample_of_blocks_is_that_of_influence_scores(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    overlay = {
        "influence": {"scores": {"blocks": 20}},
        "evaluation": {"methods": ["none"]},
    }
    (clone / "sample.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    targets = [
        f"{LAYOUT.scores('proxy', name, 'loss')}/shard-00001.npy"
        for name in ("tagger", "differential")
    ]
    ran = run_snakemake(clone, *targets, "--configfile", TINY, "sample.yaml", "--cores", "2")
    assert ran.returncode == 0, ran.stdout
    unscored = [np.isnan(np.load(clone / target)) for target in targets]
    assert unscored[0].any() and not unscored[0].all()
    np.testing.assert_array_equal(*unscored)


REFUSED = [
    (
        {"rivals": {"a": {"rho": {"reference": "absent"}}}},
        "influence.rivals.a.rho.reference: 'absent' is none of ",
    ),
    (
        {"rivals": {"a": {"rho": {"reference": "ifguide"}}}},
        "influence.rivals.a.rho.reference: 'ifguide' rests on methods.ifguide.suppress.selection:",
    ),
    (
        {"rivals": {"a": {"rho": {"reference": "word_filter_equal"}}}},
        "influence.rivals.a.rho.reference: 'word_filter_equal' rests on "
        "methods.word_filter_equal.filter.drop_tokens_of:",
    ),
    (
        {"rivals": {"a": {"saliency": {"classifier": "word_list"}}}},
        "influence.rivals.a.saliency.classifier: word_list looks for words and has no gradient;",
    ),
    (
        {"rivals": {"a": {"ate": {"classifier": "absent"}}}},
        "influence.rivals.a.ate.classifier: 'absent' is none of ",
    ),
    (
        {"rivals": {"a": {"token_classifier": {"texts": "absent"}}}},
        "influence.rivals.a.token_classifier.texts: 'absent' is none of labelled",
    ),
    (
        {"rivals": {"a": {"token_classifier": {}}}},
        "influence.rivals.a.token_classifier: give exactly one of texts, or pairs",
    ),
    (
        {"rivals": {"a": {"rho": {"reference": "none"}, "ate": {"classifier": "explicit"}}}},
        "influence.rivals.a: give only one of rho, or ate",
    ),
    (
        {"rivals": {"mean": {"ate": {"classifier": "explicit"}}}},
        "influence.rivals.mean: is also the name of a direction or an average",
    ),
    (
        {"variants": {"rare": {"direction": "tagger", "attribution": "position"}}},
        "influence.variants.rare.attribution: tagger is a rival, with one kind of scores",
    ),
    (
        {"selections": {"top": {"limit": {"tokens_of": "words"}}}},
        "influence.selections.",
    ),
    (
        {"selections": {"words": {"limit": {"tokens_of": "absent"}}}},
        "influence.selections.words.limit.tokens_of: 'absent' is none of top, wide, words",
    ),
    (
        {"selections": {"other": {"direction": "plain", "limit": {"tokens_of": "words"}}}},
        "influence.selections.other.limit.tokens_of: words takes as many as another one itself;",
    ),
]


@pytest.mark.parametrize("influence, expected", REFUSED, ids=[line for _, line in REFUSED])
def test_what_cannot_be_a_rival_is_refused(dry_runs, influence, expected):
    printed = dry_runs.printed(TINY, {"influence": influence})
    assert error_line(printed).startswith(f"error: config: {expected}")


def test_a_reference_is_trained_for_the_proxy(dry_runs):
    overlay = {
        "influence": {
            "rivals": {"excess": {"rho": {"reference": "toxicity_filter"}}},
            "variants": {"excess": {"direction": "excess"}},
        }
    }
    expected = {"classify_documents", "make_corpus", "make_model", "score_rival", "measure_variant"}
    assert expected <= dry_runs.rules(TINY, overlay)
