"""The figure of a study: how well each variant of the token scores finds the known toxic tokens."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ifguide.report.figure_style import NEUTRAL, NONTOXIC, TOXIC, style
from ifguide.report.study import SHOWN

WIDTH = 7.2  # inches: the text width of a printed page
SERIES = (
    ("choose", "half that chooses", NONTOXIC, "s", "white", -0.15),
    ("report", "half that is reported", TOXIC, "o", TOXIC, 0.15),
)


def variants_by_question(table: pd.DataFrame) -> Figure:
    """Draw the area under precision-recall over the base rate of every variant, by question.

    table: of `ifguide.report.study.study_table`. Bars are the intervals of its rows; the chosen
    variant's name is bold.
    """
    with style():
        places, ticks, headings = [], [], []
        place = 0.0
        for question, rows in table.groupby("question", sort=False):
            headings.append((place, question))
            for index in rows.index:
                place += 1
                places.append(place)
                ticks.append(index)
            place += 1.4
        positions = np.array(places)
        figure = Figure(figsize=(WIDTH, 1.0 + 0.25 * place), layout="constrained")
        axes = figure.subplots()
        ordered = table.loc[ticks]
        for split, words, colour, marker, face, offset in SERIES:
            column = f"{split}_{SHOWN}"
            values = ordered[column].to_numpy(np.float64)
            bounds = ordered[[f"{column}_low", f"{column}_high"]].to_numpy(np.float64)
            bars = np.abs(np.nan_to_num(bounds.T - values, nan=0.0))
            axes.errorbar(
                values,
                positions + offset,
                xerr=bars,
                fmt=marker,
                color=colour,
                markerfacecolor=face,
                markersize=4.5,
                elinewidth=1.0,
                capsize=2,
                label=words,
            )
        axes.axvline(1.0, color=NEUTRAL, linestyle="--", linewidth=1.0, label="at random")
        axes.set_xlim(left=0.0)
        axes.set_xlabel("area under the precision-recall curve / base rate")
        axes.set_yticks(positions, ordered["variant"])
        for label, chosen in zip(axes.get_yticklabels(), ordered["chosen"], strict=True):
            label.set_fontweight("bold" if chosen else "normal")
        axes.set_ylim(place - 0.8, -0.9)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        for place, question in headings:
            axes.text(
                0.01,
                place,
                question,
                transform=axes.get_yaxis_transform(),
                va="center",
                style="italic",
                color=NEUTRAL,
            )
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)
        return figure
