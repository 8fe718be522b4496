"""What a training tells while it runs, and when it has to stop."""

import logging
import math
from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from ifguide.errors import InputError
from ifguide.models.checkpoints import last_whole_checkpoint
from ifguide.models.throughput import Speed

log = logging.getLogger(__name__)


class StopAtBadLoss(TrainerCallback):
    """Stop with a clear error at a loss that is not finite or explodes, before a checkpoint has it.

    The loss of clean text, that of unselected tokens, is compared with the lowest so far: gradient
    ascent on selected tokens is unbounded, and can ruin all others.
    """

    def __init__(self, explosion_factor: float | None = None) -> None:
        self.explosion_factor = explosion_factor

    def on_step_end(self, arguments, state, control, **_):
        # Nothing is saved that was not looked at.
        control.should_log = control.should_log or control.should_save

    def on_log(self, arguments, state, control, logs=None, **_):
        for name in ("loss", "unselected_loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                self._stop(arguments, state, f"{name} is {value}")
        if self.explosion_factor is None or "unselected_loss" not in (logs or {}):
            return
        lowest = min(
            record["unselected_loss"] for record in state.log_history if "unselected_loss" in record
        )
        loss = logs["unselected_loss"]
        if loss > self.explosion_factor * lowest:
            self._stop(
                arguments,
                state,
                f"the loss of unselected tokens is {loss:.4g}, more than "
                f"training.explosion_factor = {self.explosion_factor:g} times its lowest, "
                f"{lowest:.4g},",
            )

    def _stop(self, arguments, state, problem: str) -> None:
        kept = last_whole_checkpoint(Path(arguments.output_dir))
        raise InputError(
            f"training diverged: {problem} at step {state.global_step}; lower "
            "training.learning_rate or the strength of the suppression; "
            + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was written yet")
        )


class StopAtShare(TrainerCallback):
    """Stop after this share of the steps: the model is then a checkpoint of the whole training."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_step_end(self, arguments, state, control, **_):
        if state.global_step >= max(1, round(self.share * state.max_steps)):
            control.should_training_stop = True


class LogLine(TrainerCallback):
    """One plain line at each log, for a file that somebody follows."""

    def on_log(self, arguments, state, control, logs=None, **_):
        if logs and "loss" in logs and state.is_world_process_zero:
            figures = [
                f"{name} {logs[name]:.4f}"
                for name in ("loss", "selected_loss", "unselected_loss")
                if name in logs
            ]
            if "tokens_per_second" in logs:
                figures.append(f"{logs['tokens_per_second']:.0f} tokens/s")
            if "flops_utilisation" in logs:
                figures.append(f"{100 * logs['flops_utilisation']:.1f} % of peak FLOP/s")
            log.info("step %d of %d  %s", state.global_step, state.max_steps, "  ".join(figures))


class StartClock(TrainerCallback):
    """Begin to count seconds when the first step does."""

    def __init__(self, speed: Speed) -> None:
        self.speed = speed

    def on_train_begin(self, arguments, state, control, **_):
        self.speed.start()


class ProgressBar(ProgressCallback):
    """The Trainer's bar without its own lines at each log."""

    def on_log(self, arguments, state, control, logs=None, **_):
        pass
