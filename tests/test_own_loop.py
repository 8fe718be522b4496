"""docs/how_to/train_in_your_own_loop.md as a reader takes it: an export, a tokenizer, a script.

The planted corpus is known, so that the selection may be what a perfect one would be: its toxic
tokens. What the scripts import of this project is `ifguide.training`.
"""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

import export_spans
from conftest import REPOSITORY, environment
from documentation import fenced_blocks
from ifguide.data.corpus import (
    end_of_text_id,
    open_corpus,
    token_streams,
    tokenizer_sha256,
    train_tokenizer,
    write_blocks,
)
from ifguide.data.documents import Document
from ifguide.data.planted import PlantedSettings, generate
from ifguide.files.artifacts import (
    canonical_json,
    text_sha256,
    write_array,
    write_json,
    write_jsonl,
)
from ifguide.files.checksums import file_sha256
from ifguide.influence.selection_files import write_mask
from ifguide.training import SuppressionMixin, mark_labels, suppression_loss, unmark_labels

PAGE = REPOSITORY / "docs/how_to/train_in_your_own_loop.md"
BLOCKS = {block.mark: block.text for block in fenced_blocks(PAGE)}
# What a script does when it has trained: continuations of prompts, and what it has imported.
TAIL = """
import json, sys, torch
torch.manual_seed(0)
model.eval().to("cpu")
tokenizer.padding_side = "left"
prompts = json.load(open("prompts.json"))
inputs = tokenizer(prompts, return_tensors="pt", padding=True)
made = model.generate(**inputs, do_sample=True, top_k=0, num_return_sequences=8, max_new_tokens=16,
                      pad_token_id=tokenizer.pad_token_id)
texts = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
own = sorted({name.split(".")[1] for name in sys.modules if name.startswith("ifguide.")})
json.dump({"texts": texts, "rooms": own}, open(sys.argv[1], "w"))
"""
SELECTION_SETTINGS = {
    **{"documents": "document", "window": 0, "limit": 1.0, "quantile": 0.5, "rank_by": "flagged"},
    **{"pooling": 0.0, "pool_over": "token", "token_weight": "none", "token_weight_power": 1.0},
    "unmoved": False,
}


