"""The templates of pages. They lie in templates/ beside this module, and are part of its code.

Whatever a template is given is escaped: texts of corpora and models cannot become markup.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Return the named template filled with `values`; one that it lacks is an error."""
    return ENVIRONMENT.get_template(template).render(values)


def number(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits and a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "\u2212")


def source_hash(text: str) -> str:
    """Return the name that a content policy gives to a style or script of this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters.update(number=number, source_hash=source_hash)
