"""Models, judges and architectures that a user gives: refused in one line, or taken as they are."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    GPTNeoXModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from ifguide.errors import InputError
from ifguide.evaluation.classifiers import train_classifier_tokenizer
from ifguide.evaluation.sequence_judge import SequenceJudge
from ifguide.models.architecture_checks import check_decoder
from ifguide.models.loading import configuration, load_model, load_whole, require_finite
from small_models import FAMILIES, small_model

TEXT = "The cat sees the dog."


@pytest.fixture
def saved(tmp_path):
    """A model as it was saved: its directory, and the model."""
    model = small_model("gpt_neox").float()
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def rewritten(directory, change) -> None:
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def described(directory, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_left_out(saved, prefix):
    directory, model = saved
    rewritten(directory, lambda tensors: {prefix + name: t for name, t in tensors.items()})
    loaded = load_model(directory, verify=False).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_model_is_whole(tmp_path, family):
    small_model(family).save_pretrained(tmp_path)
    load_model(tmp_path, verify=False)


def without(part: str):
    return lambda tensors: {name: t for name, t in tensors.items() if part not in name}


def body(directory) -> None:
    GPTNeoXModel.from_pretrained(directory).save_pretrained(directory)


def encoder(directory) -> None:
    config = (directory / "config.json").read_text("utf-8")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(**small, vocab_size=50)).save_pretrained(directory)
    (directory / "config.json").write_text(config, "utf-8")


LACKS = "lacks tensors of GPTNeoXForCausalLM, which would be drawn at random: "


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda d: rewritten(d, without("embed_out")), LACKS),
        (lambda d: rewritten(d, without("layers.0.mlp.dense_h_to_4h.bias")), LACKS),
        (body, LACKS),
        (encoder, LACKS),
        (lambda d: described(d, num_hidden_layers=9), LACKS),
        (
            lambda d: described(d, num_hidden_layers=1),
            "holds tensors that GPTNeoXForCausalLM does not have: ",
        ),
        (lambda d: described(d, intermediate_size=8), "holds tensors of another shape than "),
        (lambda d: described(d, model_type="gpt_nox"), "cannot be loaded as a model ("),
        (lambda d: (d / "config.json").write_text("{"), "cannot be loaded as a model ("),
        (lambda d: (d / "config.json").unlink(), "cannot be loaded as a model ("),
        (lambda d: (d / "model.safetensors").write_bytes(b"cut"), "cannot be loaded as a model ("),
        (lambda d: (d / "model.safetensors").unlink(), "cannot be loaded as a model ("),
    ],
)  # fmt: skip
@pytest.mark.parametrize("device", [None, "meta"])
def test_no_tensor_is_made_up_and_none_passed_over(saved, change, expected, device):
    """The names and shapes alone tell as much as loading the model does."""
    directory, _ = saved
    rewritten(directory, lambda tensors: tensors)
    change(directory)
    options = {"device_map": device} if device else {}
    with pytest.raises(InputError) as refused:
        load_whole(AutoModelForCausalLM, directory, **options)
    message = str(refused.value)
    assert message.startswith(f"{directory}: {expected}") and "\n" not in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(saved, value):
    directory, model = saved
    require_finite(model, directory)
    with torch.no_grad():
        next(model.parameters()).view(-1)[3] = value
    with pytest.raises(InputError, match=r"weights that are not finite: .*embed_in.weight; "):
        require_finite(model, directory)


# --- judges ---------------------------------------------------------------------------------------


@pytest.fixture
def judge(tmp_path):
    """A directory of a judge, its tokenizer without a limit, and positions for 64 tokens."""
    tokenizer = train_classifier_tokenizer([TEXT] * 4, 300, 64)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        pad_token_id=1,
    )
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path / "judge")
    return tmp_path / "judge"


def test_a_judge_reads_no_more_tokens_than_it_has_positions_for(judge):
    opened = SequenceJudge(judge, 1)
    assert opened.tokenizer.model_max_length == 64
    scores = opened.scores(["", ""], [TEXT, TEXT * 100])["toxicity"]
    assert all(0 <= score <= 1 for score in scores)


def test_a_judge_that_is_no_classifier(judge, tmp_path):
    rewritten(judge, without("classifier"))
    with pytest.raises(InputError, match="lacks tensors of RobertaForSequenceClassification"):
        SequenceJudge(judge, 1)
    with pytest.raises(InputError, match="lacks tensors of RobertaForSequenceClassification"):
        load_whole(AutoModelForSequenceClassification, judge, device_map="meta")


# --- architectures --------------------------------------------------------------------------------

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
KEY = "models.mine.architecture"


def check(settings: dict, block_size: int = 64) -> None:
    sizes = {"vocabulary_size": 50, "block_size": block_size, "end_of_text": 0}
    config = configuration(settings, KEY, **sizes)
    check_decoder(config, f"config key {KEY}", block_size)


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "gpt_neox", **SMALL},
        {"model_type": "llama", **SMALL},
        {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2},
        {"model_type": "bert", **SMALL, "is_decoder": True},
        {"model_type": "gemma3_text", **SMALL, "num_key_value_heads": 1, "head_dim": 8},
        {"model_type": "bloom", "hidden_size": 16, "n_layer": 1, "n_head": 2},
        {"name": "pythia-12b"},
        {"name": "llama-3.2-1b"},
        {"name": "gpt2-xl"},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_causal_decoders_of_any_size_are_tried(settings):
    check(settings)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"model_type": "bert", **SMALL}, "bert sees the tokens that follow"),
        ({"model_type": "electra", **SMALL}, "electra sees the tokens that follow"),
        ({"model_type": "roberta", **SMALL}, "roberta sees the tokens that follow"),
        (
            {"model_type": "xlm", "emb_dim": 16, "n_layers": 2, "n_heads": 2},
            "xlm sees the tokens that follow",
        ),
        ({"model_type": "t5"}, "t5 is no language model that continues text"),
        (
            {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1},
            "mamba does not go on from a key-value cache",
        ),
        (
            {"model_type": "gpt_neox", **SMALL, "num_attention_heads": 3},
            "gpt_neox cannot have these settings (The hidden size is not divisible by",
        ),
        (
            {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 3},
            "gpt2 cannot be built with these settings (`embed_dim` must be divisible",
        ),
        (
            {"model_type": "llama", **SMALL, "num_key_value_heads": 3},
            "llama cannot be run with these settings (",
        ),
        (
            {"model_type": "gpt_neox", **SMALL, "hidden_size": "64"},
            "gpt_neox cannot have these settings (Field 'hidden_size' expected int, got str",
        ),
        (
            {"model_type": "gpt_neox", **SMALL, "hidden_size": 16.0},
            "gpt_neox cannot have these settings (Field 'hidden_size' expected int, got float",
        ),
        (
            {"model_type": "gpt_neox", **SMALL, "hidden_act": "gelo"},
            "gpt_neox cannot be built with these settings (nothing is named 'gelo')",
        ),
        (
            {"model_type": "mpt", "d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": 32},
            "mpt cannot read a block of 64 tokens (",
        ),
    ],
)  # fmt: skip
def test_what_is_no_causal_decoder_is_one_line(settings, expected):
    with pytest.raises(InputError) as refused:
        check(settings)
    message = str(refused.value)
    assert message.startswith(f"config key {KEY}: {expected}") and "\n" not in message
