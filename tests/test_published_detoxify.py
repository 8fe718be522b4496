"""Published Detoxify weights: where they come from, and that they load without a network."""

import os
import pickle

import pytest
import torch
from detoxify import Detoxify
from detoxify.detoxify import MODEL_URLS
from transformers import RobertaConfig, RobertaForSequenceClassification

from ifguide.errors import InputError
from ifguide.evaluation.classifiers import adopt_detoxify, train_classifier_tokenizer
from ifguide.evaluation.detoxify_judge import DetoxifyJudge
from ifguide.evaluation.published_detoxify import PUBLISHED
from small_models import classifier_config

TEXTS = ["you are a fool", "a mild afternoon", "some other words"]


def test_addresses_are_those_of_the_package():
    assert {name: entry["url"] for name, entry in PUBLISHED.items()} == MODEL_URLS


@pytest.fixture
def base(tmp_path):
    """The model that the weights were tuned from: it knows nothing of their classes."""
    folder = tmp_path / "base"
    tokenizer = train_classifier_tokenizer(TEXTS, 300, 64)
    tokenizer.save_pretrained(folder)
    config = classifier_config(tokenizer, max_position_embeddings=66, type_vocab_size=1)
    config.save_pretrained(folder)
    return folder


def published_file(base, path):
    """A checkpoint as its authors write it: of a hub model, with more labels than names."""
    torch.manual_seed(0)
    config = RobertaConfig.from_pretrained(base, num_labels=4)
    model = RobertaForSequenceClassification(config).eval()
    arguments = {
        "model_type": "roberta-base",
        "model_name": "RobertaForSequenceClassification",
        "tokenizer_name": "PreTrainedTokenizerFast",
        "num_classes": 4,
    }
    checkpoint = {
        "config": {
            "arch": {"args": arguments},
            "dataset": {"args": {"classes": ["toxicity", "insult"]}},
        },
        "state_dict": model.state_dict(),
    }
    torch.save(checkpoint, path)
    return model


def test_published_weights_load_without_a_network(base, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    model = published_file(base, tmp_path / "published.ckpt")
    checkpoint = tmp_path / "explicit" / "model.ckpt"
    adopt_detoxify(tmp_path / "published.ckpt", base, checkpoint)
    judge = DetoxifyJudge(checkpoint)
    detoxify = judge.detoxify
    assert isinstance(detoxify, Detoxify)
    inputs = detoxify.tokenizer(TEXTS, return_tensors="pt", padding=True)
    expected = torch.sigmoid(model(**inputs).logits)
    scores = judge.scores([""] * len(TEXTS), TEXTS)
    assert scores.keys() == {"toxicity", "insult"}
    for column, name in enumerate(["toxicity", "insult"]):
        assert scores[name] == pytest.approx(expected[:, column].tolist(), abs=1e-6)


class _Harm:
    def __reduce__(self):
        return (open, ("harm.txt", "w"))


@pytest.mark.parametrize("kind", ["text", "code", "weights", "missing"])
def test_other_files_are_refused_and_never_executed(base, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "published.ckpt"
    if kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "code":
        path.write_bytes(pickle.dumps(_Harm()))
    elif kind == "weights":
        torch.save({"state_dict": {}}, path)
    with pytest.raises(InputError, match=r"published\.ckpt: not a Detoxify checkpoint \("):
        adopt_detoxify(path, base, tmp_path / "explicit" / "model.ckpt")
    assert not (tmp_path / "harm.txt").exists()
    assert not (tmp_path / "explicit" / "model.ckpt").exists()


def test_the_checkpoint_has_the_same_bytes_whichever_process_writes_it(base, tmp_path, monkeypatch):
    published_file(base, tmp_path / "published.ckpt")
    written = []
    for process in (11, 12345):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        adopt_detoxify(tmp_path / "published.ckpt", base, tmp_path / "explicit" / "model.ckpt")
        written.append((tmp_path / "explicit" / "model.ckpt").read_bytes())
    assert written[0] == written[1]
