"""The figures of an experiment, each a pure function from a data frame to a matplotlib Figure.

Figures are made without pyplot, so nothing stays open and no display is needed.
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, ScalarFormatter

from ifguide.figure_style import NEUTRAL, NONTOXIC, TOXIC, appearance, style
from ifguide.summary import over_seeds

WIDTH = 7.2  # inches: the text width of a printed page
PERPLEXITY_RANGE = 1.5  # times the lowest: what the axis of perplexity shows
SPLITS = (("toxic", "toxic prompts", TOXIC, "o"), ("nontoxic", "non-toxic prompts", NONTOXIC, "s"))

Parameters = ParamSpec("Parameters")


def _styled(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    @wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        with style():
            return draw(*args, **kwargs)

    return drawn


def _method_labels(rows: pd.DataFrame) -> pd.Series:
    if rows["model"].nunique() == 1:
        return rows["method"]
    return rows["model"] + " / " + rows["method"]


def _nothing_to_draw(message: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.6))
    figure.text(0.5, 0.5, message, ha="center", va="center", color=NEUTRAL)
    return figure


def _bars(rows: pd.DataFrame, column: str = "value") -> np.ndarray:
    # A bound that does not exist draws no bar; rounding may put a bound just past the value.
    bars = np.stack([rows[column] - rows["ci_low"], rows["ci_high"] - rows[column]])
    return np.clip(np.nan_to_num(bars, nan=0.0), 0.0, None)


def _category_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


@_styled
def toxicity_by_method(summary: pd.DataFrame, benchmark: str = "realtoxicityprompts") -> Figure:
    """Draw explicit and implicit TP of each method on toxic and non-toxic prompts.

    `summary`: the tidy summary. Bars are the intervals of its rows.
    """
    rows = over_seeds(summary[summary["benchmark"] == benchmark])
    rows = rows[rows["metric"].isin(["explicit_tp", "implicit_tp"])]
    rows = rows[rows["split"].isin([split for split, *_ in SPLITS])]
    if rows.empty:
        return _nothing_to_draw(f"no toxicity measured on {benchmark}")
    rows = rows.assign(label=_method_labels(rows))
    names = list(dict.fromkeys(rows["label"]))
    panels = [metric for metric in ("explicit_tp", "implicit_tp") if metric in set(rows["metric"])]
    figure = Figure(figsize=(WIDTH, 1.25 + 0.34 * len(names)), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, metric in zip(grid, panels, strict=True):
        for offset, (split, words, colour, marker) in zip((-0.13, 0.13), SPLITS, strict=True):
            chosen = rows[(rows["metric"] == metric) & (rows["split"] == split)]
            axes.errorbar(
                chosen["value"],
                [names.index(label) + offset for label in chosen["label"]],
                xerr=_bars(chosen),
                fmt=marker,
                color=colour,
                markersize=5,
                capsize=2.5,
                label=words,
            )
        axes.set_title(f"{metric.removesuffix('_tp')} toxicity")
        axes.set_xlabel("toxicity probability (TP)")
        axes.set_xlim(-0.03, 1.03)
        _category_axis(axes, names)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def pareto_front(cost: np.ndarray, harm: np.ndarray) -> np.ndarray:
    """Return the indices of points that no other equals or beats in both, by ascending cost."""
    front, lowest = [], math.inf
    for index in np.lexsort((harm, cost)):
        if harm[index] < lowest:
            front.append(int(index))
            lowest = harm[index]
    return np.array(front, dtype=np.int64)


@_styled
def toxicity_against_perplexity(
    summary: pd.DataFrame, benchmark: str = "realtoxicityprompts", split: str = "toxic"
) -> Figure:
    """Draw explicit TP on `split` against held-out perplexity, one panel a model, with fronts.

    The perplexity is that of non-toxic held-out text where it was measured apart. Methods
    without perplexity (those that act at decode time) are named below the axis; so are, with their
    perplexity, those so far off that the others would lie on one line, which stand at its end.
    """
    rows = over_seeds(summary)
    keys = ["model", "method"]
    toxicity = rows[
        (rows["benchmark"] == benchmark)
        & (rows["metric"] == "explicit_tp")
        & (rows["split"] == split)
    ]
    fluency = rows[(rows["benchmark"] == "heldout") & (rows["metric"] == "perplexity")]
    clean = "nontoxic" in set(fluency["split"])
    fluency = fluency[fluency["split"] == ("nontoxic" if clean else "all")]
    both = toxicity.merge(fluency, on=keys, how="left", suffixes=("", "_perplexity"))
    if both["value_perplexity"].notna().sum() == 0:
        return _nothing_to_draw("no method has both a toxicity and a perplexity")
    held_out = "held-out, non-toxic text:" if clean else "held-out"
    models = list(dict.fromkeys(both.loc[both["value_perplexity"].notna(), "model"]))
    looks = appearance(list(dict.fromkeys(both["method"])))
    figure = Figure(
        figsize=(max(5.6, 0.9 + 3.3 * len(models)), max(3.7, 0.8 + 0.26 * len(looks))),
        layout="constrained",
    )
    grid = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, model in zip(grid, models, strict=True):
        mine = both[(both["model"] == model) & both["value_perplexity"].notna()]
        cost, harm = mine["value_perplexity"].to_numpy(), mine["value"].to_numpy()
        front = pareto_front(cost, harm)
        near = cost[cost <= PERPLEXITY_RANGE * cost.min()]
        edge = near.max() + 0.15 * max(np.ptp(near), 0.1 * near.min())
        cost = np.minimum(cost, edge)
        if len(front) > 1:
            axes.step(
                cost[front],
                harm[front],
                where="post",
                color=NEUTRAL,
                linestyle=":",
                linewidth=1.2,
                label="Pareto front",
                zorder=1,
            )
        for place, (_, row) in zip(cost, mine.iterrows(), strict=True):
            point = row.to_frame().T
            beyond = row["value_perplexity"] > edge
            colour, marker = looks[row["method"]]
            sideways = point[["value_perplexity", "ci_low_perplexity", "ci_high_perplexity"]]
            sideways.columns = ["value", "ci_low", "ci_high"]
            axes.errorbar(
                [place],
                [row["value"]],
                xerr=None if beyond else _bars(sideways.astype(float)),
                yerr=_bars(point[["value", "ci_low", "ci_high"]].astype(float)),
                fmt=marker,
                color=colour,
                markersize=6.5,
                markeredgecolor="white",
                markeredgewidth=0.5,
                elinewidth=0.9,
                label=row["method"],
                clip_on=not beyond,
            )
        omitted = both.loc[(both["model"] == model) & both["value_perplexity"].isna(), "method"]
        note = f"\n(no perplexity: {', '.join(omitted)})" if len(omitted) else ""
        far = mine[mine["value_perplexity"] > edge]
        if len(far):
            axes.set_xlim(right=edge)
            named = (f"{row.method} {row.value_perplexity:.3g}" for row in far.itertuples())
            note += f"\n(beyond the axis: {', '.join(named)})"
        axes.set_xlabel(f"{held_out} perplexity{note}")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(model)
        axes.set_ylim(-0.03, max(1.0, harm.max()) * 1.03)
    words = dict((name, label) for name, label, *_ in SPLITS).get(split, split)
    grid[0].set_ylabel(f"explicit TP, {words}")
    handles: dict[str, object] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    return figure


@_styled
def precision_recall(curves: pd.DataFrame) -> Figure:
    """Draw precision against recall of the token scores.

    `curves`: columns direction, attribution, recall, precision, base_rate, selected_share; the
    last is the share of tokens that the selection takes, marked where the curve passes it.
    """
    if curves.empty:
        return _nothing_to_draw("no token-level truth in this corpus")
    figure = Figure(figsize=(5.6, 3.7), layout="constrained")
    axes = figure.subplots()
    curves = curves.assign(label=curves["direction"] + ", " + curves["attribution"])
    looks = appearance(list(dict.fromkeys(curves["label"])))
    for label, points in curves.groupby("label", sort=False):
        colour, marker = looks[label]
        points = points.sort_values("recall", kind="stable")
        recall, precision = points["recall"].to_numpy(), points["precision"].to_numpy()
        axes.plot(recall, precision, color=colour, drawstyle="steps-pre", label=label)
        base, share = points["base_rate"].iloc[0], points["selected_share"].iloc[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            taken = np.where(recall > 0, recall * base / precision, 0.0)
        if pd.isna(share):
            continue
        place = int(np.argmin(np.abs(taken - share)))
        axes.plot(
            recall[place],
            precision[place],
            marker=marker,
            color=colour,
            markersize=7,
            markeredgecolor="white",
            linestyle="none",
            zorder=3,
            clip_on=False,
        )
    shares = curves["selected_share"].dropna()
    if len(shares):
        label = f"selected: {100 * shares.iloc[0]:.2g} % of tokens"
        axes.plot([], [], marker="o", color=NEUTRAL, linestyle="none", markersize=7, label=label)
    for place, base in enumerate(sorted(set(curves["base_rate"]))):
        axes.axhline(
            base,
            color=NEUTRAL,
            linestyle="--",
            linewidth=1.0,
            label=None if place else f"base rate: {100 * base:.2g} %",
        )
    axes.set_xlabel("recall: share of the toxic tokens found")
    axes.set_ylabel("precision: share of those found that are toxic")
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.02)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


@_styled
def training_losses(losses: dict[str, pd.DataFrame]) -> Figure:
    """Draw the losses of each run in its own panel, all on the same axes.

    `losses`: run label -> columns step and loss (nats a token) and, where tokens were
    suppressed, selected_loss and unselected_loss.
    """
    if not losses:
        return _nothing_to_draw("no model was trained")
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


@_styled
def ranking_agreement(agreement: pd.DataFrame) -> Figure:
    """Draw how the token ranking settles as the factors see more blocks.

    `agreement`: columns blocks, spearman and top_overlap (share of the top tokens in common with
    the ranking of the largest sample); optional bounds `<column>_low` and `<column>_high`.
    """
    if agreement.empty:
        return _nothing_to_draw("factors were computed from one sample only")
    figure = Figure(figsize=(5.6, 3.1), layout="constrained")
    axes = figure.subplots()
    lines = (
        ("spearman", "rank correlation of all tokens", NONTOXIC, "s"),
        ("top_overlap", "share of the top tokens in common", TOXIC, "o"),
    )
    agreement = agreement.sort_values("blocks")
    for column, words, colour, marker in lines:
        if column not in agreement:
            continue
        axes.plot(agreement["blocks"], agreement[column], color=colour, marker=marker, label=words)
        if {f"{column}_low", f"{column}_high"} <= set(agreement):
            axes.fill_between(
                agreement["blocks"],
                agreement[f"{column}_low"],
                agreement[f"{column}_high"],
                color=colour,
                alpha=0.18,
                linewidth=0,
            )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(sorted(set(agreement["blocks"])))
    axes.set_xlabel("blocks that the factors are computed from")
    axes.set_ylabel("agreement with the largest sample")
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.03)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


@_styled
def toxicity_by_group(
    summary: pd.DataFrame, benchmark: str = "toxigen", metric: str = "implicit_tp"
) -> Figure:
    """Draw `metric` of each method on the prompts about each target group of `benchmark`."""
    rows = over_seeds(summary[(summary["benchmark"] == benchmark) & (summary["metric"] == metric)])
    rows = rows[~rows["split"].isin(["all", "toxic", "nontoxic"])]
    if rows.empty:
        return _nothing_to_draw(f"{benchmark} names no target groups here")
    rows = rows.assign(label=_method_labels(rows))
    groups, methods = sorted(set(rows["split"])), list(dict.fromkeys(rows["label"]))
    looks = appearance(methods)
    height = 1.1 + len(groups) * (0.14 + 0.13 * len(methods))
    figure = Figure(figsize=(WIDTH, max(2.4, height)), layout="constrained")
    axes = figure.subplots()
    spread = np.linspace(-0.36, 0.36, len(methods)) if len(methods) > 1 else np.zeros(1)
    for offset, label in zip(spread, methods, strict=True):
        chosen = rows[rows["label"] == label]
        colour, marker = looks[label]
        axes.errorbar(
            chosen["value"],
            [groups.index(group) + offset for group in chosen["split"]],
            xerr=_bars(chosen),
            fmt=marker,
            color=colour,
            markersize=4.5,
            elinewidth=1.0,
            label=label,
        )
    for boundary in range(1, len(groups)):
        axes.axhline(boundary - 0.5, color="#CFCFCF", linewidth=0.6)
    _category_axis(axes, groups)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"{metric.split('_')[0]} TP: prompts with a toxic continuation")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure
