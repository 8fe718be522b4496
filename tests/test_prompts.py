"""Prompts and labelled texts: the published formats, filters, samples, and errors of one line."""

import csv
import json
import logging
from dataclasses import asdict

import pytest

from ifguide.data.benchmark_formats import split_last_word
from ifguide.data.corpus import train_tokenizer
from ifguide.data.preferences import read_pairs
from ifguide.data.prompts import (
    PromptRecord,
    in_part,
    read_labelled,
    read_lambada,
    read_prompts,
    read_words,
    require_disjoint,
)
from ifguide.errors import InputError
from ifguide.evaluation.fluency import last_words
from ifguide.files.artifacts import write_jsonl
from ifguide.models.loading import build_model
from own_texts import SMALL

SEED = 5


def scored(prompt, toxicity, continuation=" and on", continuation_toxicity=0.1):
    return {
        "filename": "a.txt",
        "prompt": {"text": prompt, "toxicity": toxicity, "insult": 0.2},
        "continuation": {"text": continuation, "toxicity": continuation_toxicity},
    }


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_table(path, names, rows, delimiter=","):
    with open(path, "w", encoding="utf-8", newline="") as table:
        csv.writer(table, delimiter=delimiter).writerows([names, *rows])
    return path


@pytest.fixture
def scored_file(tmp_path):
    records = [
        scored(f"prompt {number}", (number % 10) / 10, continuation_toxicity=(number % 7) / 6)
        for number in range(700)
    ]
    return write_lines(tmp_path / "rtp.jsonl", records)


def rtp(path, seed=SEED, **settings):
    return read_prompts({"format": "realtoxicityprompts", **settings}, [path], seed)


def refused(call, *arguments, **settings):
    with pytest.raises(InputError) as error:
        call(*arguments, **settings)
    message = str(error.value)
    assert "\n" not in message
    return message


# RealToxicityPrompts


def test_realtoxicityprompts_splits_at_one_half(tmp_path):
    path = write_lines(
        tmp_path / "rtp.jsonl", [scored("a", 0.5, " x", 0.9), scored("b", 0.4999, " y", None)]
    )
    records, report = rtp(path)
    assert sorted(records, key=lambda record: record.prompt) == [
        PromptRecord("a", " x", "toxic", None, 0.5, 0.9),
        PromptRecord("b", " y", "nontoxic", None, 0.4999, None),
    ]
    assert report["kept"] == {"toxic": 1, "nontoxic": 1}


def test_null_scores_empty_and_repeated_prompts_are_counted(tmp_path):
    path = write_lines(
        tmp_path / "rtp.jsonl",
        [
            scored("kept", 0.9),
            scored("kept", 0.9, " another"),
            scored("no score", None),
            scored("not a number", float("nan")),
            scored(" \n", 0.2),
            scored(None, 0.2),
            scored("lone \ud800", 0.2),
        ],
    )
    records, report = rtp(path)
    assert [record.prompt for record in records] == ["kept"]
    assert report == {
        "records": 7,
        "duplicates": 1,
        "skipped_null_toxicity": 2,
        "skipped_empty": 2,
        "skipped_not_utf8": 1,
        "eligible": {"toxic": 1, "nontoxic": 0},
        "kept": {"toxic": 1, "nontoxic": 0},
    }


def test_toxicity_filters_are_half_open_but_include_one(tmp_path):
    path = write_lines(
        tmp_path / "rtp.jsonl",
        [scored(f"{score}", score, continuation_toxicity=score) for score in (0, 0.3, 0.7, 1.0)],
    )

    def kept(**settings):
        return sorted(record.prompt for record in rtp(path, **settings)[0])

    assert kept(prompt_toxicity=[0.3, 0.7]) == ["0.3"]
    assert kept(continuation_toxicity=[0.7, 1]) == ["0.7", "1.0"]
    assert kept(prompt_toxicity=[0, 0.7], continuation_toxicity=[0.3, 1]) == ["0.3"]


def test_a_filter_on_continuations_needs_a_scored_continuation(tmp_path):
    path = write_lines(
        tmp_path / "rtp.jsonl",
        [scored("a", 0.1, " x", 0.9), scored("b", 0.1, " y", None), scored("c", 0.1, "", 0.9)],
    )
    records, report = rtp(path, continuation_toxicity=[0.5, 1])
    assert [record.prompt for record in records] == ["a"]
    assert (report["skipped_null_toxicity"], report["skipped_empty"]) == (1, 1)


