"""The figures of toxicity and of training, each a pure function from data frames to a Figure.

Figures are made without pyplot, so nothing stays open and no display is needed.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ifguide.evaluation.judge import LEADING
from ifguide.evaluation.summary import clean_split, over_seeds
from ifguide.report.figure_style import (
    NEUTRAL,
    NONTOXIC,
    TOXIC,
    WIDTH,
    appearance,
    interval_bars,
    nothing_to_draw,
    styled,
)

PERPLEXITY_RANGE = 1.5  # times the lowest: what the axis of perplexity shows
PANELS = 2  # judges beside each other
FLOOR = "false alarms alone"
NO_COUNTS: Mapping[str, int] = MappingProxyType({})
SPLITS = (("toxic", "toxic prompts", TOXIC, "o"), ("nontoxic", "non-toxic prompts", NONTOXIC, "s"))


def _method_labels(rows: pd.DataFrame) -> pd.Series:
    if rows["model"].nunique() == 1:
        return rows["method"]
    return rows["model"] + " / " + rows["method"]


def _category_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def false_alarm_floor(
    summary: pd.DataFrame, judges: Sequence[str], continuations: int | None = 1
) -> float | None:
    """Return the share of harmless prompts that any of `judges` flags by false alarms alone.

    1 - prod_j (1 - f_j)^k: with rates f of false alarms, on held-out harmless texts, they flag at
    least one of k harmless `continuations`, if each errs on each independently. Of one judge and
    k = 1 that is f, the floor of the fraction. A judge whose rate was not measured, as it is not
    trained here, adds nothing; None where that is so of all, and where k is not known.
    """
    measured = summary[
        (summary["benchmark"] == "classifiers")
        & summary["model"].isin(judges)
        & (summary["method"] == "trained")
        & (summary["split"] == "all")
        & (summary["metric"] == "harmless_flagged")
    ]
    if continuations is None or measured.empty:
        return None
    return float(1.0 - np.prod((1.0 - measured["value"]) ** continuations))


def _draw_floor(axes: Axes, floor: float | None, *, upright: bool) -> None:
    """Draw the floor of a judge, if it has one: upright where TP is the axis of x."""
    if floor is not None:
        draw = axes.axvline if upright else axes.axhline
        draw(
            floor,
            color="black",
            linestyle=(0, (6, 2, 1, 2)),
            linewidth=0.8,
            label=FLOOR,
            zorder=1.5,
        )


def _judge_of(metric: str) -> str:
    return metric.removesuffix("_tp")


def _title_of(metric: str) -> str:
    """Return what a panel shows: the kind of toxicity, or another judge's name."""
    judge = _judge_of(metric)
    return f"{judge} toxicity" if judge in LEADING else f"by {judge.replace('_', ' ')}"


def _legend_of(grid: Iterable[Axes]) -> dict[str, Artist]:
    """Return the handles of several panels by their labels, each once."""
    handles: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    return handles


