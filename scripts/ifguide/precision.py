"""Number types: what is summed is summed in float32 or wider."""

import torch


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Widen half precision: sums of half-precision products stall."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
