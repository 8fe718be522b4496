"""Files in the dialects that people have: read as they are meant, or refused in one line."""

import bz2
import gzip
import json
import lzma
import random
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.documents import read_documents
from ifguide.data.file_lists import matching
from ifguide.data.filtering import read_words
from ifguide.data.preferences import PreferencePair, read_pairs, require_pairs_disjoint
from ifguide.data.prompts import read_labelled, read_prompts
from ifguide.errors import InputError

LINES = b"".join(json.dumps({"text": f"Document {i}"}).encode() + b"\n" for i in range(3000))


def zstandard(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def texts(path: Path, **source) -> list[str]:
    return [document.text for document in read_documents({"name": "d", **source}, [path])]


def refused(path: Path, **source) -> str:
    with pytest.raises(InputError) as error:
        texts(path, **source)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- compression ----------------------------------------------------------------------------------

COMPRESSORS = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": zstandard,
}


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("name", ["a.jsonl.{}", "a.jsonl", "A.JSONL.{}"])
@pytest.mark.parametrize("parts", [1, 2])
def test_compressed_files_are_told_by_their_content(tmp_path, kind, name, parts):
    """Also of several streams, one after the other, as parallel compressors write them."""
    path = tmp_path / name.format(kind)
    half = len(LINES) // 2
    pieces = [LINES] if parts == 1 else [LINES[:half], LINES[half:]]
    path.write_bytes(b"".join(map(COMPRESSORS[kind], pieces)))
    assert texts(path) == [f"Document {i}" for i in range(3000)]


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_cut_compressed_file_is_damaged(tmp_path, kind):
    path = tmp_path / f"a.jsonl.{kind}"
    noise = random.Random(1).randbytes(5000).hex().encode()
    path.write_bytes(COMPRESSORS[kind](b'{"text": "' + noise + b'"}\n')[:-900])
    assert f"{path}: damaged " in refused(path) and "fetch it again" in refused(path)


@pytest.mark.parametrize("name", ["a.zip", "a.jsonl", "a.jsonl.zip"])
@pytest.mark.parametrize("format", [None, "jsonl"])
def test_what_is_packed_otherwise_is_said_to_be_compressed(tmp_path, name, format):
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", LINES)
    source = {"format": format} if format else {}
    assert refused(path, **source).startswith(f"{path}: compressed (zip); unpack it, or compress")


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ['"I waited for hours.', 'The door shut."', '"Fool" is', '""'])
def test_a_quotation_mark_in_tsv_is_text(tmp_path, line):
    path = tmp_path / "a.tsv"
    rows = ["Monday was quiet.", line, "Nobody came.", line, "So we left."]
    path.write_text("text\ttoxic\n" + "".join(f"{row}\t1\n" for row in rows), encoding="utf-8")
    assert texts(path) == rows
    assert {x.text for x in read_labelled([{"format": "labelled"}], [[path]], 1)} == set(rows)


def test_a_tsv_with_quotation_marks_around_fields_says_so(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("text\tid\n" + '"one ""word""\nand a line"\t1\n' * 3, encoding="utf-8")
    assert texts(path, quotes=True) == ['one "word"\nand a line'] * 3
    assert "or set `quotes: true` if quotation marks enclose fields" in refused(path)


def test_the_publishers_tsv_of_paradetox_has_quotation_marks(tmp_path):
    path = tmp_path / "p.tsv"
    path.write_text('toxic\tneutral1\nbad one\t"a ""good""\none"\n', encoding="utf-8")
    pairs, _ = read_pairs({"format": "paradetox"}, [path], 1)
    assert pairs == [PreferencePair("", 'a "good"\none', "bad one")]


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.csv", "text,id,text\na,1,b\n", "line 1: the column 'text' stands twice; rename or"),
        ("a.csv", "text, text\na,b\n", "line 1: the column 'text' stands twice; rename or"),
        ("a.tsv", "text\ttext\na\tb\n", "line 1: the column 'text' stands twice; rename or"),
        (
            "a.csv",
            "text;toxic\na;1\n",
            "line 1: one column, 'text;toxic': its fields are separated by semicolons, not commas",
        ),
        (
            "a.csv",
            "text\ttoxic\na\t1\n",
            "line 1: one column, 'text\\ttoxic': its fields are separated by tabs, not commas",
        ),
        ("a.tsv", "text,toxic\na,1\n", "separated by commas, not tabs; convert it, or set"),
        (
            "a.jsonl",
            '[{"text": "a"}, {"text": "b"}]',
            "line 1: a JSON list, not JSON lines; set `format: json`",
        ),
        ("a.json", '{"text": "a"}', "holds no JSON list; write a list of objects, or JSON lines"),
    ],
)  # fmt: skip
def test_a_table_that_would_be_read_half(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert expected in refused(path)


def test_a_parquet_file_with_two_columns_of_one_name(tmp_path):
    columns = pyarrow.array(["a"]), pyarrow.array(["b"])
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, ["text", "text"]), path)
    assert "the column 'text' stands twice" in refused(path)