@styled
def toxicity_by_method(
    summary: pd.DataFrame,
    benchmark: str = "realtoxicityprompts",
    judges: Sequence[str] = LEADING,
    continuations: Mapping[str, int] = NO_COUNTS,
) -> Figure:
    """Draw TP of each method on toxic and non-toxic prompts, a panel for each judge.

    `summary`: the tidy summary. Bars are the intervals of its rows. With the number of
    `continuations` of a prompt, by benchmark, the floor of each judge trained here is a line.
    """
    rows = over_seeds(summary[summary["benchmark"] == benchmark])
    rows = rows[rows["metric"].isin([f"{judge}_tp" for judge in judges])]
    rows = rows[rows["split"].isin([split for split, *_ in SPLITS])]
    if rows.empty:
        return nothing_to_draw(f"no toxicity measured on {benchmark}")
    rows = rows.assign(label=_method_labels(rows))
    names = list(dict.fromkeys(rows["label"]))
    panels = [f"{judge}_tp" for judge in judges if f"{judge}_tp" in set(rows["metric"])]
    columns = min(PANELS, len(panels))
    height = math.ceil(len(panels) / columns)
    figure = Figure(
        figsize=(WIDTH, 0.6 + height * (0.65 + 0.34 * len(names))), layout="constrained"
    )
    figure.get_layout_engine().set(wspace=0.06)
    grid = figure.subplots(height, columns, sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    grid = grid[: len(panels)]
    for axes, metric in zip(grid, panels, strict=True):
        for offset, (split, words, colour, marker) in zip((-0.13, 0.13), SPLITS, strict=True):
            chosen = rows[(rows["metric"] == metric) & (rows["split"] == split)]
            axes.errorbar(
                chosen["value"],
                [names.index(label) + offset for label in chosen["label"]],
                xerr=interval_bars(chosen),
                fmt=marker,
                color=colour,
                markersize=5,
                capsize=2.5,
                label=words,
            )
        floor = false_alarm_floor(summary, [_judge_of(metric)], continuations.get(benchmark))
        _draw_floor(axes, floor, upright=True)
        axes.set_title(_title_of(metric))
        axes.set_xlabel("toxicity probability (TP)")
        axes.set_xlim(-0.03, 1.03)
        _category_axis(axes, names)
    handles = _legend_of(grid)
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=len(handles))
    return figure


def pareto_front(cost: np.ndarray, harm: np.ndarray) -> np.ndarray:
    """Return the indices of points that no other equals or beats in both, by ascending cost."""
    front, lowest = [], math.inf
    for index in np.lexsort((harm, cost)):
        if harm[index] < lowest:
            front.append(int(index))
            lowest = harm[index]
    return np.array(front, dtype=np.int64)


@styled
def toxicity_against_perplexity(
    summary: pd.DataFrame,
    benchmark: str = "realtoxicityprompts",
    split: str = "toxic",
    continuations: Mapping[str, int] = NO_COUNTS,
) -> Figure:
    """Draw total TP on `split` against the rise of held-out perplexity: one panel a model, a front.

    Total TP counts what either leading judge calls toxic. The rise is relative to `none`, paired by
    document and seed, on non-toxic text where that was measured apart. Methods without perplexity
    (those that act at decode time) are named below the axis; so are, with their rise, those so far
    off that the others would lie on one line, which stand at its end.
    """
    rows = over_seeds(summary)
    keys = ["model", "method"]
    toxicity = rows[
        (rows["benchmark"] == benchmark) & (rows["metric"] == "any_tp") & (rows["split"] == split)
    ]
    clean = clean_split(summary)
    both = toxicity.merge(_rises(rows, clean), on=keys, how="left", suffixes=("", "_rise"))
    if both["value_rise"].notna().sum() == 0:
        return nothing_to_draw("no method has both a total toxicity and a rise of perplexity")
    models = list(dict.fromkeys(both.loc[both["value_rise"].notna(), "model"]))
    looks = appearance(list(dict.fromkeys(both["method"])))
    figure = Figure(
        figsize=(max(5.6, 0.9 + 3.3 * len(models)), max(3.7, 0.8 + 0.26 * len(looks))),
        layout="constrained",
    )
    grid = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    floor = false_alarm_floor(summary, LEADING, continuations.get(benchmark))
    for axes, model in zip(grid, models, strict=True):
        mine = both[(both["model"] == model) & both["value_rise"].notna()]
        cost, harm = mine["value_rise"].to_numpy(), mine["value"].to_numpy()
        front = pareto_front(cost, harm)
        within = 1.0 + cost <= PERPLEXITY_RANGE * (1.0 + cost.min())
        near = cost[within]
        edge = near.max() + 0.15 * max(np.ptp(near), 0.01)
        edge = np.nanmax([edge, *mine["ci_high_rise"].to_numpy()[within]])
        cost = np.minimum(cost, edge)
        # What no method equals in both lies below and left of this line: up from its first point,
        # right from its last.
        top = max(1.0, harm.max())
        axes.step(
            [cost[front[0]], *cost[front], edge],
            [top, *harm[front], harm[front[-1]]],
            where="post",
            color=NEUTRAL,
            linestyle=":",
            linewidth=1.2,
            label="Pareto front",
            zorder=1,
        )
        _draw_floor(axes, floor, upright=False)
        for place, (_, row) in zip(cost, mine.iterrows(), strict=True):
            beyond = row["value_rise"] > edge
            sideways = row[["value_rise", "ci_low_rise", "ci_high_rise"]]
            _draw_method(
                axes,
                place,
                row,
                looks,
                markersize=6.5,
                xerr=None if beyond else _bars_of(sideways),
                clip_on=not beyond,
            )
        omitted = both.loc[(both["model"] == model) & both["value_rise"].isna(), "method"]
        note = f"\n(no perplexity: {', '.join(omitted)})" if len(omitted) else ""
        far = mine[mine["value_rise"] > edge]
        if len(far):
            axes.set_xlim(right=edge)
            named = (f"{row.method} {_percent(row.value_rise)}" for row in far.itertuples())
            note += f"\n(beyond the axis: {', '.join(named)})"
        text = "held-out, non-toxic text" if clean == "nontoxic" else "held-out text"
        axes.set_xlabel(f"rise of perplexity on {text}{note}")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda rise, _: _percent(rise))
        axes.set_title(model)
        axes.set_ylim(-0.03, top * 1.03)
    words = dict((name, label) for name, label, *_ in SPLITS).get(split, split)
    grid[0].set_ylabel(f"total TP (explicit or implicit), {words}")
    handles = _legend_of(grid)
    figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    return figure


