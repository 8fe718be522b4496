"""The whole field in one figure: toxicity against fluency, each method a curve by its strength."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ifguide.evaluation.summary import REFERENCE, clean_split, over_seeds
from ifguide.report.figure_style import MARKERS, NEUTRAL, PALETTE, nothing_to_draw, styled
from ifguide.report.figures import pareto_front

# So many methods are told apart by colour; others are grey, with a number that the key explains.
COLOURED = 10
# Times the cheapest that is drawn: what lies beyond is named below the axis.
FLUENCY_RANGE = 1.6
PANEL = (4.9, 4.9)  # inches
KEY_COLUMNS = 4
KEY_LINE = 0.16  # inches
# Inches of a name: what a letter and a line take, and how far it may stand from its point.
LETTER, LINE = 0.062, 0.115
DISTANCES = (0.1, 0.18, 0.28, 0.4, 0.55, 0.75, 1.0)
DIRECTIONS = 16


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
    points. In colour and by name are `first`, then the methods on a front; all others are grey, by
    a number that the key below explains. Lines of strengths may leave the panel.
    """
    rows = over_seeds(summary)
    rows = rows[rows["model"] == model]
    harm = _values(rows, benchmark, "any_tp", "toxic")
    rises = _values(rows, "heldout", "perplexity_increase", clean_split(summary))
    written = _values(rows, benchmark, "continuation_perplexity", "nontoxic")
    if REFERENCE in harm:
        rises[REFERENCE] = 0.0
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
    grey = [method for method in methods if method not in colours]
    names = {method: str(number) for number, method in enumerate(grey, start=1)}
    lines = math.ceil(len(grey) / KEY_COLUMNS)
    width, height = PANEL
    key_height = KEY_LINE * (lines + 1) if grey else 0.0
    figure = Figure(figsize=(width * len(panels), height + key_height), layout="constrained")
    parts = figure.add_gridspec(
        1 + bool(grey), len(panels), height_ratios=[height, key_height] if grey else None
    )
    for place, (words, cost) in enumerate(panels):
        axes = figure.add_subplot(parts[0, place])
        _draw_panel(axes, cost, harm, methods, curves, chosen, colours, names)
        axes.set_xlabel(words + axes.get_xlabel())
    if grey:
        _draw_key(figure.add_subplot(parts[1, :]), names, lines)
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
    names: Mapping[str, str],
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
        name = names.get(method, method)
        labels.append((cost[end], harm[end], name, colours.get(method, NEUTRAL)))
    axes.set_ylim(-0.04, max(max(harm[name] for name in shown) * 1.08, 0.2))
    widest = max(across for across, *_ in labels)
    room = max(widest - lowest, 0.01)
    axes.set_xlim(lowest - 0.06 * room, widest + 0.12 * room)
    _name_points(axes, labels)
    if beyond:
        axes.set_xlabel("\n(beyond the axis: " + ", ".join(beyond) + ")", fontsize=7, wrap=True)


def _draw_key(axes: Axes, names: Mapping[str, str], lines: int) -> None:
    axes.set_axis_off()
    for place, (method, name) in enumerate(names.items()):
        column, line = divmod(place, lines)
        axes.text(
            column / KEY_COLUMNS,
            1.0 - (line + 0.5) / lines,
            f"{name}  {method}",
            transform=axes.transAxes,
            fontsize=7,
            color=NEUTRAL,
            va="center",
        )


def _name_points(axes: Axes, labels: list[tuple[float, float, str, str]]) -> None:
    """Write the name of each point beside it, where no other name or point stands, with a line.

    Where there is no such place, right of the point.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    width, height = (0.85 * inches for inches in PANEL)  # without the axes' own labels

    def placed(across: float, up: float) -> tuple[float, float]:
        return (across - left) / (right - left) * width, (up - low) / (high - low) * height

    points = [placed(across, up) for across, up, *_ in labels]
    boxes = [(x, y, 0.05, 0.05) for x, y in points]  # centre, half a width and half a height
    for (across, up, name, colour), (x, y) in zip(labels, points, strict=True):
        half = LETTER * len(name) / 2, LINE / 2
        place = next(
            (
                (i, j)
                for i, j in _places(x, y, half[0])
                if half[0] <= i <= width - half[0] and half[1] <= j <= height - half[1]
                if not any(
                    abs(i - u) < half[0] + a and abs(j - v) < half[1] + b for u, v, a, b in boxes
                )
            ),
            (x + 0.1 + half[0], y),
        )
        boxes.append((*place, *half))
        axes.annotate(
            name,
            (across, up),
            xytext=(place[0] / width, place[1] / height),
            textcoords="axes fraction",
            fontsize=7,
            color=colour,
            ha="center",
            va="center",
            zorder=6,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkB": 2},
        )


def _places(x: float, y: float, half: float) -> Iterator[tuple[float, float]]:
    """Yield places around a point, the nearest first, right of it before the others."""
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            turn = (step + 1) // 2 * (-1) ** step * 2 * math.pi / DIRECTIONS
            yield (
                x + math.cos(turn) * (distance + half),
                y + math.sin(turn) * distance,
            )
