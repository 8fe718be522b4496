"""The suppression objective for Trainers: those of `transformers`, and `SFTTrainer` of `trl`.

    class SuppressionTrainer(SuppressionMixin, Trainer): pass

Labels say of themselves which of them are suppressed (`models.labels.mark_labels`), so that nothing
else about the Trainer changes: neither its data, its collator, nor how it packs.
"""

import torch

from ifguide.models.labels import IGNORED_LABEL, unmark_labels
from ifguide.models.objective import OBJECTIVES, suppression_loss


class SuppressionMixin:
    """Trains by the suppression objective, normalised by label tokens; stands before a Trainer.

    objective, strength: of `suppression_loss`. The Trainer counts the label tokens of the whole
    accumulated batch over all processes, so the loss does not depend on how a batch is divided. Its
    records have the mean loss of selected and of unselected labels apart. The model's own loss is
    not taken, and so no auxiliary one of a mixture of experts.

    Raises ValueError for an unknown objective, and where one process would divide its batches among
    several GPUs.
    """

    def __init__(
        self, *arguments, objective: str = "unlikelihood", strength: float = 1.0, **settings
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f"objective {objective!r} is none of {', '.join(OBJECTIVES)}")
        super().__init__(*arguments, **settings)
        if self.args.n_gpu > 1:
            raise ValueError(
                "one process cannot divide its batches among several GPUs: start one for each by "
                "torchrun or accelerate launch, or show it one by CUDA_VISIBLE_DEVICES"
            )
        self.objective = objective
        self.strength = strength
        self.model_accepts_loss_kwargs = True  # makes the Trainer count label tokens
        # Sums of label losses and their counts, selected and unselected, since the last log.
        self.loss_sums = torch.zeros(2, 2, dtype=torch.float64, device=self.args.device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, selected = unmark_labels(inputs["labels"])
        others = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**others | {"use_cache": False})
        total, losses = suppression_loss(
            outputs.logits, labels, selected, objective=self.objective, strength=self.strength
        )
        # The first label of a row is no label: nothing comes before it.
        labelled = labels != IGNORED_LABEL
        labelled[:, 0] = False
        if model.training:
            # On the device: reading the sums here would make it wait at every batch.
            for sums, members in zip(
                self.loss_sums, (labelled & selected, labelled & ~selected), strict=True
            ):
                sums[0] += (losses * members).sum()
                sums[1] += members.sum()
        if num_items_in_batch is None:
            loss = total / labelled.sum().clamp(min=1)
        else:
            loss = total / num_items_in_batch
            # Gradients are averaged over processes, while the count is of all of them.
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            sums = self.accelerator.reduce(self.loss_sums, "sum").tolist()
            for name, (total, count) in zip(
                ("selected_loss", "unselected_loss"), sums, strict=True
            ):
                if count:
                    logs[name] = total / count
            self.loss_sums.zero_()
            logs |= self.also_logged(int(sum(count for _, count in sums)))
        super().log(logs, start_time)

    def also_logged(self, labels: int) -> dict[str, float]:
        """Return what else is recorded of the steps since the last record, of so many labels."""
        return {}