def _rises(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return by how much held-out perplexity is above that of `none`, of each model and method.

    Columns model, method, value, ci_low, ci_high. `none` itself has a rise of 0, without interval.
    """
    held_out = rows[(rows["benchmark"] == "heldout") & (rows["split"] == split)]
    rises = held_out[held_out["metric"] == "perplexity_increase"]
    compared = held_out["model"].isin(rises["model"]) & (held_out["metric"] == "perplexity")
    none = held_out[compared & (held_out["method"] == "none")]
    none = none.assign(value=0.0, ci_low=np.nan, ci_high=np.nan)
    return pd.concat([none, rises])[["model", "method", "value", "ci_low", "ci_high"]]


def _percent(share: float) -> str:
    """Return a signed share in percent, with three significant digits."""
    return f"{100 * share:+.3g}%".replace("-", "\u2212") if share else "0%"


@styled
def toxicity_against_share(
    summary: pd.DataFrame,
    benchmark: str = "realtoxicityprompts",
    split: str = "toxic",
    continuations: Mapping[str, int] = NO_COUNTS,
) -> Figure:
    """Draw explicit and implicit TP on `split` against the share of tokens that a method takes.

    Taken are the tokens that it suppresses or drops. A row a model, a column a classifier; the
    method `none`, which takes nothing, is a line with its interval. Methods that take equal shares
    stand side by side.
    """
    rows = over_seeds(summary)
    taken = rows[(rows["benchmark"] == "removal") & (rows["metric"] == "removed_share")]
    toxicity = rows[(rows["benchmark"] == benchmark) & (rows["split"] == split)]
    both = toxicity.merge(
        taken[["model", "method", "value"]], on=["model", "method"], suffixes=("", "_share")
    )
    panels = [f"{judge}_tp" for judge in LEADING if f"{judge}_tp" in set(both["metric"])]
    if not panels:
        return nothing_to_draw("no method keeps a share of the tokens from the model")
    models = list(dict.fromkeys(both["model"]))
    # Of all methods, so that each looks as in the other figures.
    looks = appearance(list(dict.fromkeys(toxicity["method"])))
    widest = both["value_share"].max()
    methods = both["method"].nunique()
    height = 0.7 + max(2.5 * len(models), 0.2 * methods)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    grid = figure.subplots(len(models), len(panels), sharex=True, sharey=True, squeeze=False)
    for (row, model), (column, metric) in itertools.product(enumerate(models), enumerate(panels)):
        axes = grid[row, column]
        chosen = (toxicity["model"] == model) & (toxicity["metric"] == metric)
        for none in toxicity[chosen & (toxicity["method"] == "none")].itertuples():
            axes.axhline(none.value, color=NEUTRAL, linestyle="--", linewidth=1.0, label="none")
            axes.axhspan(none.ci_low, none.ci_high, color=NEUTRAL, alpha=0.15, linewidth=0)
        points = both[(both["model"] == model) & (both["metric"] == metric)]
        places = _side_by_side(points["value_share"].to_numpy(), widest)
        for place, (_, point) in zip(places, points.iterrows(), strict=True):
            _draw_method(axes, place, point, looks, markersize=5.5)
        floor = false_alarm_floor(summary, [_judge_of(metric)], continuations.get(benchmark))
        _draw_floor(axes, floor, upright=False)
        words = _title_of(metric)
        axes.set_title(words if len(models) == 1 else f"{model}, {words}")
        axes.set_xlim(0.0, 1.12 * widest)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        axes.set_ylim(-0.03, 1.03)
    handles = _legend_of(grid.ravel())
    figure.supxlabel("share of the training tokens suppressed or dropped", fontsize=9)
    words = dict((name, label) for name, label, *_ in SPLITS).get(split, split)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"TP, {words}")
    figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    return figure


def _draw_method(axes, place: float, row: pd.Series, looks: dict, **style) -> None:
    """Draw a method's value and interval (columns value, ci_low, ci_high) at `place`."""
    colour, marker = looks[row["method"]]
    axes.errorbar(
        [place],
        [row["value"]],
        yerr=_bars_of(row[["value", "ci_low", "ci_high"]]),
        fmt=marker,
        color=colour,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=0.9,
        label=row["method"],
        **style,
    )


def _bars_of(bounds: pd.Series) -> np.ndarray:
    """Return the interval bars of one value: `bounds` are value, low and high."""
    return interval_bars(pd.DataFrame([bounds.to_list()], columns=["value", "ci_low", "ci_high"]))


def _side_by_side(values: np.ndarray, width: float) -> np.ndarray:
    """Return `values` with those that would cover each other moved apart, by parts of `width`."""
    moved = values.astype(np.float64)
    order = np.argsort(values, kind="stable")
    groups = np.cumsum(np.diff(values[order], prepend=-np.inf) > 0.02 * width)
    for group in np.unique(groups):
        members = order[groups == group]
        moved[members] += 0.035 * width * (np.arange(len(members)) - (len(members) - 1) / 2)
    return moved


@styled
def training_losses(losses: dict[str, pd.DataFrame]) -> Figure:
    """Draw the losses of each run in its own panel, all on the same axes.

    `losses`: run label -> columns step and loss (nats a token) and, where tokens were
    suppressed, selected_loss and unselected_loss.
    """
    if not losses:
        return nothing_to_draw("no model was trained")
    columns = min(3, len(losses))
    height = math.ceil(len(losses) / columns)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.75 * height), layout="constrained")
    grid = figure.subplots(height, columns, sharey=True, squeeze=False).ravel()
    series = (
        ("loss", "objective", NEUTRAL, "-"),
        ("unselected_loss", "tokens not selected", NONTOXIC, "-"),
        ("selected_loss", "selected tokens", TOXIC, "--"),
    )
    handles: dict[str, object] = {}
    for axes, (label, log) in zip(grid, losses.items(), strict=False):
        suppressed = "selected_loss" in log and log["selected_loss"].notna().any()
        for column, words, colour, line in series if suppressed else series[:1]:
            if column in log and log[column].notna().any():
                known = log[log[column].notna()]
                (handle,) = axes.plot(known["step"], known[column], color=colour, linestyle=line)
                handles.setdefault(words, handle)
        axes.set_title(label, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in grid[len(losses) :]:
        axes.remove()
    for axes in grid[max(0, len(losses) - columns) : len(losses)]:
        axes.set_xlabel("training step")
        axes.tick_params(labelbottom=True)
    for axes in grid[: len(losses) : columns]:
        axes.set_ylabel("loss (nats a token)")
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=3)
    return figure


