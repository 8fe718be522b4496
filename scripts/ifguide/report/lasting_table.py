"""The table of what lasts: a row for each method and seed as data, for each method to read."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from ifguide.errors import InputError
from ifguide.evaluation.lasting import (
    Bounded,
    compute_slowdown,
    middle,
    ordered,
    steps_to_level,
)
from ifguide.evaluation.summary import REFERENCE
from ifguide.report.results_table import NOT_MEASURED, Cell
from ifguide.report.templating import render

DECODED = (
    "acts while text is sampled and leaves the weights alone: who has them leaves the decoding away"
)
COLUMNS = (
    *("model", "method", "seed", "toxic_loss", "slowdown", "slowdown_bound"),
    *("steps_to_loss", "steps_to_loss_bound", "toxic_fraction", "toxic_fraction_after"),
    *("steps_to_fraction", "steps_to_fraction_bound", "steps", "unmeasured"),
)
# Heading, column, and the decimals that are shown; a column of bounds belongs to the last three.
SHOWN = (
    ("loss on toxic text, nats", "toxic_loss", 2),
    ("compute slowdown on toxic text", "slowdown", 1),
    ("steps until its loss is back", "steps_to_loss", 1),
    ("toxic fraction", "toxic_fraction", 3),
    ("toxic fraction after all steps", "toxic_fraction_after", 3),
    ("steps until the fraction is back", "steps_to_fraction", 1),
)


def lasting_table(
    relearning: Sequence[dict], curves: Sequence[dict], decoded: Iterable[str]
) -> pd.DataFrame:
    """Return one row for each model, method and seed, in their order, and for each of `decoded`.

    relearning: model, method, seed and `points` of steps, toxic_loss and toxic_fraction, each with
    that of the uncensored model of its model and seed; curves: model, seed and `points` of model,
    flops and toxic_loss. A number that is only bounded has its bound in `<column>_bound`. Columns
    of what is not measured are empty. Raises InputError where an uncensored model is missing.
    """
    uncensored = {
        (found["model"], found["seed"]): found["points"][0]
        for found in relearning
        if found["method"] == REFERENCE
    }
    by_model = {(curve["model"], curve["seed"]): curve for curve in curves}
    rows = []
    for found in relearning:
        key = found["model"], found["seed"]
        if key not in uncensored:
            raise InputError(
                f"relearning of {found['model']} by {found['method']}, seed {found['seed']}: the "
                "uncensored model of this seed was not measured; run its job"
            )
        rows.append(_row(found, uncensored[key], by_model.get(key)))
    for model in dict.fromkeys(found["model"] for found in relearning):
        rows += [{"model": model, "method": method, "unmeasured": DECODED} for method in decoded]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"seed": "Int64", "steps": "Int64"})


def _row(found: dict, level: dict, curve: dict | None) -> dict:
    points = found["points"]
    steps = [point["steps"] for point in points]
    losses, fractions = (
        [point[name] for point in points] for name in ("toxic_loss", "toxic_fraction")
    )
    bounded = {
        "steps_to_loss": steps_to_level(steps, losses, level["toxic_loss"]),
        "steps_to_fraction": steps_to_level(
            steps, [-value for value in fractions], -level["toxic_fraction"]
        ),
    }
    if curve is not None:
        flops, known = (
            [point[name] for point in curve["points"]] for name in ("flops", "toxic_loss")
        )
        (total,) = (p["flops"] for p in curve["points"] if p["model"] == curve["model"])
        bounded["slowdown"] = compute_slowdown(flops, known, losses[0], total)
    return {
        **{name: found[name] for name in ("model", "method", "seed")},
        "toxic_loss": losses[0],
        "toxic_fraction": fractions[0],
        "toxic_fraction_after": fractions[-1],
        "steps": steps[-1],
        **{name: number.value for name, number in bounded.items()},
        **{f"{name}_bound": number.bound for name, number in bounded.items()},
    }


def lasting_page(table: pd.DataFrame) -> str:
    """Return the page of the table: of each method the median over seeds, and their range."""
    columns = [{"heading": heading} for heading, name, _ in SHOWN if table[name].notna().any()]
    models = []
    for model, of_model in table.groupby("model", sort=False):
        measured = of_model[of_model["unmeasured"].isna()]
        by_method = measured.groupby("method", sort=False)
        models.append((model, [(method, shown_cells(own, table)) for method, own in by_method]))
    decoded = table[table["unmeasured"].notna()]
    return render(
        "lasting.html",
        models=models,
        columns=columns,
        steps=int(table["steps"].max()),
        seeds=table["seed"].nunique(),
        decoded=list(dict.fromkeys(decoded["method"])),
        reason=DECODED,
    )


def shown_cells(own: pd.DataFrame, table: pd.DataFrame) -> list[Cell]:
    """Return a method's cells, of the columns that any row of the table has."""
    return [
        _cell(bounded_column(own, name), decimals)
        for _, name, decimals in SHOWN
        if table[name].notna().any()
    ]


def bounded_column(own: pd.DataFrame, name: str) -> list[Bounded]:
    bounds = own.get(f"{name}_bound", pd.Series("", index=own.index)).fillna("")
    pairs = zip(own[name], bounds, strict=True)
    return [Bounded(float(value), bound) for value, bound in pairs if not math.isnan(value)]


def _cell(values: Sequence[Bounded], decimals: int) -> Cell:
    if not values:
        return Cell(NOT_MEASURED, "", best=False)
    lowest, highest = (_written(ordered(values)[end], decimals) for end in (0, -1))
    interval = f"{lowest} to {highest}" if len(values) > 1 else ""
    return Cell(_written(middle(values), decimals), interval, best=False)


def _written(number: Bounded, decimals: int) -> str:
    # A number of steps that were counted is whole.
    whole = number.bound == ">" and number.value == int(number.value)
    shown = f"{number.value:.{0 if whole else decimals}f}"
    return f"{number.bound} {shown}" if number.bound else shown