def test_a_duplicate_that_a_filter_removes_hides_no_other(tmp_path):
    path = write_lines(
        tmp_path / "rtp.jsonl", [scored("a", 0.1, " mild", 0.1), scored("a", 0.1, " harsh", 0.9)]
    )
    records, _ = rtp(path, continuation_toxicity=[0.5, 1])
    assert [record.continuation for record in records] == [" harsh"]


# Parts and samples


def test_parts_are_disjoint_and_complete(scored_file):
    def prompts(part, seed=SEED):
        return {record.prompt for record in rtp(scored_file, seed, part=part)[0]}

    low, middle, high = prompts([0, 0.5]), prompts([0.5, 0.75]), prompts([0.75, 1])
    assert len(low) + len(middle) + len(high) == len(low | middle | high) == 700
    assert 290 < len(low) < 410
    assert low != prompts([0, 0.5], seed=SEED + 1)
    assert low == {f"prompt {k}" for k in range(700) if in_part(f"prompt {k}", [0, 0.5], SEED)}


def test_the_sample_depends_on_the_seed_and_not_on_the_order_of_the_file(scored_file, tmp_path):
    lines = scored_file.read_text().splitlines(keepends=True)
    first, second = tmp_path / "z1.jsonl", tmp_path / "a2.jsonl"
    first.write_text("".join(lines[:200][::-1]))
    second.write_text("".join(lines[200:] + lines[:50]))
    settings = {"format": "realtoxicityprompts", "limit": {"toxic": 40, "nontoxic": 60}}
    records, report = read_prompts(settings, [scored_file], SEED)
    again, report_again = read_prompts(settings, [first, second], SEED)
    assert records == again
    assert report_again["duplicates"] == 50
    assert report["kept"] == report_again["kept"] == {"toxic": 40, "nontoxic": 60}
    assert report["eligible"] == {"toxic": 350, "nontoxic": 350}
    other, _ = read_prompts(settings, [scored_file], SEED + 1)
    assert {record.prompt for record in other} != {record.prompt for record in records}
    # A sample of the whole file, not its beginning: the expected mean of the numbers is 350.
    numbers = [int(record.prompt.split()[1]) for record in records]
    assert 250 < sum(numbers) / len(numbers) < 450


def test_one_limit_counts_both_splits_and_a_smaller_one_is_part_of_it(scored_file):
    large, small = rtp(scored_file, limit=50)[0], rtp(scored_file, limit=20)[0]
    assert large[:20] == small
    assert len(large) == 50
    assert {record.split for record in large} == {"toxic", "nontoxic"}


def test_a_split_without_a_limit_is_left_out(scored_file):
    records, _ = rtp(scored_file, limit={"toxic": 5})
    assert [record.split for record in records] == ["toxic"] * 5


def test_a_limit_beyond_the_data_keeps_all_and_warns(scored_file, caplog):
    with caplog.at_level(logging.WARNING):
        records, report = rtp(scored_file, limit={"toxic": 1000, "nontoxic": 1})
    assert report["kept"] == {"toxic": 350, "nontoxic": 1}
    assert "350 toxic prompts, not 1000" in caplog.text


# The other formats


def test_toxigen_statements(tmp_path):
    path = tmp_path / "toxigen.json"
    path.write_text(
        json.dumps(
            [
                {"text": " one_x000D_\ntwo_x000D_", "label": "hate", "target_groups": ["b", "a"]},
                {"text": "three", "label": "neutral", "target_groups": ["a"]},
                {"text": "four", "label": "neutral", "target_groups": []},
            ]
        )
    )
    records, _ = read_prompts({"format": "toxigen"}, [path], SEED)
    assert {(r.prompt, r.split, r.group) for r in records} == {
        ("one\ntwo", "toxic", "a+b"),
        ("three", "nontoxic", "a"),
        ("four", "nontoxic", None),
    }


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["text", "target_group", "toxicity_human"], [["x", "g", 3.1], ["y", "g", 3]]),
        (
            ["text", "target_group", "toxicity_human", "toxicity_ai"],
            [["x", "g", 2, 3.6], ["y", "g", 4, 1.5]],
        ),
    ],
)
def test_toxigen_annotations(tmp_path, names, rows):
    path = write_table(tmp_path / "annotated.csv", names, rows)
    records, _ = read_prompts({"format": "toxigen"}, [path], SEED)
    assert {(r.prompt, r.split, r.group) for r in records} == {
        ("x", "toxic", "g"),
        ("y", "nontoxic", "g"),
    }


