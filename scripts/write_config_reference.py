"""Write the reference of the configuration's keys into config/README.md, from the schema.

Everything above the marker is written by hand and kept. With --check, only say whether the file is
current.
"""

import json
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from command_line import argument_parser, run
from ifguide.errors import InputError
from ifguide.files.artifacts import write_text
from ifguide.workflow.config_schema import resolve

REPOSITORY = Path(__file__).resolve().parent.parent
MARKER = (
    "<!-- Written by scripts/write_config_reference.py from the schema: do not edit below. -->\n"
)
OVERRIDES = "#/$defs/training_overrides"  # the keys of `training`, which has its own table
TYPES = {"object": "section", "array": "list", "string": "text"}


def main(arguments: Namespace) -> None:
    schema = yaml.safe_load(arguments.schema.read_text(encoding="utf-8"))
    written = arguments.output.read_text(encoding="utf-8")
    head, marker, _ = written.partition(MARKER)
    if not marker:
        raise InputError(f"{arguments.output}: no line {MARKER.strip()}; restore it")
    current = head + MARKER + reference(schema)
    if arguments.check and current != written:
        raise InputError(
            f"{arguments.output}: not current; run python scripts/write_config_reference.py"
        )
    if not arguments.check:
        write_text(arguments.output, current, publish=os.replace)


def reference(schema: Mapping) -> str:
    """Return one table for each section of the schema, as Markdown."""
    single = {name: entry for name, entry in schema["properties"].items() if not is_section(entry)}
    head = {"properties": single, "required": schema["required"]}
    parts = ["\n## The experiment\n\n", *table(rows("", head, schema))]
    for name, entry in schema["properties"].items():
        if is_section(entry):
            parts += [f"\n## `{name}`\n\n{entry['description']}\n\n"]
            parts += table(rows("", resolve(entry, schema), schema))
    return "".join(parts)


def is_section(entry: Mapping) -> bool:
    return entry.get("type") == "object"


def table(lines: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "| key | type | default | description |\n|---|---|---|---|\n"
    for cells in lines:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def rows(prefix: str, section: Mapping, root: Mapping) -> Iterator[tuple[str, ...]]:
    """Yield key, type, default and description of everything in a section, depth first."""
    required = section.get("required", [])
    for key, written in keys_of(section, root):
        entry = resolve(written, root)
        path = f"{prefix}{key}"
        if key != "<name>":
            default = default_of(entry, key, required)
            yield f"`{path}`", type_of(entry, root), default, entry.get("description", "")
        if written.get("$ref") == OVERRIDES:
            continue
        yield from rows(f"{path}.", entry, root)
        if entry.get("type") == "array" and "items" in entry:
            yield from rows(f"{path}[].", resolve(entry["items"], root), root)


def keys_of(section: Mapping, root: Mapping) -> Iterator[tuple[str, Mapping]]:
    yield from section.get("properties", {}).items()
    merged: dict[str, dict] = {}
    for alternative in section.get("oneOf", []) + section.get("anyOf", []):
        for key, entry in resolve(alternative, root).get("properties", {}).items():
            merged.setdefault(key, {"alternatives": []})["alternatives"].append(entry)
    for key, found in merged.items():
        yield key, joined(found["alternatives"])
    if isinstance(section.get("additionalProperties"), Mapping):
        yield "<name>", section["additionalProperties"]


def joined(alternatives: list[Mapping]) -> Mapping:
    """Return one entry for a key that alternatives describe, such as a `kind` of several values."""
    if all("const" in entry for entry in alternatives):
        meanings = [f"{entry['const']}: {entry['description']}" for entry in alternatives]
        return {
            "enum": [entry["const"] for entry in alternatives],
            "description": " ".join(meanings),
        }
    return alternatives[0]


def type_of(entry: Mapping, root: Mapping) -> str:
    if "enum" in entry:
        return " or ".join(f"`{value}`" for value in entry["enum"])
    if "anyOf" in entry and "type" not in entry:
        return " or ".join(type_of(resolve(part, root), root) for part in entry["anyOf"])
    kinds = entry.get("type", "any")
    return " or ".join(
        TYPES.get(kind, kind) + (bounds_of(entry) if kind in ("integer", "number") else "")
        for kind in ([kinds] if isinstance(kinds, str) else kinds)
    )


def bounds_of(entry: Mapping) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {entry[key]}" for key, sign in signs.items() if key in entry]
    return f" {', '.join(found)}" if found else ""


def default_of(entry: Mapping, key: str, required: list[str]) -> str:
    if "default" in entry:
        return f"`{shown(entry['default'])}`" if entry["default"] != {} else ""
    return "required" if key in required else ""


def shown(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--schema", type=Path, default=REPOSITORY / "workflow/schemas/config.schema.yaml"
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "config/README.md")
    parser.add_argument("--check", action="store_true")
    run(main, parser)
