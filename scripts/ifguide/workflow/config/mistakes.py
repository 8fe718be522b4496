"""What a mistake in the config is told: one line that names the key and the cure."""

import difflib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ifguide.workflow.config.json_schema import resolved

KINDS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a section of keys",
}


@dataclass(frozen=True)
class Place:
    """Where a mistake is: its keys, and the parts of the JSON schema that speak of it."""

    keys: tuple[str, ...]
    schema: dict  # of the value at these keys
    meant: dict  # the same; of a value that is one of several, the alternative that was meant
    section: dict  # of the section around it


def line_of(error: ValidationError, root: dict) -> str:
    """Return one line about the most telling of the mistakes; `root` is the JSON schema."""
    mistakes = [(mistake, _place(mistake, root)) for mistake in error.errors(include_url=False)]
    mistake, place = min(mistakes, key=lambda found: _rank(*found))
    name, message = _told(mistake, place, root)
    return f"{'.'.join([*place.keys, *name])}: {message}".replace("\n", " ")


def _rank(mistake: Any, place: Place) -> tuple[bool, int]:
    # An unknown key comes first: it may be the misspelt name of one that is missing. Then the
    # mistake nearest to the root, which may explain those below it.
    about_a_key = mistake["type"] in ("extra_forbidden", "invalid_key", "missing")
    unknown = mistake["type"] in ("extra_forbidden", "invalid_key")
    return not unknown, len(place.keys) - about_a_key


# --- where ----------------------------------------------------------------------------------------


def _place(mistake: Any, root: dict) -> Place:
    """Follow a mistake's location through the schema; a mistaken name is one of its section.

    A location has the tag of an alternative after the key whose value is one of several.
    """
    keys: list[str] = []
    schema = meant = section = root
    for part in mistake["loc"]:
        if part == "[key]":
            return Place(tuple(keys[:-1]), section, section, section)
        if alternatives := _alternatives(meant):
            meant = _tagged(str(part), alternatives, meant, root)
            continue
        keys.append(str(part))
        section = meant
        schema = _child(section, part, root)
        meant = _not_null(schema, root)
    named = mistake["type"] in NAMES_REFUSED and "propertyNames" in section
    if named and mistake["input"] == keys[-1] not in section.get("properties", {}):
        return Place(tuple(keys[:-1]), section, section, section)
    return Place(tuple(keys), schema, meant, section)


# What a name can be refused for.
NAMES_REFUSED = ("string_pattern_mismatch", "taken_name")


def _alternatives(schema: dict) -> list[dict]:
    """Return the alternatives of a value that is one of several, none for a section's own keys."""
    return [] if "properties" in schema else schema.get("oneOf", [])


def _tagged(tag: str, alternatives: list[dict], schema: dict, root: dict) -> dict:
    mapping = schema.get("discriminator", {}).get("mapping", {})
    for alternative in alternatives:
        reference = alternative.get("$ref", "")
        if reference == mapping.get(tag) or reference.rpartition("/")[2].split("__")[-1] == tag:
            return resolved(alternative, root)
    return next((entry for entry in alternatives if "$ref" not in entry), {})


def _child(schema: dict, part: str | int, root: dict) -> dict:
    if isinstance(part, int):
        return resolved(schema.get("items", {}), root)
    others = schema.get("additionalProperties")
    found = schema.get("properties", {}).get(part, others if isinstance(others, dict) else {})
    return resolved(found, root)


def _not_null(schema: dict, root: dict) -> dict:
    for alternative in schema.get("anyOf", []):
        if alternative.get("type") != "null":
            return resolved(alternative, root)
    return schema


# --- what -----------------------------------------------------------------------------------------