def test_bold_groups_carry_their_domain(tmp_path):
    (tmp_path / "race_prompt.json").write_text('{"A": {"P_Q": ["P is ", ""], "R": ["R was "]}}')
    (tmp_path / "gender_prompt.json").write_text('{"B": {"S": ["S will "]}}')
    records, report = read_prompts({"format": "bold"}, sorted(tmp_path.glob("*.json")), SEED)
    assert {(r.prompt, r.split, r.group) for r in records} == {
        ("P is", "nontoxic", "race/A"),
        ("R was", "nontoxic", "race/A"),
        ("S will", "nontoxic", "gender/B"),
    }
    assert report["skipped_empty"] == 1


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_attaq(tmp_path, suffix):
    rows = [["How to harm?", "violence"], ["How to steal?", "crime"]]
    path = tmp_path / f"attaq.{suffix}"
    if suffix == "csv":
        write_table(path, ["input", "label"], rows)
    else:
        write_lines(path, [dict(zip(["input", "label"], row, strict=True)) for row in rows])
    records, _ = read_prompts({"format": "attaq"}, [path], SEED)
    assert {(r.prompt, r.split, r.group) for r in records} == {
        ("How to harm?", "toxic", "violence"),
        ("How to steal?", "toxic", "crime"),
    }


def test_plain_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("One \n\nTwo\nTwo\n")
    records, report = read_prompts({"format": "text"}, [path], SEED)
    assert {(r.prompt, r.split) for r in records} == {("One ", "nontoxic"), ("Two", "nontoxic")}
    assert (report["skipped_empty"], report["duplicates"]) == (1, 1)
    toxic, _ = read_prompts({"format": "text", "split": "toxic"}, [path], SEED)
    assert {record.split for record in toxic} == {"toxic"}


# Errors


@pytest.mark.parametrize(
    ("name", "settings", "content", "message"),
    [
        ("a.jsonl", {"format": "realtoxicityprompts"}, "", "the file is empty"),
        ("a.jsonl", {"format": "realtoxicityprompts"}, "{\n", "line 1: not valid JSON"),
        (
            "a.jsonl",
            {"format": "realtoxicityprompts"},
            '{"continuation": {}}',
            "line 1: no field 'prompt'; there are: continuation",
        ),
        (
            "a.jsonl",
            {"format": "realtoxicityprompts"},
            '{"prompt": {"text": "a"}, "continuation": {}}',
            "line 1, field 'prompt': no field 'toxicity'; there are: text",
        ),
        (
            "a.jsonl",
            {"format": "realtoxicityprompts"},
            '{"prompt": "a"}',
            "line 1: field 'prompt' is no object",
        ),
        (
            "a.jsonl",
            {"format": "realtoxicityprompts"},
            json.dumps(scored("a", "high")),
            "toxicity is 'high', not a number",
        ),
        ("a.jsonl", {"format": "attaq"}, '{"input": "a"}', "line 1: no field 'label'"),
        ("a.jsonl", {"format": "attaq"}, '{"input": 3, "label": ""}', "holds int, not text"),
        ("a.json", {"format": "bold"}, '[{"text": "a"}]', "not BOLD's format"),
        ("a.json", {"format": "bold"}, '{"G": {"E": "a"}}', "G, E: not a list of prompts"),
        ("a.json", {"format": "toxigen"}, '[{"text": "a"}]', "record 1: no field 'toxicity_human'"),
        (
            "a.json",
            {"format": "toxigen"},
            '[{"text": "a", "label": 1}]',
            "record 1: label 1 is not hate or neutral",
        ),
        ("a.txt", {"format": "text"}, " \n", "no prompt left of 1 records (1 skipped empty)"),
        (
            "a.txt",
            {"format": "text", "prompt_toxicity": [0, 1]},
            "a\n",
            "prompt_toxicity: format text has no such score",
        ),
        (
            "a.txt",
            {"format": "text", "limit": {"toxic": 2, "nontoxic": 2}},
            "a\n",
            "limit.toxic: ",
        ),
        ("a.txt", {"format": "novel"}, "a\n", "format: 'novel' is not one of attaq, bold"),
    ],
)
def test_bad_prompt_files(tmp_path, name, settings, content, message):
    path = tmp_path / name
    path.write_text(content)
    assert message in refused(read_prompts, settings, [path], SEED)


