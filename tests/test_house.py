"""The order of the house: who may know whom, and that nobody knows a step by its name."""

import ast
import re
from pathlib import Path

import pytest

from ifguide.methods.step import registered_steps

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = REPOSITORY / "scripts"
LIBRARY = SCRIPTS / "ifguide"
# A room knows only those before it, and what stands beside them all: errors, seeds, settings.
ROOMS = [
    *("files", "data", "models", "influence", "evaluation"),
    *("methods", "report", "planning", "workflow"),
]
# What users import from their own code stands before the house and shows what these rooms hold.
PUBLIC = {"training.py": {"models", "influence"}}
MODULES = sorted(LIBRARY.rglob("*.py"))
RULES = sorted((REPOSITORY / "workflow").rglob("*.smk")) + [REPOSITORY / "workflow/Snakefile"]
ASKING = [
    *RULES,
    *sorted(SCRIPTS.glob("*.py")),
    *(path for path in MODULES if "methods" not in path.relative_to(LIBRARY).parts),
]


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "ifguide":
                found |= {f"ifguide.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("ifguide.")}


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_no_import_points_upward(path):
    place = path.relative_to(LIBRARY).parts
    known = {"errors", "seeds", "settings"}
    if len(place) == 1:
        known |= PUBLIC.get(place[0], set())
    else:
        known |= set(ROOMS[: ROOMS.index(place[0]) + 1])
    assert imported_rooms(path) <= known


def test_every_room_is_in_order():
    folders = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert folders == set(ROOMS)


def words_of(path: Path) -> set[str]:
    """The names and texts of a file: all words of rules, of Python without its comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"\w+", re.sub(r"#.*", "", text)))
    words = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # As it stands, and as a part of a config's key.
            words |= {node.value, *re.findall(r"(?<=\.)\w+(?=\.)", node.value)}
        elif isinstance(node, ast.Attribute) and ast.unparse(node) != "contextlib.suppress":
            words.add(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            words |= {part for alias in node.names for part in alias.name.split(".")}
            words |= set((getattr(node, "module", None) or "").split("."))
    return words


@pytest.mark.parametrize("path", ASKING, ids=shown)
def test_nobody_holds_the_key_of_a_step(path):
    # `filter` and `re.filter` are words of Python too, but a text is never just that.
    assert not words_of(path) & set(registered_steps())


def test_what_is_imported_while_the_workflow_is_parsed_is_light():
    """Modules of steps, of the config and of the rules load no PyTorch."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "import ifguide.workflow.parts, ifguide.workflow.rules, ifguide.workflow.run\n"
        "import ifguide.workflow.config.experiment\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'datasets', 'scipy'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def blocks_of(path: Path) -> dict[str, str]:
    """The text of every rule of a file, by its name."""
    parts = re.split(r"^(?=(?:use )?rule \w)", path.read_text(encoding="utf-8"), flags=re.M)
    found = {}
    for part in parts:
        if name := re.match(r"(?:use rule \w+ as|rule) (\w+)", part):
            found[name[1]] = part
    return found


@pytest.mark.parametrize("path", RULES, ids=shown)
def test_a_rule_its_script_and_its_log_have_one_name(path):
    for name, block in blocks_of(path).items():
        logged = re.search(r'layout\.(?:shown_)?log\("(\w+)"', block)
        if not logged:
            continue
        assert logged[1] == name
        measured = re.search(r'layout\.(?:shown_)?benchmark\("(\w+)"', block)
        assert name in ("plan", "preflight") or measured[1] == name
        scripts = re.findall(r'script=script\("(\w+)"\)', block)
        if block.startswith("use rule"):
            # What it makes is recorded under its own name.
            base = re.match(r"use rule (\w+)", block)[1]
            assert scripts == [base] and f'code("{base}", made_by="{name}"' in block
        else:
            assert scripts == [name]
        assert (SCRIPTS / f"{(scripts or [name])[0]}.py").is_file() or block.startswith("use rule")


def test_rules_hold_no_python_of_their_own():
    for path in RULES:
        assert not re.findall(r"^ *(?:def|class|async def) \w+", path.read_text("utf-8"), re.M), (
            path
        )


def test_no_path_below_results_is_spelled_out_by_a_rule():
    for path in RULES:
        text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
        assert not re.findall(r"results/|logs/", text), path


def test_every_script_is_run_by_a_rule_or_by_a_user():
    by_rules = {
        name
        for path in RULES
        for name in re.findall(r'script=script\("(\w+)"\)', path.read_text(encoding="utf-8"))
    }
    by_users = {"explain", "measure_device", "write_config_reference", "write_results_page"}
    by_scripts = {"list_jobs"}
    assert {path.stem for path in SCRIPTS.glob("*.py")} == by_rules | by_users | by_scripts


def test_no_script_is_the_library_of_another():
    names = {path.stem for path in SCRIPTS.glob("*.py")}
    for path in SCRIPTS.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not imported & names, path
