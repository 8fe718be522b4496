"""Every random number of an experiment derives from one seed, a stage's name and an index."""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Return the seed in [0, 2**63) that belongs to `names` under the experiment's `seed`.

    The first 8 bytes of SHA-256 over the '/'-joined parts, less the sign bit: independent of
    Python's hash randomisation, of the order of calls and of the machine.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniform_hash(seed: int, text: str) -> float:
    """Return a number in [0, 1) that depends on `seed` and `text` alone: splits by content."""
    return derive_seed(seed, text) / 2**63


def prompt_seed(seed: int, prompt: str) -> int:
    """Return the seed of a prompt's continuations; it does not depend on other prompts."""
    return derive_seed(seed, "generation", prompt)
