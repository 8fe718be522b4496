"""Whether an architecture is a causal decoder: built small, and tried.

What a language model has to do here: position t sees no token after t, a block fits, and what it
says with a key-value cache is what it says without one.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from ifguide.errors import InputError
from ifguide.models.loading import first_line

# Parameters of a model that is tried as it is, and of one that is tried with fewer layers.
SMALL = 20_000_000
FEW_LAYERS = 150_000_000
# Tokens of the trial, and of a block that is tried whole.
TOKENS = 16
LONGEST_TRIED = 4096
# Relative to the largest logit: what rounding may change; what sees a later token changes more.
CAUSAL_TOLERANCE = 1e-6
CACHE_TOLERANCE = 1e-3
CAUSAL = "give a causal decoder, such as gpt_neox, gpt2 or llama"


def check_decoder(config: PretrainedConfig, where: str, block_size: int) -> None:
    """Refuse an architecture that is no causal decoder, or cannot be built.

    where: the place that messages begin with, such as a config key. Takes a second or two whatever
    the size of the model, of which no more than a part is made.
    Raises InputError, one line that says what is wrong.
    """
    whole = _built(config, where, "meta")
    if not any(isinstance(module, nn.ModuleList) and len(module) for module in whole.modules()):
        raise InputError(f"{where}: {config.model_type} without a layer; give it one at least")
    for smaller in _smaller(config, _parameters(whole)):
        try:
            if _parameters(_built(smaller, where, "meta")) > FEW_LAYERS:
                continue
            model = _built(smaller, where, "cpu").eval()
        except InputError:
            continue  # these settings do not go with fewer layers; those of the config do
        _try(model, where, config.model_type, min(block_size, LONGEST_TRIED))
        return


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _built(config: PretrainedConfig, where: str, device: str) -> nn.Module:
    try:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)
    except Exception as error:
        if "Unrecognized configuration class" in str(error):
            problem = f"{config.model_type} is no language model that continues text; {CAUSAL}"
            raise InputError(f"{where}: {problem}") from error
        raise InputError(
            f"{where}: {config.model_type} cannot be built with these settings "
            f"({first_line(error)})"
        ) from error


def _smaller(config: PretrainedConfig, parameters: int) -> Iterator[PretrainedConfig]:
    """Yield what can be tried in place of a model, the most like it first."""
    if parameters <= SMALL:
        yield config
        return
    shallow = copy.deepcopy(config)
    shallow.vocab_size = min(config.vocab_size, 256)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if isinstance(getattr(shallow, name, None), int):
            setattr(shallow, name, 0)
    if getattr(config, "max_position_embeddings", None):
        shallow.max_position_embeddings = min(config.max_position_embeddings, LONGEST_TRIED)
    layers = config.num_hidden_layers
    shallow.num_hidden_layers = 1
    # Lists with an entry for each layer, such as which of them look back how far.
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == layers:
            setattr(shallow, name, value[:1])
    yield shallow
    narrow = copy.deepcopy(shallow)
    heads = config.num_attention_heads
    factor = max(1, config.hidden_size // (16 * heads))
    if config.hidden_size % (factor * heads) == 0:
        narrow.hidden_size = config.hidden_size // factor
        if getattr(narrow, "intermediate_size", None):
            narrow.intermediate_size = 4 * narrow.hidden_size
        yield narrow


@torch.no_grad()
def _try(model: nn.Module, where: str, kind: str, block_size: int) -> None:
    vocabulary = model.config.vocab_size
    tokens = torch.arange(1, TOKENS + 1).unsqueeze(0) % vocabulary
    half = TOKENS // 2
    others = tokens.clone()
    others[:, half:] = others[:, half:].flip(1)
    try:
        logits = model(input_ids=tokens, use_cache=False).logits
        changed = model(input_ids=others, use_cache=False).logits
    except Exception as error:
        raise InputError(
            f"{where}: {kind} cannot be run with these settings ({first_line(error)})"
        ) from error
    try:
        # As long as a block: positions that run out are said by no setting of some families.
        model(input_ids=torch.arange(block_size).unsqueeze(0) % vocabulary, use_cache=False)
    except Exception as error:
        raise InputError(
            f"{where}: {kind} cannot read a block of {block_size} tokens ({first_line(error)}); "
            "give it more positions, or set a shorter corpus.block_size"
        ) from error
    if not _close(logits[:, :half], changed[:, :half], CAUSAL_TOLERANCE):
        raise InputError(f"{where}: {kind} sees the tokens that follow; {CAUSAL}")
    try:
        read = model(input_ids=tokens[:, :half], use_cache=True)
        cache = read.past_key_values
        said = model(input_ids=tokens[:, half : half + 1], past_key_values=cache, use_cache=True)
        same = _close(said.logits[:, -1], logits[:, half], CACHE_TOLERANCE)
        generates = same and hasattr(cache, "layers")
    except Exception:
        generates = False
    if not generates:
        raise InputError(
            f"{where}: {kind} does not go on from a key-value cache, as sampling needs; {CAUSAL}"
        )


def _close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    return torch.allclose(one, other, rtol=0.0, atol=tolerance * float(one.abs().max()))
