"""Direct preference optimisation (Rafailov et al., 2023) of a causal language model, by TRL.

With π the model, π₀ the frozen model that it began as, and y₊, y₋ the two sides after prompt x,

    loss = −log σ( r(x, y₊) − r(x, y₋) ),      r(x, y) = β log( π(y | x) / π₀(y | x) )

averaged over pairs; the difference of the implicit rewards r is called the margin.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer

from ifguide.data.corpus import end_of_text_id, tokenize
from ifguide.data.preferences import PreferencePair
from ifguide.models.checkpoints import ListContents, last_whole_checkpoint
from ifguide.models.training import OwnParameterNames, training_arguments
from ifguide.models.training_progress import LogLine, StopAtBadLoss

LOSS_COLUMNS = ("step", "epoch", "loss", "reward_margin", "reward_accuracy", "learning_rate")


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], positions: int
) -> list[dict[str, list[int]]]:
    """Return `prompt_ids`, `chosen_ids` and `rejected_ids` of each pair, as DPO compares them.

    The prompt is the end of the text before, then all tokens that the two sides share at their
    beginning: their losses are equal on both sides and cancel in the difference of rewards. A side
    has at least one token. What exceeds `positions` tokens is cut, from the beginning of the
    prompt first, then from the end of a side.
    """
    begin = end_of_text_id(tokenizer)
    encoded = [
        tokenize(tokenizer, [pair.prompt + getattr(pair, side) for pair in pairs])
        for side in ("chosen", "rejected")
    ]
    examples = []
    for chosen_text, rejected_text in zip(*encoded, strict=True):
        chosen, rejected = chosen_text.ids.tolist(), rejected_text.ids.tolist()
        shared = 0
        for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
            if one != other:
                break
            shared += 1
        prompt = [begin, *chosen[:shared]]
        sides = [side[shared:][: positions - 1] for side in (chosen, rejected)]
        room = positions - max(map(len, sides))
        examples.append(
            {"prompt_ids": prompt[-room:], "chosen_ids": sides[0], "rejected_ids": sides[1]}
        )
    return examples


class PairTrainer(OwnParameterNames, DPOTrainer):
    """DPOTrainer on pairs that are tokens already, so that no end of text is added to a side."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


def train_on_pairs(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[dict[str, list[int]]],
    *,
    settings: dict,
    beta: float,
    checkpoints: Path,
    seed: int,
) -> tuple[list[dict], int]:
    """Train `model` in place by DPO; return the log (LOSS_COLUMNS) and the number of steps.

    `reference` has the weights that `model` begins with; `examples` come from `tokenize_pairs`.
    Resumes from the last whole checkpoint below `checkpoints`. Raises InputError where the loss is
    not finite. TRL gives the tokenizer a padding token.
    """
    padding = model.config.pad_token_id
    trainer = PairTrainer(
        model=model,
        ref_model=reference,
        processing_class=tokenizer,
        args=training_arguments(
            settings,
            checkpoints=checkpoints,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            kind=DPOConfig,
            beta=beta,
            max_length=None,
            gradient_checkpointing=None,  # TRL's default is on; `activation_checkpointing` decides
        ),
        train_dataset=Dataset.from_list(list(examples)),
        callbacks=[StopAtBadLoss(), ListContents(), LogLine()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    model.config.pad_token_id = model.generation_config.pad_token_id = padding
    losses = [
        {
            **record,
            "reward_margin": record["rewards/margins"],
            "reward_accuracy": record["rewards/accuracies"],
        }
        for record in trainer.state.log_history
        if "loss" in record
    ]
    return losses, trainer.state.global_step
