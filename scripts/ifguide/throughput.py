"""How much arithmetic training a token takes, and how much of it a device can do."""

import time

from transformers import PreTrainedModel

# Dense peak of a device in FLOP/s, by a part of its name, for products of bfloat16 and float32
# (without TF32): NVIDIA's data sheets. The first name that fits is taken.
PEAK_FLOPS = {
    "B200": {"bfloat16": 2250e12, "float32": 75e12},
    "H200": {"bfloat16": 989e12, "float32": 67e12},
    "H100 PCIe": {"bfloat16": 756e12, "float32": 51e12},
    "H100": {"bfloat16": 989e12, "float32": 67e12},
    "A100": {"bfloat16": 312e12, "float32": 19.5e12},
    "L40S": {"bfloat16": 362e12, "float32": 91.6e12},
    "A10G": {"bfloat16": 70e12, "float32": 35e12},
    "L4": {"bfloat16": 121e12, "float32": 30.3e12},
}


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return a device's peak in FLOP/s, or None for one that is not in the table."""
    return next(
        (peaks[precision] for name, peaks in PEAK_FLOPS.items() if name in device_name), None
    )


def flops_per_token(model: PreTrainedModel, block_size: int) -> float:
    """Return the FLOPs of one training step for each token of a block of `block_size`.

    6 N + 12 · layers · width · T (Chowdhery et al., 2022, arXiv 2204.02311, appendix B), N being
    the parameters that multiply activations: all but an input embedding that is not the head too.
    """
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    if head is None or head.weight is not embedding:
        parameters -= embedding.numel()
    return 6 * parameters + 12 * config.num_hidden_layers * config.hidden_size * block_size


class Speed:
    """Tokens in a second of this process group, and the share of its devices' peak they take."""

    def __init__(self, flops_per_token: float, peak: float | None) -> None:
        self.flops_per_token = flops_per_token
        self.peak = peak
        self.tokens = 0
        self.seconds = 0.0
        self.start()

    def start(self) -> None:
        self.started = time.monotonic()

    def since_last(self, tokens: int) -> dict[str, float]:
        """Return the speed over the `tokens` since the last call, or since `start`."""
        seconds = time.monotonic() - self.started
        self.start()
        self.tokens += tokens
        self.seconds += seconds
        return self._figures(tokens, seconds)

    def overall(self) -> dict[str, float | None]:
        figures = self._figures(self.tokens, self.seconds) if self.tokens else {}
        return {
            "tokens_per_second": figures.get("tokens_per_second"),
            "flops_per_token": self.flops_per_token,
            "flops_utilisation": figures.get("flops_utilisation"),
        }

    def _figures(self, tokens: int, seconds: float) -> dict[str, float]:
        speed = tokens / max(seconds, 1e-9)
        figures = {"tokens_per_second": speed}
        if self.peak is not None:
            figures["flops_utilisation"] = speed * self.flops_per_token / self.peak
        return figures
