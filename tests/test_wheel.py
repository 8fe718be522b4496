"""The wheel: built, installed into an empty environment with what it depends on, and imported."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from conftest import REPOSITORY

pytestmark = pytest.mark.slow

IMPORT_ALL = """
import importlib, pkgutil, sys
import ifguide
from ifguide.training import SuppressionMixin, mark_labels, selected_tokens, suppression_loss
from ifguide.report.templating import ENVIRONMENT

assert ifguide.__file__.startswith(sys.prefix), ifguide.__file__
assert ENVIRONMENT.get_template("model_card.md")
for module in pkgutil.walk_packages(ifguide.__path__, "ifguide."):
    importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("ifguide.")]))
"""


def run(*command: object, cwd: Path) -> str:
    ran = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Of a copy: a build leaves its folders beside the source.
    for name in ("pyproject.toml", "README.md", "LICENSE", "scripts"):
        run("cp", "-r", REPOSITORY / name, folder, cwd=folder)
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
        *("--wheel-dir", folder / "built", folder),
        cwd=folder,
    )
    (built,) = (folder / "built").glob("ifguide-*.whl")
    return built


def test_a_wheel_in_an_empty_environment_has_every_module(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pins = ("--constraint", REPOSITORY / "envs/constraints.txt")
    run(python, "-m", "pip", "install", "--quiet", *pins, wheel, cwd=tmp_path)
    imported = run(python, "-I", "-c", IMPORT_ALL, cwd=tmp_path)
    modules = [
        path
        for path in (REPOSITORY / "scripts/ifguide").rglob("*.py")
        if path != REPOSITORY / "scripts/ifguide/__init__.py"
    ]
    assert int(imported) == len(modules)
