import copy

import pytest
import torch
from torch import nn

from ifguide.influence.ekfac import (
    Eigenbasis,
    LayerFactors,
    covariance_sums,
    eigenbases,
    eigenvalue_sums,
    layer_factors,
)
from ifguide.influence.query_direction import precondition
from ifguide.influence.token_scores import (
    backward_scorer,
    forward_mode_scorer,
    position_scorer,
    relative_error,
    step_size,
    two_forward_scorer,
)
from ifguide.models.tracked_layers import tracked_layers
from small_models import (
    FAMILIES,
    MIXTURES_OF_EXPERTS,
    OTHER_DECODERS,
    VOCABULARY,
    random_batch,
    random_direction,
    random_tokens,
    small_model,
)

BUDGET = 4 * VOCABULARY * 7


def token_loss(model, tokens, label):
    """-log p of one token of one block (T,), from a forward pass over what precedes it."""
    logits = model(tokens[:label].unsqueeze(0)).logits[0, -1]
    return -logits.log_softmax(-1)[tokens[label]]


def naive_loss_scores(model, direction, tokens):
    """One forward pass and one gradient for every token: ⟨v, ∇L_ij⟩ as it is written."""
    parameters = dict(model.named_parameters())
    moving = [parameters[name] for name in direction]
    scores = torch.zeros(tokens.shape, dtype=torch.float64)
    for block, row in enumerate(tokens):
        for label in range(1, len(row)):
            gradients = torch.autograd.grad(token_loss(model, row, label), moving)
            for gradient, vector in zip(gradients, direction.values(), strict=True):
                scores[block, label] += (gradient.double() * vector.double()).sum()
    return scores


def block_gradient_scores(model, direction, tokens, valid):
    """⟨v, ∇ of the block's whole loss⟩, (blocks,)."""
    parameters = dict(model.named_parameters())
    moving = [parameters[name] for name in direction]
    products = []
    for row, kept in zip(tokens, valid, strict=True):
        logits = model(row.unsqueeze(0)).logits[0, :-1]
        losses = nn.functional.cross_entropy(logits, row[1:], reduction="none")
        gradients = torch.autograd.grad((losses * kept[1:]).sum(), moving)
        products.append(
            sum((g * v).sum() for g, v in zip(gradients, direction.values(), strict=True))
        )
    return torch.stack(products)


def leaf_adder(name, seen, leaves):
    def add_leaf(_module, arguments, output):
        seen[name] = arguments[0].detach()[0]
        leaves[name] = torch.zeros_like(output, requires_grad=True)
        return output + leaves[name]

    return add_leaf


def outer_product_position_scores(model, layers, direction, tokens, valid):
    """Per-position weight gradients g aᵀ of every layer, formed one by one, times v."""
    scores = torch.zeros(tokens.shape, dtype=torch.float64)
    for block, (row, kept) in enumerate(zip(tokens, valid, strict=True)):
        seen, leaves = {}, {}
        hooks = [
            layer.module.register_forward_hook(leaf_adder(layer.name, seen, leaves))
            for layer in layers
        ]
        logits = model(row.unsqueeze(0)).logits[0, :-1]
        for hook in hooks:
            hook.remove()
        losses = nn.functional.cross_entropy(logits, row[1:], reduction="none")
        gradients = torch.autograd.grad((losses * kept[1:]).sum(), list(leaves.values()))
        for layer, gradient in zip(layers, gradients, strict=True):
            weight = direction[f"{layer.name}.weight"]
            weight = weight.T if layer.transposed else weight
            for position in range(len(row) - 1):
                g, a = gradient[0, position], seen[layer.name][position]
                score = (torch.outer(g, a) * weight).sum()
                if layer.has_bias:
                    score += (g * direction[f"{layer.name}.bias"]).sum()
                scores[block, position + 1] += score
    return scores


