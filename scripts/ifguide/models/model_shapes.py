"""What the cost of a language model depends on: its sizes, read off a model without running it."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ifguide.models.tracked_layers import TrackedLayer, transformer_blocks


@dataclass(frozen=True)
class LayerShape:
    """A linear layer inside the blocks: a matrix (outputs, inputs), the bias a column of it."""

    outputs: int
    inputs: int
    has_bias: bool

    @property
    def parameters(self) -> int:
        return self.outputs * self.inputs


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a causal language model.

    parameters: all of them; multiplied: those that multiply activations, which an input embedding
    that is not the output head too does not; depth: transformer blocks; width: of the hidden
    states; attention_width and key_value_width: heads times the size of one.
    """

    parameters: int
    multiplied: int
    depth: int
    width: int
    attention_width: int
    key_value_width: int
    vocabulary: int
    layers: tuple[LayerShape, ...]

    @property
    def tracked(self) -> int:
        """The number of parameters of the linear layers inside the blocks."""
        return sum(layer.parameters for layer in self.layers)


def model_shape(model: PreTrainedModel) -> ModelShape:
    """Return the sizes of `model`, which may be on the meta device.

    Raises InputError where the model has no list of transformer blocks.
    """
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    separate = head is None or head.weight is not embedding
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    _, blocks = transformer_blocks(model)
    tracked = [
        TrackedLayer(name, module)
        for name, module in blocks.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    return ModelShape(
        parameters=parameters,
        multiplied=parameters - (embedding.numel() if separate else 0),
        depth=config.num_hidden_layers,
        width=config.hidden_size,
        attention_width=heads * head_size,
        key_value_width=key_value_heads * head_size,
        vocabulary=config.vocab_size,
        layers=tuple(LayerShape(layer.outputs, layer.inputs, layer.has_bias) for layer in tracked),
    )
