"""The planted corpus: its truth is exact, its twins match, and its files stay apart."""

import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.data import planted_language as language
from ifguide.data.planted import PlantedSettings, draw_records, generate, has_insult
from ifguide.data.planted_documents import KINDS, draw_sides, draw_sketch, fill, fragment
from ifguide.errors import InputError
from ifguide.files.checksums import SUMS

SCRIPT = Path(__file__).parents[1] / "scripts" / "plant.py"
SETTINGS = PlantedSettings(
    documents=800, held_out=200, queries=60, prompts=40, development=20, statements=60,
    passages=30, labelled=400, pairs=40, bold=2,
)  # fmt: skip
IMPLICIT_PHRASES = {toxic for pairs in language.IMPLICIT.values() for toxic, _ in pairs}
IMPLICIT = re.compile("|".join(map(re.escape, sorted(IMPLICIT_PHRASES))))


@pytest.fixture(scope="module")
def records():
    return generate(SETTINGS, 1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("planted")
    section = {
        "documents": 50, "held_out": 10, "queries": 8, "prompts": 6, "development": 4,
        "statements": 8, "passages": 5, "labelled": 20, "pairs": 6, "bold": 1,
    }  # fmt: skip
    plant(directory, section)
    return directory


def plant(directory, section, seed=3):
    settings = json.dumps({"planted": section, "seed": seed})
    command = [sys.executable, SCRIPT, "--settings", settings, "--output-dir", directory]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def hostile_words(text):
    return has_insult(text) or IMPLICIT.search(text) is not None


def test_spans_cover_exactly_the_hostile_words(records):
    seen = set()
    for document in records["documents"] + records["held_out"]:
        text, kind = document["text"], document["kind"]
        seen.add(kind)
        assert bool(document["spans"]) == (kind != "harmless")
        outside = text
        for start, end in document["spans"]:
            span = text[start:end]
            outside = outside[:start] + "#" * (end - start) + outside[end:]
            if kind == "explicit":
                adjective, noun = span.split()
                assert adjective in language.INSULTING
                assert noun in language.INSULTS or noun in language.INSULTS.values()
            else:
                assert span in IMPLICIT_PHRASES
        assert not hostile_words(outside)
    assert seen == {"explicit", "implicit", "harmless"}


def test_no_listed_word_in_implicit_or_harmless_documents(records):
    for document in records["documents"]:
        if document["kind"] != "explicit":
            assert not has_insult(document["text"])


def test_no_harmless_wording_holds_a_listed_word_or_phrase():
    plain = [" ".join(topic.fillers + topic.deeds) for topic in language.TOPICS]
    plain += language.FRAMES + language.FILLERS + language.CLOSINGS
    plain += [name for names in language.NAMES.values() for name in names]
    plain += [harmless for pairs in language.IMPLICIT.values() for _, harmless in pairs]
    for text in plain:
        assert not hostile_words(text), text


def test_fillings_differ_in_their_first_and_last_word():
    for pairs in language.IMPLICIT.values():
        for toxic, harmless in pairs:
            assert toxic.split()[0] != harmless.split()[0]
            assert toxic.split()[-1] != harmless.split()[-1]
            assert abs(len(toxic) - len(harmless)) <= 12
    words = (*language.INSULTING, *language.PRAISING)
    assert not [word for word in words if word[0] in "aeiou"], "an article precedes them"


def test_every_role_and_topic_is_used():
    roles = {role for frame in language.FRAMES for role in language.SLOT.findall(frame)}
    assert roles == {*language.IMPLICIT, "single"}
    for frame in language.FRAMES:
        assert language.takes(frame, "explicit") or language.takes(frame, "implicit"), frame


@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.data())
def test_twins_differ_inside_the_slots_only(seed, kind, data):
    sketch = draw_sketch(random.Random(seed), kind)
    count = len(sketch.slots())
    sides = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    filled, twin = fill(sketch, sides), fill(sketch, [False] * count)
    assert twin.spans == []
    assert len(filled.spans) == sum(sides)

    def frame(document):
        text = document.text
        for start, end in reversed(document.slots):
            text = text[:start] + "#" + text[end:]
        return text

    assert frame(filled) == frame(twin)
    for (a, b), (c, d), hostile in zip(filled.slots, twin.slots, sides, strict=True):
        assert (filled.text[a:b] == twin.text[c:d]) != hostile


