"""The sparse autoencoder: its formula, its invariants, and a sparse code that is known."""

import pytest
import torch

from ifguide.models.sparse_autoencoder import describe, train_sparse_autoencoder

SETTINGS = {"features": 24, "l1": 0.2, "batch_size": 128, "learning_rate": 1e-2, "seed": 0}


def planted_code(states: int = 1000, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """States that are sums of a few of eight directions, around a center; and the directions."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.linalg.qr(torch.randn(width, width, generator=generator))[0][:8]
    code = torch.rand(states, 8, generator=generator) + 0.5
    code *= torch.rand(states, 8, generator=generator) < 0.2
    return code @ directions + torch.randn(width, generator=generator), directions


def test_a_known_sparse_code_is_found():
    states, directions = planted_code()
    autoencoder = train_sparse_autoencoder(states, steps=600, **SETTINGS)
    similarity = directions @ autoencoder.decoder
    assert (similarity.amax(1) > 0.9).all()
    described = describe(autoencoder, states)
    assert described["explained_variance"] > 0.9
    assert described["active"] < 6


def test_the_formula_is_that_of_the_activations_and_the_reconstruction():
    states, _ = planted_code(50)
    autoencoder = train_sparse_autoencoder(states, steps=20, **SETTINGS)
    for state in states[:5]:
        activations = [
            max(0.0, (row @ (state - autoencoder.decoder_bias) + bias).item())
            for row, bias in zip(autoencoder.encoder, autoencoder.encoder_bias, strict=True)
        ]
        found = autoencoder.activations(state)
        torch.testing.assert_close(found, torch.tensor(activations), rtol=1e-4, atol=1e-5)
        rebuilt = autoencoder.decoder_bias + sum(
            a * autoencoder.decoder[:, f] for f, a in enumerate(activations)
        )
        torch.testing.assert_close(autoencoder.reconstructed(found), rebuilt, rtol=1e-4, atol=1e-5)


def test_directions_have_length_one_and_a_larger_unit_of_states_changes_none():
    states, _ = planted_code(200)
    small = train_sparse_autoencoder(states, steps=30, **SETTINGS)
    torch.testing.assert_close(small.decoder.norm(dim=0), torch.ones(24))
    large = train_sparse_autoencoder(64 * states, steps=30, **SETTINGS)
    torch.testing.assert_close(large.decoder, small.decoder)
    torch.testing.assert_close(large.activations(64 * states), 64 * small.activations(states))


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    states, _ = planted_code(200)
    one, same = (train_sparse_autoencoder(states, steps=10, **SETTINGS) for _ in range(2))
    other = train_sparse_autoencoder(states, steps=10, **{**SETTINGS, "seed": 1})
    assert torch.equal(one.encoder, same.encoder)
    assert not torch.equal(one.encoder, other.encoder)


def test_explained_variance_is_zero_of_the_mean_and_active_counts_what_is_above_zero():
    from ifguide.models.sparse_autoencoder import SparseAutoencoder

    states, _ = planted_code(100)
    silent = SparseAutoencoder(
        torch.zeros(3, 12), torch.tensor([-1.0, 1.0, 1.0]), torch.zeros(12, 3), states.mean(0)
    )
    described = describe(silent, states)
    assert described["explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert described["active"] == 2
    assert described["dead"] == pytest.approx(1 / 3)
