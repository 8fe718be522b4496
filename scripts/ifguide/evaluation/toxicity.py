"""Toxicity of texts: explicit by Detoxify, implicit by a sequence classifier.

A special token that is written in a text is text to both classifiers.
"""

import logging
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ifguide.data.special_tokens import break_special_tokens, special_tokens
from ifguide.errors import InputError
from ifguide.files.checksums import verify_directory

log = logging.getLogger(__name__)

Scores = dict[str, list[float]]


def _in_length_order(
    texts: Sequence[str], batch_size: int, score: Callable[[list[str]], Scores]
) -> Scores:
    """Score texts in batches of similar length, each distinct text once; keep the given order."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    found: dict[str, dict[str, float]] = {}
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        scores = score(batch)
        for row, text in enumerate(batch):
            found[text] = {field: values[row] for field, values in scores.items()}
    fields = found[texts[0]] if texts else []
    return {field: [found[text][field] for text in texts] for field in fields}


def explicit_scores(classifier, texts: Sequence[str], *, batch_size: int = 256) -> Scores:
    """Return every field of a `detoxify.Detoxify` object for each text, `toxicity` among them."""

    def score(batch: list[str]) -> Scores:
        fields = classifier.predict(batch)
        # Detoxify returns a bare number for a list of one.
        return {
            field: values if isinstance(values, list) else [values]
            for field, values in fields.items()
        }

    return _in_length_order(texts, batch_size, score)


def explicit_peaks(classifier, texts: Sequence[str]) -> list[float]:
    """Return the explicit toxicity of each text, however long: that of its most toxic piece.

    A text is cut into pieces that fit the classifier, which ignores what follows the first.
    """
    pieces = [_pieces(classifier.tokenizer, text) for text in texts]
    scores = iter(explicit_scores(classifier, sum(pieces, []))["toxicity"])
    return [max(next(scores) for _ in range(len(parts))) for parts in pieces]


def _pieces(tokenizer, text: str) -> list[str]:
    # Some published tokenizers name no limit, written as a number beyond all texts.
    room = min(tokenizer.model_max_length, 512) - tokenizer.num_special_tokens_to_add()
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    groups = [offsets[start : start + room] for start in range(0, len(offsets), room)]
    return [text[group[0][0] : group[-1][1]] for group in groups] or [text]


def load_explicit(checkpoint: str | Path):
    """Load Detoxify, offline, from a checkpoint with its configuration and tokenizer beside it.

    Detoxify unpickles its checkpoints. One that holds anything but tensors and plain values, which
    no code has to run for, is refused before Detoxify sees it.
    Raises InputError where the checkpoint does not exist or is refused.
    """
    from detoxify import Detoxify

    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        raise InputError(f"config key classifiers.explicit.checkpoint: {checkpoint} does not exist")
    verify_directory(checkpoint.parent)
    _require_plain(checkpoint)
    classifier = Detoxify(
        checkpoint=str(checkpoint),
        huggingface_config_path=str(checkpoint.parent),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    _read_special_tokens_as_text(classifier.tokenizer)
    return classifier


def _read_special_tokens_as_text(tokenizer) -> None:
    """Let no text become a special token; those around a sequence stay."""
    # A setting of the tokenizer itself, which sets `encode_special_tokens` back in every call.
    tokenizer.split_special_tokens = True
    if tokenizer.is_fast:
        break_special_tokens(tokenizer.backend_tokenizer, special_tokens(tokenizer))


def _require_plain(checkpoint: Path) -> None:
    """Refuse a checkpoint that the restricted unpickler refuses, or cannot read."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{checkpoint}: damaged, or a pickle that holds more than tensors and plain values, "
            "and not loaded; delete it and run again, or give a plain one"
        ) from error
    log.warning("%s is a pickle, loaded because it holds only tensors and plain values", checkpoint)


class ImplicitClassifier:
    """A sequence classifier and the index of its toxic class."""

    def __init__(self, directory: str | Path, toxic_label: int) -> None:
        """Load a directory offline.

        Raises InputError where it has one class only, or none of the index `toxic_label`.
        """
        if not Path(directory).is_dir():
            raise InputError(
                f"config key classifiers.implicit.path: {directory} is not a directory"
            )
        verify_directory(directory)
        self.tokenizer = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        _read_special_tokens_as_text(self.tokenizer)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            directory, local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).eval()
        if not 2 <= self.model.config.num_labels > toxic_label:
            raise InputError(
                f"config key classifiers.implicit.toxic_label: {toxic_label}, but the classifier "
                f"in {directory} has the labels {self.model.config.id2label}"
            )
        self.toxic_label = toxic_label
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def predict(self, texts: list[str]) -> Scores:
        inputs = self.tokenizer(texts, return_tensors="pt", truncation=True, padding=True)
        logits = self.model(**inputs.to(self.model.device)).logits
        return {"implicit": logits.softmax(-1)[:, self.toxic_label].tolist()}


def implicit_scores(
    classifier: ImplicitClassifier, texts: Sequence[str], *, batch_size: int = 256
) -> list[float]:
    """Return the probability of the toxic class for each text."""
    return _in_length_order(texts, batch_size, classifier.predict).get("implicit", [])
