"""A sparse autoencoder of hidden states: features of which few are active at once.

Of a state x (width,), with features f of unit directions d_f, the columns of W_d,

    a = ReLU( W_e (x − b_d) + b_e ),      x̂ = W_d a + b_d

    loss = mean over states of ‖ x − x̂ ‖² + λ Σ_f a_f,      ‖ d_f ‖ = 1

by Adam; the columns of W_d are scaled back to length one after every step. States are learned in a
unit in which their mean square is one a dimension, so that λ means the same for every model.
"""

import logging
from dataclasses import dataclass

import torch

log = logging.getLogger(__name__)

LOGGED_STEPS = 5


@dataclass(frozen=True)
class SparseAutoencoder:
    """W_e (features, width), b_e (features,), W_d (width, features), b_d (width,): float32."""

    encoder: torch.Tensor
    encoder_bias: torch.Tensor
    decoder: torch.Tensor
    decoder_bias: torch.Tensor

    def activations(self, states: torch.Tensor) -> torch.Tensor:
        """Return a: (…, features) of states (…, width)."""
        return ((states - self.decoder_bias) @ self.encoder.T + self.encoder_bias).relu()

    def reconstructed(self, activations: torch.Tensor) -> torch.Tensor:
        """Return x̂: (…, width) of activations (…, features)."""
        return activations @ self.decoder.T + self.decoder_bias


def train_sparse_autoencoder(
    states: torch.Tensor,
    *,
    features: int,
    l1: float,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> SparseAutoencoder:
    """Return an autoencoder of states, float32 (states, width)."""
    generator = torch.Generator(device=states.device).manual_seed(seed)
    count, width = states.shape
    center = states.mean(0)
    unit = (states - center).square().mean().sqrt().clamp(min=torch.finfo(states.dtype).tiny)
    decoder = torch.randn(width, features, generator=generator, device=states.device)
    decoder /= decoder.norm(dim=0)
    own = SparseAutoencoder(
        encoder=decoder.T.clone(),
        encoder_bias=torch.zeros(features, device=states.device),
        decoder=decoder,
        decoder_bias=center / unit,
    )
    trained = [part.requires_grad_() for part in vars(own).values()]
    descent = torch.optim.Adam(trained, lr=learning_rate)
    for step in range(steps):
        chosen = torch.randint(count, (batch_size,), generator=generator, device=states.device)
        batch = states[chosen] / unit
        activations = own.activations(batch)
        error = (batch - own.reconstructed(activations)).square().sum(-1).mean()
        loss = error + l1 * activations.sum(-1).mean()
        descent.zero_grad()
        loss.backward()
        descent.step()
        with torch.no_grad():
            own.decoder.div_(own.decoder.norm(dim=0))
        if step % max(1, steps // LOGGED_STEPS) == 0:
            log.info("step %d: loss %.4g, error %.4g", step, loss.item(), error.item())
    encoder, encoder_bias, decoder, decoder_bias = (part.detach() for part in trained)
    return SparseAutoencoder(encoder, encoder_bias * unit, decoder, decoder_bias * unit)


@torch.no_grad()
def describe(autoencoder: SparseAutoencoder, states: torch.Tensor) -> dict[str, float]:
    """Return how well states are reconstructed, and from how many features.

    explained_variance: 1 − Σ ‖x − x̂‖² / Σ ‖x − x̄‖²; active: features above zero at a state, a mean;
    dead: share of the features that are zero at every state.
    """
    error, active = 0.0, torch.zeros(len(autoencoder.encoder), device=states.device)
    for part in states.split(4096):
        activations = autoencoder.activations(part)
        error += (part - autoencoder.reconstructed(activations)).double().square().sum().item()
        active += (activations > 0).sum(0)
    variance = (states - states.mean(0)).double().square().sum().item()
    return {
        "explained_variance": 1 - error / variance,
        "active": active.sum().item() / len(states),
        "dead": (active == 0).double().mean().item(),
    }
