"""The configuration's schema: what a mistake is told, and the defaults that it fills in.

Schemas are JSON Schema, draft 2020-12; `$ref` may stand beside a description.
"""

import copy
import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

KINDS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a section of keys",
}


def resolve(schema: Mapping, root: Mapping) -> dict:
    """Return `schema` with the definition that its `$ref` names filled in; own keys win."""
    resolved = dict(schema)
    while reference := resolved.pop("$ref", None):
        target: Any = root
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        resolved = {**target, **resolved}
    return resolved


def with_defaults(schema: Mapping, config: Any) -> Any:
    """Return a copy of the valid `config` in which every key that has a default is present."""
    return _filled(Draft202012Validator(schema), schema, config)


def _filled(validator: Draft202012Validator, schema: Mapping, value: Any) -> Any:
    root = validator.schema
    if isinstance(value, list):
        items = schema.get("items", {})
        return [_filled(validator, resolve(items, root), item) for item in value]
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    properties: dict[str, Any] = {}
    others: Any = {}
    for part in _parts(validator, schema, value):
        properties |= part.get("properties", {})
        if isinstance(part.get("additionalProperties"), Mapping):
            others = part["additionalProperties"]
    filled = {
        key: _filled(validator, resolve(properties.get(key, others), root), entry)
        for key, entry in value.items()
    }
    for key, entry in properties.items():
        entry = resolve(entry, root)
        if key not in filled and "default" in entry:
            filled[key] = _filled(validator, entry, entry["default"])
    return filled


def _parts(validator: Draft202012Validator, schema: Mapping, value: Any) -> Iterator[Mapping]:
    """Yield the schema, and those of its alternatives that the value takes."""
    yield schema
    definitions = {"$defs": validator.schema.get("$defs", {})}
    for alternative in [*schema.get("oneOf", []), *schema.get("anyOf", [])]:
        alternative = resolve(alternative, validator.schema)
        if validator.evolve(schema=alternative | definitions).is_valid(value):
            yield alternative


def find_mistake(schema: Mapping, config: Mapping) -> str | None:
    """Return one line that names the key of the most telling mistake and its cure, or None."""
    errors = list(Draft202012Validator(schema).iter_errors(config))
    return _line(min(errors, key=_rank), schema) if errors else None


def _rank(error: ValidationError) -> tuple[bool, int]:
    # An unknown key comes first: it may be the misspelt name of one that is missing. Then the
    # mistake nearest to the root, which may explain those below it.
    return error.validator != "additionalProperties", len(error.absolute_path)


def _line(error: ValidationError, root: Mapping) -> str:
    key = ".".join(str(part) for part in error.absolute_path)
    problem = _PROBLEMS.get(error.validator, _as_written)
    found = problem(error, root)
    if isinstance(found, ValidationError):
        return _line(found, root)
    name, message = found
    return f"{'.'.join(part for part in (key, name) if part)}: {message}"


def _unknown_key(error: ValidationError, root: Mapping) -> tuple[str, str]:
    known = sorted(error.schema.get("properties", {}))
    unknown = next(key for key in error.instance if key not in known)
    near = difflib.get_close_matches(str(unknown), known, n=1)
    if near:
        return str(unknown), f"unknown key; did you mean {near[0]}?"
    return str(unknown), f"unknown key; the keys here are {', '.join(known)}"


def _missing_key(error: ValidationError, root: Mapping) -> tuple[str, str]:
    missing = next(key for key in error.validator_value if key not in error.instance)
    entry = resolve(error.schema.get("properties", {}).get(missing, {}), root)
    description = entry.get("description", "")
    return missing, f"missing{': ' + description if description else ''}"


def _missing_companion(error: ValidationError, root: Mapping) -> tuple[str, str]:
    given, missing = next(
        (key, needed)
        for key, all_needed in error.validator_value.items()
        if key in error.instance
        for needed in all_needed
        if needed not in error.instance
    )
    entry = resolve(error.schema.get("properties", {}).get(missing, {}), root)
    return missing, f"missing, beside {given}: {entry.get('description', '')}"


