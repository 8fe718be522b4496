"""The code that finished artifacts were made by, as Snakemake's own records of them say."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from snakemake.io import IOFile, apply_wildcards

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

MARK = "'code:"  # how a digest begins in a record, where values stand as Python writes them


def recorded_digest(workflow: "Workflow", rule: str, wildcards: Mapping) -> str | None:
    """Return the digest of the code that the first output of a job was made by, if it is known."""
    output = next(iter(workflow.get_rule(rule).output))
    return _recorded(workflow, apply_wildcards(str(output), wildcards))


def _recorded(workflow: "Workflow", path: str) -> str | None:
    parameters: list[Any] = workflow.persistence.params(IOFile(path)) or []
    digests = [value for value in parameters if isinstance(value, str) and value.startswith(MARK)]
    return digests[0].strip("'") if digests else None


def rules_of_other_code(
    workflow: "Workflow", current: Mapping[str, Callable[[Any], str]]
) -> dict[str, int]:
    """Return how many finished jobs of each rule were made by other code than that of today.

    current: of each rule, what returns the digest of its code for a job's wildcards.
    """
    found: dict[str, int] = {}
    for job in workflow.dag.jobs:
        rule = job.rule.name
        if rule in current and job.output:
            recorded = _recorded(workflow, str(job.output[0]))
            if recorded and recorded != current[rule](job.wildcards):
                found[rule] = found.get(rule, 0) + 1
    return dict(sorted(found.items()))
