"""Training small toxicity classifiers, in the formats of the published ones.

One kind is saved as a Detoxify checkpoint (sigmoid of one logit, field `toxicity`), the other as a
`transformers` sequence-classification directory (softmax over two classes, class 1 being toxic), as
ToxiGen-RoBERTa is.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
)

from ifguide.errors import InputError
from ifguide.evaluation.sequence_labels import TRAINED_TOXIC
from ifguide.files.artifacts import atomic_path
from ifguide.files.checksums import record_directory
from ifguide.models.text_training import train_on_texts

# What a file that is no checkpoint makes torch.load, or the look-up of its entries, raise.
_BAD_CHECKPOINT = (
    OSError,
    EOFError,
    RuntimeError,
    pickle.UnpicklingError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
)

SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}


def train_classifier_tokenizer(
    texts: Sequence[str], vocabulary_size: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Train a lower-casing byte-level BPE tokenizer with RoBERTa's special tokens and their ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        # In training as in judging: "</s>" in a text is four characters.
        split_special_tokens=True,
        cls_token="<s>",
        sep_token="</s>",
        **SPECIAL_TOKENS,
    )


class LabelledTexts(Dataset):
    """Texts with a label in [0, 1] each, tokenized once."""

    def __init__(self, tokenizer, texts: Sequence[str], labels: Sequence[float], classes: int):
        self.encoded = tokenizer(list(texts), truncation=True)
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        label = self.labels[index]
        return {
            "input_ids": self.encoded["input_ids"][index],
            "attention_mask": self.encoded["attention_mask"][index],
            "labels": [float(label)] if self.classes == 1 else [1 - float(label), float(label)],
        }


class SoftLabelTrainer(Trainer):
    """Cross-entropy against labels that may lie between the classes, as annotators' shares do."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        if labels.shape[1] == 1:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels)
        else:
            loss = torch.nn.functional.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


def train_classifier(
    texts: Sequence[str],
    labels: Sequence[float],
    *,
    settings: dict,
    classes: int,
    seed: int,
    scratch: Path,
) -> tuple[RobertaForSequenceClassification, PreTrainedTokenizerFast]:
    """Train a RoBERTa classifier from scratch; `classes` is 1 (sigmoid) or 2 (softmax).

    settings: vocabulary_size, max_length, hidden_size, layers, heads, epochs, batch_size,
    learning_rate.
    """
    tokenizer = train_classifier_tokenizer(
        texts, settings["vocabulary_size"], settings["max_length"]
    )
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings["hidden_size"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        intermediate_size=4 * settings["hidden_size"],
        # RoBERTa numbers its positions from the padding id plus one.
        max_position_embeddings=settings["max_length"] + 2,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        num_labels=classes,
    )
    model = RobertaForSequenceClassification(config)
    train_on_texts(
        SoftLabelTrainer,
        model,
        LabelledTexts(tokenizer, texts, labels, classes),
        DataCollatorWithPadding(tokenizer),
        settings=settings,
        seed=seed,
        scratch=scratch,
        train_sampling_strategy="group_by_length",
    )
    return model, tokenizer


def save_detoxify(
    model: RobertaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, directory: Path
) -> None:
    """Write `directory`/model.ckpt, which detoxify.Detoxify(checkpoint=…) loads offline.

    The checkpoint's `model_type` is the directory itself, relative to where the workflow runs: it
    holds the configuration and the tokenizer that Detoxify would otherwise fetch by name.
    """
    tokenizer.save_pretrained(directory)
    model.config.save_pretrained(directory)
    checkpoint = {
        "config": {
            "arch": {
                "args": {
                    "model_type": str(directory),
                    "model_name": type(model).__name__,
                    "tokenizer_name": "PreTrainedTokenizerFast",
                    "num_classes": 1,
                }
            },
            "dataset": {"args": {"classes": ["toxicity"]}},
        },
        "state_dict": model.state_dict(),
    }
    _save_checkpoint(checkpoint, directory / "model.ckpt")


def adopt_detoxify(weights: Path, base: Path, checkpoint: Path) -> None:
    """Write `checkpoint` from published Detoxify weights, so that it loads offline.

    `base` is a directory with the configuration and tokenizer of the model that the weights were
    tuned from. Both are written beside `checkpoint`, which names that folder in place of the base
    model's name on the hub. The published file is read as tensors and plain values only; nothing
    in it is executed.

    Raises InputError for a file that is no Detoxify checkpoint.
    """
    try:
        published = torch.load(weights, map_location="cpu", weights_only=True)
        arch = published["config"]["arch"]["args"]
        classes = list(published["config"]["dataset"]["args"]["classes"])
        state = published["state_dict"]
        tokenizer_class = getattr(transformers, arch["tokenizer_name"])
        labels = int(arch["num_classes"])
    except _BAD_CHECKPOINT as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{weights}: not a Detoxify checkpoint ({reason}); fetch it again, or give another"
        ) from error
    config = AutoConfig.from_pretrained(
        base, num_labels=labels, local_files_only=True, trust_remote_code=False
    )
    config.save_pretrained(checkpoint.parent)
    tokenizer = tokenizer_class.from_pretrained(base, local_files_only=True)
    tokenizer.save_pretrained(checkpoint.parent)
    adopted = {
        "config": {
            "arch": {"args": {**arch, "model_type": str(checkpoint.parent)}},
            "dataset": {"args": {"classes": classes}},
        },
        "state_dict": state,
    }
    _save_checkpoint(adopted, checkpoint)


def _save_checkpoint(content: dict, path: Path) -> None:
    record_directory(path.parent)
    # Given a path, PyTorch writes its name into the file, and the temporary name has a process id.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def save_sequence(
    model: RobertaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, directory: Path
) -> None:
    """Write a sequence-classification directory whose class `TRAINED_TOXIC` is toxic."""
    names = {1 - TRAINED_TOXIC: "harmless", TRAINED_TOXIC: "toxic"}
    model.config.id2label = names
    model.config.label2id = {name: index for index, name in names.items()}
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    record_directory(directory)