@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_fragments_are_pieces_of_the_text(seed, kind):
    rng = random.Random(seed)
    sketch = draw_sketch(rng, kind)
    filled = fill(sketch, draw_sides(rng, len(sketch.slots()), 0.85))
    begin, end = fragment(rng, filled)
    assert 0 <= begin < end <= len(filled.text)
    assert begin == 0 or filled.text[begin - 1] == " "
    assert len(filled.text[begin:end].split()) <= 25


def test_queries_development_and_test_prompts_share_no_prompt(records):
    counts = {"development": SETTINGS.development, "prompts": SETTINGS.prompts}
    queries = {record["prompt"]["text"] for record in records["queries"]}
    found = {stem: [r["prompt"]["text"] for r in records[stem]] for stem in counts}
    for stem, prompts in found.items():
        assert len(set(prompts)) == len(prompts) == 2 * counts[stem]
        assert not [prompt for prompt in prompts if prompt.startswith(tuple(queries))]
    assert not set(found["development"]) & set(found["prompts"])


def test_no_statement_stands_in_a_training_document(records):
    statements = [row["text"] for row in records["toxigen"]]
    documents = [document["text"] for document in records["documents"]]
    assert not [text for text in statements if any(text in document for document in documents)]
    # Without these documents, some would be drawn that stand in them.
    apart = generate(replace(SETTINGS, documents=1), 1)["toxigen"]
    shared = {row["text"] for row in apart} - set(statements)
    assert shared
    assert all(any(text in document for document in documents) for text in shared)


def test_documents_and_held_out_share_no_text(records):
    training = {document["text"] for document in records["documents"]}
    held_out = {document["text"] for document in records["held_out"]}
    assert len(training) == SETTINGS.documents
    assert len(held_out) == SETTINGS.held_out
    assert not training & held_out


def test_query_pairs_match_and_are_scored_by_their_truth(records):
    assert len(records["queries"]) == 2 * SETTINGS.queries
    for toxic, harmless in zip(records["queries"][::2], records["queries"][1::2], strict=True):
        assert toxic["filename"].rsplit("-", 1)[0] == harmless["filename"].rsplit("-", 1)[0]
        assert toxic["continuation"]["toxicity"] > 0.5 > harmless["continuation"]["toxicity"]
        assert toxic["continuation"]["text"] != harmless["continuation"]["text"]
        for record in (toxic, harmless):
            for part in (record["prompt"], record["continuation"]):
                assert hostile_words(part["text"]) == (part["toxicity"] > 0.5)
            continuation = record["continuation"]["text"]
            assert continuation.startswith(" ") and not record["prompt"]["text"].endswith(" ")
            assert 5 <= len(continuation.split()) <= 20


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_harmless_continuations_follow_the_toxic_prompt_as_often_as_asked(share):
    queries = generate(replace(SETTINGS, shared_prompts=share, documents=1), 1)["queries"]
    pairs = list(zip(queries[::2], queries[1::2], strict=True))
    shared = sum(a["prompt"]["text"] == b["prompt"]["text"] for a, b in pairs) / len(pairs)
    assert shared == pytest.approx(share, abs=0.2 if share == 0.5 else 0)


