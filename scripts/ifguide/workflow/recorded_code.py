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
) -> dict[str, str]:
    """Return, of rules whose jobs were made by other code than that of today, how many of all.

    current: of each rule, what returns the digest of its code for a job's wildcards.
    """
    found: dict[str, list[bool]] = {}
    for job in workflow.dag.jobs:
        rule = job.rule.name
        if rule in current and job.output:
            recorded = _recorded(workflow, str(job.output[0]))
            other = recorded is not None and recorded != current[rule](job.wildcards)
            found.setdefault(rule, []).append(other)
    return {
        rule: f"{sum(jobs)} of {len(jobs)} jobs"
        for rule, jobs in sorted(found.items())
        if any(jobs)
    }
