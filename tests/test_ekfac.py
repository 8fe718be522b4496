from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from ifguide.influence.ekfac import (
    Batch,
    covariance_sums,
    eigenbases,
    eigenvalue_sums,
    inverse_hessian_product,
    layer_factors,
    merge,
)
from ifguide.influence.factor_blocks import drawn_positions
from ifguide.influence.label_gradients import drawn_labels, uniform_numbers
from ifguide.models.tracked_layers import tracked_layers
from small_models import (
    FAMILIES,
    MIXTURES_OF_EXPERTS,
    VOCABULARY,
    OneLinearLayer,
    random_batch,
    small_model,
)


def block_loss(model, tokens, valid, labels=None):
    """The loss of one block, straight from the model's logits."""
    logits = model(tokens.unsqueeze(0)).logits[0, :-1]
    labels = tokens[1:] if labels is None else labels
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    return (losses * valid[1:]).sum()


def activations_and_gradients(model, module, tokens, valid):
    """a (T, inputs) and g (T, outputs) of one block: g by adding a leaf to the layer's output."""
    kept = {}

    def add_leaf(_module, arguments, output):
        kept["input"] = arguments[0].detach()
        kept["leaf"] = torch.zeros_like(output, requires_grad=True)
        return output + kept["leaf"]

    hook = module.register_forward_hook(add_leaf)
    loss = block_loss(model, tokens, valid)
    hook.remove()
    (gradient,) = torch.autograd.grad(loss, kept["leaf"])
    return kept["input"].flatten(0, -2), gradient.flatten(0, -2)


def weight_gradient(model, layer, tokens, valid, labels=None):
    """The block's gradient with respect to the layer, by autograd on its parameters."""
    names, parameters = zip(*layer.named_parameters(), strict=True)
    loss = block_loss(model, tokens, valid, labels)
    return layer.matrix(dict(zip(names, torch.autograd.grad(loss, parameters), strict=True)))


def batches_of(batch, size, order=None):
    order = list(range(len(batch.tokens))) if order is None else order
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        indices = [batch.indices[row] for row in rows]
        drawn = None if batch.drawn is None else batch.drawn[rows]
        yield Batch(batch.tokens[rows], batch.valid[rows], indices, drawn)


@pytest.mark.parametrize("family", FAMILIES)
def test_covariances_are_those_of_explicit_activations_and_gradients(family):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    batch = random_batch(4, padding=5)
    sums = covariance_sums(model, layers, [batch], labels="true")
    assert sums["tokens"] == 4 * 12 - 5
    for layer in layers:
        activation = torch.zeros(layer.inputs, layer.inputs, dtype=torch.float64)
        gradient = torch.zeros(layer.outputs, layer.outputs, dtype=torch.float64)
        for tokens, valid in zip(batch.tokens, batch.valid, strict=True):
            a, g = activations_and_gradients(model, layer.module, tokens, valid)
            for position in range(12):
                if valid[position]:
                    ones = [1.0] * layer.has_bias
                    row = torch.cat([a[position], a.new_tensor(ones)])
                    activation += torch.outer(row, row)
                    gradient += torch.outer(g[position], g[position])
        torch.testing.assert_close(sums[f"{layer.name}.activation"], activation)
        torch.testing.assert_close(sums[f"{layer.name}.gradient"], gradient)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding", [0, 2])
def test_covariances_of_drawn_positions_are_on_average_those_of_all(family, padding):
    """The mean over every set of two positions of six, padding and counts included."""
    model = small_model(family)
    layers, _ = tracked_layers(model)
    batch = random_batch(2, 6, padding=padding)
    whole = covariance_sums(model, layers, [batch])
    found = []
    for places in combinations(range(6), 2):
        drawn = torch.zeros(2, 6, dtype=torch.bool)
        drawn[:, list(places)] = True
        found.append(covariance_sums(model, layers, [replace(batch, drawn=drawn)]))
    for layer in layers:
        for name in (f"{layer.name}.activation", f"{layer.name}.gradient"):
            mean = torch.stack([sums[name] / sums["tokens"] for sums in found]).mean(0)
            torch.testing.assert_close(mean, whole[name] / whole["tokens"])
            assert not torch.allclose(found[0][name], found[-1][name])


