"""A corpus tokenized in parts is the corpus tokenized at once, and its parts belong together."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.data.corpus import TokenStream, write_blocks
from ifguide.data.token_parts import read_part, write_part
from ifguide.errors import InputError
from ifguide.files.artifacts import stream_jsonl_part, write_jsonl

MADE_FROM = {"documents": "a" * 64, "tokenizer": "b" * 64, "shard": "0 of 1"}


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=12),
    parts=st.integers(1, 9),
)
def test_every_record_is_in_one_part(tmp_path_factory, texts, parts):
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    write_jsonl(path, ({"text": text} for text in texts))
    found = [record for part in range(parts) for record in stream_jsonl_part(path, part, parts)]
    assert [record["text"] for record in found] == texts


def test_a_damaged_record_is_named_by_its_place(results):
    path = results / "records.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(InputError, match=r"records.jsonl, byte 14: damaged .*run again"):
        list(stream_jsonl_part(path, 0, 1))


STREAMS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 70_000), st.booleans()), min_size=1), st.booleans()
    ),
    min_size=1,
    max_size=8,
)


def streams_of(drawn) -> list[TokenStream]:
    return [
        TokenStream(
            document,
            np.array([token for token, _ in tokens], dtype=np.int64),
            np.array([toxic for _, toxic in tokens], dtype=bool) if known else None,
        )
        for document, (tokens, known) in enumerate(drawn)
    ]


def packed(folder: Path, streams) -> tuple[dict, dict[str, bytes]]:
    meta = write_blocks(
        streams,
        folder,
        block_size=4,
        shards=2,
        vocabulary_size=70_001,
        end_of_text=0,
        truth=True,
    )
    return meta, {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.npy")}


@settings(max_examples=25, deadline=None)
@given(drawn=STREAMS, cut=st.integers(0, 8), rows=st.integers(1, 9))
def test_parts_hold_the_tokens_that_were_written(tmp_path_factory, drawn, cut, rows):
    folder = tmp_path_factory.mktemp("parts")
    streams = streams_of(drawn)
    paths = [folder / "first.npy", folder / "second.npy"]
    tokens = [
        write_part(path, part, MADE_FROM)
        for path, part in zip(paths, (streams[:cut], streams[cut:]), strict=True)
    ]
    assert sum(tokens) == sum(len(stream.ids) for stream in streams)
    joined = [stream for path in paths for stream in read_part(path, MADE_FROM, rows)]
    assert packed(folder / "joined", joined) == packed(folder / "whole", streams)


@pytest.mark.parametrize("what", MADE_FROM)
def test_a_part_of_another_origin_is_refused_with_both(tmp_path, what):
    path = tmp_path / "part.npy"
    write_part(path, [TokenStream(0, np.arange(3), None)], {**MADE_FROM, what: "of another"})
    with pytest.raises(InputError, match=f"part.npy: made from {what} of another") as error:
        list(read_part(path, MADE_FROM))
    assert MADE_FROM[what][:12] in str(error.value)


def test_a_damaged_part_is_refused(results):
    path = results / "part.npy"
    write_part(path, [TokenStream(0, np.arange(300), None)], MADE_FROM)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="part.npy: .*delete it and run again"):
        list(read_part(path, MADE_FROM))
