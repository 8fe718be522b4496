"""The JSON schema of a config: for editors, the workflow catalogue and what is said of keys."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue


class _Generator(GenerateJsonSchema):
    """Keeps the order of keys, gives no titles, and holds the names of entries to their form."""

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        return value

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_fields_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().model_fields_schema(schema)
        if "extras_keys_schema" in schema:
            found["propertyNames"] = self.generate_inner(schema["extras_keys_schema"])
        return found

    def dict_schema(self, schema: Any) -> JsonSchemaValue:
        found: JsonSchemaValue = {"type": "object"}
        found["propertyNames"] = self.generate_inner(schema["keys_schema"])
        found["additionalProperties"] = self.generate_inner(schema["values_schema"])
        if "min_length" in schema:
            found["minProperties"] = schema["min_length"]
        return found


def json_schema(model: type[BaseModel]) -> dict:
    """Return the JSON schema of a model, draft 2020-12, every description on one line."""
    schema = model.model_json_schema(schema_generator=_Generator)
    _tidy(schema, schema)
    return schema


def _tidy(node: Any, root: dict) -> None:
    if isinstance(node, list):
        for entry in node:
            _tidy(entry, root)
    elif isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        if isinstance(node.get("description"), str):
            node["description"] = " ".join(node["description"].split())
        for entry in node.values():
            _tidy(entry, root)


def resolved(node: dict, root: dict) -> dict:
    """Return a node with the definition that its `$ref` names filled in; its own keys win."""
    found = dict(node)
    while reference := found.pop("$ref", None):
        found = {**root["$defs"][reference.removeprefix("#/$defs/")], **found}
    return found
