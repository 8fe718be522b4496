"""Tiny randomly initialised decoders, a byte-level tokenizer, and blocks of random tokens."""

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
)
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from ifguide.influence.ekfac import Batch

VOCABULARY = 53
POSITIONS = 32

ARCHITECTURES = {
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "rotary_pct": 0.5,
    },
    "llama": {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
    },
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_inner": 24,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}
FAMILIES = tuple(ARCHITECTURES)
OTHER_DECODERS = {
    "opt": {
        "model_type": "opt",
        "hidden_size": 16,
        "word_embed_proj_dim": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 24,
        "activation_function": "gelu",
        "dropout": 0.0,
    },
    "gemma2": {
        "model_type": "gemma2",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "intermediate_size": 24,
        "final_logit_softcapping": 2.0,
    },
    "granite": {
        "model_type": "granite",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 24,
        "logits_scaling": 4.0,
    },
}
MIXTURES_OF_EXPERTS = {
    "mixtral": {
        "model_type": "mixtral",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 24,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "qwen2_moe": {
        "model_type": "qwen2_moe",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "moe_intermediate_size": 12,
        "shared_expert_intermediate_size": 20,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
}
_ALL = {**ARCHITECTURES, **OTHER_DECODERS, **MIXTURES_OF_EXPERTS}


def small_model(
    family: str,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    vocabulary: int = VOCABULARY,
) -> PreTrainedModel:
    """Return a model of two blocks whose weights and biases are large enough to matter."""
    settings = dict(_ALL[family])
    config = AutoConfig.for_model(
        settings.pop("model_type"),
        **settings,
        vocab_size=vocabulary,
        max_position_embeddings=POSITIONS,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.2 * noise if parameter.dim() > 1 else 0.1 * noise + (parameter == 1))
    if dtype == torch.float64:
        _compute_norms_in_float64(model)
    return model.to(dtype)


def _compute_norms_in_float64(model: PreTrainedModel) -> None:
    """Llama's own norm goes through float32, whatever the weights: too coarse for an oracle."""
    norms = [name for name, module in model.named_modules() if isinstance(module, LlamaRMSNorm)]
    for name in norms:
        old = model.get_submodule(name)
        new = nn.RMSNorm(old.weight.shape, eps=old.variance_epsilon)
        new.weight = old.weight
        model.set_submodule(name, new)


class OneLinearLayer(PreTrainedModel):
    """Embedding, one tracked linear layer, softmax: its loss is convex in the tracked weights."""

    config_class = PreTrainedConfig
    base_model_prefix = "body"

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(VOCABULARY, 5)
            self.blocks = nn.ModuleList([nn.Linear(5, 4)])

        def forward(self, input_ids, use_cache=False):
            return BaseModelOutput(last_hidden_state=self.blocks[0](self.words(input_ids)))

    def __init__(self) -> None:
        config = PreTrainedConfig()
        config.vocab_size = VOCABULARY
        super().__init__(config)
        self.body = OneLinearLayer.Body()
        self.head = nn.Linear(4, VOCABULARY, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.body.words

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids, use_cache=False):
        return CausalLMOutput(logits=self.head(self.body(input_ids).last_hidden_state))


def random_tokens(blocks: int, length: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (blocks, length), generator=generator)


def random_batch(blocks: int, length: int = 12, seed: int = 0, padding: int = 0) -> Batch:
    """Return a batch whose last block ends in `padding` tokens that are not valid."""
    valid = torch.ones(blocks, length, dtype=torch.bool)
    if padding:
        valid[-1, -padding:] = False
    return Batch(random_tokens(blocks, length, seed), valid, list(range(blocks)))


def random_direction(layers, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a random tensor for every parameter of the tracked layers."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(
            parameter.dtype
        )
        for layer in layers
        for name, parameter in layer.named_parameters()
    }


def classifier_config(tokenizer: PreTrainedTokenizerBase, **changes) -> RobertaConfig:
    """The smallest classifier that reads what a tokenizer gives."""
    return RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        **changes,
    )
