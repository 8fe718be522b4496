"""The JSON schema of the config: current, whole, and of one mind with the models it comes from."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Literal

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import Field

from conftest import REPOSITORY, TINY
from ifguide.errors import InputError
from ifguide.settings import OrAbsent, Settings, one_of, section
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.config.files import read_config
from ifguide.workflow.config.json_schema import json_schema, resolved
from ifguide.workflow.config.overlays import resolve

SCHEMA = json_schema(Config)
SHIPPED = [*sorted((REPOSITORY / "config").rglob("*.yaml")), REPOSITORY / TINY]


def test_schema_and_reference_are_current():
    script = REPOSITORY / "scripts/write_config_reference.py"
    checked = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_written_schema_is_a_schema():
    written = yaml.safe_load(
        (REPOSITORY / "workflow/schemas/config.schema.yaml").read_text("utf-8")
    )
    Draft202012Validator.check_schema(written)
    assert written.pop("$schema") == Draft202012Validator.META_SCHEMA["$id"]
    assert written == SCHEMA


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_agree_with_the_schema(path):
    config = resolve(read_config(path), [path], {}, REPOSITORY / "config/config.yaml").config
    validator = Draft202012Validator(SCHEMA)
    assert [error.message for error in validator.iter_errors(config)] == []
    filled = with_defaults(Config, config)
    assert [error.message for error in validator.iter_errors(filled)] == []


def sections(schema: dict) -> Iterator[tuple[str, dict]]:
    yield "the config", schema
    yield from schema["$defs"].items()


@pytest.mark.parametrize("name, entry", [*sections(SCHEMA)])
def test_every_key_is_described_and_no_other_is_let_in(name, entry):
    for key, value in entry["properties"].items():
        assert resolved(value, SCHEMA).get("description"), f"{name}.{key}"
    others = entry["additionalProperties"]
    # Names of methods and judges, and what only `transformers` knows of an architecture.
    assert others is False or name in ("Methods", "Classifiers", "Architecture")


@pytest.mark.parametrize(
    "change, refused",
    [
        ({"tokenizers": {"a": {"path": "b", "vocabulary_size": 3}}}, "only one of"),
        ({"tokenizers": {"a": {}}}, "exactly one of"),
        ({"tokenizers": {"a": {"hub": "b", "revision": "0" * 40}}}, None),
        ({"queries": {"disjoint": {"format": "text", "files": "a"}}}, "cannot be a name"),
        ({"queries": {"a": {"format": "text", "files": "a", "hub": "b"}}}, "missing, beside hub"),
        ({"methods": {"none": {}, "a b": {}}}, "is not a name"),
        ({"methods": {"a": {}}}, "missing"),
        ({"methods": {"none": {}, "a": {"filter": {"words": "a", "share": 0.1}}}}, "unknown key"),
        ({"models": {"a": {"checkpoint": {"of": "b", "at": 0.5}}}}, None),
        ({"models": {"a": {"tokenizer": "b"}}}, "exactly one of"),
        ({"benchmarks": {"a": {"kind": "perplexity", "files": "b"}}}, "unknown key"),
        ({"evaluation": {"models": ["a", "a"], "methods": ["b"]}}, "stands twice"),
        ({"training": {"max_steps": None, "clip": 1}}, None),
        ({"methods": {"none": {"training": {"max_steps": None}}}}, None),
        ({"methods": {"none": {"training": {"clip": None}}}}, "is empty"),
    ],
)
def test_schema_and_models_refuse_the_same(change, refused):
    config = read_config(REPOSITORY / TINY) | change
    by_schema = not Draft202012Validator(SCHEMA).is_valid(config)
    try:
        with_defaults(Config, config)
        message = None
    except InputError as error:
        message = str(error)
    assert by_schema == (message is not None) == (refused is not None), message
    assert refused is None or refused in message


# --- what the models of steps may be made of ------------------------------------------------------


class Words(Settings):
    """By words."""

    words: str = Field(description="Words.")
    strength: float = Field(2, gt=0, description="Strength.")


class Judge(Settings):
    """By a judge."""

    judge: Literal["explicit", "implicit"] = Field(description="Judge.")
    limit: OrAbsent[Annotated[int, Field(ge=1)]] = Field(None, description="Limit.")


class Inner(Settings):
    """A section with defaults alone."""

    depth: int = Field(1, ge=0, description="Depth.")


class Outer(Settings):
    """A section of sections."""

    filters: list[one_of(Words, Judge)] = Field(description="Filters.")
    inner: Inner = section()


def test_defaults_are_filled_in_and_written_values_keep_their_type():
    config = {"filters": [{"judge": "explicit"}, {"words": "a", "strength": 3}, {"words": "b"}]}
    filled = with_defaults(Outer, config)
    assert filled == {
        "filters": [
            {"judge": "explicit"},
            {"words": "a", "strength": 3},
            {"words": "b", "strength": 2},
        ],
        "inner": {"depth": 1},
    }
    assert isinstance(filled["filters"][1]["strength"], int)
    assert "inner" not in config and "strength" not in config["filters"][2]


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"judge": "implicity"}, "filters.0.judge: 'implicity' is none of explicit, implicit; did"),
        ({"judge": "explicit", "limit": None}, "filters.0.limit: is empty, but must be a whole"),
        ({"words": "a", "strenght": 1}, "filters.0.strenght: unknown key; did you mean strength?"),
        ({"words": "a", "strength": 0}, "filters.0.strength: 0 is less than or equal to the min"),
    ],
)
def test_a_mistake_is_told_of_the_alternative_that_was_meant(change, expected):
    with pytest.raises(InputError) as refused:
        with_defaults(Outer, {"filters": [change]})
    assert str(refused.value).startswith(expected)
