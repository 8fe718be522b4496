"""The judge that is a Detoxify model, published or trained here: all of its fields."""

import io
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ifguide.errors import InputError
from ifguide.evaluation.judge import TOXICITY, Judge, Scores
from ifguide.evaluation.text_batches import (
    in_length_order,
    read_special_tokens_as_text,
    scores_of_pieces,
)
from ifguide.files.checksums import verify_directory
from ifguide.models.loading import first_line, require_finite, some_names

log = logging.getLogger(__name__)


class DetoxifyJudge(Judge):
    """A checkpoint of Detoxify, with its configuration and tokenizer beside it.

    Detoxify unpickles its checkpoints. One that holds anything but tensors and plain values, which
    no code has to run for, is refused before Detoxify sees it.
    """

    def __init__(self, checkpoint: str | Path, *, key: str = "classifiers.*") -> None:
        """Load a checkpoint offline; key: of the judge in the config, for messages.

        Raises InputError where the checkpoint does not exist or is refused.
        """
        from detoxify import Detoxify

        checkpoint = Path(checkpoint)
        if not checkpoint.is_file():
            raise InputError(f"config key {key}.checkpoint: {checkpoint} does not exist")
        verify_directory(checkpoint.parent)
        content = _read_plain(checkpoint)
        try:
            self.detoxify = Detoxify(
                checkpoint=_with_base_model(content, checkpoint.parent),
                huggingface_config_path=str(checkpoint.parent),
                device="cuda" if torch.cuda.is_available() else "cpu",
            )
        except Exception as error:
            raise InputError(
                f"{checkpoint}: no Detoxify model ({first_line(error)}); give a checkpoint of "
                "Detoxify, with the configuration and the tokenizer of its base model beside it"
            ) from error
        # It draws at random what a checkpoint lacks.
        if lacking := self.detoxify.model.state_dict().keys() - content["state_dict"].keys():
            raise InputError(
                f"{checkpoint}: lacks tensors of {type(self.detoxify.model).__name__}, which would "
                f"be drawn at random: {some_names(lacking)}; give a whole checkpoint of Detoxify"
            )
        require_finite(self.detoxify.model, checkpoint)
        self.tokenizer = self.detoxify.tokenizer
        read_special_tokens_as_text(self.tokenizer)

    def scores(self, prompts: Sequence[str], continuations: Sequence[str]) -> Scores:
        return in_length_order(continuations, self.predict)

    def piece_scores(self, texts: Sequence[str]) -> list[list[float]]:
        return scores_of_pieces(
            self.tokenizer, texts, lambda pieces: in_length_order(pieces, self.predict)
        )

    @property
    def network(self) -> PreTrainedModel:
        return self.detoxify.model

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the log-odds of toxicity, (texts,), of the network's logits (texts, classes)."""
        return logits[:, self.detoxify.class_names.index(TOXICITY)]

    def predict(self, batch: list[str]) -> Scores:
        """Return every field for one batch of texts."""
        fields = self.detoxify.predict(batch)
        # Detoxify returns a bare number for a list of one.
        return {
            field: values if isinstance(values, list) else [values]
            for field, values in fields.items()
        }


def _read_plain(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds; refuse one that the restricted unpickler refuses."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{checkpoint}: damaged, or a pickle that holds more than tensors and plain values, "
            "and not loaded; give a plain one"
        ) from error
    log.warning("%s is a pickle, loaded because it holds only tensors and plain values", checkpoint)
    return content


def _with_base_model(content: dict[str, Any], folder: Path) -> io.BytesIO:
    """Return a checkpoint whose base model is the one in a folder.

    Detoxify reads the base model's configuration by the name that the checkpoint gives, a name of
    the hub or a place that may have moved, even where it is told of a folder.
    """
    content["config"]["arch"]["args"]["model_type"] = str(folder)
    rewritten = io.BytesIO()
    torch.save(content, rewritten)
    rewritten.seek(0)
    return rewritten