@pytest.mark.parametrize("family", FAMILIES)
def test_all_routes_to_loss_scores_equal_one_gradient_a_token(family):
    model = small_model(family)
    direction = random_direction(tracked_layers(model)[0])
    tokens = random_tokens(2)
    expected = naive_loss_scores(model, direction, tokens)
    assert expected[:, 1:].abs().min() > 0
    for make in (backward_scorer, forward_mode_scorer):
        found = make(model, direction, logits_budget_bytes=BUDGET)(tokens)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        assert (found[:, 0] == 0).all()
        assert not found.requires_grad
    errors = []
    for step in (1e-2, 1e-3, 1e-4):
        score = two_forward_scorer(
            copy.deepcopy(model),
            copy.deepcopy(direction),
            relative_step=step,
            logits_budget_bytes=BUDGET,
        )
        errors.append(relative_error(score(tokens), expected))
        assert (score(tokens)[:, 0] == 0).all()
    # A central difference: a step ten times smaller, an error a hundred times smaller.
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(100, rel=0.2)
    assert errors[2] < 1e-5


@pytest.mark.parametrize("family", OTHER_DECODERS)
def test_other_decoders_are_scored_by_every_route(family):
    """Some of them compute norms or attention in float32 even here, so the tolerance is wider."""
    model = small_model(family)
    direction = random_direction(tracked_layers(model)[0])
    tokens = random_tokens(2)
    expected = naive_loss_scores(model, direction, tokens)
    for make in (backward_scorer, forward_mode_scorer):
        score = make(model, direction, logits_budget_bytes=BUDGET)
        assert relative_error(score(tokens), expected) < 1e-5
    score = two_forward_scorer(model, direction, relative_step=1e-3, logits_budget_bytes=BUDGET)
    assert relative_error(score(tokens), expected) < 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_loss_scores_are_close(family):
    direction = random_direction(tracked_layers(small_model(family))[0])
    tokens = random_tokens(2)
    expected = naive_loss_scores(small_model(family), direction, tokens)
    model = small_model(family, torch.float32)
    direction = {name: tensor.float() for name, tensor in direction.items()}
    exact = forward_mode_scorer(model, direction, logits_budget_bytes=BUDGET)(tokens)
    assert exact.dtype == torch.float32
    assert relative_error(exact, expected) < 1e-5
    score = two_forward_scorer(model, direction, relative_step=1e-3, logits_budget_bytes=BUDGET)
    assert relative_error(score(tokens), expected) < 5e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding", [0, 4])
def test_position_scores_equal_explicit_outer_products(family, padding):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    direction = random_direction(layers)
    batch = random_batch(3, padding=padding)
    expected = outer_product_position_scores(model, layers, direction, batch.tokens, batch.valid)
    found = position_scorer(model, layers, direction)(batch.tokens, batch.valid)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding", [0, 4])