def write_known_selection(folder: Path, documents: list[dict]) -> Path:
    """A corpus, and the selection that its truth is, with scores of 1 and -1."""
    texts = folder / "documents.jsonl"
    write_jsonl(texts, ({"document": n, "source": "own", **d} for n, d in enumerate(documents)))
    tokenizer = train_tokenizer((document["text"] for document in documents), 600)
    tokenizer.save_pretrained(folder / "corpus/tokenizer")
    meta = write_blocks(
        token_streams(
            (
                (number, Document(document["text"], tuple(map(tuple, document["spans"])), "own"))
                for number, document in enumerate(documents)
            ),
            tokenizer,
        ),
        folder / "corpus",
        block_size=64,
        shards=1,
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=True,
    )
    meta["documents_sha256"] = file_sha256(texts)
    meta["tokenizer_sha256"] = tokenizer_sha256(folder / "corpus/tokenizer")
    write_json(folder / "corpus/meta.json", meta)
    corpus = open_corpus(folder / "corpus")
    (truth,) = corpus.truth.shards
    scores = np.where(truth, 1, -1).astype(np.float32)
    write_array(folder / "scores/shard-00000.npy", scores)
    made_from = {"weights_sha256": "w", "direction_sha256": "d"}
    record = {"tokens_sha256": corpus.content_sha256, "settings": {}, **made_from}
    write_json(folder / "scores/shard-00000.json", record)
    write_json(
        folder / "selection/selection.json",
        {
            "tokens_sha256": corpus.content_sha256,
            "scores_made_from": {**made_from, "settings_sha256": text_sha256(canonical_json({}))},
            "settings": SELECTION_SETTINGS,
            "threshold": 0.0,
            "selected_tokens": int(truth.sum()),
            "selected_share": float(truth.mean()),
            **write_mask(folder / "selection", [np.array(truth)]),
        },
    )
    return folder


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    """The folder of a reader: an export, own texts, and a model with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("reader")
    planted = generate(
        PlantedSettings.from_config({"documents": 1600, "toxic_share": 0.5, "prompts": 24}), 1
    )
    made = write_known_selection(folder / "made", planted["documents"])
    export_spans.main(
        Namespace(
            settings={
                **{"name": "top", "entry": SELECTION_SETTINGS, "direction": {}},
                **{"experiment": "planted", "tokenizers": []},
            },
            corpus=made / "corpus",
            documents=made / "documents.jsonl",
            selection=made / "selection",
            scores=[made / "scores/shard-00000.npy"],
            output=folder / "results/planted/export/top",
        )
    )
    # In another order, and with fields of their own.
    with open(folder / "texts.jsonl", "w", encoding="utf-8") as lines:
        for document in reversed(planted["documents"]):
            lines.write(json.dumps({"text": document["text"], "where": "here"}) + "\n")
    prompts = [record["prompt"]["text"] for record in planted["prompts"]]
    (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    tokenizer = train_tokenizer((document["text"] for document in planted["documents"]), 900)
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            **{"vocab_size": 900, "hidden_size": 64, "intermediate_size": 128},
            **{"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 256},
            **{"bos_token_id": 0, "eos_token_id": 0},
        )
    )
    model.save_pretrained(folder / "my-model")
    tokenizer.save_pretrained(folder / "my-model")
    return folder


def spoken(reader: Path, name: str, script: str) -> dict:
    """What the model of a script says, trained in a process of its own."""
    path = reader / f"{name}.py"
    path.write_text(script + TAIL, encoding="utf-8")
    variables = {"PYTHONPATH": str(REPOSITORY / "scripts"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, path.name, f"{name}.json"],
        cwd=reader,
        env=environment() | variables | {"HF_HUB_OFFLINE": "1", "TORCH_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads((reader / f"{name}.json").read_text("utf-8"))


def toxic_share(texts: list[str]) -> float:
    from ifguide.evaluation.planted_judge import PlantedJudge

    found = np.zeros(len(texts), bool)
    for kind in ("explicit", "implicit"):
        judged = PlantedJudge(kind).scores([""] * len(texts), texts)
        found |= np.array(judged["toxicity"]) > 0
    return float(found.mean())


@pytest.fixture(scope="module")
def toxic_as_it_is(reader) -> float:
    """The same script without the spans."""
    prepared = BLOCKS["prepare"].replace("found = spans.get(", "found = {}.get(")
    assert prepared != BLOCKS["prepare"]
    return toxic_share(spoken(reader, "plain", prepared + BLOCKS["loop"])["texts"])


@pytest.mark.parametrize(
    "way",
    ["loop", *(pytest.param(way, marks=pytest.mark.slow) for way in ("trainer", "sft"))],
)
def test_toxicity_falls_in_a_training_of_ones_own(reader, toxic_as_it_is, way):
    made = spoken(reader, way, BLOCKS["prepare"] + BLOCKS[way])
    assert toxic_as_it_is > 0.15
    assert toxic_share(made["texts"]) < toxic_as_it_is / 4
    # Nothing of the workflow, of methods or of the plan.
    rooms = {"errors", "seeds", "training", "files", "data", "models", "influence"}
    assert set(made["rooms"]) <= rooms


@pytest.mark.parametrize("way", ["loop", "trainer", "sft"])
def test_each_way_is_about_ten_lines(way):
    lines = [line for line in BLOCKS[way].splitlines() if line.strip()]
    assert len(lines) <= 12


# --- labels ---------------------------------------------------------------------------------------


def test_marked_labels_say_both_and_ignored_ones_stay():
    labels, selected = [5, 0, -100, 7], [True, True, True, False]
    marked = mark_labels(labels, selected)
    assert marked.tolist() == [-106, -101, -100, 7]
    ids, found = unmark_labels(torch.from_numpy(marked))
    assert ids.tolist() == labels and found.tolist() == [True, True, False, False]


# --- the mixin ------------------------------------------------------------------------------------


class Suppressing(SuppressionMixin, Trainer):
    pass


class SuppressingSFT(SuppressionMixin, SFTTrainer):
    pass


@pytest.fixture
def batch(reader):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 900, (4, 12), generator=generator)
    selected = torch.rand(ids.shape, generator=generator) < 0.3
    labels = torch.from_numpy(mark_labels(ids.numpy(), selected.numpy()))
    labels[1, 8:] = -100
    return {"input_ids": ids, "labels": labels}


def trainer_of(kind, reader, tmp_path, **settings):
    data = Dataset.from_dict({"input_ids": [[1, 2, 3]], "labels": [[1, 2, 3]]})
    common = {"report_to": "none", "use_cpu": True}
    arguments = SFTConfig if kind is SuppressingSFT else TrainingArguments
    model = GPTNeoXForCausalLM.from_pretrained(reader / "my-model")
    if kind is SuppressingSFT:
        from transformers import AutoTokenizer

        settings["processing_class"] = AutoTokenizer.from_pretrained(reader / "my-model")
        common["bf16"] = False
    return kind(model, arguments(str(tmp_path), **common), train_dataset=data, **settings)


@pytest.mark.parametrize("kind", [Suppressing, SuppressingSFT])
@pytest.mark.parametrize("objective, strength", [("unlikelihood", 0.7), ("published", 0.1)])
def test_the_mixin_takes_the_loss_of_the_objective(
    reader, tmp_path, batch, kind, objective, strength
):
    trainer = trainer_of(kind, reader, tmp_path, objective=objective, strength=strength)
    labels, selected = unmark_labels(batch["labels"])
    total, _ = suppression_loss(
        trainer.model(input_ids=batch["input_ids"]).logits,
        labels,
        selected,
        objective=objective,
        strength=strength,
    )
    count = int((labels[:, 1:] != -100).sum())
    assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx(
        float(total) / count, rel=1e-5
    )
    # A part of a step: the Trainer says how many labels the whole has.
    divided = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=4 * count)
    assert float(divided) == pytest.approx(float(total) / (4 * count), rel=1e-5)
    loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    assert outputs.logits.shape == (4, 12, 900) and torch.isfinite(loss)


@pytest.mark.parametrize("kind", [Suppressing, SuppressingSFT])
def test_without_marks_it_is_the_trainers_own_loss(reader, tmp_path, batch, kind):
    plain = {**batch, "labels": unmark_labels(batch["labels"])[0]}
    trainer = trainer_of(kind, reader, tmp_path)
    expected = GPTNeoXForCausalLM.from_pretrained(reader / "my-model")(**plain).loss
    found = trainer.compute_loss(trainer.model, dict(plain))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_packing_carries_the_marks(reader, tmp_path):
    from transformers import AutoTokenizer

    rows = [[-100, *range(start, start + 5)] for start in range(1, 21, 5)]
    marked = [mark_labels(row, [id % 3 == 0 for id in row]).tolist() for row in rows]
    ids = [[9, *row[1:]] for row in rows]
    trainer = SuppressingSFT(
        GPTNeoXForCausalLM.from_pretrained(reader / "my-model"),
        SFTConfig(
            str(tmp_path),
            **{"packing": True, "packing_strategy": "wrapped", "max_length": 8},
            **{"report_to": "none", "use_cpu": True, "bf16": False, "shuffle_dataset": False},
        ),
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": marked}),
        processing_class=AutoTokenizer.from_pretrained(reader / "my-model"),
    )
    packed = [label for row in trainer.train_dataset["labels"] for label in row]
    assert packed == [label for row in marked for label in row]


def test_an_unknown_objective_is_refused(reader, tmp_path):
    with pytest.raises(ValueError, match="objective 'forget' is none of published, unlikelihood"):
        trainer_of(Suppressing, reader, tmp_path, objective="forget")
