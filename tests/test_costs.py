"""Costs: by hand, against PyTorch's own count of FLOPs, and against models' own parameters."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ifguide.influence.ekfac import Batch, add_lower_gram, eigenbases, eigenvalue_sums
from ifguide.influence.ekfac import covariance_sums as covariances
from ifguide.influence.query_direction import QueryRecord, mean_gradient
from ifguide.influence.token_scores import position_scorer, two_forward_scorer
from ifguide.models import costs, footprints
from ifguide.models.architectures import PUBLISHED
from ifguide.models.devices import DEVICES, described_device, peak_flops
from ifguide.models.loading import HiddenStates, build_model, token_losses
from ifguide.models.model_shapes import LayerShape, ModelShape, model_shape
from ifguide.models.tracked_layers import tracked_layers

LENGTH, BLOCKS = 64, 4
# Width 4, one block of one layer of 3 outputs and 4 inputs and a bias, attention of width 2.
SMALL = ModelShape(100, 60, 1, 4, 2, 2, 10, (LayerShape(3, 5, True),))


def build(model_type="gpt_neox", **changes):
    architecture = {
        "model_type": model_type,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
    }
    model = build_model(
        architecture | changes, vocabulary_size=512, block_size=LENGTH, end_of_text=0, seed=0
    )
    # The kernels' own counts of fused attention differ by device; this one is plain products.
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module", params=["gpt_neox", "llama"])
def model(request):
    return build(request.param)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(0, 512, (BLOCKS, LENGTH), generator=torch.Generator().manual_seed(0))


class Counter(TorchDispatchMode):
    """PyTorch's own formulas, as FlopCounterMode has them, which cannot follow `autograd.grad`."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if formula := flop_registry.get(function._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=found)
        return found


def counted(work, tokens=BLOCKS * LENGTH) -> float:
    """The FLOPs that PyTorch counts, for each token."""
    with Counter() as counter:
        work()
    return counter.flops / tokens


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_model(name):
    published = PUBLISHED[name]
    with torch.device("meta"):
        model = build_model(
            {"name": name, "vocab_size": published.vocabulary_size},
            vocabulary_size=1,
            block_size=128,
            end_of_text=0,
            seed=0,
        )
    shape = model_shape(model)
    assert shape.parameters == published.parameters
    tied = model.config.tie_word_embeddings
    embedding = 0 if tied else published.vocabulary_size * shape.width
    positions = published.settings.get("n_positions", 0) * shape.width
    assert shape.multiplied == published.parameters - embedding
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2)
    tables = (1 if tied else 2) * published.vocabulary_size * shape.width + positions
    assert sum(layer.parameters - layer.has_bias * layer.outputs for layer in shape.layers) == (
        matrices - tables
    )


def test_a_forward_pass_and_a_training_step(model, tokens):
    shape = model_shape(model)

    def train():
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)

    forward = counted(lambda: model(input_ids=tokens, use_cache=False))
    assert costs.forward_flops(shape, LENGTH) == pytest.approx(forward, rel=0.02)
    assert costs.training_flops(shape, LENGTH) == pytest.approx(counted(train), rel=0.02)


def test_recomputed_activations(tokens):
    model = build()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()

    def train():
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()

    found = counted(train)
    # PyTorch leaves out what no gradient needs again: the last products of a block.
    assert found <= costs.training_flops(model_shape(model), LENGTH, recomputed=True) < 1.1 * found
    assert found > 1.1 * costs.training_flops(model_shape(model), LENGTH)


def test_two_forward_passes(tokens):
    model = build()
    direction = {
        name: torch.ones_like(parameter)
        for layer in tracked_layers(model)[0]
        for name, parameter in layer.named_parameters()
    }
    shape = model_shape(model)
    score = two_forward_scorer(model, direction, relative_step=1e-3, logits_budget_bytes=2**20)
    expected = costs.score_flops(shape, LENGTH, "two_forward")
    # The last token of a block has no label after it, so its logits are not made.
    assert expected == pytest.approx(counted(lambda: score(tokens)), rel=0.02)


def test_position_scores_and_query_gradients(model, tokens):
    layers, _ = tracked_layers(model)
    shape = model_shape(model)
    direction = {n: torch.ones_like(p) for layer in layers for n, p in layer.named_parameters()}
    score = position_scorer(model, layers, direction)
    found = counted(lambda: score(tokens, torch.ones_like(tokens, dtype=torch.bool)))
    # The first layers need no gradient of their inputs.
    assert costs.score_flops(shape, LENGTH, "position") == pytest.approx(found, rel=0.12)
    records = [QueryRecord(row.numpy(), 1) for row in tokens]
    found = counted(lambda: mean_gradient(model, layers, records))
    assert costs.query_gradient_flops(shape, LENGTH) == pytest.approx(found, rel=0.12)


