"""The workflow profiles that come with the project."""

import re

import yaml

from conftest import REPOSITORY


def test_the_profile_of_clusters_is_whole():
    """A workflow profile replaces the default one, so it has to repeat it."""
    profile, default = (
        yaml.safe_load((REPOSITORY / f"workflow/profiles/{name}/profile.yaml").read_text("utf-8"))
        for name in ("slurm", "default")
    )
    assert {key: profile.get(key) for key in default} == default
    rules = "\n".join(
        path.read_text("utf-8") for path in (REPOSITORY / "workflow/rules").glob("*.smk")
    )
    defined = set(re.findall(r"^rule (\w+):|^use rule \w+ as (\w+)", rules, re.M))
    defined = {name for pair in defined for name in pair if name}
    assert set(profile["groups"]) | set(profile["set-resources"]) <= defined
    gpu = set(
        re.findall(r"^rule (\w+):(?:(?!^rule|^use rule).)*?^        gpu=0", rules, re.M | re.S)
    )
    assert set(profile["set-resources"]) == gpu
