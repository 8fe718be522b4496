"""A shallow model: the first blocks of another one, with its embeddings, final norm and head."""

import copy

from transformers import AutoModelForCausalLM, PreTrainedModel

from ifguide.models.tracked_layers import transformer_blocks

SHALLOW = 3  # blocks, unless a quarter of the model's are more
TOO_FEW = 4  # a model of so many blocks leaves one


def shallow_depth(depth: int) -> int:
    """Return the blocks of a shallow model of one with `depth`: three or a quarter, or one."""
    return 1 if depth <= TOO_FEW else max(SHALLOW, depth // 4)


def first_blocks(model: PreTrainedModel, count: int | None = None) -> PreTrainedModel:
    """Return a model of the first `count` blocks (None: `shallow_depth`), with weights of its own.

    Its states are those that `model` has after so many blocks, after the final norm.
    """
    depth = len(transformer_blocks(model)[1])
    count = min(count or shallow_depth(depth), depth)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:count]
    shallow = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    weights = model.state_dict()
    shallow.load_state_dict({name: weights[name] for name in shallow.state_dict()})
    return shallow.eval()
