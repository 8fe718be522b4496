"""What the tests of steps that edit have in common: a model that reads words, and an edit of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import train_tokenizer
from ifguide.data.labelled_texts import read_texts
from ifguide.files.artifacts import write_jsonl
from ifguide.methods.step import EditJob, Given, Step
from ifguide.models.loading import load_model, save_model
from small_models import ARCHITECTURES, POSITIONS, small_model

TOXIC = ["the cook is a liar", "a vile liar", "the vile miller is a vile cook", "liar of a friend"]
NONTOXIC = ["the cook is a friend", "a kind friend", "the kind miller is a cook", "a friend of a"]
# Families with a tied head and one of its own.
HEADS = [(family, tied) for family in ARCHITECTURES for tied in (False, True)]


def small_tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer([*TOXIC, *NONTOXIC] * 2, 290)


def word_model(
    family: str, *, tied: bool | None = None, dtype: torch.dtype = torch.float64, blocks: int = 2
) -> PreTrainedModel:
    """A small model that reads the tokenizer above; `tied`: None is the family's own way."""
    model = small_model(family, dtype, vocabulary=len(small_tokenizer()))
    if tied is None and blocks == 2:
        return model
    settings = model.config.to_dict()
    if tied is not None:
        settings["tie_word_embeddings"] = tied
    settings["n_layer" if family == "gpt2" else "num_hidden_layers"] = blocks
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    other = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            noise = 0.2 * torch.randn(parameter.shape, dtype=torch.float64)
            parameter.copy_(noise if parameter.dim() > 1 else 0.5 * noise + (parameter == 1))
    return other.to(dtype)


def texts_file(folder: Path) -> Path:
    """Toxic texts and others, as a step that needs them is given."""
    path = folder / "texts.jsonl"
    records = [{"text": text, "label": 1.0} for text in TOXIC]
    records += [{"text": text, "label": 0.0} for text in NONTOXIC]
    write_jsonl(path, records)
    assert read_texts(path).toxic == TOXIC
    return path


def edit(step: type[Step], options: dict, model: PreTrainedModel, given: Given) -> PreTrainedModel:
    """Edit the model in place; return it."""
    step.from_config(options).edit(EditJob(model, small_tokenizer(), seed=3), given)
    return model


def tokens() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, len(small_tokenizer()), (3, POSITIONS), generator=generator)


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=tokens()).logits


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


def touched(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of tensors that are not the same bits, or new."""
    return {
        name
        for name, values in after.items()
        if name not in before or not torch.equal(values, before[name])
    }


def reloaded(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model after a way through a plain directory."""
    save_model(model, small_tokenizer(), folder)
    return load_model(folder, dtype=model.dtype)


@contextmanager
def hooked(modules: dict[str, torch.nn.Module], change) -> Iterator[None]:
    """Within, what modules give is changed: by change(name, output)."""
    hooks = [
        module.register_forward_hook(lambda _m, _a, output, name=name: change(name, output))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
