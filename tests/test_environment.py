"""The pins: one version of every package, whichever way the environment is made."""

import importlib.metadata
import re
import tomllib

import pytest
import yaml


def pins(lines: list[str]) -> dict[str, str]:
    """Return name → version of requirements that are pinned, names normalised."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;]+)", line.strip())
        assert match, f"{line!r} is not pinned"
        found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def required(project) -> list[str]:
    """Everything that `make test` installs."""
    extras = project["optional-dependencies"]
    return project["dependencies"] + extras["test"] + extras["cluster"] + extras["benchmark"]


@pytest.fixture(scope="module")
def constraints(repository) -> dict[str, str]:
    lines = (repository / "envs/constraints.txt").read_text("utf-8").splitlines()
    return pins([line for line in lines if line and not line.startswith("#")])


def test_conda_environment_has_the_same_versions(repository, project):
    environment = yaml.safe_load((repository / "envs/main.yaml").read_text("utf-8"))
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pins(pip) == pins(project["dependencies"])


def test_constraints_hold_every_direct_pin(required, constraints):
    direct = pins(required)
    assert {name: constraints.get(name) for name in direct} == direct


def test_constraints_hold_whatever_the_dependencies_require(required, constraints):
    """Follow the requirements of what is installed: nothing is left to the day of installation."""
    from packaging.requirements import Requirement

    # What torch requires on a machine with a GPU is pinned by torch itself.
    pending = [Requirement(line) for line in required]
    seen = set()
    while pending:
        requirement = pending.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        assert name in constraints, f"{name} is required but not in envs/constraints.txt"
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *requirement.extras)]
            if not needed.marker or any(map(needed.marker.evaluate, environments)):
                pending.append(needed)


def test_installed_versions_are_the_pinned_ones(constraints):
    for name in ("torch", "transformers", "tokenizers", "huggingface_hub", "detoxify", "snakemake"):
        installed = importlib.metadata.version(name).partition("+")[0]
        assert installed == constraints[name.replace("_", "-")], name


def test_no_torchvision_and_one_torch(constraints):
    distributions = [
        distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()
    ]
    assert "torchvision" not in distributions and "torchvision" not in constraints
    assert distributions.count("torch") == 1


def test_the_workflow_asks_for_the_pinned_snakemake(repository, project):
    snakefile = (repository / "workflow/Snakefile").read_text("utf-8")
    version = pins(project["dependencies"])["snakemake"]
    assert f'min_version("{version}")' in snakefile
