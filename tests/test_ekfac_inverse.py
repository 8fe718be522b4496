import pytest
import torch

from ifguide.influence.ekfac import (
    Eigenbasis,
    LayerFactors,
    add_lower_gram,
    eigenbases,
    inverse_hessian_product,
    rotated_block_gradients,
)


def test_one_layer_whose_fisher_matrix_is_a_kronecker_product_is_inverted_exactly():
    """Every (activation, gradient) pair of a grid once: E[vec vecᵀ] = A ⊗ G, so EK-FAC is exact."""
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    gradients = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    a_rows = activations.repeat_interleave(6, 0)
    g_rows = gradients.repeat(7, 1)
    basis = eigenbases(
        {
            "tokens": torch.tensor(42.0),
            "layer.activation": a_rows.T @ a_rows,
            "layer.gradient": g_rows.T @ g_rows,
        }
    )["layer"]
    squares = sum(
        rotated**2
        for rotated in rotated_block_gradients(basis, a_rows.unsqueeze(1), g_rows.unsqueeze(1))
    )
    factors = LayerFactors(basis, squares / 42)
    flat = torch.stack([torch.outer(g, a).flatten() for g, a in zip(g_rows, a_rows, strict=True)])
    fisher = flat.T @ flat / 42
    matrix = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    damping = 0.1 * fisher.trace() / 12
    dense = torch.linalg.solve(
        fisher + damping * torch.eye(12, dtype=torch.float64), matrix.flatten()
    )
    found = inverse_hessian_product(factors, matrix, relative_damping=0.1)
    torch.testing.assert_close(found, dense.view(3, 4), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ones_column", [False, True])
@pytest.mark.parametrize(
    ("length", "inputs", "outputs"), [(2, 9, 8), (5, 3, 9), (5, 9, 3), (200, 3, 4)]
)
def test_all_orders_of_the_rotation_agree(length, inputs, outputs, ones_column):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    basis = Eigenbasis(normal(inputs, inputs), normal(outputs, outputs))
    a, g = normal(3, length, inputs), normal(3, length, outputs)
    if ones_column:
        a[..., -1] = 1
    expected = torch.einsum("op,bto,bti,ij->bpj", basis.gradient, g, a, basis.activation)
    given = a[..., :-1] if ones_column else a
    found = rotated_block_gradients(basis, given, g, ones_column=ones_column)
    torch.testing.assert_close(torch.stack(list(found)), expected)


@pytest.mark.parametrize("width", [1, 256, 257, 1100])
@pytest.mark.parametrize("ones_column", [False, True])
def test_the_lower_triangle_of_a_gram_matrix_is_whole(width, ones_column):
    rows = torch.randn(7, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = torch.cat([rows, torch.ones(7, int(ones_column))], 1)
    total = torch.zeros(whole.shape[1], whole.shape[1], dtype=torch.float64)
    for _ in range(2):
        add_lower_gram(total, rows, ones_column=ones_column)
    torch.testing.assert_close(total.tril(), (2 * whole.T @ whole).tril())


def random_factors(outputs=4, inputs=5):
    generator = torch.Generator().manual_seed(0)

    def orthogonal(size):
        return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q

    values = torch.rand(outputs, inputs, generator=generator, dtype=torch.float64)
    matrix = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    return LayerFactors(Eigenbasis(orthogonal(inputs), orthogonal(outputs)), values), matrix


def test_the_inverse_solves_the_dense_system_in_the_kronecker_eigenbasis():
    factors, matrix = random_factors()
    basis = torch.kron(factors.basis.gradient, factors.basis.activation)
    dense = basis @ factors.eigenvalues.flatten().diag() @ basis.T
    damping = 0.3 * factors.eigenvalues.mean()
    expected = torch.linalg.solve(
        dense + damping * torch.eye(20, dtype=torch.float64), matrix.flatten()
    ).view(4, 5)
    found = inverse_hessian_product(factors, matrix, relative_damping=0.3)
    torch.testing.assert_close(found, expected)


def test_half_the_inverse_twice_is_the_inverse_and_no_power_is_the_identity():
    factors, matrix = random_factors()
    half = matrix
    for _ in range(2):
        half = inverse_hessian_product(factors, half, relative_damping=0.1, power=0.5)
    whole = inverse_hessian_product(factors, matrix, relative_damping=0.1)
    torch.testing.assert_close(half, whole)
    none = inverse_hessian_product(factors, matrix, relative_damping=0.1, power=0.0)
    torch.testing.assert_close(none, matrix)


def test_large_damping_leaves_the_direction_as_it_is():
    factors, matrix = random_factors()
    found = inverse_hessian_product(factors, matrix, relative_damping=1e9)
    scale = 1e9 * factors.eigenvalues.mean()
    torch.testing.assert_close(found * scale, matrix, rtol=1e-7, atol=1e-7)


def test_factors_without_an_inverse_are_refused():
    factors, matrix = random_factors()
    empty = LayerFactors(factors.basis, torch.zeros_like(factors.eigenvalues))
    with pytest.raises(ValueError, match="no inverse"):
        inverse_hessian_product(empty, matrix, relative_damping=0.1)
