import numpy as np
import pytest
import torch
from torch import nn

from ifguide.data.corpus import train_tokenizer
from ifguide.errors import InputError
from ifguide.influence.ekfac import (
    Eigenbasis,
    LayerFactors,
    covariance_sums,
    eigenbases,
    eigenvalue_sums,
    layer_factors,
)
from ifguide.influence.query_direction import (
    QueryRecord,
    difference,
    encode_records,
    length_batches,
    mean_gradient,
    precondition,
    restricted,
)
from ifguide.models.tracked_layers import tracked_layers
from small_models import FAMILIES, VOCABULARY, random_batch, small_model


def random_records(count, seed=0):
    generator = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        length = int(generator.integers(2, 14))
        ids = generator.integers(0, VOCABULARY, length)
        records.append(QueryRecord(ids, int(generator.integers(1, length))))
    return records


def naive_mean_gradient(model, layers, records):
    """The mean over records, not tokens, of each record's own summed gradient."""
    names = [name for layer in layers for name, _ in layer.named_parameters()]
    parameters = [model.get_parameter(name) for name in names]
    total = {name: torch.zeros_like(p) for name, p in zip(names, parameters, strict=True)}
    for record in records:
        tokens = torch.from_numpy(record.ids)
        log_p = model(tokens.unsqueeze(0)).logits[0].log_softmax(-1)
        loss = -sum(log_p[j - 1, tokens[j]] for j in range(record.continuation_start, len(tokens)))
        for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
            total[name] += gradient / len(records)
    return {name: tensor.detach() for name, tensor in total.items()}


