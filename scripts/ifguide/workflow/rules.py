"""What rules are written with: their settings, resources, launcher, script and code."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifguide.workflow.code import code_digest
from ifguide.workflow.experiment import settings_of
from ifguide.workflow.methods import Methods
from ifguide.workflow.recorded_code import recorded_digest, rules_of_other_code

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

# What Snakemake calls with a job's wildcards.
OfWildcards = Callable[[Any], Any]


def always(**sections: object) -> OfWildcards:
    """Return settings that no wildcard changes, as a function: braces in text are wildcards."""
    return lambda wildcards: settings_of(**sections)


def growing(amount: int) -> Callable[[Any, int], int]:
    """Return memory or time: once the amount at the first attempt, twice at the second, …"""
    return lambda wildcards, attempt: amount * attempt


def launcher(methods: Methods) -> Callable[[Any, Any], list[str]]:
    """Return Python, or one Python for each process: the GPUs of the job, or its CPU processes."""

    def command(wildcards: Any, resources: Any) -> list[str]:
        processes = max(resources.get("gpu", 0), resources.get("processes", 1))
        if processes <= 1 or not methods.shares_steps(wildcards.method):
            return ["python"]
        return [
            *("python", "-m", "torch.distributed.run", "--standalone"),
            f"--nproc-per-node={processes}",
        ]

    return command


class RuleCode:
    """The script of each rule, and the digest of the code that its result depends on."""

    def __init__(
        self, workflow: "Workflow", scripts: Path, methods: Methods, *, tracked: bool
    ) -> None:
        """tracked: else what is finished stays, by whatever code it was made."""
        self.workflow = workflow
        self.scripts = scripts
        self.methods = methods
        self.tracked = tracked
        self.current: dict[str, OfWildcards] = {}

    def script(self, name: str) -> Callable[[Any, Any], str]:
        """Return the path of a script; of `input`, so that a clone elsewhere reruns nothing."""
        return lambda wildcards, input: os.path.relpath(self.scripts / f"{name}.py")

    def digest(
        self, script: str, made_by: str | None = None, stages: Sequence[str] = ()
    ) -> OfWildcards:
        """Return the digest of a rule's code: of its script and the modules that this needs.

        Where code is not tracked, it is that which the output was made with before, also of a job
        that runs for another reason: tracked again, it runs once more.

        made_by: the rule, where it has another name than its script. stages: of the method whose
        steps the script takes.
        """
        # As a module of another workflow, rules have other names.
        made_by = self.workflow.modifier.modify_rulename(made_by or script)

        def current(wildcards: Any) -> str:
            steps = self.methods.modules_of(wildcards.method, stages) if stages else ()
            return code_digest(self.scripts, script, steps)

        def kept(wildcards: Any) -> str:
            return recorded_digest(self.workflow, made_by, wildcards) or current(wildcards)

        self.current[made_by] = current
        return current if self.tracked else kept

    def of_other_code(self) -> dict[str, str]:
        """Return, of rules whose jobs were made by other code than that of today, how many."""
        return {} if self.tracked else rules_of_other_code(self.workflow, self.current)
