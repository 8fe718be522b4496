import pytest
import torch

from ifguide.models.labels import IGNORED_LABEL
from ifguide.models.objective import (
    OBJECTIVES,
    log_of_other_tokens,
    suppression_loss,
)

BLOCKS, LENGTH, VOCABULARY = 3, 6, 11


def random_case(share, padding=2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BLOCKS, LENGTH, VOCABULARY, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, VOCABULARY, (BLOCKS, LENGTH), generator=generator)
    if padding:
        labels[-1, -padding:] = IGNORED_LABEL
    selected = torch.rand(BLOCKS, LENGTH, generator=generator) < share
    return logits, labels, selected


def direct_loss(logits, labels, selected, objective, strength):
    """The objective token by token, from probabilities."""
    total = 0.0
    for block in range(BLOCKS):
        for j in range(1, LENGTH):
            label = labels[block, j]
            if label == IGNORED_LABEL:
                continue
            p = logits[block, j - 1].softmax(-1)[label]
            if not selected[block, j]:
                total = total - p.log()
            elif objective == "published":
                total = total + strength * p.log()
            elif objective == "unlikelihood":
                total = total - strength * (1 - p).log()
    return total


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_the_loss_and_its_gradient_are_those_of_the_direct_formula(objective, share, strength):
    logits, labels, selected = random_case(share)
    logits.requires_grad_(True)
    total, losses = suppression_loss(
        logits, labels, selected, objective=objective, strength=strength
    )
    expected = direct_loss(logits, labels, selected, objective, strength)
    torch.testing.assert_close(total, torch.as_tensor(expected, dtype=total.dtype))
    (found_gradient,) = torch.autograd.grad(total, logits)
    expected_gradient = torch.zeros_like(logits)
    if isinstance(expected, torch.Tensor) and expected.requires_grad:
        (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(found_gradient, expected_gradient)
    assert losses.shape == (BLOCKS, LENGTH)
    assert not losses.requires_grad


def test_label_losses_are_those_of_all_labels_selected_or_not():
    logits, labels, selected = random_case(0.5)
    _, losses = suppression_loss(logits, labels, selected, objective="exclusion", strength=1.0)
    log_p = logits.log_softmax(-1)
    for block in range(BLOCKS):
        for j in range(1, LENGTH):
            label = labels[block, j]
            expected = 0.0 if label == IGNORED_LABEL else -log_p[block, j - 1, label]
            assert float(losses[block, j]) == pytest.approx(float(expected))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_padding_and_its_mask_change_nothing(objective):
    logits, labels, selected = random_case(0.5)
    flipped = selected.clone()
    flipped[-1, -2:] = ~flipped[-1, -2:]
    flipped[:, 0] = ~flipped[:, 0]
    moved = logits.clone()
    moved[-1, -3:] += 5
    results = [
        suppression_loss(x, labels, s, objective=objective, strength=0.7)[0]
        for x, s in ((logits, selected), (logits, flipped), (moved, selected))
    ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("margin", [0.0, 20.0, 200.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_and_gradient_are_finite_where_the_label_is_certain(objective, margin, dtype):
    logits = torch.zeros(1, 2, 5, dtype=dtype)
    logits[0, 0, 3] = margin
    logits.requires_grad_(True)
    labels = torch.tensor([[0, 3]])
    total, _ = suppression_loss(
        logits, labels, torch.tensor([[False, True]]), objective=objective, strength=1.0
    )
    (gradient,) = torch.autograd.grad(total, logits)
    assert total.dtype == torch.float32
    assert torch.isfinite(total)
    assert torch.isfinite(gradient).all()
    if objective == "unlikelihood":
        # The margin is the loss there, and the gradient still pushes the label down.
        assert float(total.detach()) == pytest.approx(
            float(torch.logaddexp(torch.tensor(margin), torch.tensor(4.0).log()))
            - float(torch.tensor(4.0).log()),
            rel=1e-3,
        )
        assert gradient[0, 0, 3] > 0.1


def test_the_unlikelihood_gradient_fades_with_the_probability_and_ascent_does_not():
    gradients = {}
    for objective in ("published", "unlikelihood"):
        logits = torch.zeros(1, 2, 5)
        logits[0, 0, 3] = -12
        logits.requires_grad_(True)
        total, _ = suppression_loss(
            logits,
            torch.tensor([[0, 3]]),
            torch.tensor([[False, True]]),
            objective=objective,
            strength=1.0,
        )
        gradients[objective] = float(torch.autograd.grad(total, logits)[0].norm())
    assert gradients["unlikelihood"] < 1e-5
    assert gradients["published"] > 0.9


def test_without_a_selection_every_objective_is_the_plain_loss():
    logits, labels, selected = random_case(0.0)
    plain = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
    ).sum()
    for objective in OBJECTIVES:
        total, _ = suppression_loss(logits, labels, selected, objective=objective, strength=3.0)
        # The order of a sum is the processor's.
        torch.testing.assert_close(total, plain, rtol=1e-13, atol=0)


def test_unlikelihood_of_a_single_label():
    logits = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    p = logits.softmax(-1)[0, 1]
    found = log_of_other_tokens(logits.log_softmax(-1), torch.tensor([1]))
    assert float(found) == pytest.approx(float((1 - p).log()))


def test_the_gradient_is_that_of_finite_differences():
    logits, labels, selected = random_case(0.4)
    logits.requires_grad_(True)
    for objective in OBJECTIVES:
        assert torch.autograd.gradcheck(
            lambda x, objective=objective: (
                3 * suppression_loss(x, labels, selected, objective=objective, strength=0.7)[0]
            ),
            logits,
        )


def test_an_unknown_objective_is_refused():
    logits, labels, selected = random_case(0.5)
    with pytest.raises(ValueError, match="published, unlikelihood, exclusion"):
        suppression_loss(logits, labels, selected, objective="ascent", strength=1.0)