@pytest.mark.parametrize("length", [16, 48, 96])
def test_factor_passes(length):
    """Blocks shorter and longer than the layers are wide: rotations change their place."""
    model = build(hidden_size=32, intermediate_size=64)
    layers, _ = tracked_layers(model)
    shape = model_shape(model)
    tokens = torch.randint(0, 512, (BLOCKS, length), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), range(BLOCKS))
    sums = {}

    def first():
        sums.update(covariances(model, layers, [batch], labels="true"))

    # In-place products are not counted there, and the first layers need no gradient of inputs.
    passes = counted(first, tokens.numel())
    assert costs.activation_gradient_flops(shape, length) == pytest.approx(passes, rel=0.12)
    bases = eigenbases(sums)
    found = counted(
        lambda: eigenvalue_sums(model, layers, bases, [batch], labels="true"), tokens.numel()
    )
    rotations = costs.eigenvalue_flops(shape, length) - costs.activation_gradient_flops(
        shape, length
    )
    assert rotations == pytest.approx(found - passes, rel=0.02)


@pytest.mark.parametrize("width", [100, 256, 300, 2000])
def test_a_covariance_by_hand(width):
    """The flops of each product, from the columns that it writes."""
    written = torch.zeros(width, width)
    add_lower_gram(written, torch.ones(1, width))
    assert costs.gram_flops(width) == 2 * int(written.sum())


def test_arithmetic_by_hand():
    sums = costs.gram_flops(3) + costs.gram_flops(4)
    half = costs.activation_gradient_flops(SMALL, 7) + sums / 2
    assert costs.covariance_flops(SMALL, 7, 0.5) == half
    assert costs.forward_flops(SMALL, 7) == 2 * 60 + 4 * 1 * 2 * 7
    assert costs.activation_gradient_flops(SMALL, 7) == 4 * 60 + 3 * 4 * 2 * 7
    assert SMALL.tracked == 15
    assert costs.decomposition_flops(SMALL) == 9 * (27 + 125)
    assert costs.inverse_hessian_flops(SMALL) == 4 * 15 * (3 + 5)
    # Two prompts of 5 tokens read, and 3 continuations of each written: all but the last token.
    read, written = costs.forward_flops(SMALL, 5), costs.forward_flops(SMALL, 7)
    assert costs.generation_flops(SMALL, 2, 5, 3, 4) == 2 * 5 * read + 2 * 3 * 3 * written
    assert costs.score_flops(SMALL, 7, "forward_mode") == 4 * 60 + 2 * 15 + 3 * 56
    one_backward = costs.query_gradient_flops(SMALL, 7) - costs.forward_flops(SMALL, 7)
    assert costs.score_flops(SMALL, 7, "backward") == 176 + 6 * one_backward


def test_bytes_by_hand():
    assert footprints.covariance_numbers(SMALL) == 9 + 25
    assert footprints.factor_numbers(SMALL) == 9 + 25 + 15
    assert footprints.token_bytes(2**16) == 2 and footprints.token_bytes(2**16 + 1) == 4
    # Weights, gradients and moments; 8 tokens of one block of width 4 and of 10 logits.
    state = footprints.training_memory(SMALL, 8, "float32") - footprints.LIBRARIES
    assert state == 16 * 100 + 8 * (68 * 4 + 3 * 4 * 10)
    half = footprints.training_memory(SMALL, 8, "bfloat16") - footprints.LIBRARIES
    assert half == 18 * 100 + 8 * (34 * 4 + 3 * 4 * 10)
    cache = 2 * 1 * 2 * 7
    held = footprints.generation_memory(SMALL, 5, 7) - footprints.LIBRARIES
    assert held == 4 * (100 + 5 * (cache + 40))


def test_losses_alone_are_one_forward_pass(tokens):
    model = build()
    body = HiddenStates(model)

    @torch.no_grad()
    def read():
        token_losses(body, tokens)

    assert costs.forward_flops(model_shape(model), LENGTH) == pytest.approx(counted(read), rel=0.02)


def test_devices_by_their_reported_names():
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_flops("NVIDIA H200", "float32") == 67e12
    assert peak_flops("cpu", "float32") is None
    # 312 TFLOP/s of which 40 % are reached.
    assert DEVICES["a100"].seconds(312e12, "bfloat16", "training") == pytest.approx(2.5)
    own = described_device(
        "own", {"bfloat16": 2e12, "float32": 1e12, "utilisation": {"scores": 0.25}}
    )
    assert own.seconds(1e12, "float32", "scores") == 4
    assert own.seconds(1e12, "bfloat16", "training") == pytest.approx(1.25)
