"""Write the JSON schema of the config and the reference of its keys, from the models of the config.

With --check, only say whether both files are current.
"""

from ifguide.workflow.command_line import argument_parser, run

import itertools
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ifguide.errors import InputError
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.config.json_schema import json_schema, resolved

REPOSITORY = Path(__file__).resolve().parent.parent
WRITTEN = "Written by scripts/write_config_reference.py from scripts/ifguide/workflow/config"
HEAD = f"""\
# Config: every key

<!-- {WRITTEN}: do not edit. -->

How config files work together is told in [config/README.md](../../config/README.md).
"""
OVERRIDES = "#/$defs/TrainingOverrides"  # the keys of `training`, which has its own table
TYPES = {"object": "section", "array": "list", "string": "text"}


def main(arguments: Namespace) -> None:
    schema = json_schema(Config)
    current = {arguments.schema: schema_text(schema), arguments.reference: reference(schema)}
    for path, text in current.items():
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            raise InputError(f"{path}: not current; run python scripts/write_config_reference.py")


def schema_text(schema: Mapping) -> str:
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    # The definitions last: what a reader looks for is the keys.
    ordered = draft | {key: schema[key] for key in schema if key != "$defs"}
    ordered |= {"$defs": schema["$defs"]}
    text = yaml.safe_dump(
        ordered, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    return f"# {WRITTEN}: do not edit.\n{text}"


def reference(schema: Mapping) -> str:
    """Return one table for each section of the schema, as Markdown."""
    sections = {
        name: entry
        for name, written in schema["properties"].items()
        if (entry := resolved(written, schema)).get("type") == "object"
    }
    single = {
        name: schema["properties"][name] for name in schema["properties"] if name not in sections
    }
    top = {"properties": single, "required": schema["required"]}
    parts = [HEAD, "\n## The experiment\n\n", *table(rows("", top, schema))]
    for name, entry in sections.items():
        parts += [f"\n## `{name}`\n\n{entry['description']}\n\n"]
        parts += table(rows("", entry, schema))
    return "".join(parts)


def table(lines: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "| key | type | default | description |\n|---|---|---|---|\n"
    for cells in lines:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def rows(prefix: str, section: Mapping, root: Mapping) -> Iterator[tuple[str, ...]]:
    """Yield key, type, default and description of everything in a section, depth first."""
    for key, written, required in keys_of(section, root):
        entry = resolved(written, root)
        path = f"{prefix}{key}"
        if key != "<name>":
            default = default_of(entry, required)
            yield f"`{path}`", type_of(entry, root), default, entry.get("description", "")
        if written.get("$ref") == OVERRIDES:
            continue
        yield from rows(f"{path}.", entry, root)
        if entry.get("type") == "array":
            yield from rows(f"{path}[].", resolved(entry["items"], root), root)


def keys_of(section: Mapping, root: Mapping) -> Iterator[tuple[str, Mapping, bool]]:
    """Yield key, schema and whether it is required; a key of several alternatives once."""
    for key, entry in section.get("properties", {}).items():
        yield key, entry, key in section.get("required", [])
    if isinstance(section.get("additionalProperties"), Mapping):
        yield "<name>", section["additionalProperties"], False
    found: dict[str, list[tuple[Mapping, bool]]] = {}
    several = [
        keys for part in alternatives(section) if (keys := [*keys_of(resolved(part, root), root)])
    ]
    for key, entry, required in itertools.chain(*several):
        found.setdefault(key, []).append((entry, required))
    for key, entries in found.items():
        required = len(entries) == len(several) and all(required for _, required in entries)
        yield key, joined([entry for entry, _ in entries]), required


def alternatives(entry: Mapping) -> list[Mapping]:
    """Return what a value can be instead of one thing; of a section, its own keys say it all."""
    if "properties" in entry:
        return []
    return [*entry.get("oneOf", []), *entry.get("anyOf", [])]


def joined(entries: list[Mapping]) -> Mapping:
    """Return one entry for a key that alternatives describe, such as a `kind` of several values."""
    if len(entries) > 1 and all("const" in entry for entry in entries):
        meanings = [f"{entry['const']}: {entry['description']}" for entry in entries]
        return {"enum": [entry["const"] for entry in entries], "description": " ".join(meanings)}
    return entries[0]


def type_of(entry: Mapping, root: Mapping) -> str:
    listed = entry.get("enum", [entry["const"]] if "const" in entry else [])
    if listed:
        return " or ".join(f"`{value}`" for value in listed)
    if several := alternatives(entry):
        kinds = [type_of(resolved(part, root), root) for part in several]
        return " or ".join(dict.fromkeys(kinds))
    kind = entry.get("type", "any")
    return TYPES.get(kind, kind) + bounds_of(entry)


def bounds_of(entry: Mapping) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {entry[key]}" for key, sign in signs.items() if key in entry]
    return f" {', '.join(found)}" if found else ""


def default_of(entry: Mapping, required: bool) -> str:
    if "default" in entry:
        return f"`{shown(entry['default'])}`" if entry["default"] != {} else ""
    return "required" if required else ""


def shown(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--schema", type=Path, default=REPOSITORY / "workflow/schemas/config.schema.yaml"
    )
    parser.add_argument("--reference", type=Path, default=REPOSITORY / "docs/reference/config.md")
    parser.add_argument("--check", action="store_true")
    run(main, parser)
