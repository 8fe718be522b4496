"""Values of the wrong kind at every leaf of a config: one line with a key, or a valid one."""

import copy
import math
import random

import pytest
import yaml

from conftest import REPOSITORY, TINY
from ifguide.errors import InputError
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.parts import open_experiment
from test_config import leaves

WRONG = [
    *(None, True, -1, 0, 2.0, 0.5, 1e300, 10**30, math.nan, math.inf, -math.inf),
    *("", "x" * 300, "no such name", "1e-3", "{x}", "~", "\n", "é", [], [1], {}, {"a": 1}, [[]]),
]


def filled() -> dict:
    config = yaml.safe_load((REPOSITORY / TINY).read_text("utf-8"))
    return with_defaults(Config, config)


def changed(config: dict, path: tuple, value: object) -> dict:
    result = copy.deepcopy(config)
    node = result
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return result


@pytest.mark.parametrize("path", list(leaves(filled())), ids=lambda path: ".".join(map(str, path)))
def test_any_value_is_one_line_or_valid(path):
    config = filled()
    for value in random.Random(str(path)).sample(WRONG, 2):
        try:
            open_experiment(with_defaults(Config, changed(config, path, value)))
        except (InputError, SystemExit) as refused:
            line = str(refused).removeprefix("error: config: ")
            assert "\n" not in line and ": " in line, (path, value, line)
            assert line.split(":")[0].split(".")[0] in Config.model_fields, (path, value, line)
