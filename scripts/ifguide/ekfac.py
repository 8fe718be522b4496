"""EK-FAC: eigenvalue-corrected Kronecker factors of the Gauss-Newton Hessian.

Grosse et al., "Studying Large Language Model Generalization with Influence Functions"
(arXiv 2308.03296). Per tracked layer, with a the activations and g the gradients of the summed loss
at the layer's outputs:

    A = E_token[a aᵀ],  G = E_token[g gᵀ]                         covariance pass
    A = Q_A D_A Q_Aᵀ,   G = Q_G D_G Q_Gᵀ                          in float64
    Λ = E_block[(Q_Gᵀ (Σ_t g_t a_tᵀ) Q_A)²]                       eigenvalue correction pass
    H⁻¹ M = Q_G [(Q_Gᵀ M Q_A) / (Λ + damping)] Q_Aᵀ,  damping = relative_damping · mean(Λ)

Both passes are sums over blocks, so any division into shards gives the same factors.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ifguide.models import HiddenStates
from ifguide.precision import at_least_float32
from ifguide.tracked_layers import TrackedLayer


@dataclass(frozen=True)
class Batch:
    """Blocks of one pass: tokens int64 (blocks, T), valid bool (blocks, T), and their indices.

    Padding, the tokens that are not valid, stands at a block's end.
    """

    tokens: torch.Tensor
    valid: torch.Tensor
    indices: Sequence[int]


@dataclass
class Eigenbasis:
    """Q_A (inputs, inputs) and Q_G (outputs, outputs) of one layer: eigenvectors in columns."""

    activation: torch.Tensor
    gradient: torch.Tensor


@dataclass
class LayerFactors:
    """An eigenbasis and Λ (outputs, inputs)."""

    basis: Eigenbasis
    eigenvalues: torch.Tensor


Statistics = dict[str, torch.Tensor]


@contextlib.contextmanager
def only_activation_gradients(model: nn.Module) -> Iterator[None]:
    """Compute no weight gradient: the graph starts at the embeddings' output."""
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    hook = model.get_input_embeddings().register_forward_hook(
        lambda _module, _inputs, output: output.detach().requires_grad_()
    )
    try:
        yield
    finally:
        hook.remove()
        for parameter, value in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(value)


