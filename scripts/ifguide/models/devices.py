"""Devices by name: peak arithmetic, memory, and the share of the peak that each kind of work takes.

Peaks are dense FLOP/s of NVIDIA's data sheets: products of bfloat16, of TF32 (half as many on all
of these), and of float32 without TF32. `cpu-core` is one core with two 512-bit multiply-add units
at 3 GHz, which takes two bfloat16 products in place of one. Utilisations are assumptions;
`scripts/measure_device.py` measures those of a machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30
# What a device computes: training, the passes that take gradients (factors, queries), passes
# without a graph (scores, perplexity), sampling token by token, and classifying short texts.
KINDS = ("training", "gradients", "scores", "generation", "classification")
GPU_UTILISATION = {
    "training": 0.4,
    "gradients": 0.4,
    "scores": 0.5,
    "generation": 0.05,
    "classification": 0.2,
}
CPU_UTILISATION = {
    "training": 0.4,
    "gradients": 0.4,
    "scores": 0.5,
    "generation": 0.2,
    "classification": 0.3,
}
CALIBRATED = "calibrated"


@dataclass(frozen=True)
class Device:
    """One device: FLOP/s by precision, GiB of memory, and the share of the peak by kind of work.

    `reported` is a part of the name by which PyTorch reports it, None where it reports none.
    """

    name: str
    peak: Mapping[str, float]
    memory_gib: float | None
    utilisation: Mapping[str, float]
    reported: str | None = None

    def seconds(self, flops: float, precision: str, kind: str) -> float:
        """Return the seconds that so many FLOPs of one kind of work take."""
        return flops / (self.peak[precision] * self.utilisation[kind])


def _gpu(
    name: str, reported: str, bfloat16: float, float32: float, memory_gib: float
) -> tuple[str, Device]:
    peak = {"bfloat16": bfloat16, "tf32": bfloat16 / 2, "float32": float32}
    return name, Device(name, peak, memory_gib, GPU_UTILISATION, reported)


# In the order in which reported names are compared: "H100" is a part of "H100 PCIe".
DEVICES = dict(
    [
        _gpu("b200", "B200", 2250e12, 75e12, 180),
        _gpu("h200", "H200", 989e12, 67e12, 141),
        _gpu("h100-pcie", "H100 PCIe", 756e12, 51e12, 80),
        _gpu("h100", "H100", 989e12, 67e12, 80),
        _gpu("a100", "A100", 312e12, 19.5e12, 80),
        _gpu("l40s", "L40S", 362e12, 91.6e12, 48),
        _gpu("a10g", "A10G", 70e12, 35e12, 24),
        _gpu("l4", "L4", 121e12, 30.3e12, 24),
        (
            "cpu-core",
            Device(
                "cpu-core",
                {"bfloat16": 384e9, "tf32": 192e9, "float32": 192e9},
                None,
                CPU_UTILISATION,
            ),
        ),
    ]
)


def peak_flops(reported_name: str, precision: str) -> float | None:
    """Return the peak in FLOP/s of a device that PyTorch reports, or None for an unknown one."""
    return next(
        (
            device.peak[precision]
            for device in DEVICES.values()
            if device.reported and device.reported in reported_name
        ),
        None,
    )


def described_device(name: str, description: Mapping) -> Device:
    """Return a device that a config or a measurement describes.

    description: {"float32": FLOP/s, "bfloat16": FLOP/s, "tf32": FLOP/s or null where the device has
    none, "memory_gib": GiB or null, "utilisation": {kind: share}}; what `utilisation` leaves out is
    that of a GPU.
    """
    peak = {precision: description[precision] for precision in ("bfloat16", "float32")}
    return Device(
        name,
        peak | {"tf32": description.get("tf32") or peak["float32"]},
        description.get("memory_gib"),
        GPU_UTILISATION | dict(description.get("utilisation", {})),
    )