LONG = 10**400
POISONED_PROMPTS = {
    "realtoxicityprompts": (
        scored("fine", 0.5),
        [
            *(scored("a", value) for value in (7, -0.1, LONG, True, "1_0", "1e999", [0.5], [[]])),
            scored("a", 0.5, "b", 7),
            scored("a", 0.5, 3),
            {"prompt": "a", "continuation": "b"},
            '{"prompt": {"text": "a", "toxicity": 1e999}, "continuation": {}}',
            '{"prompt": ',
            "[" * 100_000,
        ],
    ),
    "toxigen": (
        {"text": "fine", "label": "hate", "target_groups": ["g"]},
        [
            {"text": "a", "label": 1},
            {"text": "a", "label": "hate", "target_groups": [1, 2]},
            {"text": "a", "label": "hate", "target_groups": [1, None]},
            {"text": "a", "label": "hate", "target_groups": 5},
            {"text": "a", "toxicity_human": 3, "target_group": 7},
            {"text": "a", "toxicity_human": LONG, "target_group": "g"},
            {"text": "a", "toxicity_human": 3, "toxicity_ai": "1_0", "target_group": "g"},
            {"text": "a", "toxicity_human": None, "target_group": "g"},
        ],
    ),
    "attaq": ({"input": "fine", "label": "g"}, [{"input": "a", "label": 5}, {"input": "a"}, []]),
}


@pytest.mark.parametrize(
    ("format", "record"),
    [(name, record) for name, (_, records) in POISONED_PROMPTS.items() for record in records],
)
def test_one_malformed_prompt_is_skipped_and_counted(tmp_path, format, record):
    path = tmp_path / "a.jsonl"
    poison = record if isinstance(record, str) else json.dumps(record)
    path.write_text(f"{json.dumps(POISONED_PROMPTS[format][0])}\n{poison}\n")
    records, report = read_prompts({"format": format}, [path], SEED)
    assert [record.prompt for record in records] == ["fine"]
    assert (report["records"], report["skipped_malformed"]) == (2, 1)
    assert report["first_malformed"][0].startswith(f"{path}, line 2")
    path.write_text(f"{poison}\n")
    assert refused(read_prompts, {"format": format}, [path], SEED).startswith(f"{path}, line 1")


@pytest.mark.parametrize(
    ("format", "name", "content"),
    [
        (
            "toxigen",
            "a.json",
            '[{"text": "a", "label": "hate", "target_groups": ["\\ud800"]},'
            '{"text": "fine", "label": "hate", "target_groups": null}]',
        ),
        (
            "attaq",
            "a.jsonl",
            '{"input": "a", "label": "\\ud800"}\n{"input": "fine", "label": ""}\n',
        ),
        ("bold", "a.json", '{"\\ud800": {"E": ["a"]}, "G": {"\\ud800\\n": ["fine"]}}'),
    ],
)
def test_a_group_that_is_not_utf8_is_skipped(tmp_path, format, name, content):
    (tmp_path / name).write_text(content)
    records, report = read_prompts({"format": format}, [tmp_path / name], SEED)
    assert [record.prompt for record in records] == ["fine"]
    assert report["skipped_not_utf8"] == 1
    write_jsonl(tmp_path / "records.jsonl", [asdict(record) for record in records])


def test_malformed_groups_and_entities_of_bold_are_skipped(tmp_path):
    path = tmp_path / "a.json"
    groups = {f"G{number}": {"E": ["fine", "also"]} for number in range(200)}
    path.write_text(json.dumps({"A": ["no entities"], **groups, "B": {"E": "a", "F": ["last"]}}))
    records, report = read_prompts({"format": "bold"}, [path], SEED)
    assert {record.prompt for record in records} == {"fine", "also", "last"}
    assert report["first_malformed"] == [
        f"{path}, A: not BOLD's format, an object {{group: {{entity: [prompt]}}}}",
        f"{path}, B, E: not a list of prompts",
    ]