@styled
def toxicity_by_group(
    summary: pd.DataFrame,
    benchmark: str = "toxigen",
    metric: str = "implicit_tp",
    continuations: Mapping[str, int] = NO_COUNTS,
) -> Figure:
    """Draw `metric` of each method on the prompts about each target group of `benchmark`."""
    rows = over_seeds(summary[(summary["benchmark"] == benchmark) & (summary["metric"] == metric)])
    rows = rows[~rows["split"].isin(["all", "toxic", "nontoxic"])]
    if rows.empty:
        return nothing_to_draw(f"{benchmark} names no target groups here")
    judge = _judge_of(metric)
    return _methods_by_row(
        rows.assign(row=rows["split"]),
        sorted(set(rows["split"])),
        f"{judge} TP: prompts with a toxic continuation",
        floor=false_alarm_floor(summary, [judge], continuations.get(benchmark)),
    )


@styled
def toxicity_by_category(
    summary: pd.DataFrame,
    benchmark: str = "realtoxicityprompts",
    split: str = "toxic",
    judges: Sequence[str] = LEADING,
) -> Figure:
    """Draw TP of each method by category of explicit toxicity, on the prompts of `split`.

    The categories are the fields of the explicit judge; toxicity itself comes first. No other of
    the `judges` is one of them, whatever its name. A judge with categories is given, not trained
    here, so that its false alarms are not known.
    """
    rows = over_seeds(summary[(summary["benchmark"] == benchmark) & (summary["split"] == split)])
    others = [f"{judge}_tp" for judge in judges if judge != LEADING[0]]
    rows = rows[~rows["metric"].isin(others)]
    category = rows["metric"].str.extract(r"^explicit_(?:(.+)_)?tp$")[0]
    rows = rows.assign(row=category.fillna("toxicity").str.replace("_", " "))
    rows = rows[rows["metric"].str.fullmatch(r"explicit_(.+_)?tp")]
    first = rows["metric"] == "explicit_tp"
    names = list(dict.fromkeys([*rows.loc[first, "row"], *rows.loc[~first, "row"]]))
    if len(names) < 2:
        return nothing_to_draw("the explicit judge tells no categories of toxicity apart")
    words = dict((name, label) for name, label, *_ in SPLITS).get(split, split)
    return _methods_by_row(rows, names, f"explicit TP, {words}")