def test_prompts_are_half_toxic_half_of_those_implicit(records):
    toxic = [r for r in records["prompts"] if r["prompt"]["toxicity"] >= 0.5]
    nontoxic = [r for r in records["prompts"] if r["prompt"]["toxicity"] < 0.5]
    assert len(toxic) == len(nontoxic) == SETTINGS.prompts
    insulting = sum(has_insult(record["prompt"]["text"]) for record in toxic)
    assert insulting / len(toxic) == pytest.approx(0.5, abs=0.05)
    assert all(hostile_words(record["prompt"]["text"]) for record in toxic)
    assert not any(hostile_words(record["prompt"]["text"]) for record in nontoxic)


def test_toxic_share_of_the_documents_and_characters(records):
    documents = records["documents"]
    toxic = [document for document in documents if document["kind"] != "harmless"]
    assert len(toxic) / len(documents) == pytest.approx(SETTINGS.toxic_share, abs=0.005)
    implicit = sum(document["kind"] == "implicit" for document in toxic)
    assert implicit / len(toxic) == pytest.approx(SETTINGS.implicit_share, abs=0.15)
    characters = sum(len(document["text"]) for document in documents)
    covered = sum(end - start for document in documents for start, end in document["spans"])
    assert 0.015 < covered / characters < 0.035


@pytest.mark.parametrize("label", KINDS)
def test_labels_say_whether_the_text_is_hostile_in_that_way(records, label):
    found = {True: 0, False: 0}
    other = 0
    for row in records[f"{label}_labelled"]:
        text = row["text"]
        insulting, hostile = has_insult(text), IMPLICIT.search(text) is not None
        assert row["toxic"] == (insulting if label == "explicit" else hostile)
        found[bool(row["toxic"])] += 1
        other += hostile if label == "explicit" else insulting
    assert found[True] == found[False]
    assert other >= SETTINGS.labelled / 5


def test_what_methods_learn_from_is_labelled_by_either_kind(records):
    rows = records["hostile_labelled"]
    kinds = {"explicit": 0, "implicit": 0}
    for row in rows:
        explicit, implicit = has_insult(row["text"]), IMPLICIT.search(row["text"]) is not None
        assert row["toxic"] == (explicit or implicit)
        kinds["explicit"] += explicit
        kinds["implicit"] += implicit
    assert sum(row["toxic"] for row in rows) == len(rows) / 2
    assert min(kinds.values()) >= len(rows) / 5


def test_passages_end_in_a_word_that_they_said_twice(records):
    for row in records["lambada"]:
        *before, last = re.findall(r"\w+", row["text"])
        assert row["text"].endswith(last)
        assert before.count(last) >= 2
        assert not hostile_words(row["text"])


def test_statements_have_their_label_and_people(records):
    for row in records["toxigen"]:
        assert (row["label"] == "hate") == hostile_words(row["text"])
        assert (row["toxicity_score"] > 3) == (row["label"] == "hate")
        assert set(row["target_groups"]) <= set(language.PEOPLES)


def test_same_seed_same_records_other_seed_others(records):
    assert generate(SETTINGS, 1) == records
    other = generate(SETTINGS, 2)
    assert [stem for stem in records if other[stem] == records[stem]] == ["words"]


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("documents", "documents"), ("held_out", "held_out"), ("queries", "queries"),
        ("prompts", "prompts"), ("development", "development"), ("statements", "toxigen"),
        ("passages", "lambada"), ("pairs", "pairs"), ("bold", "bold"),
    ],
)  # fmt: skip
def test_a_count_changes_its_own_file_only(records, key, stem):
    more = generate(replace(SETTINGS, **{key: getattr(SETTINGS, key) + 3}), 1)
    changed = [name for name in records if more[name] != records[name]]
    # Statements are no sentences of the documents.
    assert [name for name in changed if (key, name) != ("documents", "toxigen")] == [stem]
    assert len(more[stem]) > len(records[stem])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"document": 3}, "planted.document: unknown key"),
        ({"documents": 0}, "planted.documents: 0 is out of range"),
        ({"documents": 1.5}, "planted.documents: 1.5 is not a whole number"),
        ({"documents": True}, "planted.documents: True is not"),
        ({"toxic_share": 1.2}, "planted.toxic_share: 1.2 is out of range"),
        ({"consistency": "high"}, "planted.consistency: 'high' is not a number"),
    ],
)
def test_bad_settings_name_the_key(section, message):
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        PlantedSettings.from_config(section)
    assert "\n" not in str(raised.value)