@pytest.mark.parametrize("family", FAMILIES)
def test_covariances_of_all_positions_drawn_are_those_of_the_plain_pass_bit_for_bit(family):
    model = small_model(family, torch.float32)
    layers, _ = tracked_layers(model)
    batch = random_batch(3)
    drawn = replace(batch, drawn=torch.ones_like(batch.valid))
    plain, all_drawn = (covariance_sums(model, layers, [b]) for b in (batch, drawn))
    for name, tensor in plain.items():
        assert torch.equal(all_drawn[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_eigenvalues_are_the_mean_squares_of_rotated_block_gradients(family):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    batch = random_batch(5, padding=3)
    bases = eigenbases(covariance_sums(model, layers, [batch], labels="true"))
    sums = eigenvalue_sums(model, layers, bases, [batch], labels="true")
    factors = layer_factors(bases, sums)
    assert sums["blocks"] == 5
    for layer in layers:
        basis = bases[layer.name]
        squares = [
            (basis.gradient.T @ weight_gradient(model, layer, *block) @ basis.activation) ** 2
            for block in zip(batch.tokens, batch.valid, strict=True)
        ]
        expected = torch.stack(squares).mean(0)
        torch.testing.assert_close(factors[layer.name].eigenvalues, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_bases_diagonalise_the_covariances_in_ascending_order(family):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    sums = covariance_sums(model, layers, [random_batch(4)])
    for name, basis in eigenbases(sums).items():
        for vectors, kind in ((basis.activation, "activation"), (basis.gradient, "gradient")):
            identity = torch.eye(len(vectors), dtype=torch.float64)
            torch.testing.assert_close(vectors.T @ vectors, identity)
            diagonal = vectors.T @ (sums[f"{name}.{kind}"] / sums["tokens"]) @ vectors
            largest = diagonal.diagonal().max()
            assert (diagonal - diagonal.diagonal().diag()).abs().max() < 1e-12 * largest
            assert (diagonal.diagonal().diff() > -1e-12 * largest).all()


def test_ekfac_of_one_layer_is_exact_where_its_gauss_newton_hessian_is_a_kronecker_product():
    """A layer of zero weights, before every pair of tokens once.

    Each label is as likely as any other, whatever the activation, so that the labels of these
    blocks are the model's own distribution and H = E[a aᵀ] ⊗ E[g gᵀ]. The logits are linear in the
    weights, so that H is the loss's Hessian: it is taken by autograd and solved densely.
    """
    torch.manual_seed(0)
    model = OneLinearLayer().double().eval()
    for parameter in model.body.blocks.parameters():
        nn.init.zeros_(parameter)
    (layer,), _ = tracked_layers(model)
    tokens = torch.cartesian_prod(torch.arange(VOCABULARY), torch.arange(VOCABULARY))
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), range(len(tokens)))
    bases = eigenbases(covariance_sums(model, [layer], [batch], labels="true"))
    sums = eigenvalue_sums(model, [layer], bases, [batch], labels="true")
    factors = layer_factors(bases, sums)[layer.name]

    def mean_loss(flat):
        parameters = layer.parameters(flat.view(4, 6))
        logits = functional_call(model, parameters, (tokens,)).logits[:, 0]
        return nn.functional.cross_entropy(logits, tokens[:, 1])

    hessian = torch.autograd.functional.hessian(mean_loss, torch.zeros(24, dtype=torch.float64))
    matrix = torch.randn(4, 6, dtype=torch.float64)
    damping = 0.1 * hessian.trace() / 24
    damped = hessian + damping * torch.eye(24, dtype=torch.float64)
    dense = torch.linalg.solve(damped, matrix.flatten())
    found = inverse_hessian_product(factors, matrix, relative_damping=0.1)
    torch.testing.assert_close(found, dense.view(4, 6), rtol=1e-8, atol=1e-10)


def test_drawn_labels_have_the_models_probabilities():
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0)).double()
    uniform = uniform_numbers(range(4000), 1, lambda index: index).flatten()
    probability = logits.softmax(-1).expand(4000, -1)
    labels = drawn_labels(probability, uniform)
    frequency = torch.bincount(labels, minlength=VOCABULARY) / 4000
    spread = (probability[0] * (1 - probability[0]) / 4000).sqrt()
    assert ((frequency - probability[0]).abs() < 5 * spread + 1e-3).all()


