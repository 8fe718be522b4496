"""How every figure looks: a colour-blind-safe palette, one marker a method, sizes for print."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ifguide.files.artifacts import atomic_path

# Okabe and Ito's palette without its yellow, which is too light for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")
WIDTH = 7.2  # inches: the text width of a printed page
TOXIC, NONTOXIC, NEUTRAL = "#D55E00", "#0072B2", "#767676"

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "svg.fonttype": "path",
    # Without a salt, the same figure has other element ids each time it is written.
    "svg.hashsalt": "ifguide",
}


def appearance(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return each name's (colour, marker), by its position: no two of up to 77 names share both."""
    return {
        name: (PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate(names)
    }


@contextmanager
def style() -> Iterator[None]:
    """Draw under the project's style, whatever the user's matplotlibrc says."""
    with mpl.rc_context({**mpl.rcParamsDefault, "backend": "Agg", **STYLE}):
        yield


Parameters = ParamSpec("Parameters")


def styled(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Draw a figure under the project's style."""

    @wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        with style():
            return draw(*args, **kwargs)

    return drawn


def nothing_to_draw(message: str) -> Figure:
    """Return a figure that says why it is empty."""
    figure = Figure(figsize=(WIDTH, 1.6))
    figure.text(0.5, 0.5, message, ha="center", va="center", color=NEUTRAL)
    return figure


def interval_bars(rows: pd.DataFrame, column: str = "value") -> np.ndarray:
    """Return the lengths of the bars from `column` to ci_low and to ci_high: (2, rows)."""
    # A bound that does not exist draws no bar; rounding may put a bound just past the value.
    bars = np.stack([rows[column] - rows["ci_low"], rows["ci_high"] - rows[column]])
    return np.clip(np.nan_to_num(bars, nan=0.0), 0.0, None)


def save_figure(figure: Figure, paths: Sequence[str | Path]) -> None:
    """Write `figure` to each path, in the format of its suffix, the same bytes every time."""
    with style():
        for path in paths:
            dateless = {"Date": None} if str(path).endswith(".svg") else {}
            with atomic_path(path) as temporary:
                figure.savefig(temporary, metadata=dateless)
