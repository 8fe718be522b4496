"""The whole field in one figure: toxicity against fluency, each method a curve by its strength."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ifguide.evaluation.summary import clean_split, over_seeds
from ifguide.report.figure_style import MARKERS, NEUTRAL, PALETTE, nothing_to_draw, styled
from ifguide.report.figures import pareto_front

# So many methods are told apart by colour; the others are grey, with their names.
COLOURED = 10
# Times the cheapest that is drawn: what lies beyond is named below the axis.
FLUENCY_RANGE = 1.6
LABEL_HEIGHT = 0.032  # of the panel
UNCENSORED = "none"


@styled
def toxicity_against_fluency(
    summary: pd.DataFrame,
    benchmark: str,
    *,
    curves: Mapping[str, Mapping[str, float]],
    chosen: Mapping[str, str],
    first: Sequence[str] = (),
    model: str,
) -> Figure:
    """Draw total TP after toxic prompts against two measures of fluency, a panel for each.

    Left, the perplexity of held-out text relative to `none`, which decoding from a few candidates
    does not have; right, the perplexity of what a method writes after non-toxic prompts, under the
    uncensored model. A method with several strengths (`curves`: strength by variant, by method) is
    a line from weak to strong, its `chosen` variant marked; the dotted line is the front of all
    points. In colour are `first`, then the methods on a front; all others are grey, by name.
    """
    rows = over_seeds(summary)
    rows = rows[rows["model"] == model]
    harm = _values(rows, benchmark, "any_tp", "toxic")
    rises = _values(rows, "heldout", "perplexity_increase", clean_split(summary))
    written = _values(rows, benchmark, "continuation_perplexity", "nontoxic")
    if UNCENSORED in harm:
        rises[UNCENSORED] = 0.0
    panels = [
        ("perplexity of held-out, non-toxic text, times that of none", _shifted(rises)),
        ("perplexity of continuations of non-toxic prompts", written),
    ]
    panels = [(words, cost) for words, cost in panels if set(cost) & set(harm)]
    if not panels:
        return nothing_to_draw("no method has both a total toxicity and a fluency")
    variants = {name: method for method, curve in curves.items() for name in curve}
    methods = list(dict.fromkeys(variants.get(name, name) for name in harm))
    leading = [name for name in first if name in methods]
    for _, cost in panels:
        names = [name for name in cost if name in harm]
        front = pareto_front(
            np.array([cost[name] for name in names]), np.array([harm[name] for name in names])
        )
        leading += [variants.get(names[index], names[index]) for index in front]
    coloured = list(dict.fromkeys(leading))[:COLOURED]
    colours = {method: PALETTE[place % len(PALETTE)] for place, method in enumerate(coloured)}
    figure = Figure(figsize=(4.9 * len(panels), 5.4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (words, cost) in zip(grid, panels, strict=True):
        _draw_panel(axes, cost, harm, methods, curves, chosen, colours)
        axes.set_xlabel(words + axes.get_xlabel())
    figure.axes[0].set_ylabel("total TP (explicit or implicit), toxic prompts")
    return figure


def _values(rows: pd.DataFrame, benchmark: str, metric: str, split: str) -> dict[str, float]:
    found = rows[
        (rows["benchmark"] == benchmark) & (rows["metric"] == metric) & (rows["split"] == split)
    ]
    return dict(zip(found["method"], found["value"], strict=True))


def _shifted(rises: Mapping[str, float]) -> dict[str, float]:
    return {name: 1.0 + rise for name, rise in rises.items()}


def _draw_panel(
    axes: Axes,
    cost: Mapping[str, float],
    harm: Mapping[str, float],
    methods: Sequence[str],
    curves: Mapping[str, Mapping[str, float]],
    chosen: Mapping[str, str],
    colours: Mapping[str, str],
) -> None:
    measured = [name for name in cost if name in harm and math.isfinite(cost[name])]
    lowest = min(cost[name] for name in measured)
    shown = [name for name in measured if cost[name] <= FLUENCY_RANGE * lowest]
    front = pareto_front(
        np.array([cost[name] for name in shown]), np.array([harm[name] for name in shown])
    )
    steps = [shown[index] for index in front]
    axes.step(
        [cost[name] for name in steps],
        [harm[name] for name in steps],
        where="post",
        color=NEUTRAL,
        linestyle=":",
        linewidth=1.0,
        zorder=1,
    )
    labels, beyond = [], []
    for place, method in enumerate(methods):
        curve = curves.get(method, {method: 0.0})
        points = [name for name in sorted(curve, key=curve.get) if name in shown]
        marked = chosen.get(method, method)
        if not points:
            named = [name for name in curve if name in measured]
            if named:
                beyond.append(f"{method} {min(cost[name] for name in named):.3g}")
            continue
        colour = colours.get(method, "#B4B4B4")
        zorder = 4 if method in colours else 2
        across, up = [cost[name] for name in points], [harm[name] for name in points]
        width = 1.1 if method in colours else 0.7
        axes.plot(
            across, up, color=colour, linewidth=width, marker=".", markersize=4, zorder=zorder
        )
        end = marked if marked in points else points[-1]
        axes.plot(
            cost[end],
            harm[end],
            marker=MARKERS[place % len(MARKERS)],
            color=colour,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=zorder + 1,
        )
        labels.append((cost[end], harm[end], method, colours.get(method, NEUTRAL)))
    axes.set_ylim(-0.04, max(max(harm[name] for name in shown) * 1.08, 0.2))
    widest = max(cost[name] for name in shown)
    room = max(widest - lowest, 0.01)  # names stand right of their points
    axes.set_xlim(lowest - 0.03 * room, widest + 0.28 * room)
    _name_points(axes, labels)
    if beyond:
        axes.set_xlabel("\n(beyond the axis: " + ", ".join(beyond) + ")", fontsize=7, wrap=True)


def _name_points(axes: Axes, labels: list[tuple[float, float, str, str]]) -> None:
    """Write the name of each point right of it, moved up where another name stands there."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    taken: list[tuple[float, float, float]] = []  # where a name begins and ends, and its height
    for across, up, name, colour in sorted(labels, key=lambda label: (label[1], label[0])):
        begin = (across - left) / (right - left) + 0.014
        end = begin + 0.0135 * len(name)
        height = (up - low) / (high - low)
        while any(
            begin < other_end and other_begin < end and abs(height - other) < LABEL_HEIGHT
            for other_begin, other_end, other in taken
        ):
            height += LABEL_HEIGHT / 4
        taken.append((begin, end, height))
        axes.annotate(
            name,
            (across, up),
            xytext=(begin, height),
            textcoords="axes fraction",
            fontsize=7,
            color=colour,
            va="center",
            zorder=6,
            annotation_clip=False,
        )
