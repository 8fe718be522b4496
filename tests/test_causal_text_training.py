"""Training on texts of one's own: the loss of labels, and the same bits after an interruption."""

import pytest
import torch

from ifguide.models import causal_text_training
from ifguide.models.causal_text_training import (
    label_losses,
    mean_label_loss,
    padded_batch,
    train_by,
)
from small_models import FAMILIES, random_tokens, small_model
from small_training import TRAINING

TEXTS = [random_tokens(1, length, seed=length)[0].tolist() for length in (3, 9, 5, 7, 4, 6, 8, 5)]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_losses_are_those_of_each_text_alone(family):
    """Padding has no label, and no label token sees it."""
    model = small_model(family)
    together = label_losses(model, padded_batch(TEXTS))
    total, count = 0.0, 0
    for row, text in enumerate(TEXTS):
        log_p = model(torch.tensor([text])).logits[0, :-1].log_softmax(-1)
        alone = -log_p[range(len(text) - 1), text[1:]]
        torch.testing.assert_close(together[row, : len(text) - 1], alone)
        assert (together[row, len(text) - 1 :] == 0).all()
        total, count = total + alone.sum(), count + len(alone)
    torch.testing.assert_close(mean_label_loss(model, padded_batch(TEXTS)), total / count)


class Interrupted(Exception):
    pass


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path):
    """Dropout and the order of the texts go on where they stopped."""
    settings = {**TRAINING, "epochs": 3, "batch_size": 2, "accumulation": 1, "checkpoint_steps": 2}

    def trained(folder, stop_after: int | None = None):
        model = small_model("gpt2", torch.float32)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        seen = []

        def loss(model, batch):
            seen.append(batch["input_ids"])
            if stop_after is not None and len(seen) > stop_after:
                raise Interrupted
            return mean_label_loss(model, batch)

        losses, steps = train_by(
            loss, model, TEXTS, padded_batch, settings=settings, checkpoints=folder, seed=3
        )
        return model, losses, steps, len(seen)

    whole, losses, steps, batches = trained(tmp_path / "whole")
    assert steps == batches == 12
    with pytest.raises(Interrupted):
        trained(tmp_path / "parts", stop_after=5)
    again, losses_again, _, rest = trained(tmp_path / "parts")
    assert rest == 12 - 4
    assert [record["loss"] for record in losses_again] == [record["loss"] for record in losses]
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert not whole.training
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert set(causal_text_training.TEXT_LOSS_COLUMNS) <= set(losses[-1])
