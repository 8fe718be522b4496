"""How fast a training is, and how much of its devices' arithmetic it takes."""

import time


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