@pytest.mark.parametrize("vocabulary", [1, 2, 9, 10, VOCABULARY, 100, 8191])
def test_a_drawn_label_is_the_inverse_of_the_cumulative_sum(vocabulary):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(300, vocabulary, generator=generator, dtype=torch.float64)
    uniform = torch.rand(300, generator=generator, dtype=torch.float64)
    uniform[:2] = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    probability = logits.softmax(-1)
    found = drawn_labels(probability, uniform)
    for row, number, label in zip(probability, uniform, found, strict=True):
        assert row[:label].sum() <= number * row.sum() + 1e-12
        assert number * row.sum() <= row[: label + 1].sum() + 1e-12


def test_random_numbers_depend_on_their_blocks_index_only():
    together = uniform_numbers([7, 8, 9], 6, lambda index: 100 + index)
    for row, index in enumerate([7, 8, 9]):
        alone = uniform_numbers([index], 6, lambda index: 100 + index)
        assert torch.equal(alone[0], together[row])
    assert not torch.equal(uniform_numbers([17, 18, 19], 6, lambda index: 100 + index), together)


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_of_drawn_labels_are_those_of_the_same_labels_given(family):
    """Drawn labels through explicit gradients: E[g gᵀ] and Λ of the true Fisher."""
    model = small_model(family)
    layers, _ = tracked_layers(model)
    batch = random_batch(3, padding=4)
    uniform = uniform_numbers(batch.indices, 11, lambda index: index)
    with torch.no_grad():
        probability = model(batch.tokens).logits[:, :-1].softmax(-1)
    labels = [drawn_labels(*row) for row in zip(probability, uniform, strict=True)]
    sums = covariance_sums(model, layers, [batch])
    bases = eigenbases(sums)
    corrected = eigenvalue_sums(model, layers, bases, [batch])
    rows = list(zip(batch.tokens, batch.valid, labels, strict=True))
    for layer in layers:
        basis = bases[layer.name]
        expected = sum(
            (basis.gradient.T @ weight_gradient(model, layer, *row) @ basis.activation) ** 2
            for row in rows
        )
        torch.testing.assert_close(corrected[layer.name], expected)


def test_a_label_of_probability_zero_is_never_drawn():
    probability = torch.zeros(500, 40)
    probability[:, 2] = 1
    uniform = uniform_numbers([0], 500, lambda index: index).flatten()
    assert (drawn_labels(probability, uniform) == 2).all()


def factors_of(model, batch, size, shards, order=None, labels="sampled"):
    layers, _ = tracked_layers(model)
    batches = list(batches_of(batch, size, order))
    split = [batches[shard::shards] for shard in range(shards)]
    sums = merge([covariance_sums(model, layers, part, labels=labels) for part in split])
    return layers, sums, split


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("positions", [1.0, 0.4])
def test_batch_size_shards_and_order_change_nothing(family, dtype, tolerance, positions):
    model = small_model(family, dtype)
    batch = random_batch(7, padding=4)
    batch = replace(batch, drawn=drawn_positions(batch.indices, 12, positions, seed=1))
    order = [3, 0, 6, 2, 5, 1, 4]
    layers, reference, whole = factors_of(model, batch, 7, 1)
    bases = eigenbases(reference)
    eigenvalues = merge([eigenvalue_sums(model, layers, bases, whole[0])])
    for size, shards, blocks in ((1, 3, None), (2, 2, order), (3, 5, order)):
        _, sums, split = factors_of(model, batch, size, shards, blocks)
        corrected = merge([eigenvalue_sums(model, layers, bases, part) for part in split])
        for expected, found in ((reference, sums), (eigenvalues, corrected)):
            assert expected.keys() == found.keys()
            for name, tensor in expected.items():
                difference = (found[name] - tensor).norm() / tensor.norm()
                assert difference <= tolerance, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("labels", ["sampled", "true"])
def test_what_stands_in_the_padding_changes_nothing(family, labels):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    batch = random_batch(3, padding=5)
    other = Batch(batch.tokens.clone(), batch.valid, batch.indices)
    other.tokens[-1, -5:] = 1
    assert not torch.equal(other.tokens, batch.tokens)
    found = [covariance_sums(model, layers, [b], labels=labels) for b in (batch, other)]
    bases = eigenbases(found[0])
    corrected = [eigenvalue_sums(model, layers, bases, [b], labels=labels) for b in (batch, other)]
    for first, second in (found, corrected):
        for name in first:
            torch.testing.assert_close(second[name], first[name], rtol=1e-10, atol=1e-14)


