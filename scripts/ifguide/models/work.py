"""What a job does: arithmetic, time of a processor, memory and disk.

Jobs are made of parts: training, an edit, decoding beside sampling. The work of the parts that many
jobs have in common is here, so that the steps of methods can say what they cost in the same terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ifguide.models import costs, footprints
from ifguide.models.devices import Device

if TYPE_CHECKING:
    from ifguide.models.model_shapes import ModelShape

LIGHT_START = 0.1  # of the start that loads the libraries of models
LOGITS_BUDGET = 2**26  # bytes of the logits that passes over short texts hold at once


@dataclass(frozen=True)
class Work:
    """What one job does.

    flops: on the device, of a `kind` of devices.KINDS at a `precision`; processor_seconds: of one
    processor core, whatever the device; memory: bytes at the peak, 0 where it is not estimated;
    disk: bytes that it leaves; loads: its process loads the libraries of models before any work.
    """

    kind: str = "training"
    tokens: float = 0
    flops: float = 0
    precision: str = "float32"
    processor_seconds: float = 0
    memory: float = 0
    disk: float = 0
    loads: bool = True

    def seconds(self, device: Device, start_seconds: float) -> float:
        """Return the seconds on `device`, where loading the libraries takes `start_seconds`."""
        computing = device.seconds(self.flops, self.precision, self.kind)
        start = start_seconds * (1 if self.loads else LIGHT_START)
        return start + computing + self.processor_seconds

    def then(self, other: Work) -> Work:
        """Return the work of one job that does this and after it the other."""
        return self._joined(other, max(self.memory, other.memory))

    def beside(self, other: Work) -> Work:
        """Return the work of one job that does both at once, and so holds the memory of both."""
        return self._joined(other, self.memory + other.memory)

    def _joined(self, other: Work, memory: float) -> Work:
        # A job computes at one rate: that of the part with most arithmetic.
        larger = max(self, other, key=lambda work: work.flops)
        return Work(
            kind=larger.kind,
            tokens=self.tokens + other.tokens,
            flops=self.flops + other.flops,
            precision=larger.precision,
            processor_seconds=self.processor_seconds + other.processor_seconds,
            memory=memory,
            disk=self.disk + other.disk,
            loads=self.loads or other.loads,
        )


def training_work(shape: ModelShape, training: Mapping, tokens: float, length: int) -> Work:
    """Return the work of training a model on `tokens` tokens, in texts of `length` tokens.

    training: the settings of the config section `training`, as a model's method resolves them.
    """
    precision, recomputed = training["precision"], training["gradient_checkpointing"]
    return Work(
        kind="training",
        tokens=tokens,
        flops=tokens * costs.training_flops(shape, length, recomputed=recomputed),
        precision=precision,
        memory=footprints.training_memory(
            shape, training["batch_size"] * length, precision, recomputed=recomputed
        ),
    )


def corpus_training_work(
    shape: ModelShape, training: Mapping, corpus_tokens: float, block_size: int
) -> Work:
    """Return the work of training a model on the blocks of a corpus.

    training: as of `training_work`; corpus_tokens: those of one epoch.
    """
    if training["max_steps"]:
        step = training["batch_size"] * training["accumulation"] * block_size
        tokens = float(training["max_steps"] * step)
    else:
        tokens = training["epochs"] * corpus_tokens
    tokens *= training.get("stop_at", 1)
    return training_work(shape, training, tokens, block_size)


def reading_work(shape: ModelShape, tokens: float, length: int, batch: int) -> Work:
    """Return the work of reading texts of `length` tokens, `batch` of them at once, forward."""
    return Work(
        kind="scores",
        tokens=tokens,
        flops=tokens * costs.forward_flops(shape, length),
        memory=footprints.score_memory(shape, batch * length, LOGITS_BUDGET),
    )
