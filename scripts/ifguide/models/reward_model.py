"""A small unidirectional model that says, at every token, how toxic the text so far will become.

It is trained on whole labelled texts: with y the label of a text of n tokens and r_t the model's
value after its t-th token,

    loss = Σ_t t (r_t − y)² / Σ_t t,      t = 1 … n,      averaged over texts

so that late prefixes, which show more of the text, count for more (Deng and Raffel, 2023).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForTokenClassification,
    PreTrainedTokenizerBase,
    Trainer,
)

from ifguide.data.corpus import end_of_text_id, tokenize
from ifguide.data.tokenizers import local_directory
from ifguide.files.checksums import verify_directory
from ifguide.models.text_training import train_on_texts


def prefix_loss(values: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the loss above: values (texts, positions), labels and lengths (texts,).

    Position 0 holds the end of the text before; position t the t-th token.
    """
    place = torch.arange(values.shape[1], device=values.device)
    weights = place * (place <= lengths[:, None])
    errors = (values - labels[:, None]) ** 2
    return ((weights * errors).sum(1) / weights.sum(1)).mean()


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[list[int]]:
    """Return the ids of each text after an end of text, at most `max_length` in all.

    Every second text begins with a space, as a continuation does, the others without, as a
    document does.
    """
    begin = end_of_text_id(tokenizer)
    spaced = [text.strip() if row % 2 else " " + text.strip() for row, text in enumerate(texts)]
    return [[begin, *text.ids.tolist()][:max_length] for text in tokenize(tokenizer, spaced)]


class RewardTexts(Dataset):
    def __init__(self, encoded: Sequence[list[int]], labels: Sequence[float]) -> None:
        self.encoded = encoded
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"input_ids": self.encoded[index], "label": self.labels[index]}


def pad_texts(examples: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Return input_ids (texts, positions), padded by zeros, and labels and lengths (texts,)."""
    lengths = [len(example["input_ids"]) for example in examples]
    ids = torch.zeros(len(examples), max(lengths), dtype=torch.int64)
    for row, example in enumerate(examples):
        ids[row, : lengths[row]] = torch.tensor(example["input_ids"])
    labels = torch.tensor([example["label"] for example in examples], dtype=torch.float32)
    return {"input_ids": ids, "labels": labels, "lengths": torch.tensor(lengths) - 1}


class RewardTrainer(Trainer):
    """Trainer of the prefix loss; no prefix of a text sees the padding, which is at the end."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(input_ids=inputs["input_ids"], use_cache=False)
        loss = prefix_loss(outputs.logits[..., 0], inputs["labels"], inputs["lengths"])
        return (loss, outputs) if return_outputs else loss


def train_reward_model(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    labels: Sequence[float],
    *,
    settings: dict,
    seed: int,
    scratch: Path,
) -> GPTNeoXForTokenClassification:
    """Train a reward model from scratch on texts with labels in [0, 1].

    settings: max_length, hidden_size, layers, heads, epochs, batch_size, learning_rate.
    """
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings["hidden_size"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        intermediate_size=4 * settings["hidden_size"],
        max_position_embeddings=settings["max_length"],
        bos_token_id=end_of_text_id(tokenizer),
        eos_token_id=end_of_text_id(tokenizer),
        num_labels=1,
    )
    model = GPTNeoXForTokenClassification(config)
    return train_on_texts(
        RewardTrainer,
        model,
        RewardTexts(encode_texts(tokenizer, texts, settings["max_length"]), labels),
        pad_texts,
        settings=settings,
        seed=seed,
        scratch=scratch,
    )


def load_reward_model(directory: str | Path) -> GPTNeoXForTokenClassification:
    """Load a reward model directory, offline, in evaluation mode.

    Raises InputError where it is missing or damaged.
    """
    directory = local_directory(directory, "rewards")
    verify_directory(directory)
    return GPTNeoXForTokenClassification.from_pretrained(
        directory,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
    ).eval()


@torch.no_grad()
def prefix_rewards(
    model: GPTNeoXForTokenClassification,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int = 256,
) -> list[torch.Tensor]:
    """Return r_t of every prefix of each text: float32 (tokens,) a text."""
    encoded = encode_texts(tokenizer, texts, model.config.max_position_embeddings)
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    values: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = pad_texts([{"input_ids": encoded[row], "label": 0.0} for row in rows])
        output = model(input_ids=batch["input_ids"].to(model.device), use_cache=False).logits
        for row, length, value in zip(rows, batch["lengths"].tolist(), output, strict=True):
            values[row] = value[1 : length + 1, 0].cpu()
    return [values[row] for row in range(len(encoded))]
