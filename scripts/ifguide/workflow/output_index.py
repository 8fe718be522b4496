"""Which rule makes a file, found without asking every output of every rule.

Snakemake compares each file that a job needs with all outputs of the rules that it may come from:
of a rule with an output for each of n shards, n times n of them. An output can only be a file with
the same beginning and the same end around its wildcards, and those are looked up here.
"""

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from snakemake.common.prefix_lookup import PrefixLookup

if TYPE_CHECKING:
    from snakemake.rules import Rule


class OutputIndex:
    """The outputs of rules by what stands before their first wildcard and after their last one."""

    def __init__(self, rules: "list[Rule]") -> None:
        found: dict[str, dict[str, list[tuple[Rule, Any]]]] = defaultdict(lambda: defaultdict(list))
        for rule in rules:
            for product in rule.products():
                suffixes = found[str(product.constant_prefix())]
                suffixes[str(product.constant_suffix())].append((rule, product))
        entries = [
            (prefix, (suffixes, sorted({len(suffix) for suffix in suffixes})))
            for prefix, suffixes in found.items()
        ]
        self._lookup = PrefixLookup(entries=entries)

    def _outputs(self, targetfile: str) -> "set[tuple[Rule, Any]]":
        return {
            entry
            for _, (suffixes, lengths) in self._lookup.match_iter(targetfile)
            for length in lengths
            if length <= len(targetfile)
            for entry in suffixes.get(targetfile[len(targetfile) - length :], ())
        }

    def match(self, targetfile: str) -> "set[Rule]":
        """Return the rules with an output that begins and ends as the file does."""
        return {rule for rule, _ in self._outputs(targetfile)}

    def match_producers(self, targetfile: str) -> "set[Rule]":
        """Return the rules that make the file."""
        return {rule for rule, product in self._outputs(targetfile) if product.match(targetfile)}


def use_output_index() -> None:
    """Have Snakemake look outputs up in this index, where it has one to replace."""
    # Loaded before any workflow is parsed, and not by itself.
    dag = sys.modules.get("snakemake.dag")
    if dag is not None and hasattr(dag, "OutputIndex"):
        dag.OutputIndex = OutputIndex