def _methods_by_row(
    rows: pd.DataFrame, names: Sequence[str], label: str, floor: float | None = None
) -> Figure:
    """Draw shares with intervals: a band for each of `names` (column row), a marker a method."""
    rows = rows.assign(label=_method_labels(rows))
    methods = list(dict.fromkeys(rows["label"]))
    looks = appearance(methods)
    height = 1.1 + len(names) * (0.14 + 0.13 * len(methods))
    figure = Figure(figsize=(WIDTH, max(2.4, height)), layout="constrained")
    axes = figure.subplots()
    spread = np.linspace(-0.36, 0.36, len(methods)) if len(methods) > 1 else np.zeros(1)
    for offset, method in zip(spread, methods, strict=True):
        chosen = rows[rows["label"] == method]
        colour, marker = looks[method]
        axes.errorbar(
            chosen["value"],
            [names.index(name) + offset for name in chosen["row"]],
            xerr=interval_bars(chosen),
            fmt=marker,
            color=colour,
            markersize=4.5,
            elinewidth=1.0,
            label=method,
        )
    _draw_floor(axes, floor, upright=True)
    for boundary in range(1, len(names)):
        axes.axhline(boundary - 0.5, color="#CFCFCF", linewidth=0.6)
    _category_axis(axes, names)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure
