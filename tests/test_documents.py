"""Documents: every format, what is skipped and counted, and what is an error of one line."""

import csv
import gzip
import io
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifguide.data.documents import (
    Document,
    ReadReport,
    is_held_out,
    parse_spans,
    read_documents,
    remove_control_characters,
    split_text,
)
from ifguide.data.records import MalformedRecord
from ifguide.data.text_lines import Line
from ifguide.errors import InputError
from ifguide.files.artifacts import write_jsonl
from ifguide.files.checksums import SUMS

TEXTS = ["one small text", 'two, "quoted"\nand broken', "drei Ärzte, 三"]


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_table(path, delimiter):
    with open(path, "w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table, delimiter=delimiter)
        writer.writerow(["id", "body"])
        writer.writerows(enumerate(TEXTS))


def read(path, report=None, **source):
    return list(read_documents({"name": "posts", **source}, [path], report))


def refused(path, **source):
    with pytest.raises(InputError) as error:
        read(path, **source)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.json", "a.csv", "a.csv.gz", "a.tsv", "a.parquet"],
)
def test_every_format_gives_the_same_documents(tmp_path, name):
    path = tmp_path / name
    plain = tmp_path / name.removesuffix(".gz")
    records = [{"id": number, "body": text} for number, text in enumerate(TEXTS)]
    match plain.suffix:
        case ".jsonl" | ".ndjson":
            write_lines(plain, *records)
        case ".json":
            plain.write_text(json.dumps(records, indent=1), encoding="utf-8")
        case ".csv":
            write_table(plain, ",")
        case ".tsv":
            write_table(plain, "\t")
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), plain)
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
    quotes = {"quotes": True} if name == "a.tsv" else {}
    assert read(path, text="body", **quotes) == [Document(text, None, "posts") for text in TEXTS]


def test_format_overrides_the_suffix(tmp_path):
    path = tmp_path / "export.data"
    path.write_text('{"text": "a"}\n')
    assert "suffix" in refused(path)
    assert [document.text for document in read(path, format="jsonl")] == ["a"]
    assert "'xml' is not one of" in refused(path, format="xml")


def test_files_are_read_in_sorted_order(tmp_path):
    paths = [write_lines(tmp_path / f"{name}.jsonl", {"text": name}) for name in "cab"]
    report = ReadReport()
    documents = read_documents({"name": "posts"}, paths, report)
    assert [document.text for document in documents] == ["a", "b", "c"]
    assert (report.documents, report.characters) == (3, 3)


def test_limit_stops_reading(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\nnot JSON\n')
    assert [document.text for document in read(path, limit=2)] == ["a", "b"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("line", [" = Cats = ", " Cats purr . ", " = = Diet = = ", " They eat . ", " = Dogs = "]),
        (
            "paragraph",
            [" = Cats = ", " Cats purr . \n = = Diet = = ", " They eat . ", " = Dogs = "],
        ),
        (
            "heading",
            [
                " = Cats = \n \n Cats purr . \n = = Diet = = \n \n They eat . \n ",
                " = Dogs = \n ",
            ],
        ),
        (
            "file",
            [" = Cats = \n \n Cats purr . \n = = Diet = = \n \n They eat . \n \n = Dogs = \n "],
        ),
    ],
)
def test_plain_text_rules(tmp_path, rule, expected):
    path = tmp_path / "a.txt"
    path.write_text(
        " \n = Cats = \n \n Cats purr . \n = = Diet = = \n \n They eat . \n \n = Dogs = \n \n"
    )
    assert [document.text for document in read(path, documents=rule)] == expected


def test_a_formula_inside_a_paragraph_is_no_title(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(" \n = Sums = \n \n We know that \n = 1 + 1 = \n and so on . \n")
    assert len(read(path, documents="heading")) == 1


def test_unknown_document_rule_names_the_config_key(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    assert "corpus.sources.posts.documents: 'page' is not one of" in refused(path, documents="page")


def test_text_lines_end_at_line_feeds_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028still one\x85still\r\ntwo\r\n\r\n".encode())
    report = ReadReport()
    texts = [document.text for document in read(path, report)]
    assert texts == ["one\u2028still one\x85still", "two"]
    assert report.removed_control_characters == 0


# Spans


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[]", ()),
        ([], ()),
        (None, None),
        ("", None),
        ("[4, 5, 6, 9]", ((4, 7), (9, 10))),
        ([6, 5, 4, 4], ((4, 7),)),
        ([[4, 7], [0, 2]], ((0, 2), (4, 7))),
        ([[0, 3], [2, 5], [5, 6], [8, 8]], ((0, 6),)),
        ("[(0, 10)]", ((0, 10),)),
    ],
)
def test_spans_become_sorted_disjoint_ranges(value, expected):
    assert parse_spans(value, 10, "a.csv, line 2") == expected


@pytest.mark.parametrize(
    "value",
    [[10], [-1], [[3, 11]], [[5, 3]], [[1, 2, 3]], ["1"], [1.5], [True], 7, "one", "[1", {"a": 1}],
)
def test_bad_spans_name_their_place(value):
    with pytest.raises(InputError, match=r"^a\.csv, line 2: "):
        parse_spans(value, 10, "a.csv, line 2")


@given(st.text(max_size=40), st.sets(st.integers(0, 39)))
def test_offsets_survive_as_ranges(text, offsets):
    offsets = {offset for offset in offsets if offset < len(text)}
    ranges = parse_spans(json.dumps(sorted(offsets)), len(text), "")
    assert {k for start, end in ranges for k in range(start, end)} == offsets
    assert all(before[1] < after[0] for before, after in zip(ranges, ranges[1:], strict=False))


def test_spans_outside_the_text_name_file_and_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('spans,text\n[0],"two\nlines"\n[9],short\n[8],short\n')
    message = refused(path, spans="spans")
    assert message.startswith(f"{path}, line 4, field 'spans': 9 lies outside")
    assert message.endswith("(2 of the first 3 records are malformed)")


@pytest.mark.parametrize("value", ["((0, 2), (4, 7))", "[(0, 2), (4, 7),]", "([0, 2], [4, 7],)"])
def test_spans_as_python_writes_them(value):
    assert parse_spans(value, 10, "") == ((0, 2), (4, 7))
    assert parse_spans("(3, 4, 5)", 10, "") == ((3, 6),)
    with pytest.raises(MalformedRecord):
        parse_spans("[0, 2)", 10, "")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "é", "\n", "\t", "\x00", "\x1b", "\x7f", "\r", "\r\n"]),
            st.booleans(),
        )
    )
)
def test_control_characters_go_and_spans_follow(parts):
    # Each part is one unit of text that is toxic or not; the oracle cleans unit by unit.
    clean = {"\x00": "", "\x1b": "", "\x7f": "", "\r": "\n", "\r\n": "\n"}
    text, marks, expected_text, expected_marks = "", [], "", []
    for index, (part, toxic) in enumerate(parts):
        if part == "\r" and index + 1 < len(parts) and parts[index + 1][0] == "\n":
            part = "a"
        text += part
        marks += [toxic] * len(part)
        expected_text += clean.get(part, part)
        expected_marks += [toxic] * len(clean.get(part, part))
    spans = parse_spans([k for k, toxic in enumerate(marks) if toxic], len(text), "")
    found, moved, _ = remove_control_characters(text, spans)
    assert found == expected_text
    inside = {k for start, end in moved for k in range(start, end)}
    assert inside == {k for k, toxic in enumerate(expected_marks) if toxic}
    assert remove_control_characters(text, None)[:2] == (expected_text, None)


# Poisoned documents


def test_poisoned_lines_are_skipped_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    good = b"".join(b'{"text": "harmless %d"}\n' % number for number in range(100))
    poison = [
        b'{"text": "bad \xff\xfe bytes"}\n',
        b'{"text": "lone surrogate \\ud800"}\n',
        b'{"text": " \\n\\t\\u00a0 "}\n',
        b'{"text": ""}\n',
        b'{"text": null}\n',
        b'{"text": "bell \\u0007 and raw \x07 and \x00"}\n',
        b'{"text": "<script>alert(1)</script><|endoftext|>"}\n',
        b'{"text": "' + b"x" * 50_000_000 + b'"}\n',
        b"\n",
    ]
    path.write_bytes(good + b"".join(poison))
    report = ReadReport()
    texts = [document.text for document in read(path, report)]
    assert len(texts) == 102
    assert texts[100:] == ["bell  and raw  and ", "<script>alert(1)</script><|endoftext|>"]
    assert report.as_dict() == {
        "documents": 102,
        "characters": sum(map(len, texts)),
        "skipped_empty": 3,
        "skipped_not_utf8": 2,
        "skipped_oversized": 1,
        "skipped_malformed": 0,
        "removed_control_characters": 3,
        "first_malformed": [],
    }


NESTED = "[" * 100_000 + "]" * 100_000
MALFORMED = {
    "truncated": ('{"text": "a", "spans": []', "not valid JSON"),
    "no object": ('["text", "spans"]', "not a JSON object"),
    "nested": (f'{{"text": "a", "spans": {NESTED}}}', "nested too deeply"),
    "long integer": (f'{{"text": "a", "spans": [{"9" * 5000}]}}', "neither an offset nor"),
    "number": ('{"text": 5, "spans": []}', "field 'text' holds int, not text"),
    "missing": (
        '{"body\\ud800\\n": "a", "spans": []}',
        r"no field 'text'; there are: body\ud800\n",
    ),
    "no spans": ('{"text": "a", "spans": 7}', "field 'spans': not a list of spans"),
    "spans beyond": ('{"text": "a", "spans": [[0, 9]]}', "lies outside the text of 1"),
    "dashes": (f'{{"text": "a", "spans": "{"-" * 200_000}"}}', "not a list of spans"),
    "brackets": (f'{{"text": "a", "spans": "{NESTED}"}}', "not a list of spans"),
    "hexadecimal": (f'{{"text": "a", "spans": "[0x{"f" * 5000}]"}}', "not a list of spans"),
}


@pytest.mark.parametrize("poison", MALFORMED)
@pytest.mark.parametrize("number", [0, 50])
def test_one_malformed_record_is_skipped_counted_and_named(tmp_path, caplog, poison, number):
    line, fault = MALFORMED[poison]
    path = tmp_path / "a.jsonl"
    lines = ['{"text": "fine", "spans": [0]}'] * 100
    path.write_text("\n".join([*lines[:number], line, *lines[number:]]), encoding="utf-8")
    report = ReadReport()
    assert len(read(path, report, spans="spans")) == 100
    assert report.skipped_malformed == 1
    (named,) = report.first_malformed
    assert named.startswith(f"{path}, line {number + 1}") and fault in named
    assert len(named) < 600 and named.isprintable()
    assert f"skipped: {named}" in caplog.text


@pytest.mark.parametrize("poison", MALFORMED)
def test_the_only_record_and_two_of_a_hundred_are_refused(tmp_path, poison):
    line, fault = MALFORMED[poison]
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    message = refused(path, spans="spans")
    assert message.startswith(f"{path}, line 1") and fault in message
    lines = ['{"text": "fine", "spans": []}'] * 98
    path.write_text("\n".join([*lines, line, line]))
    message = refused(path, spans="spans")
    assert message.startswith(f"{path}, line 99") and fault in message
    assert message.endswith("(2 of the first 100 records are malformed)")
    path.write_text("\n".join([*lines * 3, line, line]))
    assert len(read(path, spans="spans")) == 294


def test_one_malformed_record_in_each_of_several_files(tmp_path):
    for number in range(8):
        path = tmp_path / f"{number}.jsonl"
        path.write_text('{"text": "a"}\n' * (number + 1) + '{"text": 5}\n')
    report = ReadReport()
    assert len(read(tmp_path / "*.jsonl", report)) == 36
    assert report.skipped_malformed == 8
    assert [named.split(":")[0] for named in report.first_malformed] == [
        f"{tmp_path}/{number}.jsonl, line {number + 2}" for number in range(5)
    ]


def test_a_wrong_field_fails_after_a_hundred_records(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n' * 30_000)
    message = refused(path, text="body")
    assert message == (
        f"{path}, line 1: no field 'body'; there are: text "
        "(100 of the first 100 records are malformed)"
    )


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        ("3", "not a JSON object"),
        (f'{{"text": {"9" * 5000}}}', "holds float, not text"),
    ],
)
def test_one_malformed_item_of_a_json_list_is_skipped(tmp_path, item, fault):
    path = tmp_path / "a.json"
    good = '{"text": "one, \\"two\\" ]"}'
    path.write_text(f"[{good},\n{item}, {good}]")
    report = ReadReport()
    assert [document.text for document in read(path, report)] == ['one, "two" ]'] * 2
    assert report.skipped_malformed == 1
    assert report.first_malformed[0].startswith(f"{path}, record 2: ")
    assert fault in report.first_malformed[0]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('"a "quoted" word",0', "malformed row"),
        ('"never closed,0', "malformed row"),
        ("a lone\rcarriage return,0", "malformed row"),
        ("one field", "1 fields where the header has 2"),
    ],
)
@pytest.mark.parametrize("number", [0, 3, 6])
def test_one_malformed_row_takes_no_other_with_it(tmp_path, row, fault, number):
    rows = ["one,1", '"two\nlines",2', "", '"thr""ee",3', "four,4", '"fi,ve",5']
    path = tmp_path / "a.csv"
    content = "\n".join(["text,id", *rows[:number], row, *rows[number:]]) + "\n"
    path.write_bytes(content.encode())
    report = ReadReport()
    texts = [document.text for document in read(path, report)]
    assert texts == ["one", "two\nlines", 'thr"ee', "four", "fi,ve"]
    assert report.skipped_malformed == 1
    line = 2 + "\n".join(rows[:number]).count("\n") + (number > 0)
    assert report.first_malformed[0].startswith(f"{path}, line {line}: {fault}")


def test_a_row_beyond_the_limit_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr("ifguide.data.text_lines.MAXIMUM_LINE_BYTES", 1000)
    path = tmp_path / "a.csv"
    path.write_text("text,id\none,1\n" + "x" * 5000 + ",2\nthree,3\n")
    report = ReadReport()
    assert [document.text for document in read(path, report)] == ["one", "three"]
    assert (report.skipped_oversized, report.skipped_malformed) == (1, 0)


def test_a_malformed_header_is_an_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('"te"xt,id\n' + "fine,1\n" * 200)
    assert refused(path).startswith(f"{path}, line 1: malformed row")


def test_one_string_of_a_parquet_file_is_not_utf8(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [b"fine %d" % number for number in range(2000)]
    texts[1500] = b"caf\xe9"
    column = pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path)
    report = ReadReport()
    assert len(read(path, report)) == 1999
    assert report.skipped_malformed == 1
    assert report.first_malformed[0].startswith(f"{path}, row 1501: a value that cannot be read")


@pytest.mark.parametrize("rule", ["paragraph", "heading"])
def test_a_document_of_many_bad_lines_is_one_bad_document(tmp_path, rule):
    path = tmp_path / "a.txt"
    good = b"\n = Cats = \n\nCats purr .\n"
    path.write_bytes(good * 10 + b"\n = Dogs = \n\n" + b"caf\xe9\n" * 50 + good * 10)
    report = ReadReport()
    read(path, report, documents=rule)
    assert report.skipped_not_utf8 == 1
    path.write_bytes((good + b"caf\xe9\n") * 20)
    assert "documents cannot be decoded" in refused(path, documents=rule)


@pytest.mark.parametrize(
    "poison",
    [
        b"\0" * 2000,
        b"\xff\xfe" + b"\0" * 2000,
        b"\xff\xfe and more",
        b"\xfe\xff and more",
        "in two bytes each".encode("utf-16-le") * 100,
        "in two bytes each".encode("utf-16") * 100,
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.json"])
def test_a_poisoned_first_record_is_no_other_encoding(tmp_path, name, poison):
    path = tmp_path / name
    texts = [b"bad " + poison if name == "a.json" else poison, *[b"fine"] * 20]
    if name == "a.jsonl":
        path.write_bytes(b"".join(b'{"text": "%s"}\n' % text for text in texts))
    elif name == "a.json":
        path.write_bytes(b"[" + b",\n".join(b'{"text": "%s"}' % text for text in texts) + b"]")
    else:
        path.write_bytes(b"\n".join(texts))
    report = ReadReport()
    documents = [document.text for document in read(path, report)]
    assert documents[-20:] == ["fine"] * 20
    is_text = len(documents) == 21
    assert is_text + report.skipped_not_utf8 + report.skipped_empty == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-be"])
@pytest.mark.parametrize("text", ["A plain line\n", "Ein schönes Wort, 三毛\r\n"])
@pytest.mark.parametrize("repeats", [1, 20_000])
def test_wide_encodings_are_refused(tmp_path, encoding, text, repeats):
    path = tmp_path / "a.txt"
    path.write_bytes((text * repeats).encode(encoding))
    assert "it looks like UTF-16" in refused(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize(
    "text", ["Это просто русский текст\n", "上海是一座城市。《上》\n", "ชาช้าง\n"]
)
def test_wide_encodings_of_any_script_are_refused(tmp_path, encoding, text):
    path = tmp_path / "a.txt"
    path.write_bytes((text * 500).encode(encoding))
    assert "it looks like UTF-16" in refused(path)


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_one_bad_line_in_a_table_or_a_text_is_skipped(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"text\n" + b"harmless\n" * 5 + b"caf\xe9\n" + b"y" * 11_000_000 + b"\n")
    report = ReadReport()
    header = [] if name == "a.csv" else ["text"]
    assert [document.text for document in read(path, report)] == header + ["harmless"] * 5
    assert (report.skipped_not_utf8, report.skipped_oversized) == (1, 1)


def test_a_line_beyond_the_limit_is_never_held(tmp_path):
    path = tmp_path / "a.txt"
    with open(path, "wb") as file:
        file.write(b"before\n")
        for _ in range(200):
            file.write(b"z" * 2**20)
        file.write(b"\nafter\n")
    report = ReadReport()
    tracemalloc.start()
    try:
        texts = [document.text for document in read(path, report)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert texts == ["before", "after"]
    assert report.skipped_oversized == 1
    assert peak < 180 * 2**20


def test_many_documents_are_streamed(tmp_path):
    path = tmp_path / "a.jsonl"
    with open(path, "w") as file:
        for number in range(3000):
            file.write(json.dumps({"text": f"{number} " * 2000}) + "\n")
    tracemalloc.start()
    try:
        characters = sum(len(d.text) for d in read_documents({"name": "posts"}, [path]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert characters > 25_000_000
    assert peak < 2_000_000


@pytest.mark.parametrize("rule", ["file", "paragraph", "heading"])
def test_an_oversized_text_is_not_accumulated(rule):
    lines = [Line("word " * 10, number) for number in range(1, 100)]
    assert list(split_text(lines, rule, maximum_characters=100)) == [None]


# Files that are errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file holds no record"),
        (b'{"text": "  "}\n', "1 empty"),
        (
            b'{"text": "a"}\n{"text": "b"\n{"text": "c"\n',
            "line 2: not valid JSON (Expecting ',' delimiter)",
        ),
        (b'{"text": "a"}\n["b"]\n["c"]\n', "line 2: not a JSON object"),
        (b'{"body": "a", "id": 1}\n', "line 1: no field 'text'; there are: body, id"),
        (b'{"text": 5}\n', "line 1: field 'text' holds int, not text"),
        (b'{"text": ' + b"[" * 100_000 + b"\n", "line 1: JSON that cannot be read"),
        ('{"text": "a"}\n'.encode("utf-16"), "it looks like UTF-16"),
        ('{"text": "a"}\n'.encode("utf-16-le"), "it looks like UTF-16"),
        ('{"text": "naïve café"}\n'.encode("latin-1") * 3, "3 of its first 3 lines"),
    ],
)
def test_bad_jsonl(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    found = refused(path)
    assert found.startswith(str(path)) and message in found


def test_two_bad_lines_of_a_hundred_are_another_encoding(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\n" * 198 + b"caf\xe9\n" * 2)
    assert len(read(path)) == 198
    path.write_bytes(b"fine\n" * 98 + b"caf\xe9\n" * 2)
    assert "2 of its first 100 lines" in refused(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"text": "a"},\n {"text": }]', "line 2: not valid JSON"),
        ("a.json", '{"text": "a"}\n{"text": "b"}\n', "JSON lines need `format: jsonl`"),
        ("a.json", '{"text": "a"}', "holds no JSON list"),
        ("a.json", '[{"text": "a"}, 3, 4]', "record 2: not a JSON object"),
        ("a.json", f"[{NESTED}]", "JSON that cannot be read"),
        ("a.csv", "text\n", "the file holds no record"),
        ("a.csv", "text,id\nhello\n", "line 2: 1 fields where the header has 2"),
        ("a.csv", 'text\n"open\n', "line 2: malformed row"),
        ("a.csv", "body,id\nhello,1\n", "line 2: no field 'text'; there are: body, id"),
        ("a.parquet", "PAR1 not really", "not readable as Parquet"),
        ("a.jsonl.gz", "not compressed", "damaged gzip file"),
    ],
)
def test_bad_files_of_other_formats(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    found = refused(path)
    assert found.startswith(str(path)) and message in found


def test_truncated_gzip_is_an_error(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"some text\n" * 1000)[:-20])
    assert "damaged gzip file" in refused(path)


def test_a_file_of_unknown_format_is_refused_before_the_first_is_read(tmp_path):
    paths = [write_lines(tmp_path / "a.jsonl", {"text": "a"}), tmp_path / "b.docx"]
    paths[1].write_text("b")
    with pytest.raises(InputError, match="b.docx: its suffix"):
        next(read_documents({"name": "posts"}, paths))


def test_missing_files(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.jsonl")
    assert "not a file" in refused(tmp_path)
    with pytest.raises(InputError, match="no file matches"):
        list(read_documents({"name": "posts"}, []))


def test_a_pattern_stands_for_its_files(tmp_path):
    for name in "ba":
        write_lines(tmp_path / f"{name}.jsonl", {"text": name})
    assert [document.text for document in read(tmp_path / "*.jsonl")] == ["a", "b"]
    with pytest.raises(InputError, match=r"no file matches .*\.csv"):
        read(tmp_path / "*.csv")


def test_the_checksums_of_a_folder_are_no_document(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    assert (tmp_path / SUMS).exists()
    assert [document.text for document in read(tmp_path / "*")] == ["a"]
    # As the workflow passes on what it has found.
    found = read_documents({"name": "posts"}, list(tmp_path.iterdir()))
    assert [document.text for document in found] == ["a"]


# Held-out documents


def test_held_out_is_a_share_that_depends_on_the_text_alone():
    documents = [Document(f"text {number}", None, "posts") for number in range(4000)]
    chosen = {d.text for d in documents if is_held_out(d.text, 0.05, seed=3)}
    assert 150 < len(chosen) < 250
    assert chosen == {d.text for d in reversed(documents) if is_held_out(d.text, 0.05, 3)}
    assert chosen != {d.text for d in documents if is_held_out(d.text, 0.05, 4)}
    # A larger share keeps what a smaller one held out.
    assert all(is_held_out(text, 0.2, 3) for text in chosen)
    assert not any(is_held_out(d.text, 0.0, 3) for d in documents)
    assert all(is_held_out(d.text, 1.0, 3) for d in documents)


# Real files


def test_annotated_posts(real_text):
    source = {"name": "posts", "text": "text", "spans": "spans"}
    path = real_text / "toxic_spans" / "tsd_train.csv"
    report = ReadReport()
    documents = list(read_documents(source, [path], report))
    assert report.documents == len(documents) == 7939
    assert sum(document.spans == () for document in documents) == 485
    # The second post carries one span; the file itself is the oracle for all of them.
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    for row, document in zip(rows, documents, strict=True):
        offsets = {k for start, end in document.spans for k in range(start, end)}
        if document.text == row["text"]:
            assert offsets == set(json.loads(row["spans"]))


def test_wikitext_articles(real_text):
    source = {"name": "wikitext", "documents": "heading"}
    documents = list(read_documents(source, sorted((real_text / "wikitext2").glob("*.txt"))))
    # Both parts of WikiText-2 hold 60 articles.
    assert len(documents) == 120
    assert all(document.text.startswith(" = ") for document in documents)


def test_talk_posts_and_sentences(real_text):
    posts = read_documents({"name": "talk"}, sorted(real_text.glob("wikipedia_talk_*.csv")))
    assert sum(1 for _ in posts) == 20_000
    source = {"name": "pairs", "text": "toxic", "quotes": True}
    sentences = read_documents(source, [real_text / "paradetox.tsv"])
    assert sum(1 for _ in sentences) == 11_927