def test_spaces_around_the_names_of_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id, text\n1,one\n", encoding="utf-8")
    assert texts(path) == ["one"]


# --- paths ----------------------------------------------------------------------------------------


def test_a_loop_of_links_finds_each_file_once(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/1.jsonl", "a/b/2.jsonl"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "a/b/up").symlink_to("../../a")
    (tmp_path / "a/0.jsonl").symlink_to("b/2.jsonl")
    found = matching(f"{tmp_path}/**/*.jsonl")
    assert [Path(path).resolve().name for path in found] == ["2.jsonl", "1.jsonl"]
    assert not any("up" in path for path in found)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_word_list_in_another_encoding(tmp_path, encoding):
    path = tmp_path / "words.txt"
    path.write_bytes("".join([*(f"word{i}\n" for i in range(500)), "Äh\n"]).encode(encoding))
    with pytest.raises(InputError, match="not UTF-8"):
        read_words([path])


# --- records --------------------------------------------------------------------------------------

HEAD = "text,target_group,toxicity_ai,toxicity_human\n"


@pytest.mark.parametrize(
    "written, meant",
    [
        ("\"b'they bring soup'\"", "they bring soup"),
        ('"b""they don\'t belong"""', "they don't belong"),
        ("\"b'caf\\xc3\\xa9'\"", "café"),
        ("\"b'it\\'s'\"", "it's"),
        ("b'open", "b'open"),
        ("b'\\xff'", "b'\\xff'"),
        ("a plain text", "a plain text"),
    ],
)
def test_texts_that_python_printed_as_bytes(tmp_path, written, meant):
    path = tmp_path / "toxigen.csv"
    path.write_text(f"{HEAD}{written},asian,1.0,1.0\n", encoding="utf-8")
    (record,), _ = read_prompts({"format": "toxigen"}, [path], 1)
    assert record.prompt == meant


@pytest.mark.parametrize(
    "spans, labels, expected",
    [
        ([[10, 14, "INSULT"]], None, ((10, 14),)),
        ([[10, 14, "INSULT"], [0, 3, "NAME"]], ["INSULT"], ((10, 14),)),
        ([[0, 3, "NAME"]], ["INSULT"], ()),
        ([{"label": "INSULT", "start_offset": 10, "end_offset": 14}], ["INSULT"], ((10, 14),)),
        ([{"start": 10, "end": 14}], ["INSULT"], ((10, 14),)),
        ([[10, 14]], ["INSULT"], ((10, 14),)),
    ],
)
def test_labelled_spans_of_annotation_tools(tmp_path, spans, labels, expected):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "You are a fool.", "marks": spans}) + "\n")
    source = {"name": "d", "spans": "marks"} | ({"span_labels": labels} if labels else {})
    (document,) = read_documents(source, [path])
    assert document.spans == expected


