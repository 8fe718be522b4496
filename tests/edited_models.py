"""What the tests of edits have in common: models whose heads are tied or not, and what changed."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ifguide.data.corpus import train_tokenizer
from small_models import random_tokens, small_model

TEXTS = ["a bad bad wolf howls", "the good lamb eats grass", "bad wolves bite lambs at night"]


def small_tokenizer():
    """The smallest byte-level tokenizer: 257 tokens and a few merges."""
    return train_tokenizer(TEXTS, 270)


def with_head(family: str, *, tied: bool, **settings) -> PreTrainedModel:
    """Return a small model whose output head shares its weight with the embeddings, or not."""
    model = small_model(family, **settings)
    model.config.tie_word_embeddings = tied
    if tied:
        model.tie_weights()
    else:
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    return model


def state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def touched(before: dict[str, torch.Tensor], model: PreTrainedModel) -> set[str]:
    """The names of the tensors of which a bit has changed."""
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].dtype == after[name].dtype for name in after)
    return {name for name in after if not torch.equal(before[name], after[name])}


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=random_tokens(3).to(model.device)).logits


def reloaded(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Save a model, and load the directory as anyone would."""
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
