"""How every figure looks: a colour-blind-safe palette, one marker a method, sizes for print."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from ifguide.artifacts import atomic_path

# Okabe and Ito's palette without its yellow, which is too light for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")
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


def save_figure(figure: Figure, paths: Sequence[str | Path]) -> None:
    """Write `figure` to each path, in the format of its suffix, the same bytes every time."""
    with style():
        for path in paths:
            dateless = {"Date": None} if str(path).endswith(".svg") else {}
            with atomic_path(path) as temporary:
                figure.savefig(temporary, metadata=dateless)
