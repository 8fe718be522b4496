"""What methods learn from a model: labelled texts, and the model's own continuations."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import environment
from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.corpus import end_of_text_id, train_tokenizer
from ifguide.data.filtering import read_words
from ifguide.data.labelled_texts import balanced, read_texts, require_texts_disjoint
from ifguide.data.own_generations import OwnGeneration, read_own_generations
from ifguide.data.prompts import LabelledText
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.word_judge import WordJudge
from ifguide.files.artifacts import write_jsonl
from ifguide.models.loading import save_model
from small_models import small_model

REPOSITORY = Path(__file__).resolve().parent.parent

LABELLED = [
    LabelledText(f"text {n}", float(n % 3 == 0), "labelled", f"text {n}") for n in range(60)
]


def test_as_many_texts_of_each_kind_whatever_their_order():
    kept = balanced(LABELLED, 12, seed=3)
    assert sum(text.label >= 0.5 for text in kept) == 12
    assert len(kept) == 24
    assert set(balanced(LABELLED[::-1], 12, seed=3)) == set(kept)
    assert [text for text in LABELLED if text in kept] == kept
    assert balanced(LABELLED, None, seed=3) == LABELLED


def test_texts_of_one_kind_alone_are_refused(tmp_path):
    path = tmp_path / "texts.jsonl"
    write_jsonl(path, [{"text": "a", "label": 0.9}])
    with pytest.raises(InputError, match="no text is nontoxic"):
        read_texts(path)


def test_a_test_prompt_among_the_texts_is_refused():
    prompts = [PromptRecord("one of them", None, "toxic", None, None, None)]
    other = LabelledText("another", 1.0, "labelled", "another")
    require_texts_disjoint([other], prompts, "texts.labelled", "toxigen")
    for shared in (other._replace(text=" one of them "), other._replace(record="one of them")):
        with pytest.raises(InputError, match=r"^texts\.labelled shares 1 records with"):
            require_texts_disjoint([other, shared], prompts, "texts.labelled", "toxigen")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    tokenizer = train_tokenizer(PROMPTS, 300)
    folder = tmp_path_factory.mktemp("own") / "model"
    save_model(small_model("gpt_neox", torch.float32, vocabulary=len(tokenizer)), tokenizer, folder)
    return folder


def sample(model: Path, folder: Path, asked: list[str], **changes) -> list[list[OwnGeneration]]:
    queries, words = folder / "queries.jsonl", folder / "words.txt"
    write_jsonl(queries, [{"prompt": prompt} for prompt in asked])
    words.write_text("a\n", encoding="utf-8")
    settings = {
        "sampling": {"continuations": 4, "top_p": 0.9, "temperature": 1.0, "max_new_tokens": 6},
        "prompts": 5,
        "judges": {"list": {"words": [str(words)]}, "planted": {"planted": "explicit"}},
        "seed": 1,
        **changes,
    }
    command = [sys.executable, "scripts/sample_own_generations.py"]
    command += ["--settings", json.dumps(settings), "--model", model, "--output", folder / "own"]
    command += ["--queries", queries] if asked else []
    subprocess.run(command, cwd=REPOSITORY, env=environment(), check=True, capture_output=True)
    return read_own_generations(folder / "own")


PROMPTS = ["ab cd", "the baker", "a well of", "old towns", "river and inn"]


def test_own_continuations_depend_on_prompts_and_not_on_their_order(model, tmp_path):
    own = sample(model, tmp_path, PROMPTS)
    assert [len(rows) for rows in own] == [4] * 5
    again = sample(model, tmp_path, PROMPTS[::-1])
    assert {tuple(rows[0].prompt): rows for rows in again} == {
        tuple(rows[0].prompt): rows for rows in own
    }
    fewer = sample(model, tmp_path, PROMPTS, prompts=2)
    assert fewer == [rows for rows in own if rows in fewer]
    tokenizer = load_tokenizer(model)
    for rows in own:
        for row in rows:
            assert tokenizer.decode(row.continuation) == row.text
            assert end_of_text_id(tokenizer) not in row.continuation


def test_without_prompts_each_beginning_is_another(model, tmp_path):
    own = sample(model, tmp_path, [])
    end_of_text = end_of_text_id(load_tokenizer(model))
    assert [rows[0].prompt for rows in own] == [[end_of_text]] * 5
    assert len({tuple(row.text for row in rows) for rows in own}) == 5


def test_the_worst_of_several_judges_counts(model, tmp_path):
    worst = sample(model, tmp_path, PROMPTS)
    words = tmp_path / "words.txt"
    found = WordJudge(read_words([words]))
    for rows in worst:
        for row in rows:
            prompt = load_tokenizer(model).decode(row.prompt)
            assert row.toxicity >= found.scores([prompt], [row.text])["toxicity"][0]
    mild = sample(model, tmp_path, PROMPTS, judges={"planted": {"planted": "explicit"}})
    assert [[row.text for row in rows] for rows in mild] == [
        [row.text for row in rows] for rows in worst
    ]
