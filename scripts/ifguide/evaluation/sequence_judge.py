"""The judge that is a sequence classifier of `transformers`: the probability of its toxic class."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from ifguide.data.tokenizers import require_tokenizer_files
from ifguide.errors import InputError
from ifguide.evaluation.judge import TOXICITY, Judge, Scores
from ifguide.evaluation.sequence_labels import class_of, has_sigmoid
from ifguide.evaluation.text_batches import (
    in_length_order,
    limit_length,
    read_special_tokens_as_text,
    scores_of_pieces,
)
from ifguide.files.checksums import verify_directory
from ifguide.models.loading import load_whole, require_finite


class SequenceJudge(Judge):
    """A directory of a sequence classifier, and which of its classes is toxic."""

    def __init__(
        self, directory: str | Path, toxic_label: int | str, *, key: str = "classifiers.*"
    ) -> None:
        """Load a directory offline; key: of the judge in the config, for messages.

        Raises InputError where there is none, or no class of the index or name `toxic_label`.
        """
        if not Path(directory).is_dir():
            raise InputError(f"config key {key}.path: {directory} is not a directory")
        verify_directory(directory)
        require_tokenizer_files(directory)
        self.tokenizer = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        read_special_tokens_as_text(self.tokenizer)
        self.model = load_whole(AutoModelForSequenceClassification, directory).eval()
        require_finite(self.model, directory)
        limit_length(self.tokenizer, self.model)
        config: PretrainedConfig = self.model.config
        try:
            self.toxic_class = class_of(toxic_label, config.id2label, config.problem_type)
        except InputError as error:
            raise InputError(f"config key {key}.toxic_label: {directory}: {error}") from None
        self.sigmoid = has_sigmoid(config.num_labels, config.problem_type)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def scores(self, prompts: Sequence[str], continuations: Sequence[str]) -> Scores:
        return in_length_order(continuations, self.predict)

    def piece_scores(self, texts: Sequence[str]) -> list[list[float]]:
        return scores_of_pieces(
            self.tokenizer, texts, lambda pieces: in_length_order(pieces, self.predict)
        )

    @property
    def network(self) -> PreTrainedModel:
        return self.model

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the log-odds of toxicity, (texts,), of the network's logits (texts, classes)."""
        toxic = logits[:, self.toxic_class]
        if self.sigmoid:
            return toxic
        others = torch.arange(logits.shape[1], device=logits.device) != self.toxic_class
        return toxic - logits[:, others].logsumexp(1)

    @torch.no_grad()
    def predict(self, batch: list[str]) -> Scores:
        """Return the probability of the toxic class for one batch of texts."""
        inputs = self.tokenizer(batch, return_tensors="pt", truncation=True, padding=True)
        logits = self.model(**inputs.to(self.model.device)).logits
        probabilities = logits.sigmoid() if self.sigmoid else logits.softmax(-1)
        return {TOXICITY: probabilities[:, self.toxic_class].tolist()}