def test_both_attributions_sum_to_the_score_of_the_block(family, padding):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    direction = random_direction(layers)
    batch = random_batch(3, padding=padding)
    expected = block_gradient_scores(model, direction, batch.tokens, batch.valid)
    loss = forward_mode_scorer(model, direction, logits_budget_bytes=BUDGET)(batch.tokens)
    position = position_scorer(model, layers, direction)(batch.tokens, batch.valid)
    assert not torch.allclose(loss, position)
    torch.testing.assert_close((loss * batch.valid).sum(1), expected)
    torch.testing.assert_close((position * batch.valid).sum(1), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_do_not_depend_on_the_batch_or_on_the_logits_budget(family):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    direction = random_direction(layers)
    batch = random_batch(5)
    scorers = [
        forward_mode_scorer(model, direction, logits_budget_bytes=budget) for budget in (1, 2**26)
    ]
    expected = scorers[0](batch.tokens)
    torch.testing.assert_close(scorers[1](batch.tokens), expected, rtol=1e-10, atol=1e-12)
    one_by_one = torch.cat([scorers[0](row.unsqueeze(0)) for row in batch.tokens])
    torch.testing.assert_close(one_by_one, expected, rtol=1e-10, atol=1e-12)
    position = position_scorer(model, layers, direction)
    one_by_one = torch.cat(
        [
            position(row.unsqueeze(0), kept.unsqueeze(0))
            for row, kept in zip(batch.tokens, batch.valid, strict=True)
        ]
    )
    torch.testing.assert_close(
        one_by_one, position(batch.tokens, batch.valid), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_positive_score_means_that_descent_on_the_token_descends_along_the_direction(family):
    """With v the gradient of a query's loss, a step on a token of positive score lowers it."""
    model = small_model(family)
    layers, _ = tracked_layers(model)
    names = [name for layer in layers for name, _ in layer.named_parameters()]
    parameters = [dict(model.named_parameters())[name] for name in names]
    query, tokens = random_tokens(1, 6, seed=5)[0], random_tokens(1)
    direction = dict(
        zip(names, torch.autograd.grad(token_loss(model, query, 5), parameters), strict=True)
    )
    scores = forward_mode_scorer(model, direction, logits_budget_bytes=BUDGET)(tokens)[0]
    before = token_loss(model, query, 5).detach()
    for label in (int(scores.argmax()), int(scores.argmin())):
        step = torch.autograd.grad(token_loss(model, tokens[0], label), parameters)
        trained = copy.deepcopy(model)
        with torch.no_grad():
            for name, gradient in zip(names, step, strict=True):
                trained.get_parameter(name).sub_(gradient, alpha=1e-5)
        change = float(token_loss(trained, query, 5).detach() - before)
        assert change == pytest.approx(-1e-5 * float(scores[label]), rel=1e-2)
    assert scores.max() > 0 > scores.min()


def test_two_forward_scores_move_the_tracked_weights_and_no_others():
    model = small_model("gpt2")
    direction = random_direction(tracked_layers(model)[0])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moves = copy.deepcopy(direction)
    step = step_size(model, direction, 0.5)
    score = two_forward_scorer(model, moves, relative_step=0.5, logits_budget_bytes=BUDGET)
    first, second = score(random_tokens(2)), score(random_tokens(2))
    assert torch.equal(first, second)
    for name, parameter in model.named_parameters():
        if name in direction:
            torch.testing.assert_close(parameter, before[name] - step * direction[name])
            torch.testing.assert_close(moves[name], before[name] + step * direction[name])
        else:
            assert torch.equal(parameter, before[name])


def test_the_step_is_relative_to_the_tracked_weights():
    model = small_model("llama")
    direction = random_direction(tracked_layers(model)[0])
    step = step_size(model, direction, 1e-3)
    weights = torch.cat([model.get_parameter(name).flatten() for name in direction])
    change = torch.cat([tensor.flatten() for tensor in direction.values()])
    assert step * change.norm() == pytest.approx(1e-3 * weights.norm().item())
    with pytest.raises(ValueError, match="direction is zero"):
        step_size(model, {name: 0 * tensor for name, tensor in direction.items()}, 1e-3)


def test_position_scores_of_half_precision_models_are_summed_in_float32():
    model = small_model("llama", torch.bfloat16)
    layers, _ = tracked_layers(model)
    direction = random_direction(layers)
    batch = random_batch(2)
    found = position_scorer(model, layers, direction)(batch.tokens, batch.valid)
    exact = small_model("llama").double()
    exact.load_state_dict({name: p.double() for name, p in model.state_dict().items()})
    layers, _ = tracked_layers(exact)
    direction = {name: tensor.double() for name, tensor in direction.items()}
    expected = position_scorer(exact, layers, direction)(batch.tokens, batch.valid)
    assert found.dtype == torch.float32
    assert relative_error(found, expected) < 0.1


@pytest.mark.parametrize("family", MIXTURES_OF_EXPERTS)
def test_mixtures_of_experts_are_scored_over_what_is_tracked(family):
    model = small_model(family, torch.float32)
    layers, _ = tracked_layers(model)
    direction = random_direction(layers)
    batch = random_batch(2)
    expected = block_gradient_scores(model, direction, batch.tokens, batch.valid)
    position = position_scorer(model, layers, direction)(batch.tokens, batch.valid)
    torch.testing.assert_close(position.sum(1), expected, rtol=1e-3, atol=1e-3)
    loss = backward_scorer(model, direction, logits_budget_bytes=BUDGET)(batch.tokens)
    torch.testing.assert_close(loss.sum(1), expected, rtol=1e-3, atol=1e-3)


def language_modelling_task(kronfluence_task, names):
    class LanguageModelling(kronfluence_task.Task):
        def compute_train_loss(self, batch, model, sample=False):
            logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
            return nn.functional.cross_entropy(
                logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="sum"
            )

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self):
            return names

    return LanguageModelling()


def with_linear_layers(model, layers):
    """Put a linear layer of the same function in place of each `Conv1D`, which the peer skips."""
    for layer in layers:
        if layer.transposed:
            linear = nn.Linear(layer.inputs - 1, layer.outputs).to(model.dtype)
            linear.weight.data, linear.bias.data = (
                layer.module.weight.data.T,
                layer.module.bias.data,
            )
            model.set_submodule(layer.name, linear)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_position_scores_equal_those_of_kronfluence(family, tmp_path):
    """The same factors and one query; a peer that was written without this project's code."""
    analyzer_module = pytest.importorskip("kronfluence.analyzer")
    from kronfluence import task as kronfluence_task
    from kronfluence.arguments import FactorArguments, ScoreArguments

    model = small_model(family, torch.float32)
    layers, _ = tracked_layers(model)
    names = [layer.name for layer in layers]
    batch, query = random_batch(6), random_tokens(1, seed=9)
    task = language_modelling_task(kronfluence_task, names)

    class Blocks(torch.utils.data.Dataset):
        def __init__(self, tokens):
            self.tokens = tokens

        def __len__(self):
            return len(self.tokens)

        def __getitem__(self, index):
            return {"input_ids": self.tokens[index]}

    peer = analyzer_module.Analyzer(
        "peer",
        model=analyzer_module.prepare_model(with_linear_layers(copy.deepcopy(model), layers), task),
        task=task,
        cpu=True,
        output_dir=str(tmp_path),
        disable_tqdm=True,
    )
    peer.fit_all_factors(
        "factors",
        dataset=Blocks(batch.tokens),
        per_device_batch_size=2,
        factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=True),
    )
    peer.compute_pairwise_scores(
        "scores",
        factors_name="factors",
        query_dataset=Blocks(query),
        train_dataset=Blocks(batch.tokens),
        per_device_query_batch_size=1,
        per_device_train_batch_size=3,
        score_args=ScoreArguments(damping_factor=None, compute_per_token_scores=True),
    )
    expected = peer.load_pairwise_scores("scores")["all_modules"][0]
    stored = {
        **peer.load_eigendecomposition("factors"),
        **peer.load_lambda_matrices("factors"),
    }

    sums = covariance_sums(model, layers, [batch], labels="true")
    bases = eigenbases(sums)
    eigenvalues = eigenvalue_sums(model, layers, bases, [batch], labels="true")
    parameters = dict(model.named_parameters())
    moving = {name: parameters[name] for layer in layers for name, _ in layer.named_parameters()}
    logits = model(query).logits[0, :-1]
    loss = nn.functional.cross_entropy(logits, query[0, 1:], reduction="sum")
    gradient = dict(zip(moving, torch.autograd.grad(loss, list(moving.values())), strict=True))
    theirs = {
        name: LayerFactors(
            Eigenbasis(
                stored["activation_eigenvectors"][name], stored["gradient_eigenvectors"][name]
            ),
            stored["lambda_matrix"][name] / stored["num_lambda_processed"][name],
        )
        for name in names
    }
    for factors in (theirs, layer_factors(bases, eigenvalues)):
        direction = precondition(gradient, layers, factors, relative_damping=0.1, power=1.0)
        found = position_scorer(model, layers, direction)(batch.tokens, batch.valid)
        # The peer leaves a score on the position that makes it; ours stands on the label.
        assert relative_error(found[:, 1:], expected[:, :-1]) < 1e-4
