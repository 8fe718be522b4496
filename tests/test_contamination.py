"""Test prompts in texts: exact copies, paraphrases, and the measures against direct computation."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from conftest import REPOSITORY, environment
from ifguide.data import near_passages
from ifguide.data.contamination import Overlap, PromptLookup, Thresholds, excerpt, in_batches
from ifguide.data.near_passages import NearPassages
from ifguide.data.shared_ngrams import SharedNgrams
from ifguide.files.artifacts import read_json, read_jsonl, write_jsonl
from ifguide.report.report_pages import contamination_page

THRESHOLDS = Thresholds(ngram=8, share=0.7, cosine=0.6)

SUBJECTS = ["doctor", "teacher", "neighbour", "driver", "child", "lawyer", "painter", "sailor"]
VERBS = ["bought", "repaired", "began", "shouted at", "hid", "finished", "found", "painted"]
OBJECTS = [
    "large house",
    "old bicycle",
    "stubborn goat",
    "broken lamp",
    "long letter",
    "garden wall",
]
PLACES = ["near the harbour", "behind the church", "across the river", "at the station"]
TIMES = ["on a rainy Monday", "before the wedding", "during the strike", "after midnight"]
SYNONYMS = {
    "bought": "purchased",
    "began": "started",
    "shouted": "yelled",
    "large": "big",
    "child": "kid",
    "doctor": "physician",
    "near": "close to",
    "behind": "in back of",
    "finished": "completed",
}


def sentences(count: int, seed: int) -> list[tuple[str, ...]]:
    """Distinct sentences, by their parts."""
    rng = random.Random(seed)
    drawn = {
        tuple(map(rng.choice, (SUBJECTS, VERBS, OBJECTS, PLACES, TIMES))) for _ in range(10 * count)
    }
    return rng.sample(sorted(drawn), count)


def as_prompt(parts: tuple[str, ...]) -> str:
    subject, verb, object, place, time = parts
    return f"The {subject} {verb} the {object} {place} {time}."


def other_order(parts: tuple[str, ...]) -> str:
    subject, verb, object, place, time = parts
    return f"{time.capitalize()}, {place}, the {subject} {verb} the {object}."


def other_words(text: str) -> str:
    return " ".join(SYNONYMS.get(word, word) for word in text.split())


def overlap_of(
    prompts: list[str], texts: list[str], thresholds: Thresholds = THRESHOLDS
) -> Overlap:
    overlap = Overlap(PromptLookup(prompts, thresholds))
    for batch, words in in_batches(texts):
        overlap.add(batch, words)
    return overlap


PROMPTS = [as_prompt(parts) for parts in sentences(120, seed=0)]
FILLER = "Nothing that is written here has any of those words, so it only takes up some room."


def test_an_exact_copy_has_one_and_a_disjoint_text_nothing():
    overlap = overlap_of(PROMPTS[:3], [PROMPTS[1]])
    assert overlap.shares[1] == 1 and overlap.cosines[1] == 1
    other = overlap_of(["one two three four five six seven eight nine"], [FILLER] * 3)
    assert other.shares.tolist() == [0] and other.cosines.tolist() == [0]
    assert other.counts()["overlapping"] == other.counts()["overlapping_texts"] == 0
    assert other.worst(5) == []


def test_a_copy_within_a_long_text_is_found_whatever_its_capitals_and_marks():
    text = f"{FILLER * 40} {PROMPTS[2].upper().replace(' ', ' - ')} {FILLER * 40}"
    overlap = overlap_of(PROMPTS, [FILLER, text])
    assert overlap.shares[2] == 1
    assert overlap.counts()["copied"] == 1 and overlap.counts()["overlapping_texts"] == 1
    (pair, *_) = overlap.worst(1)
    assert pair["prompt"] == PROMPTS[2]
    assert pair["text"].upper().startswith(PROMPTS[2].split()[0].upper())


@pytest.mark.parametrize("length", [2, 3, 8])
def test_shares_are_those_of_sets_of_ngrams(length):
    rng = random.Random(length)
    prompts = [rng.choices("abcd", k=rng.randrange(12)) for _ in range(40)]
    text = rng.choices("abcd", k=60)

    def grams(words: list[str], n: int) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    expected = {}
    for number, words in enumerate(prompts):
        n = min(length, len(words))
        if n and (shared := grams(words, n) & grams(text, n)):
            expected[number] = len(shared) / len(grams(words, n))
    found = SharedNgrams(prompts, length).found_in(text)
    assert {one.prompt: one.share for one in found} == expected
    assert all(text[one.word] in prompts[one.prompt] for one in found)
    assert len(expected) > 5


@pytest.mark.parametrize("common", [0, 10**6])
def test_cosines_are_those_of_tfidf_vectors(monkeypatch, common):
    """Also of passages with words that no prompt has, however many words are called common."""
    monkeypatch.setattr(near_passages, "COMMON_PROMPTS", common)
    monkeypatch.setattr(near_passages, "COMMON_SHARE", 0.02)
    rng = random.Random(1)
    vocabulary = [f"w{n}" for n in range(60)]
    weights = [1 / (1 + n) for n in range(60)]
    prompts = [rng.choices(vocabulary, weights, k=rng.randrange(3, 9)) for _ in range(80)]
    # As long as a window at most: one passage each.
    texts = [
        rng.choices([*vocabulary, "x", "y"], [*weights, 0.2, 0.2], k=rng.randrange(1, 7))
        for _ in range(300)
    ]
    lookup = NearPassages(prompts, 0.5)
    assert all(len(words) <= lookup.window for words in texts)
    found = lookup.near(texts)
    vectorizer = TfidfVectorizer(analyzer=list).fit(prompts)
    idf = {word: vectorizer.idf_[n] for word, n in vectorizer.vocabulary_.items()}
    occurrences = [idf[word] for words in prompts for word in words]
    unknown = np.sqrt(np.mean(np.square(occurrences)))
    vectors = vectorizer.transform(prompts)

    def cosine(text: list[str], prompt: int) -> float:
        known = {word: text.count(word) * idf[word] for word in set(text) & idf.keys()}
        strangers = sum(word not in idf for word in text)
        norm = np.sqrt(sum(value**2 for value in known.values()) + strangers * unknown**2)
        row = vectors[prompt].toarray()[0]
        return sum(row[vectorizer.vocabulary_[word]] * v for word, v in known.items()) / norm

    holders = {word: sum(word in prompt for prompt in prompts) for word in idf}
    rare = {word for word, count in holders.items() if count <= max(0.02 * 80, common)}
    expected = {
        (prompt, text): cosine(words, prompt)
        for text, words in enumerate(texts)
        for prompt, own in enumerate(prompts)
        if set(own) & set(words) & rare and 2 * len(words) >= len(own)
    }
    expected = {pair: value for pair, value in expected.items() if value >= 0.5}
    pairs = list(zip(found.prompts.tolist(), found.texts.tolist(), strict=True))
    assert set(pairs) == set(expected) and len(pairs) == len(set(pairs)) > 5
    np.testing.assert_allclose(found.cosines, [expected[pair] for pair in pairs])


def test_a_prompt_lies_within_a_passage_wherever_it_stands():
    prompts = [[f"p{n}w{k}" for k in range(10)] for n in range(5)]
    lookup = NearPassages(prompts, 0.6)
    for before in range(40):
        text = [*(["other"] * before), *prompts[3], *(["other"] * 37)]
        found = lookup.near([["before"], text, ["after"] * 20])
        assert set(found.prompts) == {3} and set(found.texts) == {1}
        best = int(np.argmax(found.cosines))
        window = text[found.words[best] : found.words[best] + lookup.window]
        assert set(prompts[3]) <= set(window)


def test_planted_paraphrases_are_recalled_and_others_are_not():
    """In another order, with other words, and both; alone, and within a longer text."""
    told = [other_order(parts) for parts in sentences(120, seed=0)]
    forms = [told, list(map(other_words, PROMPTS)), list(map(other_words, told))]
    # Prompts of which a paraphrase is planted: every third.
    for planted in (paraphrases[::3] for paraphrases in forms):
        assert (overlap_of(PROMPTS, planted).cosines > 0)[::3].mean() >= 0.95
        within = [f"{FILLER} {text} {FILLER}" for text in planted]
        assert (overlap_of(PROMPTS, within).cosines > 0)[::3].mean() >= 0.8
    unlike = [f"A {word} of {word}s met some other {word}s there." for word in SUBJECTS]
    assert overlap_of(PROMPTS, unlike).counts()["overlapping"] == 0


def test_neither_order_nor_batches_change_what_is_found(monkeypatch):
    texts = [FILLER, *map(other_words, PROMPTS[:20]), PROMPTS[40], FILLER * 30]
    whole = overlap_of(PROMPTS, texts)
    monkeypatch.setattr("ifguide.data.contamination.BATCH_WORDS", 1)
    parts = overlap_of(PROMPTS, texts[::-1])
    assert whole.counts() == parts.counts()
    assert whole.worst(5) == parts.worst(5)
    np.testing.assert_allclose(whole.cosines, parts.cosines)
    scores = [max(pair["share"], pair["cosine"]) for pair in whole.worst(50)]
    assert scores == sorted(scores, reverse=True)
    assert PROMPTS[40] in {pair["prompt"] for pair in whole.worst(50) if pair["share"] == 1}


def test_prompts_of_few_words_are_not_compared():
    overlap = overlap_of(["Not so", "...", "a b c d e f g h"], ["Not so fast", "..."])
    counts = overlap.counts()
    assert (counts["prompts"], counts["compared"], counts["overlapping"]) == (3, 1, 0)
    assert overlap_of(["Not so", ""], ["Not so"]).counts()["compared"] == 0


def test_short_prompts_drop_no_document():
    short, long = list("vwxyz"), list("abcdefghij")
    ngrams = SharedNgrams([short, long], 8)
    assert not ngrams.holds_a_prompt(["x", *short, "y"], 0.7)
    assert ngrams.holds_a_prompt(["x", *long, "y"], 0.7)
    assert not ngrams.holds_a_prompt(long[:8], 0.7)  # one n-gram of three
    assert ngrams.holds_a_prompt(long[:9], 0.6)


def test_excerpts_are_of_the_text_as_it_is():
    assert excerpt("So -- it WAS,\nthen: gone.", 1, 4) == "it WAS,\nthen"
    assert excerpt("Short.", 0, 9) == "Short"


def run(script: str, *arguments: object, **settings: object) -> None:
    command = [sys.executable, REPOSITORY / "scripts" / script, "--settings", json.dumps(settings)]
    ran = subprocess.run(
        [*map(str, command), *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_documents_that_hold_a_test_prompt_are_left_out(tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS[:10]])
    documents = [FILLER, f"{FILLER} {PROMPTS[3]} {FILLER}", PROMPTS[20], other_words(PROMPTS[0])]
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in documents])
    sources = [{"name": "texts", "held_out": 0.5}]
    outputs = {name: tmp_path / f"out/{name}" for name in ("training", "held_out", "report")}
    kept = {}
    for overlap in (None, {"ngram": 8, "share": 0.7}):
        run(
            "read_documents.py",
            *("--files", json.dumps([[str(tmp_path / "texts.jsonl")]])),
            *("--training", outputs["training"], "--held-out", outputs["held_out"]),
            *("--report", outputs["report"], "--prompts", tmp_path / "prompts.jsonl"),
            sources=sources,
            overlap=overlap,
            seed=2,
        )
        found = [*read_jsonl(outputs["training"]), *read_jsonl(outputs["held_out"])]
        kept[overlap is None] = {record["text"] for record in found}
    assert kept[True] == set(documents)
    assert kept[False] == set(documents) - {documents[1]}
    report = read_json(outputs["report"])
    assert report["sources"]["texts"]["dropped_overlap"] == 1
    assert sum(report["documents"].values()) == 3


def test_a_finished_run_says_what_overlaps(finished):
    results = finished / "results/tiny"
    learned = read_json(results / "contamination.json")
    sources = {row["source"] for row in learned["counts"]}
    assert sources >= {"queries.toxic", "classifiers.explicit", "methods.dpo", "rewards.toxicity"}
    assert {row["benchmark"] for row in learned["counts"]} == {"realtoxicityprompts", "toxigen"}
    corpus = read_json(results / "contamination/toxigen.json")
    (row,) = corpus["counts"]
    documents = (results / "corpus/documents.jsonl").read_text(encoding="utf-8").splitlines()
    assert row["source"] == "corpus.sources.documents" and row["texts"] == len(documents) == 300
    page = (results / "pages/contamination.html").read_text(encoding="utf-8")
    assert all(f"<code>{source}</code>" in page for source in sources)
    shared = read_json(results / "queries/disjoint.json")["shared_by_judges"]
    # The reward model of the tiny config learns from the judge's own file.
    assert {"judge": "classifiers.explicit", "records": 200, "with": "rewards.toxicity"} in [
        {key: value for key, value in pair.items() if key != "shared"} for pair in shared
    ]


def test_the_page_shows_every_count_and_escapes_the_pairs():
    prompt = "<b>The</b> sailor found the garden wall at the station"
    overlap = overlap_of([prompt], [prompt])
    row = {"source": "queries.toxic", "benchmark": "b", **overlap.counts()}
    worst = [{"source": "queries.toxic", "benchmark": "b", **pair} for pair in overlap.worst(1)]
    measured = {"ngram": 8, "share": 0.7, "cosine": 0.6, "counts": [row], "worst": worst}
    shared = [{"judge": "classifiers.j", "records": 9, "with": "queries.toxic", "shared": 4321}]
    page = contamination_page([measured], shared)
    assert "1 (100.0 %)" in page and "4,321" in page
    assert "&lt;b&gt;The" in page and "<b>The</b> sailor" not in page
    assert "None: no judge" in contamination_page([measured], [])
