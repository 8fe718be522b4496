"""Number types: what is summed is summed in float32 or wider, whatever type its products have."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Widen half precision: sums of half-precision products stall."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@contextmanager
def widened(model: torch.nn.Module) -> Iterator[None]:
    """Within, a model of half precision computes in float32; its weights are rounded afterwards.

    Those that are not changed come back as they were.
    """
    dtype = next(model.parameters()).dtype
    model.to(torch.promote_types(dtype, torch.float32))
    try:
        yield
    finally:
        model.to(dtype)


def emulates_bfloat16() -> bool:
    """Whether this processor has no wide enough vectors for fast products of bfloat16 matrices.

    They then take about ten times as long as those of float32.
    """
    return torch.backends.cpu.get_cpu_capability() in ("NO AVX", "DEFAULT", "AVX2")


@contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """Within, products of float32 matrices are computed in this precision on `device`.

    precision: "float32"; "tf32", which takes float32 matrices with 10 bits of their fractions on
    GPUs that have it, and is float32 elsewhere; "bfloat16". Weights, sums over layers and losses
    stay float32.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        # Without the cache of converted weights: forward mode gives each its derivative.
        with torch.autocast(
            device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
