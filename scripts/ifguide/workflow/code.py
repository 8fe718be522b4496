"""The code that a rule's result depends on, and its digest.

The digest is of what the code means: comments, docstrings, formatting, logging and the parsing of
arguments are left out, and so are modules that only write and read files. It is a tracked parameter
of the rule, so that a stage runs again when the code that computes it has changed, and only then.
"""

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Set
from pathlib import Path

# What changes no number: how artifacts are written and read, logged, locked and recorded. Nor does
# what the plan asks, what a training reports of its speed, and what is asked while the workflow is
# parsed: what that gives a job stands in its parameters.
PLUMBING = (
    *("ifguide.errors", "ifguide.files", "ifguide.settings", "ifguide.workflow"),
    *("ifguide.data.file_lists", "ifguide.methods.step"),
    *("ifguide.models.costs", "ifguide.models.devices", "ifguide.models.footprints"),
    *("ifguide.models.throughput", "ifguide.models.work"),
)
# Methods of a step that the workflow and the plan ask; no job does.
ASKED_BEFORE = (
    *("kept_share", "mistake", "needs", "preparation_work"),
    *("require_model", "training", "work"),
)
# Not Python, but read by these modules and shown: all files of a folder beside them.
BESIDE = {"ifguide.report.templating": "templates"}
LOGGERS = ("log", "logging")


@functools.cache
def code_digest(scripts: Path, script: str, further: tuple[str, ...] = ()) -> str:
    """Return the digest of a script of the folder `scripts` and of all modules that it needs.

    further: names of modules that it takes by their names in the config.
    """
    digest = hashlib.sha256()
    for name, path in sorted(modules_of(scripts, script, further).items()):
        digest.update(f"{name}\n{meaning_of(path)}\n".encode())
        for beside in _files_beside(name, path):
            digest.update(f"{beside.name}\n{beside.read_text('utf-8')}\n".encode())
    return f"code:{digest.hexdigest()[:16]}"


def _files_beside(name: str, path: Path) -> Iterable[Path]:
    folder = path.parent / BESIDE[name] if name in BESIDE else None
    return sorted(file for file in folder.iterdir() if file.is_file()) if folder else ()


def modules_of(scripts: Path, script: str, further: tuple[str, ...] = ()) -> dict[str, Path]:
    """Return a script and the modules that it imports, anywhere in it, by name.

    Those of this project, and those of the packages that the `further` ones belong to.
    """
    packages = {name.partition(".")[0] for name in further}
    found = {script: scripts / f"{script}.py"}
    pending = list(further)
    while True:
        for name in pending:
            found[name] = _file_of(scripts, name, packages)
        named = {name for path in found.values() for name in _imported(path)}
        new = {name for name in named - found.keys() if not _is_plumbing(name)}
        pending = [name for name in sorted(new) if _file_of(scripts, name, packages)]
        if not pending:
            return found


def _file_of(scripts: Path, name: str, packages: Set[str]) -> Path | None:
    """Return the file of a module of this project or of some packages, None of any other name."""
    own = scripts.joinpath(*name.split(".")).with_suffix(".py")
    if own.is_file():
        return own
    if name.partition(".")[0] not in packages - {"ifguide"}:
        return None
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None  # a name within a module
    return Path(found.origin) if found and found.origin else None


def _is_plumbing(name: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in PLUMBING)


def _says_nothing(imported: str) -> bool:
    return imported.partition(".")[0] in {"ifguide", "logging", "argparse"}


@functools.cache
def _imported(path: Path) -> frozenset[str]:
    return _read(path)[0]


def meaning_of(path: Path) -> str:
    """Return the code of a file without what changes no number, in one form."""
    return _read(path)[1]


@functools.cache
def _read(path: Path) -> tuple[frozenset[str], str]:
    """Return the modules that a file imports, and what it means."""
    reader = _Meaning()
    meaning = ast.unparse(reader.visit(ast.parse(path.read_text(encoding="utf-8"))))
    return frozenset(reader.imported), meaning


class _Meaning(ast.NodeTransformer):
    """Drops docstrings, logging, the parsing of a script's arguments, and imports of this project.

    What these name counts by itself.
    """

    def __init__(self) -> None:
        self.imported: set[str] = set()

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = [part for part in node.body if not _is_main(part)]
        return self._block(node)

    def visit_Import(self, node: ast.Import) -> ast.Import | None:
        names = {alias.name for alias in node.names}
        self.imported |= names
        return None if all(map(_says_nothing, names)) else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        # What is imported for types alone computes nothing.
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self._block(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        module = node.module or ""
        self.imported |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        return None if _says_nothing(module) else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef | None:
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        if "Settings" in bases:
            return None  # the options of a step, whose values are settings of its jobs
        if "Step" in bases:
            node.body = [
                part
                for part in node.body
                if not isinstance(part, ast.Assign | ast.AnnAssign)
                and getattr(part, "name", None) not in ASKED_BEFORE
            ]
        return self._block(node)

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text or _is_logging(node.value) else node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | None:
        return None if _is_logging(node.value) else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        return self._block(node) if hasattr(node, "body") else super().generic_visit(node)

    def _block(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]
        return node


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def _is_logging(value: ast.AST) -> bool:
    if not isinstance(value, ast.Call):
        return False
    called = value.func
    return (
        isinstance(called, ast.Attribute)
        and isinstance(called.value, ast.Name)
        and called.value.id in LOGGERS
    )
