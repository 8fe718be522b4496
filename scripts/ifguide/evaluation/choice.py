"""At which strength a method is shown: one of several, chosen by prompts that no test uses.

Of the strengths of a method whose rise of held-out perplexity over that of `none` is at most
`within`, it is the one with the least total TP after toxic development prompts, and of equally
toxic ones the one with the least rise. Where no strength stays within, it is the one with the
least rise. A method that has no perplexity is chosen by its toxicity alone.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ifguide.evaluation.summary import clean_split, over_seeds


def choose(
    summary: pd.DataFrame,
    *,
    curves: Mapping[str, Mapping[str, float]],
    benchmark: str,
    within: float,
) -> dict[str, str]:
    """Return the chosen variant of each method that is measured on `benchmark`.

    summary: the tidy summary, over seeds here; curves: strength by variant, by method. With several
    models the choice is by their mean.
    """
    rows = over_seeds(summary)
    split = "toxic" if "toxic" in set(rows.loc[rows["benchmark"] == benchmark, "split"]) else "all"
    toxicity = _means(rows, benchmark, split, "any_tp")
    rises = _means(rows, "heldout", clean_split(summary), "perplexity_increase")
    chosen = {}
    for method, variants in curves.items():
        measured = [variant for variant in variants if variant in toxicity]
        if not measured:
            continue
        allowed = [v for v in measured if rises.get(v, -math.inf) <= within]
        if allowed:
            chosen[method] = min(allowed, key=lambda v: (toxicity[v], rises.get(v, -math.inf)))
        else:
            chosen[method] = min(measured, key=lambda v: rises[v])
    return chosen


def _means(rows: pd.DataFrame, benchmark: str, split: str, metric: str) -> dict[str, float]:
    found = rows[
        (rows["benchmark"] == benchmark) & (rows["split"] == split) & (rows["metric"] == metric)
    ]
    return found.groupby("method")["value"].mean().to_dict()


def at_chosen_strengths(summary: pd.DataFrame, choice: Mapping[str, Any]) -> pd.DataFrame:
    """Return the summary with each method of several strengths at the chosen one, by its own name.

    choice: the arguments of `choose` beside the summary; empty, all variants stay as they are.
    """
    if not choice:
        return summary
    chosen = choose(summary, **choice)
    variants = {name for method in chosen for name in choice["curves"][method]}
    names = {variant: method for method, variant in chosen.items()}
    kept = summary[~summary["method"].isin(variants - set(names))]
    return kept.assign(method=kept["method"].replace(names))


def choice_note(summary: pd.DataFrame, choice: Mapping[str, Any]) -> str:
    """Return which strength each method is shown at; empty where nothing is chosen."""
    if not choice:
        return ""
    chosen = choose(summary, **choice)
    told = [f"{method} {choice['curves'][method][name]:g}" for method, name in chosen.items()]
    if not told:
        return ""
    return (
        f"Strengths chosen on {choice['benchmark']}, at most {100 * choice['within']:g} % "
        f"perplexity: {', '.join(told)}."
    )