@pytest.mark.parametrize(
    "spans, expected",
    [
        ([[14, 10]], "[14, 10] ends before it begins; write [start, end]"),
        ([[14, 10, "INSULT"]], "ends before it begins; write [start, end]"),
        ([[10, 99]], "lies outside the text of 15 characters"),
        ([True], "True is neither an offset nor a [start, end] pair"),
        ([{"from": 1, "to": 2}], "is neither an offset nor a [start, end] pair"),
        ([[1, 2, 3]], "is neither an offset nor a [start, end] pair"),
    ],
)
def test_spans_that_are_none(tmp_path, spans, expected):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "You are a fool.", "marks": spans}) + "\n")
    assert expected in refused(path, spans="marks")


USER, GOOD, BAD = (
    {"role": role, "content": content}
    for role, content in (("user", "How are you?"), ("assistant", "Fine."), ("assistant", "Go."))
)
CONVERSATION = PreferencePair("How are you?\n\n", "Fine.", "Go.")


@pytest.mark.parametrize(
    "record, expected",
    [
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, CONVERSATION),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, CONVERSATION),
        ({"chosen": [GOOD], "rejected": [BAD]}, PreferencePair("", "Fine.", "Go.")),
        (
            {"prompt": "How?", "chosen": " Fine.", "rejected": " Go."},
            PreferencePair("How?", " Fine.", " Go."),
        ),
    ],
)
def test_preference_pairs_as_data_sets_hold_them(tmp_path, record, expected):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert read_pairs({"format": "preference"}, [path], 1)[0] == [expected]


@pytest.mark.parametrize(
    "pair",
    [
        PreferencePair("", "The old man said hello.", "The old man said go away."),
        PreferencePair("The old", " man said hello.", " man said go away."),
        PreferencePair("The old man said\n\n", "Fine.", "Go."),
    ],
)
def test_a_test_prompt_with_which_both_sides_begin_is_noticed(pair):
    test = PromptRecord("The old man said", None, "toxic", None, None, None)
    with pytest.raises(InputError, match='"The old man said"'):
        require_pairs_disjoint([pair], [test], "dpo", "b")


@pytest.mark.parametrize(
    "record, prompts",
    [
        ({"prompt": {"text": "He", "toxicity": 0.1}}, ["He"]),
        ({"prompt": {"text": "He", "toxicity": None}}, []),
    ],
)
def test_a_benchmark_needs_prompts_alone(tmp_path, record, prompts):
    sound = {"prompt": {"text": "She", "toxicity": 0.7}}
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(record)}\n{json.dumps(sound)}\n")
    records, _ = read_prompts({"format": "realtoxicityprompts", "kind": "prompts"}, [path], 1)
    assert sorted(r.prompt for r in records) == sorted([*prompts, "She"])


# --- anything -------------------------------------------------------------------------------------

PIECES = [
    *('"', "'", "\t", ",", ";", "\n", "\r\n", "{", "}", "[", "]", ":", "\\", "\0", "\ufeff"),
    *(
        "text",
        "spans",
        "1",
        "-1",
        "1e999",
        "NaN",
        "null",
        "true",
        "\u2028",
        "é",
        "🙂",
        " ",
        "a" * 70,
    ),
    *('{"text": "a", "spans": [[0, 1]]}\n', '{"text": "b"}\n', "text\tspans\n", "text,spans\n"),
]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "txt", "parquet"])
@pytest.mark.parametrize("seed", range(60))
def test_any_content_is_documents_or_one_line(tmp_path, suffix, seed):
    chosen = random.Random(f"{suffix} {seed}")
    content = "".join(chosen.choices(PIECES, k=chosen.randrange(1, 60))).encode()
    if seed % 3 == 0:  # bytes that are of no encoding
        place = chosen.randrange(len(content))
        content = content[:place] + chosen.randbytes(3) + content[place:]
    if suffix == "parquet":
        content = b"PAR1" + content + b"PAR1"
    path = tmp_path / f"a.{suffix}"
    if seed % 5 == 0:
        content = chosen.choice(list(COMPRESSORS.values()))(content)
    path.write_bytes(content)
    for source in ({}, {"spans": "spans"}, {"quotes": True}):
        try:
            found = texts(path, **source)
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert found and all(text.strip() for text in found)