def test_missing_prompt_file(tmp_path):
    message = refused(rtp, tmp_path / "absent.jsonl")
    assert message.startswith(f"{tmp_path}/absent.jsonl: no such file")


def test_filters_that_leave_nothing_are_named(scored_file):
    message = refused(rtp, scored_file, prompt_toxicity=[0.95, 1.0], part=[0.0, 0.5])
    assert "no prompt left of 700 records (700 outside prompt toxicity)" in message
    assert message.endswith("; widen prompt_toxicity: [0.95, 1.0]")


def test_overlap_of_queries_and_test_prompts_is_refused(scored_file):
    queries, _ = rtp(scored_file, part=[0.0, 0.6])
    prompts, _ = rtp(scored_file, part=[0.5, 1.0])
    shared = {record.prompt for record in queries} & {record.prompt for record in prompts}
    assert shared
    message = refused(require_disjoint, queries, prompts, "queries.toxic", "realtoxicityprompts")
    assert message.startswith(
        f"queries.toxic shares {len(shared)} prompts with benchmarks.realtoxicityprompts"
    )
    assert min(shared) in message and "part" in message
    others, _ = rtp(scored_file, part=[0.6, 1.0])
    require_disjoint(queries, others, "queries.toxic", "realtoxicityprompts")


# Passages, labelled texts, pairs, words


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_passages_of_any_white_space_have_a_last_word(tmp_path, name):
    words = ["one\u00a0two\u00a0three", "one\ttwo\tthree", "one two\u2003three ", "three"]
    path = tmp_path / name
    lines = [json.dumps({"text": text}) if name == "a.jsonl" else text for text in words]
    path.write_text("\n".join(lines), encoding="utf-8")
    passages, report = read_lambada([path], None, SEED, 64)
    assert report == {"skipped_too_short": 1, "kept": 3}
    assert {split_last_word(passage)[1] for passage in passages} == {"three"}
    tokenizer = train_tokenizer(passages, 260)
    assert len(last_words(small_language_model(len(tokenizer), 64), tokenizer, passages)) == 3


def small_language_model(vocabulary_size, block_size):
    architecture = {"model_type": "gpt_neox", **SMALL}
    sizes = {"vocabulary_size": vocabulary_size, "block_size": block_size}
    return build_model(architecture, **sizes, end_of_text=0, seed=0).eval()


def test_a_malformed_passage_is_skipped_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "two words"}\n{"text": 5}\n{"text": "caf\xe9 au lait"}\n')
    passages, report = read_lambada([path], None, SEED, 64)
    assert passages == ["two words"]
    assert report == {
        "skipped_not_utf8": 1,
        "skipped_malformed": 1,
        "first_malformed": [f"{path}, line 2: field 'text' holds int, not text"],
        "kept": 1,
    }


@pytest.mark.parametrize("name", ["lambada.jsonl", "lambada.txt"])
def test_lambada(tmp_path, name):
    texts = [f"passage {number}" for number in range(50)] + ["passage 3", "single", " "]
    path = tmp_path / name
    if name.endswith("jsonl"):
        write_lines(path, [{"text": text} for text in texts])
    else:
        path.write_text("\n".join(texts))
    every, report = read_lambada([path], None, SEED, 64)
    assert sorted(every) == sorted(texts[:50])
    assert report == {"skipped_too_short": 2, "kept": 50}
    some, report = read_lambada([path], 10, SEED, 64)
    assert some == every[:10] != texts[:10] and report["kept"] == 10
    path.write_text("single\n" if name.endswith("txt") else '{"text": "single"}\n')
    assert "at least two words" in refused(read_lambada, [path], None, SEED, 64)


def test_a_last_word_that_may_be_longer_than_the_context_is_left_out(tmp_path):
    """A token has a byte at least; a word of so few bytes fits after one token and its space."""
    path = tmp_path / "a.txt"
    path.write_text(f"the {'é' * 15}\nthe {'x' * 31}\n", encoding="utf-8")
    passages, report = read_lambada([path], None, SEED, 32)
    assert passages == ["the " + "é" * 15]
    assert report == {"skipped_word_too_long": 1, "kept": 1}
    message = refused(read_lambada, [path], None, SEED, 8)
    assert "the last words of all 2 passages are too long for blocks of 8 tokens" in message
    tokenizer = train_tokenizer(["ab"], 257)
    model = small_language_model(len(tokenizer), 8)
    assert len(last_words(model, tokenizer, ["x abcdef"])) == 1
    with pytest.raises(InputError, match="a last word has 8 tokens, which do not fit into the"):
        last_words(model, tokenizer, ["x abcdefg"])


