"""The objective for a training loop of your own: docs/how_to/train_in_your_own_loop.md.

What is public here stays: a loss of logits, labels and a mask; a mixin for Trainers; and what makes
a mask from the spans that `snakemake export` writes. It needs PyTorch, NumPy, `transformers` and
`tokenizers`, and nothing of the workflow.
"""

from ifguide.influence.character_spans import selected_tokens
from ifguide.models.labels import IGNORED_LABEL, mark_labels, unmark_labels
from ifguide.models.objective import OBJECTIVES, suppression_loss
from ifguide.models.suppression_mixin import SuppressionMixin

__all__ = [
    "IGNORED_LABEL",
    "OBJECTIVES",
    "SuppressionMixin",
    "mark_labels",
    "selected_tokens",
    "suppression_loss",
    "unmark_labels",
]
