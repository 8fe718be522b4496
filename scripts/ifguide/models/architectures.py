"""Published decoder architectures by name, and how an architecture in the config is resolved.

Hyperparameters are those of the published model configurations. Pythia: Biderman et al., 2023,
arXiv 2304.01373, table 1, and the suite's configurations. GPT-2: Radford et al., 2019, and the
released configurations. Llama 3.2: the released configuration. Parameters are counted with the
published vocabulary, a shared embedding and output matrix counted once.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide.errors import InputError


@dataclass(frozen=True)
class PublishedArchitecture:
    """A `transformers` configuration less its vocabulary; the published vocabulary and size."""

    settings: dict[str, Any]
    vocabulary_size: int
    parameters: int


def _pythia(
    layers: int, width: int, heads: int, parameters: int, vocabulary_size: int = 50304
) -> PublishedArchitecture:
    return PublishedArchitecture(
        {
            "model_type": "gpt_neox",
            "num_hidden_layers": layers,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_attention_heads": heads,
            "rotary_pct": 0.25,
            "max_position_embeddings": 2048,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
        },
        vocabulary_size,
        parameters,
    )


def _gpt2(layers: int, width: int, heads: int, parameters: int) -> PublishedArchitecture:
    return PublishedArchitecture(
        {
            "model_type": "gpt2",
            "n_layer": layers,
            "n_embd": width,
            "n_head": heads,
            "n_positions": 1024,
        },
        50257,
        parameters,
    )


def _llama_3_2(
    layers: int, width: int, heads: int, head_dim: int, parameters: int
) -> PublishedArchitecture:
    return PublishedArchitecture(
        {
            "model_type": "llama",
            "num_hidden_layers": layers,
            "hidden_size": width,
            "intermediate_size": 8192,
            "num_attention_heads": heads,
            "num_key_value_heads": 8,
            "head_dim": head_dim,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
            },
            "tie_word_embeddings": True,
        },
        128256,
        parameters,
    )


PUBLISHED = {
    "pythia-14m": _pythia(6, 128, 4, 14_067_712),
    "pythia-31m": _pythia(6, 256, 8, 30_494_720),
    "pythia-70m": _pythia(6, 512, 8, 70_426_624),
    "pythia-160m": _pythia(12, 768, 12, 162_322_944),
    "pythia-410m": _pythia(24, 1024, 16, 405_334_016),
    "pythia-1b": _pythia(16, 2048, 8, 1_011_781_632),
    "pythia-1.4b": _pythia(24, 2048, 16, 1_414_647_808),
    "pythia-2.8b": _pythia(32, 2560, 32, 2_775_208_960),
    "pythia-6.9b": _pythia(32, 4096, 32, 6_857_302_016, vocabulary_size=50432),
    "pythia-12b": _pythia(36, 5120, 40, 11_846_072_320, vocabulary_size=50688),
    "llama-3.2-1b": _llama_3_2(16, 2048, 32, 64, 1_235_814_400),
    "llama-3.2-3b": _llama_3_2(28, 3072, 24, 128, 3_212_749_824),
    "gpt2": _gpt2(12, 768, 12, 124_439_808),
    "gpt2-medium": _gpt2(24, 1024, 16, 354_823_168),
    "gpt2-large": _gpt2(36, 1280, 20, 774_030_080),
    "gpt2-xl": _gpt2(48, 1600, 25, 1_557_611_200),
}


def read_architecture(settings: dict, config_key: str) -> dict:
    """Return the `transformers` configuration that an architecture in the config stands for.

    It is spelled out, or begins with a published `name` or a configuration `file`, whose settings
    further keys override. The vocabulary follows the tokenizer, so that of a name or a file is
    dropped; a `vocab_size` that the config itself gives is kept, as padding.

    Raises InputError for an unknown name, or a file that is missing or not a configuration.
    """
    own = {key: value for key, value in settings.items() if key not in ("name", "file")}
    if "name" in settings:
        name = settings["name"]
        if name not in PUBLISHED:
            raise InputError(
                f"config key {config_key}.name: {name!r} is no published architecture known here; "
                f"known are {', '.join(PUBLISHED)}"
            )
        return {**PUBLISHED[name].settings, **own}
    if "file" in settings:
        described = _read_configuration(Path(settings["file"]), config_key)
        described.pop("vocab_size", None)
        return {**described, **own}
    return own


def _read_configuration(path: Path, config_key: str) -> dict:
    if not path.is_file():
        raise InputError(f"config key {config_key}.file: {path} does not exist")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    if not isinstance(described, dict) or "model_type" not in described:
        raise InputError(f"{path}: no `model_type`, so not the configuration of a model")
    return described


def longest_block(architecture: dict) -> int | None:
    """Return the positions that a resolved architecture gives itself, None where it does not."""
    for key in ("max_position_embeddings", "n_positions"):
        if key in architecture:
            return architecture[key]
    return None