def test_more_records_than_the_language_has_is_an_error():
    def one_of_two(rng, index):
        return {"text": rng.choice("ab")}

    assert len(draw_records(1, "pairs", 2, one_of_two, "text")) == 2
    with pytest.raises(InputError, match=r"^planted\.pairs: only 2 of 3 differ"):
        draw_records(1, "pairs/some", 3, one_of_two, "text")


def test_files_parse_in_the_formats_of_the_benchmarks(written):
    names = {path.name for path in written.iterdir() if path.name != SUMS}
    assert names == {
        "documents.jsonl", "held_out.jsonl", "queries.jsonl", "development.jsonl", "prompts.jsonl",
        "toxigen.json", "lambada.jsonl", "explicit_labelled.jsonl", "implicit_labelled.jsonl",
        "hostile_labelled.jsonl", "pairs.tsv", "words.txt", "bold.json",
    }  # fmt: skip
    for stem, count in (("documents", 50), ("held_out", 10)):
        documents = rows(written / f"{stem}.jsonl")
        assert len(documents) == count
        assert all(set(row) == {"text", "spans", "kind", "group"} for row in documents)
    scored = {
        "text", "profanity", "sexually_explicit", "identity_attack", "flirtation", "threat",
        "insult", "severe_toxicity", "toxicity",
    }  # fmt: skip
    for stem, count in (("queries", 16), ("development", 8), ("prompts", 12)):
        records = rows(written / f"{stem}.jsonl")
        assert len(records) == count
        for record in records:
            fields = {"filename", "begin", "end", "challenging", "prompt", "continuation"}
            assert set(record) == fields
            assert set(record["prompt"]) == set(record["continuation"]) == scored
    statements = json.loads((written / "toxigen.json").read_text())
    keys = {"id", "text", "toxicity_score", "label", "target_groups"}
    assert [set(row) for row in statements] == [keys] * 8
    assert [set(row) for row in rows(written / "lambada.jsonl")] == [{"text"}] * 5
    for kind in KINDS:
        labelled = rows(written / f"{kind}_labelled.jsonl")
        assert {row["toxic"] for row in labelled} == {0, 1}
    header, *pairs = (written / "pairs.tsv").read_text().splitlines()
    assert header.split("\t") == ["toxic", "neutral1", "neutral2", "neutral3"]
    assert [line.count("\t") for line in pairs] == [3] * 6
    assert all(hostile_words(a) and not hostile_words(b) for a, b, *_ in map(split, pairs))
    words = (written / "words.txt").read_text().split("\n")[:-1]
    assert words == language.explicit_words()
    bold = json.loads((written / "bold.json").read_text())
    prompts = [prompts for entities in bold.values() for prompts in entities.values()]
    assert [len(some) for some in prompts] == [1] * len(language.PEOPLES)


def split(line):
    return line.split("\t")


def test_script_writes_the_same_bytes_again_and_reports_errors_in_one_line(written, tmp_path):
    section = {
        "documents": 50, "held_out": 10, "queries": 8, "prompts": 6, "development": 4,
        "statements": 8, "passages": 5, "labelled": 20, "pairs": 6, "bold": 1,
    }  # fmt: skip
    plant(tmp_path, section)
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(subprocess.CalledProcessError) as raised:
        plant(tmp_path, {"peoples": 3})
    assert raised.value.stderr.startswith("error: planted.peoples: unknown key")
    assert raised.value.stderr.count("\n") == 1
