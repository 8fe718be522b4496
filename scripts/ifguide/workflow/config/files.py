"""Config files as they are written: a key that stands twice is refused, with its line."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from ifguide.errors import InputError

# What merges the keys of another section in; each of them gives others.
MERGE = "tag:yaml.org,2002:merge"


def read_config(path: Path) -> dict:
    """Return the content of a config file, YAML or JSON.

    Raises InputError, one line with the file and, of YAML, the line of the mistake.
    """
    file = shown_path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8") from None
    content = _parsed(text, file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds no sections of keys")
    return content


def shown_path(path: Path) -> str:
    """Return a path as it is shortest: from here where it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _parsed(text: str, file: str) -> object:
    def section(keys: list[tuple[str, object]]) -> dict:
        names = [name for name, _ in keys]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{file}: {name}: stands twice in one section; keep one")
        return dict(keys)

    # As Snakemake does: YAML reads some numbers of JSON as text.
    try:
        return json.loads(text, object_pairs_hook=section)
    except json.JSONDecodeError:
        pass
    loader = yaml.CSafeLoader(text)
    try:
        node = loader.get_single_node()
        for key, line, first in _repeated(node, (), set()):
            raise InputError(
                f"{file}, line {line}: {key}: stands twice (first in line {first}); keep one"
            )
        return loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{file}{where}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()


def _repeated(
    node: yaml.Node | None, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[str, int, int]]:
    """Yield every key that stands twice in its section, with both of its lines."""
    if id(node) in seen:  # an alias of a section that was read
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            yield from _repeated(entry, (*keys, str(index)), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if (key.tag, name) in lines and key.tag != MERGE:
                yield ".".join((*keys, name)), line, lines[key.tag, name]
            lines[key.tag, name] = line
            yield from _repeated(value, (*keys, name), seen)