def _wrong_type(error: ValidationError, root: Mapping) -> tuple[str, str]:
    wanted = error.validator_value
    kinds = " or ".join(KINDS[kind] for kind in ([wanted] if isinstance(wanted, str) else wanted))
    if error.instance is None:
        return "", f"is empty, but must be {kinds}; fill it in or remove the key"
    message = f"{_shown(error.instance)} is not {kinds}"
    if isinstance(error.instance, str) and ("number" in wanted or "integer" in wanted):
        try:
            number = float(error.instance)
        except ValueError:
            return "", message
        mantissa, mark, exponent = error.instance.lower().partition("e")
        if mark and "number" in wanted:
            written = mantissa if "." in mantissa else f"{mantissa}.0"
            sign = "" if exponent[:1] in "+-" else "+"
            message += f"; YAML reads {error.instance} as text, write {written}e{sign}{exponent}"
        else:
            message += (
                f"; write {number:g} without quotes, in a file: the values of sections that are "
                "given by --config arrive as text"
            )
    return "", message


def _not_listed(error: ValidationError, root: Mapping) -> tuple[str, str]:
    listed = [str(value) for value in error.validator_value]
    near = difflib.get_close_matches(str(error.instance), listed, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return "", f"{_shown(error.instance)} is none of {', '.join(listed)}{hint}"


def _bad_pattern(error: ValidationError, root: Mapping) -> tuple[str, str]:
    explanation = error.schema.get("$comment", f"does not match {error.validator_value}")
    return "", f"{_shown(error.instance)} {explanation}"


def _bad_name(error: ValidationError, root: Mapping) -> tuple[str, str]:
    return "", f"{_shown(error.instance)} cannot be a name here"


def _no_alternative(error: ValidationError, root: Mapping) -> ValidationError | tuple[str, str]:
    alternatives = [resolve(entry, root) for entry in error.validator_value]
    required = [entry.get("required", []) for entry in alternatives]
    if not error.context:
        taken = [keys for keys in required if all(key in error.instance for key in keys)]
        return "", f"give only one of {_choices(taken)}"
    by_alternative: dict[int, list[ValidationError]] = {}
    for cause in error.context:
        by_alternative.setdefault(cause.schema_path[0], []).append(cause)
    tags = {
        key: [entry["properties"][key]["const"] for entry in alternatives]
        for key in alternatives[0].get("properties", {})
        if all("const" in entry.get("properties", {}).get(key, {}) for entry in alternatives)
    }
    for key, constants in tags.items():
        given = error.instance.get(key)
        if given not in constants:
            near = difflib.get_close_matches(str(given), constants, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return key, f"{_shown(given)} is none of {', '.join(constants)}{hint}"
        return min(by_alternative[constants.index(given)], key=_rank)
    if all(set(entry) == {"required"} for entry in alternatives):
        return (
            "",
            f"give {'exactly ' if error.validator == 'oneOf' else ''}one of {_choices(required)}",
        )

    def misfits(number: int) -> int:
        known = alternatives[number].get("properties", {})
        unknown = [key for key in error.instance if key not in known]
        return len(unknown) + sum(key not in error.instance for key in required[number])

    if isinstance(error.instance, dict):
        # The alternative with the fewest keys unknown or missing is the one that was meant.
        by_alternative = {key: by_alternative[key] for key in sorted(by_alternative, key=misfits)}
    for causes in by_alternative.values():
        # So is that of the right type.
        if all(cause.validator != "type" or cause.relative_path for cause in causes):
            return min(causes, key=_rank)
    kinds = " or ".join(KINDS[entry["type"]] for entry in alternatives if "type" in entry)
    return "", f"{_shown(error.instance)} is not {kinds}"


def _choices(required: list[list[str]]) -> str:
    return ", or ".join(" with ".join(keys) for keys in required)


def _as_written(error: ValidationError, root: Mapping) -> tuple[str, str]:
    return "", error.message.replace("\n", " ")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return repr(text) if isinstance(value, str) else text if len(text) <= 60 else text[:57] + "..."


_PROBLEMS = {
    "additionalProperties": _unknown_key,
    "required": _missing_key,
    "dependentRequired": _missing_companion,
    "type": _wrong_type,
    "enum": _not_listed,
    "pattern": _bad_pattern,
    "not": _bad_name,
    "oneOf": _no_alternative,
    "anyOf": _no_alternative,
}
