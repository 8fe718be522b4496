"""All sections of a config, at any depth."""

from collections.abc import Iterator


def sections_below(node: object, key: str = "") -> Iterator[tuple[str, dict]]:
    """Yield every section at or below a node of the config, with its key; of lists, by number."""
    if isinstance(node, dict):
        yield key, node
    elif not isinstance(node, list):
        return
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield from sections_below(value, f"{key}.{name}".removeprefix("."))
