import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from ifguide.errors import InputError
from ifguide.influence.ekfac import covariance_sums
from ifguide.influence.token_scores import position_scorer
from ifguide.models.loading import HiddenStates, token_losses
from ifguide.models.tracked_layers import tracked_layers, transformer_blocks
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

LAYERS_OF_A_BLOCK = {
    "gpt_neox": {
        "attention.query_key_value",
        "attention.dense",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    },
    "llama": {
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    },
    "gpt2": {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"},
}


class RepeatedBlocks(PreTrainedModel):
    """A decoder of no known family: it mixes positions by a running mean, and owns its head."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig, repeats: int = 1) -> None:
        super().__init__(config)
        self.repeats = repeats
        self.words = nn.Embedding(VOCABULARY, 8)
        self.steps = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8, bias=False)])
        self.logits = nn.Linear(8, VOCABULARY)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def get_output_embeddings(self) -> nn.Module:
        return self.logits

    def forward(self, input_ids, use_cache=False):
        hidden = self.words(input_ids)
        counts = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype).view(1, -1, 1)
        for _ in range(self.repeats):
            for step in self.steps:
                hidden = hidden + step((hidden.cumsum(1) / counts).tanh())
        return CausalLMOutput(logits=self.logits(hidden))


def repeated_blocks(repeats: int = 1) -> RepeatedBlocks:
    torch.manual_seed(0)
    config = PreTrainedConfig()
    config.vocab_size = VOCABULARY
    return RepeatedBlocks(config, repeats).double().eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_every_block_is_tracked(family):
    model = small_model(family)
    prefix, blocks = transformer_blocks(model)
    layers, untracked = tracked_layers(model)
    expected = {f"{prefix}.{i}.{name}" for i in range(2) for name in LAYERS_OF_A_BLOCK[family]}
    assert len(blocks) == 2
    assert {layer.name for layer in layers} == expected
    assert untracked == []


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_and_matrix_are_inverse_and_act_as_the_layer_does(family):
    model = small_model(family)
    state = dict(model.named_parameters())
    for layer in tracked_layers(model)[0]:
        matrix = layer.matrix(state)
        assert matrix.shape == (layer.outputs, layer.inputs)
        inputs = torch.randn(2, 3, layer.inputs - layer.has_bias, dtype=torch.float64)
        ones = torch.ones(2, 3, int(layer.has_bias), dtype=torch.float64)
        expected = torch.cat([inputs, ones], -1) @ matrix.T
        torch.testing.assert_close(layer.module(inputs), expected)
        torch.testing.assert_close(layer.apply(state, inputs), expected)
        parts = layer.parameters(matrix)
        assert set(parts) == {name for name, _ in layer.named_parameters()}
        for name, tensor in parts.items():
            assert torch.equal(tensor, state[name])


def test_tied_embeddings_and_the_head_are_not_tracked():
    model = small_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    names = {name for layer in tracked_layers(model)[0] for name, _ in layer.named_parameters()}
    assert not any("wte" in name or "lm_head" in name for name in names)


@pytest.mark.parametrize("family", OTHER_DECODERS)
def test_other_decoders_need_no_list_of_names(family):
    layers, untracked = tracked_layers(small_model(family))
    assert len(layers) in (12, 14)
    assert untracked == []


def test_a_decoder_of_no_known_family_is_tracked():
    layers, untracked = tracked_layers(repeated_blocks())
    assert [layer.name for layer in layers] == ["steps.0", "steps.1"]
    assert untracked == []


def test_a_layer_that_acts_more_than_once_is_left_out_by_name():
    layers, untracked = tracked_layers(repeated_blocks(repeats=2))
    assert layers == []
    assert untracked == ["steps.0.weight", "steps.1.weight"]


def test_layers_that_share_a_weight_are_left_out_by_name():
    model = repeated_blocks()
    model.steps[1].weight = model.steps[0].weight
    layers, untracked = tracked_layers(model)
    assert layers == []
    assert untracked == ["steps.0.weight"]


@pytest.mark.parametrize("family", MIXTURES_OF_EXPERTS)
def test_experts_are_named_as_untracked(family):
    layers, untracked = tracked_layers(small_model(family, torch.float32))
    assert any("experts" in name for name in untracked)
    assert len(layers) == {"mixtral": 8, "qwen2_moe": 16}[family]
    assert not {f"{layer.name}.weight" for layer in layers} & set(untracked)


def test_a_model_without_repeated_blocks_is_refused():
    with pytest.raises(InputError, match="no list of transformer blocks"):
        transformer_blocks(nn.Linear(2, 2))


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_DECODERS])
@pytest.mark.parametrize("budget", [1, 4 * VOCABULARY * 5, 2**26])
def test_token_losses_are_the_cross_entropy_of_the_models_own_logits(family, budget):
    model = small_model(family)
    tokens = random_tokens(3)
    with torch.no_grad():
        found = token_losses(HiddenStates(model), tokens, logits_budget_bytes=budget)
        probabilities = model(tokens).logits.log_softmax(-1)
    expected = torch.zeros_like(found)
    for block in range(3):
        for label in range(1, tokens.shape[1]):
            expected[block, label] = -probabilities[block, label - 1, tokens[block, label]]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_stay_within_their_budget_in_every_pass(family):
    model = small_model(family)
    layers, _ = tracked_layers(model)
    batch = random_batch(3, 30)
    budget = 4 * VOCABULARY * 10
    sizes = []
    model.get_output_embeddings().register_forward_hook(
        lambda _module, _arguments, logits: sizes.append(4 * logits.numel())
    )
    with torch.no_grad():
        token_losses(HiddenStates(model), batch.tokens, logits_budget_bytes=budget)
    covariance_sums(model, layers, [batch], logits_budget_bytes=budget)
    position = position_scorer(model, layers, random_direction(layers), logits_budget_bytes=budget)
    position(batch.tokens, batch.valid)
    assert max(sizes) == budget
    # All positions but the last of each block: nine chunks a pass.
    assert sizes.count(budget) >= 3 * 8


@pytest.mark.parametrize(
    ("family", "plain"), [("llama", True), ("opt", True), ("gemma2", False), ("granite", False)]
)
def test_the_head_is_used_alone_only_where_the_logits_are_its_output(family, plain):
    assert (HiddenStates(small_model(family)).head is not None) == plain


def test_a_soft_cap_is_seen_where_logits_are_so_small_that_it_changes_nothing():
    model = small_model("gemma2", torch.float32)
    with torch.no_grad():
        model.model.norm.weight.fill_(-1 + 1e-4)
    assert HiddenStates(model).head is None


def test_losses_of_a_decoder_of_no_known_family():
    model = repeated_blocks()
    tokens = random_tokens(2)
    with torch.no_grad():
        found = token_losses(HiddenStates(model), tokens)
        logits = model(tokens).logits
    expected = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    torch.testing.assert_close(found[:, 1:].flatten(), expected)


def test_losses_of_half_precision_models_are_float32():
    model = small_model("llama", torch.bfloat16)
    with torch.no_grad():
        assert token_losses(HiddenStates(model), random_tokens(1)).dtype == torch.float32
