"""All tables of an experiment, by their headings, and what their numbers mean."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ifguide.report.results_table import (
    Table,
    attribution_columns,
    classifier_columns,
    comparison_columns,
    control_columns,
    copying_columns,
    corrected_columns,
    markdown,
    prompt_set_columns,
    removal_columns,
    result_columns,
    results_table,
    worst_columns,
)

CORRECTED_HEADING = "Toxic fractions, corrected for the judges' mistakes"


def experiment_tables(summary: pd.DataFrame, benchmark: str) -> dict[str, Table]:
    """Return the tables of the tidy `summary` that have rows, by heading.

    benchmark: the prompts of the main table; each other set of prompts has a table of its own.
    """
    of_prompts = summary.loc[summary["metric"].str.endswith("_emt"), "benchmark"].unique()
    columns = {
        "Toxicity and fluency": result_columns(benchmark),
        "Compared with the uncensored model": comparison_columns(benchmark),
        CORRECTED_HEADING: corrected_columns(summary, benchmark),
        "The worst training seed": worst_columns(benchmark),
        "Compared with the control": control_columns(benchmark),
        **{
            f"Prompts of {other}": prompt_set_columns(other)
            for other in of_prompts
            if other != benchmark
        },
        "Copying: last words": copying_columns(),
        "Token scores against the known toxic tokens": attribution_columns(),
        "Tokens dropped or suppressed": removal_columns(),
        "Classifiers trained here": classifier_columns(),
    }
    tables = {heading: results_table(summary, found) for heading, found in columns.items() if found}
    return {heading: table for heading, table in tables.items() if table.labels}


def reading_note(continuations: int, level: float) -> str:
    """Return how to read the tables: `continuations` a prompt, intervals of confidence `level`."""
    return (
        f"EMT: mean over prompts of the most toxic of {continuations} continuations. TP: share of "
        "prompts with at least one continuation of toxicity 0.5 or more. Fraction: share of all "
        f"continuations that are. In brackets: {100 * level:g} % interval over prompts or blocks "
        "and, behind a name with a number of seeds, over training seeds too; of one training seed "
        "alone it leaves out how trainings differ. Bold: the difference from the second best of "
        "the model, paired by prompt and seed, has an interval without 0; no bold, none is surely "
        "best, or it was not asked. distinct-2, mean length (tokens) and the share of empty "
        "continuations show whether low toxicity comes from degenerate text. Continuation "
        "perplexity: of what a method writes, under the uncensored model. Next-token KL: how far "
        "the next-token distributions on held-out text are from the uncensored model's. Times "
        "lower: the uncensored model's TP over the method's, on the same prompts, from counts over "
        "all prompts and seeds; infinite where no prompt had a toxic continuation. Last words: "
        "small models copy them or not as a training falls, so that one seed says little."
    )


def leading_note(continuations: int, level: float) -> str:
    """Return how to read the table that leads, and what it does not say."""
    return (
        f"TP: share of prompts with at least one toxic continuation of {continuations}; total: an "
        f"explicitly or implicitly toxic one. In brackets: {100 * level:g} % intervals, over "
        "prompts or documents and, behind a name with a number of seeds, over training seeds. "
        "Overlapping intervals say neither that two methods are alike nor that they differ; the "
        "other tables have the paired differences from none. Nothing here says that a method "
        "does as well on other text, after other prompts or by other judges. A dash: not measured."
    )


def corrected_note(tables: Mapping[str, Table], uncorrected: Sequence[str]) -> str:
    """Return how to read the corrected fractions, and of which judges there are none, and why."""
    note = ""
    if CORRECTED_HEADING in tables:
        note = (
            " Corrected: the fraction without what the judge's mistakes add and hide, as often as "
            "it made them on held-out labelled texts (Rogan and Gladen 1978): (fraction - false "
            "alarms) / (toxic texts flagged - false alarms), from 0 to 1; the interval carries the "
            "uncertainty of all three. Continuations are not those texts: where a judge errs more "
            "often, or less, on what a model writes, the corrected fraction is wrong, and by more "
            "than its interval says. A corrected 0 says that no more was flagged than false alarms "
            "explain, not that nothing is toxic."
        )
    return note + "".join(f" No corrected fraction {line}." for line in uncorrected)


def control_note(controls: Mapping[str, str]) -> str:
    """Return which method is the control of which; empty where none has one."""
    return "".join(f" The control of {method} is {name}." for method, name in controls.items())


def tables_markdown(tables: dict[str, Table], warnings: Sequence[str]) -> str:
    """Return the tables as Markdown, the warnings below them; each ends with an empty line."""
    sections = [f"**{heading}**\n\n{markdown(table)}\n" for heading, table in tables.items()]
    return "".join(sections + [f"**Warning:** {line}.\n\n" for line in warnings])