@contextlib.contextmanager
def watched(
    layers: Sequence[TrackedLayer],
    on_gradient: Callable[[TrackedLayer, torch.Tensor, torch.Tensor], None],
) -> Iterator[None]:
    """Call `on_gradient(layer, inputs, gradients)` as the backward pass reaches each layer.

    inputs: (blocks, T, inputs without the bias column); gradients: (blocks, T, outputs); both with
    blocks and positions flattened into one dimension where the model calls the layer so.
    """

    def watch(layer: TrackedLayer):
        def hook(_module, arguments, output):
            inputs = arguments[0].detach()
            output.register_hook(lambda gradient: on_gradient(layer, inputs, gradient.detach()))

        return layer.module.register_forward_hook(hook)

    hooks = [watch(layer) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def sampled_labels(
    logits: torch.Tensor, indices: Sequence[int], seed_of_block: Callable[[int], int]
) -> torch.Tensor:
    """Draw a label for each position from the model: int64 (blocks, T - 1).

    logits: (blocks, T - 1, vocabulary). The uniform number of a position depends on its block's
    index alone, so neither batch nor shard changes a label (inverse of the cumulative sum).
    """
    labels = []
    for row, index in zip(logits, indices, strict=True):
        generator = torch.Generator().manual_seed(seed_of_block(index))
        uniform = torch.rand(row.shape[0], 1, generator=generator, dtype=torch.float64)
        cumulative = row.double().softmax(-1).cumsum(-1)
        uniform = uniform.to(row.device) * cumulative[:, -1:]
        labels.append(torch.searchsorted(cumulative, uniform, right=True).squeeze(1))
    return torch.stack(labels).clamp_(max=logits.shape[-1] - 1)


def summed_loss(
    body: HiddenStates,
    batch: Batch,
    *,
    labels: str,
    seed_of_block: Callable[[int], int],
) -> torch.Tensor:
    """Return the loss summed over the label tokens of a batch, a scalar with a graph.

    labels: "sampled" draws them from the model (true Fisher), "true" takes the blocks' own
    (empirical Fisher). Padding is neither a label nor predicted from.
    """
    hidden = body(batch.tokens)[:, :-1]
    logits = at_least_float32(hidden if body.head is None else body.head(hidden))
    if labels == "sampled":
        with torch.no_grad():
            targets = sampled_labels(logits, batch.indices, seed_of_block)
    else:
        targets = batch.tokens[:, 1:]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    return (losses * batch.valid[:, 1:].flatten()).sum()


def covariance_sums(
    model: PreTrainedModel,
    layers: Sequence[TrackedLayer],
    batches: Iterable[Batch],
    *,
    labels: str = "sampled",
    seed_of_block: Callable[[int], int] = lambda index: index,
) -> Statistics:
    """Return Σ a aᵀ, Σ g gᵀ per layer and the number of tokens, over the valid tokens.

    Layers that read the same tensor share one activation covariance: it is computed once.
    """
    body = HiddenStates(model)
    sums: Statistics = {"tokens": torch.zeros((), dtype=torch.float64)}
    for layer in layers:
        sums[f"{layer.name}.gradient"] = _zeros(model, layer.outputs, layer.outputs)
    shared = _shared_inputs(body, layers)
    for name in set(shared.values()):
        layer = next(layer for layer in layers if layer.name == name)
        sums[f"{name}.activation"] = _zeros(model, layer.inputs, layer.inputs)
    # The rows to count; None where that is all of them, so that none need be copied.
    valid: list[torch.Tensor | None] = []

    def add(layer: TrackedLayer, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        # Gradients are 0 at padding, because no label follows it.
        rows = at_least_float32(gradients.reshape(-1, layer.outputs))
        sums[f"{layer.name}.gradient"].addmm_(rows.T, rows)
        if shared[layer.name] == layer.name:
            rows = inputs.reshape(-1, inputs.shape[-1])
            rows = rows if valid[0] is None else rows[valid[0]]
            rows = layer.activations(at_least_float32(rows))
            sums[f"{layer.name}.activation"].addmm_(rows.T, rows)

    with only_activation_gradients(model), watched(layers, add):
        for batch in batches:
            valid[:] = [None if batch.valid.all() else batch.valid.flatten()]
            summed_loss(body, batch, labels=labels, seed_of_block=seed_of_block).backward()
            sums["tokens"] += batch.valid.sum().cpu()
    for name, source in shared.items():
        if source != name:
            sums[f"{name}.activation"] = sums[f"{source}.activation"]
    return sums


def _zeros(model: PreTrainedModel, rows: int, columns: int) -> torch.Tensor:
    dtype = torch.promote_types(model.dtype, torch.float32)
    return torch.zeros(rows, columns, dtype=dtype, device=model.device)


def _shared_inputs(body: HiddenStates, layers: Sequence[TrackedLayer]) -> dict[str, str]:
    """Map each layer to the first layer that reads the same tensor in one forward pass."""
    # The tensors are kept until the end: a freed one's id could be given to another.
    inputs: list[tuple[str, bool, torch.Tensor]] = []
    hooks = [
        layer.module.register_forward_hook(
            lambda _module, arguments, _output, layer=layer: inputs.append(
                (layer.name, layer.has_bias, arguments[0])
            )
        )
        for layer in layers
    ]
    with torch.no_grad():
        body(torch.zeros(1, 2, dtype=torch.long, device=body.model.device))
    for hook in hooks:
        hook.remove()
    first: dict[tuple[int, bool], str] = {}
    return {
        name: first.setdefault((id(tensor), has_bias), name) for name, has_bias, tensor in inputs
    }


def merge(statistics: Iterable[Statistics]) -> Statistics:
    """Add the statistics of several shards in float64, in the given order."""
    total: Statistics = {}
    for shard in statistics:
        for name, tensor in shard.items():
            tensor = tensor.double()
            total[name] = total[name] + tensor if name in total else tensor
    return total


def eigenbases(sums: Statistics) -> dict[str, Eigenbasis]:
    """Decompose the covariances in float64; the bases are returned in float32 or wider.

    An eigenvector's sign is fixed (its largest entry is positive), so that equal covariances give
    equal files.
    """
    tokens = sums["tokens"].item()

    def vectors(matrix: torch.Tensor) -> torch.Tensor:
        covariance = matrix.double().cpu() / tokens
        _, columns = torch.linalg.eigh((covariance + covariance.T) / 2)
        largest = columns.gather(0, columns.abs().argmax(0, keepdim=True))
        return (columns * largest.sign()).to(matrix.dtype).contiguous()

    names = [name.removesuffix(".gradient") for name in sums if name.endswith(".gradient")]
    return {
        name: Eigenbasis(vectors(sums[f"{name}.activation"]), vectors(sums[f"{name}.gradient"]))
        for name in names
    }


def eigenvalue_sums(
    model: PreTrainedModel,
    layers: Sequence[TrackedLayer],
    bases: dict[str, Eigenbasis],
    batches: Iterable[Batch],
    *,
    labels: str = "sampled",
    seed_of_block: Callable[[int], int] = lambda index: index,
) -> Statistics:
    """Return Σ_block (Q_Gᵀ (Σ_t g_t a_tᵀ) Q_A)² per layer and the number of blocks.

    A block whose tokens are all padding is not counted.
    """
    body = HiddenStates(model)
    sums: Statistics = {"blocks": torch.zeros((), dtype=torch.float64)}
    for layer in layers:
        sums[layer.name] = _zeros(model, layer.outputs, layer.inputs)
    bases = {
        name: Eigenbasis(basis.activation.to(sums[name]), basis.gradient.to(sums[name]))
        for name, basis in bases.items()
    }
    blocks: list[int] = []

    def add(layer: TrackedLayer, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        basis = bases[layer.name]
        inputs = inputs.reshape(blocks[0], -1, inputs.shape[-1])
        activations = layer.activations(at_least_float32(inputs))
        # Gradients are 0 at padding, because no label follows it.
        gradients = at_least_float32(gradients).reshape(blocks[0], -1, layer.outputs)
        for rotated in rotated_block_gradients(basis, activations, gradients):
            sums[layer.name].addcmul_(rotated, rotated)

    with only_activation_gradients(model), watched(layers, add):
        for batch in batches:
            blocks[:] = [len(batch.tokens)]
            summed_loss(body, batch, labels=labels, seed_of_block=seed_of_block).backward()
            sums["blocks"] += batch.valid.any(1).sum().cpu()
    return sums


def rotated_block_gradients(
    basis: Eigenbasis, activations: torch.Tensor, gradients: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield Q_Gᵀ (Σ_t g_t a_tᵀ) Q_A of each block, (outputs, inputs), by the cheaper order.

    activations: (blocks, T, inputs); gradients: (blocks, T, outputs). Rotating the T activations
    and gradients costs T (inputs² + outputs²); rotating the block's gradient costs
    inputs · outputs · (inputs + outputs).
    """
    length, inputs, outputs = gradients.shape[1], activations.shape[2], gradients.shape[2]
    if length * (inputs**2 + outputs**2) <= inputs * outputs * (inputs + outputs):
        activations = activations @ basis.activation
        gradients = gradients @ basis.gradient
        for block_activations, block_gradients in zip(activations, gradients, strict=True):
            yield block_gradients.T @ block_activations
    else:
        for block_activations, block_gradients in zip(activations, gradients, strict=True):
            yield basis.gradient.T @ (block_gradients.T @ block_activations) @ basis.activation


def layer_factors(bases: dict[str, Eigenbasis], sums: Statistics) -> dict[str, LayerFactors]:
    """Return every layer's factors: its basis and Λ = Σ_block / blocks, in the basis's type."""
    blocks = sums["blocks"].item()
    return {
        name: LayerFactors(basis, (sums[name].double() / blocks).to(basis.gradient.dtype))
        for name, basis in bases.items()
    }


def inverse_hessian_product(
    factors: LayerFactors,
    matrix: torch.Tensor,
    *,
    relative_damping: float,
    power: float = 1.0,
) -> torch.Tensor:
    """Return H^(-power) M in the matrix's type, (outputs, inputs).

    power 1 is the influence function's, 0.5 half of it. Computed in float64: with little damping
    the eigenvalues span many orders of magnitude.
    Raises ValueError where an eigenvalue, damping included, is not positive.
    """
    activation = factors.basis.activation.double()
    gradient = factors.basis.gradient.double()
    eigenvalues = factors.eigenvalues.double()
    damped = eigenvalues + relative_damping * eigenvalues.mean()
    if not bool((damped > 0).all()):
        raise ValueError("H has no inverse: an eigenvalue is 0 or not finite, damping included")
    rotated = gradient.T @ matrix.double() @ activation / damped**power
    return (gradient @ rotated @ activation.T).to(matrix.dtype)