def test_a_block_of_padding_counts_for_nothing():
    model = small_model("llama")
    layers, _ = tracked_layers(model)
    batch = random_batch(3)
    batch.valid[1] = False
    rest = Batch(batch.tokens[[0, 2]], batch.valid[[0, 2]], [0, 2])
    with_it, without = (covariance_sums(model, layers, [b]) for b in (batch, rest))
    bases = eigenbases(without)
    for first, second in (
        (with_it, without),
        tuple(eigenvalue_sums(model, layers, bases, [b]) for b in (batch, rest)),
    ):
        for name in first:
            torch.testing.assert_close(first[name], second[name], rtol=1e-10, atol=1e-14)


def test_layers_with_one_input_share_its_covariance_and_equal_the_unshared_one():
    model = small_model("llama")
    layers, _ = tracked_layers(model)
    batch = random_batch(3)
    together = covariance_sums(model, layers, [batch])
    block = "model.layers.1"
    for group in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        members = [
            layer for layer in layers if layer.name.startswith(block) and layer.name.endswith(group)
        ]
        assert len(members) == len(group)
        pointers = {together[f"{layer.name}.activation"].data_ptr() for layer in members}
        assert len(pointers) == 1
        for layer in members:
            alone = covariance_sums(model, [layer], [batch])
            torch.testing.assert_close(
                alone[f"{layer.name}.activation"], together[f"{layer.name}.activation"]
            )


def test_shared_experts_that_flatten_their_input_are_computed_as_others_are():
    model = small_model("qwen2_moe", torch.float32)
    layers, _ = tracked_layers(model)
    batch = random_batch(3, padding=4)
    sums = covariance_sums(model, layers, [batch], labels="true")
    bases = eigenbases(sums)
    corrected = eigenvalue_sums(model, layers, bases, [batch], labels="true")
    layer = next(layer for layer in layers if layer.name.endswith("1.mlp.shared_expert.up_proj"))
    basis = bases[layer.name]
    expected = sum(
        (basis.gradient.T @ weight_gradient(model, layer, *block) @ basis.activation) ** 2
        for block in zip(batch.tokens, batch.valid, strict=True)
    )
    torch.testing.assert_close(corrected[layer.name], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", MIXTURES_OF_EXPERTS)
def test_mixtures_of_experts_have_factors_for_what_is_tracked(family):
    model = small_model(family, torch.float32)
    layers, _ = tracked_layers(model)
    bases = eigenbases(covariance_sums(model, layers, [random_batch(2)]))
    assert set(bases) == {layer.name for layer in layers}


def test_bfloat16_products_do_not_stall_over_many_small_updates():
    """10,000 batches through the real passes: a bfloat16 sum would stop at a few hundred."""
    torch.manual_seed(0)
    model = OneLinearLayer().to(torch.bfloat16).eval()
    layers, _ = tracked_layers(model)
    batch = random_batch(1, 3)
    once = covariance_sums(model, layers, [batch], labels="true")
    many = covariance_sums(model, layers, (batch for _ in range(10_000)), labels="true")
    bases = eigenbases(once)
    once |= eigenvalue_sums(model, layers, bases, [batch], labels="true")
    many = {name: tensor / 10_000 for name, tensor in many.items()}
    corrected = eigenvalue_sums(model, layers, bases, (batch for _ in range(2000)), labels="true")
    many |= {name: tensor / 2000 for name, tensor in corrected.items()}
    for name, tensor in once.items():
        assert many[name].dtype in (torch.float32, torch.float64)
        assert (many[name] - tensor).norm() < 1e-3 * tensor.norm(), name


def test_accumulators_of_float64_models_are_float64():
    model = small_model("gpt2")
    layers, _ = tracked_layers(model)
    assert (
        covariance_sums(model, layers, [random_batch(1)])[f"{layers[0].name}.gradient"].dtype
        == torch.float64
    )


def test_passes_leave_the_model_as_they_found_it():
    model = small_model("gpt_neox")
    layers, _ = tracked_layers(model)
    layers[0].module.weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    covariance_sums(model, layers, [random_batch(2)])
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
