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

from ifguide.influence.label_gradients import backpropagate, uniform_numbers
from ifguide.models.loading import HiddenStates
from ifguide.models.precision import at_least_float32
from ifguide.models.tracked_layers import TrackedLayer


@dataclass(frozen=True)
class Batch:
    """Blocks of one pass: tokens int64 (blocks, T), valid bool (blocks, T), and their indices.

    Padding, the tokens that are not valid, stands at a block's end. drawn: bool (blocks, T), the
    positions that covariances are summed over, as many of each block; None where that is all.
    """

    tokens: torch.Tensor
    valid: torch.Tensor
    indices: Sequence[int]
    drawn: torch.Tensor | None = None


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
def without_weight_gradients(model: nn.Module) -> Iterator[None]:
    """Compute no weight gradient: in `watched`, the graph starts at the first layers."""
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
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
            if not output.requires_grad:
                # A layer that no tracked one precedes. Cloned, lest the model changes a leaf.
                output = output.detach().requires_grad_().clone()
            output.register_hook(lambda gradient: on_gradient(layer, inputs, gradient.detach()))
            return output

        return layer.module.register_forward_hook(hook)

    hooks = [watch(layer) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def covariance_sums(
    model: PreTrainedModel,
    layers: Sequence[TrackedLayer],
    batches: Iterable[Batch],
    *,
    labels: str = "sampled",
    seed_of_block: Callable[[int], int] = lambda index: index,
    logits_budget_bytes: int = 2**26,
) -> Statistics:
    """Return Σ a aᵀ, Σ g gᵀ per layer and the number of tokens, over the valid tokens.

    labels: "sampled" draws them from the model (true Fisher), "true" takes the blocks' own
    (empirical Fisher). Layers that read the same tensor share one activation covariance. Where
    batches say which positions are drawn, the sums are over those, and the number is that of the
    tokens expected among them: over all draws, the mean of sums / tokens is that of all positions.
    """
    body = HiddenStates(model)
    sums: Statistics = {"tokens": torch.zeros((), dtype=torch.float64)}
    for layer in layers:
        sums[f"{layer.name}.gradient"] = _zeros(model, layer.outputs, layer.outputs)
    shared = _shared_inputs(body, layers)
    for name in set(shared.values()):
        layer = next(layer for layer in layers if layer.name == name)
        sums[f"{name}.activation"] = _zeros(model, layer.inputs, layer.inputs)
    counted: dict[str, torch.Tensor | None] = {}

    def add(layer: TrackedLayer, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        rows = _rows(gradients, counted["gradient"])
        add_lower_gram(sums[f"{layer.name}.gradient"], rows)
        if shared[layer.name] == layer.name:
            rows = _rows(inputs, counted["activation"])
            add_lower_gram(sums[f"{layer.name}.activation"], rows, ones_column=layer.has_bias)

    with without_weight_gradients(model), watched(layers, add):
        for batch in batches:
            share = 1.0
            if batch.drawn is None:
                # Gradients are 0 at padding, because no label follows it.
                whole = bool(batch.valid.all())
                counted |= {"gradient": None, "activation": None if whole else _places(batch.valid)}
            else:
                share = batch.drawn.double().mean().item()
                counted |= dict.fromkeys(
                    ("gradient", "activation"), _places(batch.valid & batch.drawn)
                )
            _backpropagate(body, batch, labels, seed_of_block, logits_budget_bytes)
            sums["tokens"] += share * batch.valid.sum().item()
    for name, tensor in sums.items():
        if tensor.dim() == 2:
            sums[name] = tensor.tril() + tensor.tril(-1).T
    for name, source in shared.items():
        if source != name:
            sums[f"{name}.activation"] = sums[f"{source}.activation"]
    return sums


def _places(wanted: torch.Tensor) -> torch.Tensor:
    """Return the places of a mask (blocks, T) among its flattened entries."""
    return wanted.flatten().nonzero().squeeze(1)


def _rows(values: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    """Return values (…, width) as rows, at least float32; None takes all, and copies none."""
    rows = values.reshape(-1, values.shape[-1])
    return at_least_float32(rows if places is None else rows[places])


def add_lower_gram(total: torch.Tensor, rows: torch.Tensor, *, ones_column: bool = False) -> None:
    """Add rowsᵀ rows to the lower triangle of `total`; above the diagonal it is left undefined.

    rows: (n, width), with a column of ones to follow where `ones_column`, which is not formed. The
    product is symmetric, so about half of its blocks of columns are enough.
    """
    width = rows.shape[1]
    block = max(256, -(-width // 4))
    for start in range(0, width, block):
        stop = min(width, start + block)
        total[start:stop, :stop].addmm_(rows[:, start:stop].T, rows[:, :stop])
    if ones_column:
        total[width, :width] += rows.sum(0)
        total[width, width] += len(rows)


def _backpropagate(
    body: HiddenStates,
    batch: Batch,
    labels: str,
    seed_of_block: Callable[[int], int],
    logits_budget_bytes: int,
) -> None:
    uniform = None
    if labels == "sampled":
        length = batch.tokens.shape[1] - 1
        uniform = uniform_numbers(batch.indices, length, seed_of_block).to(batch.tokens.device)
    backpropagate(
        body, batch.tokens, batch.valid, uniform=uniform, logits_budget_bytes=logits_budget_bytes
    )


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

    decomposed: list[tuple[torch.Tensor, torch.Tensor]] = []

    def vectors(matrix: torch.Tensor) -> torch.Tensor:
        for seen, found in decomposed:
            # Layers that share an input share its covariance.
            if torch.equal(seen, matrix):
                return found
        decomposed.append((matrix, decompose(matrix)))
        return decomposed[-1][1]

    def decompose(matrix: torch.Tensor) -> torch.Tensor:
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
    logits_budget_bytes: int = 2**26,
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
        # Gradients are 0 at padding, because no label follows it.
        rotated = rotated_block_gradients(
            bases[layer.name],
            at_least_float32(inputs).reshape(blocks[0], -1, inputs.shape[-1]),
            at_least_float32(gradients).reshape(blocks[0], -1, layer.outputs),
            ones_column=layer.has_bias,
        )
        for gradient in rotated:
            sums[layer.name].addcmul_(gradient, gradient)

    with without_weight_gradients(model), watched(layers, add):
        for batch in batches:
            blocks[:] = [len(batch.tokens)]
            _backpropagate(body, batch, labels, seed_of_block, logits_budget_bytes)
            sums["blocks"] += batch.valid.any(1).sum().cpu()
    return sums


def rotated_block_gradients(
    basis: Eigenbasis,
    activations: torch.Tensor,
    gradients: torch.Tensor,
    *,
    ones_column: bool = False,
) -> Iterator[torch.Tensor]:
    """Yield Q_Gᵀ (Σ_t g_t a_tᵀ) Q_A of each block, (outputs, inputs), by the cheapest order.

    activations: (blocks, T, inputs), less the column of ones, which is never formed, where
    `ones_column`; gradients: (blocks, T, outputs). Either side can be rotated before the sum over
    T, at T · side² of arithmetic, or after it, at the other side · side².
    """
    length, outputs, inputs = *gradients.shape[1:], activations.shape[2]
    rotation = basis.activation[:inputs]
    shift = basis.activation[inputs] if ones_column else None
    activations_first, gradients_first = length <= outputs, length <= inputs
    if activations_first:
        flat = activations.flatten(0, 1)
        flat = flat @ rotation if shift is None else torch.addmm(shift, flat, rotation)
        activations = flat.view(*activations.shape[:2], -1)
    if gradients_first:
        gradients = gradients @ basis.gradient
    for block_activations, block_gradients in zip(activations, gradients, strict=True):
        product = block_gradients.T @ block_activations
        if not activations_first:
            product = product @ rotation
            if shift is not None:
                product.addr_(block_gradients.sum(0), shift)
        yield product if gradients_first else basis.gradient.T @ product


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