def assert_same_direction(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", [*FAMILIES])
@pytest.mark.parametrize("tokens_per_batch", [1, 30, 10_000])
def test_the_mean_is_over_records_whatever_the_batches(family, tokens_per_batch):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    records = random_records(9)
    found = mean_gradient(model, layers, records, tokens_per_batch=tokens_per_batch)
    assert_same_direction(found, naive_mean_gradient(model, layers, records))
    assert not any(tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_differential_query_is_toxic_less_safe_and_one_sided_without_safe(family):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    toxic, safe = random_records(3, seed=1), random_records(8, seed=2)
    means = [mean_gradient(model, layers, records) for records in (toxic, safe)]
    expected = [naive_mean_gradient(model, layers, records) for records in (toxic, safe)]
    assert_same_direction(
        difference(*means), {name: expected[0][name] - expected[1][name] for name in expected[0]}
    )
    assert_same_direction(difference(means[0], None), expected[0])


def test_the_direction_is_the_derivative_of_the_continuations_loss():
    """Moving along -q lowers the loss of the continuation at the rate ‖q‖²."""
    model = small_model("gpt2")
    layers, _ = tracked_layers(model)
    record = QueryRecord(np.array([3, 4, 5, 6, 7]), 2)
    direction = mean_gradient(model, layers, [record])

    def loss():
        tokens = torch.from_numpy(record.ids)
        logits = model(tokens.unsqueeze(0)).logits[0, 1:-1]
        return float(nn.functional.cross_entropy(logits, tokens[2:], reduction="sum").detach())

    before = loss()
    with torch.no_grad():
        for name, tensor in direction.items():
            model.get_parameter(name).sub_(tensor, alpha=1e-7)
    rate = sum(float(tensor.square().sum()) for tensor in direction.values())
    assert (before - loss()) / 1e-7 == pytest.approx(rate, rel=1e-4)


def test_batches_hold_every_record_once_and_respect_the_budget():
    records = random_records(40)
    batches = list(length_batches(records, 50))
    assert sorted(id(r) for batch in batches for r in batch) == sorted(map(id, records))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(r.ids) for r in batch) <= 50
    assert [len(batch) for batch in length_batches(records, 1)] == [1] * 40


def test_half_precision_gradients_are_summed_in_float32():
    model = small_model("llama", torch.bfloat16)
    layers, _ = tracked_layers(model)
    records = random_records(1) * 400
    once = mean_gradient(model, layers, records[:1])
    many = mean_gradient(model, layers, records, tokens_per_batch=1)
    for name, tensor in once.items():
        assert many[name].dtype == torch.float32
        assert (many[name] - tensor).norm() < 1e-3 * tensor.norm()


def test_gradients_leave_the_model_as_they_found_it():
    model = small_model("gpt_neox")
    layers, _ = tracked_layers(model)
    layers[1].module.weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    mean_gradient(model, layers, random_records(2))
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    with pytest.raises(IndexError):
        mean_gradient(model, layers, [QueryRecord(np.array([1, 10**6]), 1)])
    assert [parameter.requires_grad for parameter in model.parameters()] == before


def test_no_records_have_no_mean():
    model = small_model("gpt2")
    with pytest.raises(ValueError, match="no query records"):
        mean_gradient(model, tracked_layers(model)[0], [])


def random_layer_factors(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def orthogonal(size):
        return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q

    values = torch.rand(layer.outputs, layer.inputs, generator=generator, dtype=torch.float64)
    return LayerFactors(Eigenbasis(orthogonal(layer.inputs), orthogonal(layer.outputs)), values)


@pytest.mark.parametrize("family", FAMILIES)
def test_preconditioning_solves_each_layers_dense_system_in_parameter_shapes(family):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    query = mean_gradient(model, layers, random_records(3))
    factors = {layer.name: random_layer_factors(layer) for layer in layers}
    found = precondition(query, layers, factors, relative_damping=0.1, power=1.0)
    assert {name: t.shape for name, t in found.items()} == {n: t.shape for n, t in query.items()}
    for layer in layers:
        one = factors[layer.name]
        basis = torch.kron(one.basis.gradient, one.basis.activation)
        damped = one.eigenvalues + 0.1 * one.eigenvalues.mean()
        dense = basis @ damped.flatten().diag() @ basis.T
        matrix = layer.matrix(query)
        expected = torch.linalg.solve(dense, matrix.flatten()).view(matrix.shape)
        torch.testing.assert_close(layer.matrix(found), expected, rtol=1e-8, atol=1e-10)


def test_the_direction_at_large_damping_is_the_identitys_up_to_scale_of_each_layer():
    model = small_model("llama")
    layers, _ = tracked_layers(model)
    query = mean_gradient(model, layers, random_records(3))
    factors = {layer.name: random_layer_factors(layer) for layer in layers}
    found = precondition(query, layers, factors, relative_damping=1e8, power=1.0)
    for layer in layers:
        scaled = layer.matrix(found) * 1e8 * factors[layer.name].eigenvalues.mean()
        torch.testing.assert_close(scaled, layer.matrix(query), rtol=1e-5, atol=1e-6)


def test_factors_without_an_inverse_name_their_layer():
    model = small_model("gpt2")
    layers, _ = tracked_layers(model)
    query = mean_gradient(model, layers, random_records(1))
    factors = {layer.name: random_layer_factors(layer) for layer in layers}
    factors[layers[2].name].eigenvalues.zero_()
    with pytest.raises(InputError, match=layers[2].name):
        precondition(query, layers, factors, relative_damping=0.1, power=1.0)


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2"])
def test_a_layer_that_nothing_reads_any_more_is_left_out(family, caplog):
    """As pruning leaves it: neither its factors nor its gradient hold anything."""
    model = small_model(family)
    layers, _ = tracked_layers(model)
    read = next(
        n for n, layer in enumerate(layers) if "4h_to_h" in layer.name or "mlp.c_proj" in layer.name
    )
    dead, reader = layers[read - 1], layers[read]
    reader.rows.zero_()
    batches = [random_batch(8)]
    bases = eigenbases(covariance_sums(model, layers, batches))
    factors = layer_factors(bases, eigenvalue_sums(model, layers, bases, batches))
    query = mean_gradient(model, layers, random_records(3))
    found = precondition(query, layers, factors, relative_damping=0.1, power=1.0)
    assert f"{dead.name}: no gradient reaches it" in caplog.text
    for layer in layers:
        assert bool(layer.matrix(found).any()) == (layer is not dead), layer.name
    assert all(tensor.isfinite().all() for tensor in found.values())


def test_the_factors_of_layers_that_are_left_out_are_not_asked():
    model = small_model("gpt_neox")
    layers, _ = tracked_layers(model)
    query = mean_gradient(model, layers, random_records(3))
    factors = {layer.name: random_layer_factors(layer) for layer in layers}
    found = precondition(query, layers, factors, relative_damping=0.1, power=1.0)
    singular = layers[0]
    factors[singular.name].eigenvalues.zero_()
    last = layers[-1].name
    only = precondition(query, layers, factors, relative_damping=0.1, power=1.0, only=last)
    assert_same_direction(only, restricted(found, last))


def test_records_are_the_two_parts_tokenized_apart_and_cut_to_the_positions():
    tokenizer = train_tokenizer(["a plain text of words", "more words"], 300)
    pairs = [
        ("a plain", " text"),
        ("word " * 50, " more"),
        ("word", " more" * 50),
        ("text", ""),
    ]
    records = encode_records(tokenizer, pairs, positions=12)
    assert len(records) == 3
    for (prompt, continuation), record in zip(pairs, records, strict=False):
        assert len(record.ids) <= 12
        head = record.ids[: record.continuation_start]
        tail = record.ids[record.continuation_start :]
        assert len(head) and len(tail)
        assert prompt.endswith(tokenizer.decode(head))
        assert continuation.startswith(tokenizer.decode(tail))
    assert tokenizer.decode(records[0].ids) == "a plain text"
    assert len(records[1].ids) == len(records[2].ids) == 12
    assert tokenizer.decode(records[1].ids[records[1].continuation_start :]) == " more"
