"""The templates of pages and cards: they lie in templates/ beside this module, as part of its code.

Whatever a template of a page is given is escaped: texts of corpora and models cannot become markup.
In those of a card, which are Markdown, such texts are quoted by the filter `code`.
"""

import base64
import hashlib
import itertools
import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def render(template: str, **values: Any) -> str:
    """Return the named template filled with `values`; one that it lacks is an error."""
    return ENVIRONMENT.get_template(template).render(values)


def number(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits and a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "\u2212")


def decimal(value: float, decimals: int) -> str:
    """Return `value` with so many decimals, a true minus sign, and no negative zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "\u2212")


def source_hash(text: str) -> str:
    """Return the name that a content policy gives to a style or script of this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def code(text: str) -> str:
    """Return text as code in a line of Markdown, a table's cell too, whatever it holds."""
    # Between backticks of another number than it has; in a table, a bar would end the cell.
    shown = text.replace("\n", "\u23ce").replace("\t", "\u21e5").replace("|", "\u2502")
    runs = {len(run) for run in re.findall("`+", shown)}
    fence = "`" * next(count for count in itertools.count(1) if count not in runs)
    padding = " " if runs or not shown.strip() else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(disabled_extensions=("md",), default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters.update(
    number=number, decimal=decimal, source_hash=source_hash, code=code, yaml=as_yaml
)
