"""Figures of the token scores: how well they find what is known, and what they depend on."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, ScalarFormatter

from ifguide.report.figure_style import (
    NEUTRAL,
    NONTOXIC,
    TOXIC,
    WIDTH,
    appearance,
    nothing_to_draw,
    styled,
)


def removed_tokens(summary: pd.DataFrame) -> pd.DataFrame:
    """Return columns methods, recall and precision of what is kept from training.

    `summary`: the results table. Methods that drop or suppress the same tokens share a row.
    """
    rows = summary[
        (summary["benchmark"] == "removal") & summary["metric"].isin(["recall", "precision"])
    ]
    found = rows.pivot_table(
        index=["model", "method"], columns="metric", values="value", sort=False
    ).reindex(columns=["recall", "precision"])
    alike = found.dropna().reset_index().groupby(["recall", "precision"], sort=False)
    methods = alike["method"].agg(lambda names: ", ".join(dict.fromkeys(names)))
    return methods.rename("methods").reset_index()


@styled
def precision_recall(curves: pd.DataFrame, removed: pd.DataFrame | None = None) -> Figure:
    """Draw precision against recall of token rankings, and of what methods take from training.

    `curves`: columns ranking, recall, precision, base_rate. `removed`: as `removed_tokens` returns.
    """
    if curves.empty:
        return nothing_to_draw("no token-level truth in this corpus")
    figure = Figure(figsize=(5.6, 3.7), layout="constrained")
    axes = figure.subplots()
    removed = pd.DataFrame(columns=["methods"]) if removed is None else removed
    looks = appearance([*dict.fromkeys(curves["ranking"]), *removed["methods"]])
    for ranking, points in curves.groupby("ranking", sort=False):
        points = points.sort_values("recall", kind="stable")
        axes.plot(
            points["recall"],
            points["precision"],
            color=looks[ranking][0],
            drawstyle="steps-pre",
            label=f"scores: {ranking}",
        )
    for place, base in enumerate(sorted(set(curves["base_rate"]))):
        axes.axhline(
            base,
            color=NEUTRAL,
            linestyle="--",
            linewidth=1.0,
            label=None if place else f"base rate: {100 * base:.2g} %",
        )
    for row in removed.itertuples():
        colour, marker = looks[row.methods]
        axes.plot(
            row.recall,
            row.precision,
            marker=marker,
            color=colour,
            markersize=7,
            markeredgecolor="white",
            linestyle="none",
            zorder=3,
            clip_on=False,
            label="taken: " + textwrap.fill(row.methods, 24),
        )
    axes.set_xlabel("recall: share of the toxic tokens found")
    axes.set_ylabel("precision: share of those found that are toxic")
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.02)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


@styled
def false_discoveries(curve: pd.DataFrame, selection: dict) -> Figure:
    """Draw the estimated share of false discoveries against the share of the tokens taken.

    `curve`: columns share (of the tokens), rate (the estimate by decoys) and false_share (where it
    is known which tokens are toxic, else NaN). `selection`: the record of the mask, of which
    `selected_share` is marked and `negative_over_positive` shown: how far decoys can be trusted.
    """
    if curve.empty:
        return nothing_to_draw("no score is positive")
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    curve = curve.sort_values("share")
    axes.plot(curve["share"], curve["rate"], color=NONTOXIC, label="estimated by decoys")
    if curve["false_share"].notna().any():
        axes.plot(
            curve["share"], curve["false_share"], color=TOXIC, label="not toxic, where it is known"
        )
    axes.axvline(
        selection["selected_share"],
        color=NEUTRAL,
        linestyle="--",
        linewidth=1.0,
        label=f"the mask: {100 * selection['selected_share']:.2g} % of the tokens",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0.0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the tokens that are taken, highest scores first")
    axes.set_ylabel("false discoveries among them")
    symmetry = selection["negative_over_positive"]
    if symmetry is not None:
        axes.set_title(
            f"Of scores of ordinary size, {symmetry:.2g} are negative for each positive one"
        )
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=1)
    return figure


@styled
def ranking_agreement(agreement: pd.DataFrame) -> Figure:
    """Draw how the token ranking settles as the factors see more blocks.

    `agreement`: columns blocks, spearman and top_overlap (share of the top tokens in common with
    the ranking of the largest sample); optional bounds `<column>_low` and `<column>_high`.
    """
    if agreement.empty:
        return nothing_to_draw("factors were computed from one sample only")
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


@styled
def proxy_agreement(found: dict) -> Figure:
    """Draw how far two models' scores of the same tokens agree.

    found: `proxy`, `target` (names), `spearman` and `top_overlap` (rows with value, low, high; the
    latter by `share` of the tokens), `density`: counts of tokens by rank, lowest first,
    (proxy, target).
    """
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    density = np.asarray(found["density"], dtype=np.float64)
    # Against that of two rankings that have nothing to do with each other.
    relative = density / density.sum() * density.size
    image = left.imshow(
        relative.T, origin="lower", extent=(0, 1, 0, 1), cmap="cividis", vmin=0.0, aspect="equal"
    )
    figure.colorbar(image, ax=left, shrink=0.8, label="tokens, relative to chance")
    left.grid(visible=False)
    left.set_xlabel(f"rank by the scores of {found['proxy']}")
    left.set_ylabel(f"rank by the scores of {found['target']}")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    spearman = found["spearman"]
    left.set_title(
        f"Spearman {spearman['value']:.2f} ({spearman['low']:.2f} to {spearman['high']:.2f})"
    )
    overlap = pd.DataFrame(found["top_overlap"])
    right.plot(overlap["share"], overlap["value"], color=TOXIC, marker="o", markersize=4)
    right.fill_between(
        overlap["share"], overlap["low"], overlap["high"], color=TOXIC, alpha=0.18, linewidth=0
    )
    ends = overlap["share"].min(), overlap["share"].max()
    chance = np.geomspace(*ends, 50)
    right.plot(chance, chance, color=NEUTRAL, linestyle="--", label="at random")
    right.set_xscale("log")
    right.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_xlabel("highest share of the tokens")
    right.set_ylabel("in common")
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_ylim(0.0, 1.02)
    right.set_title("Tokens that both rank highest")
    right.legend(loc="upper left")
    return figure