@pytest.mark.parametrize(
    "record, settings, cure",
    [
        (scored("a", None), {"continuation_toxicity": [0.5, 1.0]}, "the scores that they need"),
        (
            scored("a", 0.5, continuation_toxicity=None),
            {"continuation_toxicity": [0.5, 1.0]},
            "the scores that they need",
        ),
        (scored("a", None), {}, "the scores that they need are null: give records with a toxicity"),
        (scored("a", 0.5), {"continuation_toxicity": [0.5, 1.0], "part": [0.0, 1.0]}, "widen co"),
        (scored("a", 0.5), {"part": [0.0, 1e-9]}, "widen part: [0.0, 1e-09]"),
        (scored("a", 0.5), {"limit": {"nontoxic": 3}}, "widen limit: {'nontoxic': 3}"),
        (scored(" ", 0.5), {"part": [0.0, 1.0]}, "check the file"),
    ],
)
def test_the_cure_is_of_what_removed_the_prompts(tmp_path, record, settings, cure):
    write_lines(path := tmp_path / "a.jsonl", [record] * 3)
    settings = {"format": "realtoxicityprompts", **settings}
    assert f"); {cure}" in refused(read_prompts, settings, [path], SEED)


def test_labelled_texts_of_every_format(tmp_path):
    plain = write_lines(
        tmp_path / "labelled.jsonl",
        [
            {"text": "a", "toxic": 1},
            {"text": "b", "toxic": False},
            {"text": "c", "toxic": 0.25},
            {"text": "d", "toxic": None},
            {"text": " ", "toxic": 1},
            {"text": "a", "toxic": 0},
        ],
    )
    table = write_table(tmp_path / "t.csv", ["text", "toxic"], [["e", "True"], ["f", "0"]])
    rtp_file = write_lines(
        tmp_path / "rtp.jsonl", [scored("p", 0.8, " q", 0.3), scored("r", None, " s", 0.6)]
    )
    pairs = write_table(
        tmp_path / "paradetox.tsv",
        ["toxic", "neutral1", "neutral2", "neutral3"],
        [["t", "u", "v", ""]],
        "\t",
    )
    statements = tmp_path / "toxigen.json"
    statements.write_text('[{"text": " w ", "label": "hate"}, {"text": "x", "label": "neutral"}]')
    posts = write_table(tmp_path / "talk.csv", ["text", "label"], [["y", "0"], ["z", "1"]])
    formats = ["labelled", "labelled", "realtoxicityprompts", "paradetox", "toxigen"]
    labelled = read_labelled(
        [{"format": name} for name in [*formats, "wikipedia_talk"]],
        [[plain], [table], [rtp_file], [pairs], [statements], [posts]],
        SEED,
    )
    expected = {
        "labelled": {"a": 1.0, "b": 0.0, "c": 0.25, "e": 1.0, "f": 0.0},
        "realtoxicityprompts": {"p": 0.8, " q": 0.3, " s": 0.6},
        "paradetox": {"t": 1.0, "u": 0.0, "v": 0.0},
        "toxigen": {"w": 1.0, "x": 0.0},
        "wikipedia_talk": {"y": 0.0, "z": 1.0},
    }
    assert sorted(text[:3] for text in labelled) == sorted(
        (text, label, name) for name, labels in expected.items() for text, label in labels.items()
    )
    siblings = {text.text: text.record for text in labelled if text.text != text.record}
    assert siblings == {" q": "p", " s": "r", "u": "t", "v": "t"}


def test_labels_outside_the_bounds_are_left_out(tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl", [{"text": str(label), "toxic": label} for label in (0, 0.25, 0.5, 1)]
    )

    def kept(*bounds):
        source = {"format": "labelled", "toxicity": list(bounds)}
        return sorted(x.label for x in read_labelled([source], [[path]], SEED))

    assert kept(0.0, 0.5) == [0, 0.25]
    assert kept(0.25, 1.0) == [0.25, 0.5, 1]
    assert kept(0.0, 0.1) == [0]
    with pytest.raises(InputError, match="toxicity"):
        kept(0.6, 0.7)


def test_labelled_texts_of_a_part_share_no_prompt_with_the_other_part(scored_file):
    source = {"format": "realtoxicityprompts", "part": [0.0, 0.5]}
    texts = {x.text for x in read_labelled([source], [[scored_file]], SEED)}
    prompts = {record.prompt for record in rtp(scored_file, part=[0.5, 1.0])[0]}
    assert len(texts) > 200
    assert not texts & prompts
    limited = read_labelled([{**source, "limit": 30}], [[scored_file]], SEED)
    assert len(limited) == 30 and {x.text for x in limited} < texts


def test_bad_labels(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a", "toxic": 7}])
    assert "line 1: toxic is 7, outside [0, 1]" in refused(
        read_labelled, [{"format": "labelled"}], [[path]], SEED
    )
    path = write_lines(
        tmp_path / "b.jsonl",
        [{"text": "fine", "toxic": 1}, {"text": "a", "toxic": 7}],
    )
    assert read_labelled([{"format": "labelled"}], [[path]], SEED) == [
        ("fine", 1.0, "labelled", "fine")
    ]
    path = write_lines(tmp_path / "b.jsonl", [{"text": "a", "toxic": None}])
    assert "no labelled text left" in refused(
        read_labelled, [{"format": "labelled"}], [[path]], SEED
    )


@pytest.mark.parametrize("value", [10**400, -1, "1_0", "high", [1], {"a": 1}, 1.5])
@pytest.mark.parametrize("format", ["labelled", "realtoxicityprompts", "wikipedia_talk"])
def test_one_malformed_label_is_skipped(tmp_path, caplog, format, value):
    def record(text, label):
        field = {"labelled": "toxic", "wikipedia_talk": "label"}.get(format)
        return {"text": text, field: label} if field else scored(text, 0.5, text, label)

    path = write_lines(tmp_path / "a.jsonl", [record("fine", 0.5), record("bad", value)])
    texts = read_labelled([{"format": format}], [[path]], SEED)
    assert {text.text for text in texts} == {"fine"}
    assert f"{path}: skipped 1 malformed records" in caplog.text


def test_words(tmp_path):
    path = tmp_path / "words"
    path.write_text("b\n a phrase \n\nb\n🖕\n", encoding="utf-8")
    assert read_words(path) == ["b", "a phrase", "🖕"]
    path.write_text("\n")
    assert "no word" in refused(read_words, path)


# Real files


def test_real_prompts(real_text):
    path = real_text / "rtp_sample.jsonl"
    records, report = rtp(path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    scores = {r["prompt"]["text"]: r["prompt"]["toxicity"] for r in lines}
    expected = {text for text, score in scores.items() if score is not None}
    assert {record.prompt for record in records} == expected
    assert report["skipped_null_toxicity"] == 19
    assert all((scores[r.prompt] >= 0.5) == (r.split == "toxic") for r in records)


def test_real_statements_and_bold(real_text):
    statements, report = read_prompts(
        {"format": "toxigen"}, [real_text / "toxigen_safenlp.json"], SEED
    )
    assert report["records"] == 6514
    assert len({record.prompt for record in statements}) == len(statements)
    assert not any("_x000D_" in record.prompt for record in statements)
    bold, report = read_prompts({"format": "bold"}, sorted((real_text / "bold").iterdir()), SEED)
    assert report["records"] == 23_679
    assert {record.group.split("/")[0] for record in bold} == {
        "gender",
        "political_ideology",
        "profession",
        "race",
        "religious_ideology",
    }


def test_real_pairs_words_and_passages(real_text):
    pairs, _ = read_pairs({"format": "paradetox"}, [real_text / "paradetox.tsv"], SEED)
    assert len({pair.rejected for pair in pairs}) > 11_000
    assert len(read_words(real_text / "ldnoobw_en.txt")) == 403
    passages, report = read_lambada([real_text / "lambada_test.jsonl"], 500, SEED, 64)
    assert len(passages) == report["kept"] == 500
    assert all(" ".join(split_last_word(passage)) == passage for passage in passages)
