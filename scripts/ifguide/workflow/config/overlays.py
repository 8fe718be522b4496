"""Overlays: a config file that says which one it `extends` changes that one, key by key.

What is extended lies beneath everything that the command line gives, where what is later wins.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ifguide.errors import InputError
from ifguide.workflow.config.files import read_config, shown_path
from ifguide.workflow.config.values import NAME


@dataclass(frozen=True)
class ConfigFile:
    path: Path
    content: dict

    def name(self) -> str:
        """Return the name of the overlay that the file is: its own, unless it says another."""
        name = self.content.get("overlay", self.path.stem)
        if name == self.path.stem and not re.fullmatch(NAME, name):
            raise InputError(
                f"{shown_path(self.path)}: the name of this file cannot be that of a folder; name "
                "it by `overlay: NAME` in the file"
            )
        return name


@dataclass(frozen=True)
class Resolved:
    """A config without `extends`, and the files that it is made of beside those that were given."""

    config: dict
    beneath: list[Path]


def resolve(given: Mapping, files: Sequence[Path], single: Mapping, default: Path) -> Resolved:
    """Return what was given, over the files that it extends.

    given: the content of `files`, and of the `single` keys that the command line names, merged.
    default: the config that is changed where none of the files is whole by itself or extends one.
    Raises InputError, one line that names the file.
    """
    beneath: list[ConfigFile] = []
    whole, overlay = False, None
    for path in files:
        chain = [ConfigFile(path, read_config(path))]
        if not whole and "extends" in chain[0].content:
            chain = _chain(chain[0])
            if not any("experiment" in file.content for file in chain):
                chain.insert(0, ConfigFile(default, read_config(default)))
            beneath += chain[:-1]
            whole = True
        whole = whole or "experiment" in chain[-1].content
        for file in chain:
            if "extends" in file.content and "experiment" not in file.content:
                overlay = file.name()
            elif "overlay" in file.content:
                overlay = file.content["overlay"]
    if not whole and "experiment" not in given:
        beneath.insert(0, ConfigFile(default, read_config(default)))
    config: dict = {}
    for layer in [*(file.content for file in beneath), given]:
        config = merged(config, layer)
    config.pop("extends", None)
    if overlay is not None and "overlay" not in single:
        config["overlay"] = overlay
    return Resolved(config, [file.path for file in beneath])


def _chain(file: ConfigFile) -> list[ConfigFile]:
    """Return what a file extends, what that extends, and so on, the file itself last."""
    chain = [file]
    while "extends" in (first := chain[0]).content:
        extended = first.content["extends"]
        if not isinstance(extended, str):
            raise InputError(f"{shown_path(first.path)}: extends: {extended!r} is not a path")
        path = Path(first.path.parent, extended).resolve()
        if not path.is_file():
            raise InputError(f"{shown_path(first.path)}: extends: {extended} does not exist")
        chain.insert(0, ConfigFile(path, read_config(path)))
        if path in [file.path.resolve() for file in chain[1:]]:
            files = ", which extends ".join(shown_path(file.path) for file in reversed(chain))
            raise InputError(f"{shown_path(file.path)}: extends itself: {files}")
    return chain


def merged(base: Mapping, overlay: Mapping) -> dict:
    """Return `base` with the changes of `overlay`: sections key by key, all else replaced whole."""
    result = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
