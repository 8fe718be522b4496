"""A config that is checked against its models, with every default filled in."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ifguide.errors import InputError
from ifguide.settings import Settings, stays_absent
from ifguide.workflow.config.json_schema import json_schema
from ifguide.workflow.config.mistakes import line_of


def with_defaults(model: type[Settings], config: Mapping) -> dict:
    """Return a copy of `config`, as it is written, with every key that has a default.

    Raises InputError, one line that names the key of the most telling mistake and its cure.
    """
    _require_text_keys(config)
    try:
        checked = model.model_validate(config)
    except ValidationError as error:
        raise InputError(line_of(error, json_schema(model))) from None
    return _filled(config, checked)


def _require_text_keys(section: Any, keys: tuple[str, ...] = ()) -> None:
    """Refuse a key that YAML reads as something else, such as `no` or 2024."""
    if isinstance(section, Mapping):
        for key, value in section.items():
            if not isinstance(key, str):
                where = f"{'.'.join(keys)}: " if keys else ""
                # YAML has several words for each truth value.
                shown = {True: "yes", False: "no", None: "null"}.get(key, key)
                raise InputError(
                    f"{where}a key that YAML does not read as text, {key}; write it in quotes, "
                    f'such as "{shown}"'
                )
            _require_text_keys(value, (*keys, key))
    elif isinstance(section, list):
        for number, entry in enumerate(section):
            _require_text_keys(entry, (*keys, str(number)))


def _filled(written: Any, checked: Any) -> Any:
    """Return what is written, in its own types, and the defaults of the models that checked it."""
    if isinstance(checked, Settings):
        values = {**checked.__dict__, **(checked.model_extra or {})}
        filled = {key: _filled(value, values[key]) for key, value in written.items()}
        for key, field in type(checked).model_fields.items():
            if key not in filled and not stays_absent(field):
                default = {} if isinstance(values[key], Settings) else values[key]
                filled[key] = _filled(default, values[key])
        return filled
    if isinstance(checked, dict):
        return {key: _filled(value, checked[key]) for key, value in written.items()}
    if isinstance(checked, list):
        return [_filled(*pair) for pair in zip(written, checked, strict=True)]
    return copy.deepcopy(written)
