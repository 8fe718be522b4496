"""Celadon's rule over graded judges, and the documents that it drops."""

import itertools
from collections import Counter

import numpy as np
import pytest

from ifguide.data.graded_toxicity import KEPT, MILD, TOXIC, VERDICTS, grades, verdicts
from ifguide.errors import InputError
from ifguide.files.artifacts import write_array, write_json
from ifguide.methods.step import CorpusJob, registered_steps
from small_training import small_corpus

EVERY = np.array(list(itertools.product(range(4), repeat=5)))


def by_words(graded):
    """The rule as it is written, text by text."""
    total = sum(graded)
    if total >= 7:
        return "toxic"
    if 4 <= total <= 6 or (total == 3 and 3 in graded):
        return "mild"
    return "kept"


def test_the_rule_over_every_vector_of_five_grades():
    found = [VERDICTS[verdict] for verdict in verdicts(EVERY)]
    assert found == [by_words(graded) for graded in EVERY.tolist()]
    assert Counter(found) == {"kept": 51, "mild": 306, "toxic": 667}


def test_the_rule_knows_no_order_of_its_heads():
    for order in itertools.islice(itertools.permutations(range(5)), 0, None, 17):
        assert np.array_equal(verdicts(EVERY[:, order]), verdicts(EVERY))


def test_a_higher_grade_is_never_a_milder_verdict():
    verdict = dict(zip(map(tuple, EVERY.tolist()), verdicts(EVERY).tolist(), strict=True))
    for graded, found in verdict.items():
        for head in range(5):
            if graded[head] < 3:
                worse = (*graded[:head], graded[head] + 1, *graded[head + 1 :])
                assert verdict[worse] >= found, (graded, worse)


def test_three_of_one_head_are_mild_and_three_of_several_are_not():
    given = np.array([[0, 3, 0, 0, 0], [0, 2, 1, 0, 0], [1, 1, 1, 0, 0]])
    assert verdicts(given).tolist() == [MILD, KEPT, KEPT]
    assert verdicts(np.array([[3, 3, 1, 0, 0]])).tolist() == [TOXIC]


def test_a_grade_counts_the_cuts_that_are_reached():
    probabilities = np.array([[0.0, 0.249, 0.25], [0.5, 0.74, 0.75], [1.0, 0.6, 0.3]])
    expected = [[0, 0, 1], [2, 2, 3], [3, 2, 1]]
    assert grades(probabilities, [0.25, 0.5, 0.75]).tolist() == expected


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def judged(folder, corpus, name, mean, worst):
    path = folder / name / "shard-00000.npy"
    write_array(path, np.stack([mean, worst], axis=1).astype(np.float32))
    record = {"tokens_sha256": corpus.content_sha256, "columns": ["mean", "worst"]}
    write_json(path.with_suffix(".json"), record)
    return [path]


def step(**options):
    section = {"classifiers": ["a", "b", "c"], **options}
    return registered_steps()["graded_filter"].from_config(section)


@pytest.mark.parametrize("drop", ["toxic", "mild"])
@pytest.mark.parametrize("by", ["mean", "worst"])
def test_what_is_dropped_is_what_the_rule_says_of_each_document(corpus, tmp_path, drop, by):
    generator = np.random.default_rng(0)
    scores = generator.random((3, 2, corpus.meta["documents"])) ** 0.7
    given = {
        f"classifiers.{place}": judged(tmp_path, corpus, name, *scores[place])
        for place, name in enumerate("abc")
    }
    job = CorpusJob(corpus, tmp_path, tmp_path)
    found = step(drop=drop, by=by).keep(job, given)
    assert found.unit == "document"
    used = scores[:, 0 if by == "mean" else 1].astype(np.float32)
    expected = {}
    for document in range(corpus.meta["documents"]):
        graded = [sum(p >= cut for cut in (0.25, 0.5, 0.75)) for p in used[:, document]]
        if by_words(graded) in ({"toxic"} if drop == "toxic" else {"toxic", "mild"}):
            named = [f"{n} {g}" for n, g in zip("abc", graded, strict=True) if g]
            expected[document] = "grades: " + ", ".join(named)
    assert found.reasons == expected
    assert 0 < len(expected) < corpus.meta["documents"]


def test_toxicity_of_another_corpus_is_refused(corpus, tmp_path):
    given = {
        f"classifiers.{place}": judged(tmp_path, corpus, name, np.zeros(60), np.zeros(60))
        for place, name in enumerate("abc")
    }
    record = {"tokens_sha256": "other", "columns": ["mean", "worst"]}
    write_json(tmp_path / "b/shard-00000.json", record)
    with pytest.raises(InputError, match=r"b/shard-00000\.npy"):
        step().keep(CorpusJob(corpus, tmp_path, tmp_path), given)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"cuts": [0.5, 0.25, 0.75]}, "cuts"),
        ({"classifiers": ["a", "a"]}, "classifiers"),
        ({"classifiers": ["a", "b"], "drop": "toxic"}, "drop"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, key):
    assert step(**options).mistake()[0] == key
    assert step().mistake() is None
