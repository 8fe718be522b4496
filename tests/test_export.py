"""The export of a selection: rows against the mask and scores that it was made from."""

import shutil

import numpy as np
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from conftest import TINY, copy_run, require_whole, run_snakemake
from ifguide.data.corpus import open_corpus
from ifguide.data.document_places import first_tokens
from ifguide.files.artifacts import read_json, read_jsonl, text_sha256
from ifguide.influence.selection_files import open_mask

SELECTIONS = "results/tiny/influence/proxy/differential"


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    clone = copy_run(finished, tmp_path_factory.mktemp("export") / "clone")
    ran = run_snakemake(clone, "export", "--configfile", TINY, "--cores", "2")
    assert ran.returncode == 0, ran.stdout
    return clone


@pytest.fixture(scope="module")
def rows(exported):
    folder = exported / "results/tiny/export/top"
    return {
        name: load_dataset("parquet", data_files=str(folder / path), split="train")
        for name, path in (("spans", "spans.parquet"), ("labels_bpe", "labels/bpe.parquet"))
    }


def test_the_folder_loads_by_its_card_and_two_of_one_name_are_told_apart(exported, rows, tmp_path):
    folder = exported / "results/tiny/export/top"
    for name in ("spans", "labels_bpe"):
        loaded = load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded["sha256"] == rows[name]["sha256"]
    # Another experiment's selection of the same name, in the same cache.
    other = tmp_path / "other" / "top"
    shutil.copytree(exported / "results/tiny/export/wide", other)
    loaded = load_dataset(str(other), "spans", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["spans"] != rows["spans"]["spans"]


def test_every_document_has_its_row_and_its_hash(exported, rows):
    documents = read_jsonl(exported / "results/tiny/corpus/documents.jsonl")
    assert rows["spans"]["document"] == [record["document"] for record in documents]
    assert rows["spans"]["sha256"] == [text_sha256(record["text"]) for record in documents]
    assert rows["spans"]["characters"] == [len(record["text"]) for record in documents]
    assert set(rows["spans"]["source"]) == {"documents"}
    assert "text" not in rows["spans"].column_names


def test_spans_and_labels_say_what_the_mask_says(exported, rows):
    """The planted text is ASCII, so that every token is whole characters and nothing is lost."""
    corpus = open_corpus(exported / "results/tiny/corpus/bpe")
    mask, record = open_mask(exported / SELECTIONS / "top", corpus)
    first = first_tokens(corpus)
    scores = np.concatenate(
        [
            np.load(path).reshape(-1)
            for path in sorted((exported / SELECTIONS / "scores/loss").glob("shard-*.npy"))
        ]
    )
    for row, labels in zip(rows["spans"], rows["labels_bpe"], strict=True):
        start, stop = first[row["document"]], first[row["document"] + 1] - 1
        selected = mask.stretch(start, stop)
        assert labels["selected"] == selected.tolist()
        assert labels["input_ids"] == corpus.tokens.stretch(start, stop).tolist()
        assert sum(span["tokens"] for span in row["spans"]) == selected.sum()
        total = sum(span["score"] for span in row["spans"])
        assert total == pytest.approx(scores[start:stop][selected].sum(), rel=1e-4, abs=1e-4)
        assert all(0 <= s["start"] < s["end"] <= row["characters"] for s in row["spans"])
    written = read_json(exported / "results/tiny/export/top/spans.json")
    assert written["tokens"] == written["selected_tokens"] == record["selected_tokens"]
    assert written["mask_sha256"] == record["mask_sha256"]


def test_the_card_is_valid_and_tells_how_the_spans_were_selected(exported):
    folder = exported / "results/tiny/export/top"
    card = DatasetCard.load(folder / "README.md")
    assert [entry["config_name"] for entry in card.data.configs] == ["spans", "labels_bpe"]
    record = read_json(folder / "spans.json")
    assert f"| spans | {record['spans']:,} |" in card.text
    assert "quantile: 0.9" in card.text and "toxic: toxic" in card.text
    require_whole(folder)


def test_an_export_that_is_there_is_not_made_again(exported):
    ran = run_snakemake(exported, "export", "--configfile", TINY, "--cores", "1", "--dry-run")
    assert "Nothing to be done" in ran.stdout


def test_labels_of_other_texts_are_refused(exported, tmp_path):
    from argparse import Namespace

    import export_labels
    from ifguide.errors import InputError

    documents = exported / "results/tiny/corpus/documents.jsonl"
    other = tmp_path / "documents.jsonl"
    other.write_text(documents.read_text("utf-8").replace(". ", "; ", 1), encoding="utf-8")
    with pytest.raises(InputError, match="made from the text"):
        export_labels.main(
            Namespace(
                documents=other,
                spans=exported / "results/tiny/export/top/spans.parquet",
                tokenizer=exported / "results/tiny/corpus/bpe/tokenizer",
                output=tmp_path / "labels.parquet",
            )
        )
    assert not (tmp_path / "labels.parquet").exists()