def _told(mistake: Any, place: Place, root: dict) -> tuple[list[str], str]:
    """Return what comes after the place's keys, and the message."""
    kind, value, context = mistake["type"], mistake["input"], mistake.get("ctx", {})
    if kind in ("extra_forbidden", "invalid_key"):
        return [], _unknown_key(place)
    if kind == "missing":
        return [], _missing(place.schema)
    if kind in ("missing_key", "missing_companion"):
        key = context["key"]
        schema = _child(place.meant, key, root)
        beside = f", beside {context['given']}" if "given" in context else ""
        return [key], _missing(schema, beside)
    if kind == "retired_key":
        return [context["key"]], mistake["msg"]
    if kind.startswith("union_tag"):
        # A section that says by one of its keys which of several it is.
        discriminator = place.schema["discriminator"]
        key, known = discriminator["propertyName"], list(discriminator["mapping"])
        if not isinstance(value, dict) or key not in value:
            return [key], f"missing: one of {', '.join(known)}"
        return [key], _not_listed(value[key], known)
    if kind == "literal_error":
        return [], _not_listed(value, _listed(place.schema))
    if kind.endswith("_type"):
        return [], _wrong_type(value, list(_types(place.schema, root)))
    if kind in ("finite_number", "not_finite"):
        key = [context["key"]] if context else []
        return key, f"{context.get('value', value)} is not a finite number"
    if kind == "string_pattern_mismatch":
        form = place.schema.get("propertyNames", place.schema)
        if "anyOf" in form:
            form = _not_null(form, root)
        return [], f"{shown(value)} {form.get('$comment') or mistake['msg']}"
    if kind == "taken_name":
        return [], f"{shown(value)} {mistake['msg']}"
    if kind in BOUNDS:
        relation, limit = BOUNDS[kind]
        return [], f"{shown(value)} is {relation} of {context[limit]:g}"
    if kind in ("too_short", "string_too_short", "too_long"):
        return [], _wrong_length(value, context)
    if kind == "value_error":
        return [], str(context["error"])
    return [], mistake["msg"]


BOUNDS = {
    "greater_than_equal": ("less than the minimum", "ge"),
    "greater_than": ("less than or equal to the minimum", "gt"),
    "less_than_equal": ("greater than the maximum", "le"),
    "less_than": ("greater than or equal to the maximum", "lt"),
}


def _unknown_key(place: Place) -> str:
    known = sorted(place.section.get("properties", {}))
    near = difflib.get_close_matches(place.keys[-1], known, n=1)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    return f"unknown key; the keys here are {', '.join(known)}"


def _missing(schema: dict, beside: str = "") -> str:
    description = schema.get("description", "")
    return f"missing{beside}{': ' + description if description else ''}"


def _listed(schema: dict) -> list[str]:
    alternatives = (entry for entry in [schema, *_alternatives(schema)] if "enum" in entry)
    return [str(value) for value in next(alternatives, {}).get("enum", [schema.get("const")])]


def _not_listed(value: Any, known: list[str]) -> str:
    if value is None:
        return f"is empty, but must be one of {', '.join(known)}; fill it in or remove the key"
    hint = ""
    if isinstance(value, bool) and shown(value) in known:
        hint = f'; write "{shown(value)}", in quotes'
    elif near := difflib.get_close_matches(str(value), known, n=1):
        hint = f"; did you mean {near[0]}?"
    return f"{shown(value)} is none of {', '.join(known)}{hint}"


def _types(schema: dict, root: dict) -> Iterator[str]:
    """Yield the types that a value may have, by their names in JSON schemas."""
    schema = resolved(schema, root)
    if "type" in schema:
        yield schema["type"]
        return
    for alternative in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
        yield from _types(alternative, root)


def _wrong_type(value: Any, types: list[str]) -> str:
    kinds = " or ".join(KINDS[kind] for kind in dict.fromkeys(types))
    if value is None:
        return f"is empty, but must be {kinds}; fill it in or remove the key"
    return f"{shown(value)} is not {kinds}{_cure(value, types)}"


def _cure(value: Any, types: list[str]) -> str:
    """Say how a number has to be written that was meant, but is something else in YAML."""
    if not {"number", "integer"} & {*types}:
        plain = isinstance(value, bool | int | float) and "string" in types
        return f'; write "{shown(value)}", in quotes' if plain else ""
    if isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    mantissa, mark, exponent = value.lower().partition("e")
    if mark and "number" in types:
        written = mantissa if "." in mantissa else f"{mantissa}.0"
        sign = "" if exponent[:1] in "+-" else "+"
        return f"; YAML reads {value} as text, write {written}e{sign}{exponent}"
    return (
        f"; write {number:g} without quotes, in a file: the values of sections that are given by "
        "--config arrive as text"
    )


def _wrong_length(value: Any, context: dict) -> str:
    if not value:
        return f"{shown(value)} is empty"
    if "max_length" in context:
        return f"{shown(value)} has more than {context['max_length']} entries"
    return f"{shown(value)} has fewer than {context['min_length']} entries"


def shown(value: Any) -> str:
    """Return a value as the config has it, cut off where it is long."""
    if isinstance(value, str):
        return repr(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
