"""What a run has reached, in one sentence: how far toxicity fell, how surely, and at what price."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ifguide.evaluation.judge import LEADING
from ifguide.evaluation.summary import FROM_CONTROL, REFERENCE, clean_split, over_seeds

MINUS = "\u2212"
# A figure with its interval and the number of its training seeds, as `over_seeds` gives it.
Row = Mapping[str, Any]


def result_sentence(
    summary: pd.DataFrame,
    *,
    model: str,
    method: str | None,
    benchmark: str,
    level: float = 0.95,
    control: str | None = None,
) -> str:
    """Return what `method` reached with `model` on the prompts of `benchmark`, in one sentence.

    `summary`: the tidy summary. Names stand between backquotes. method: None where no compared one
    suppresses a selection. level: the confidence of the intervals. control: the method that the
    price is told against in place of `none`, where they were compared.
    """
    if method is None:
        return "No compared method suppresses a selection: the table has those that are compared."
    return _Result(summary, model, method, benchmark).sentence(level, control)


class _Result:
    """The figures of one method and of the uncensored model, over training seeds."""

    def __init__(self, summary: pd.DataFrame, model: str, method: str, benchmark: str) -> None:
        rows = over_seeds(summary)
        toxicities = rows[(rows["benchmark"] == benchmark) & (rows["metric"] == f"{LEADING[0]}_tp")]
        self.models = set(toxicities["model"])
        mine = toxicities[(toxicities["model"] == model) & (toxicities["method"] == method)]
        self.split = "toxic" if "toxic" in set(mine["split"]) else "all"
        self.seeds = int(mine["seeds"].max()) if len(mine) else 0
        self.model, self.method, self.benchmark = model, method, benchmark
        self.clean = clean_split(summary)
        keys = ("method", "benchmark", "split", "metric")
        found = rows[rows["model"] == model].to_dict("records")
        self.rows = {tuple(row[key] for key in keys): row for row in found}

    def sentence(self, level: float, control: str | None) -> str:
        if not self.seeds:
            return f"Of `{self.method}` no toxicity is measured on {self.benchmark}."
        subject = f"`{self.method}`"
        if len(self.models) > 1:
            subject += f" with `{self.model}`"
        share = self.rows.get((self.method, "removal", "all", "removed_share"))
        if share:
            subject += f" takes {100 * share['value']:.2g} % of the training tokens out"
        prompts = "toxic prompts" if self.split == "toxic" else "all prompts"
        changes = ", ".join(self.changes())
        price, worst_price = self.price(control)
        intervals = f"{100 * level:g} % intervals"
        if self.seeds == 1:
            surely = f"{intervals}; one training seed: they leave out the noise of training"
        else:
            worst = ", ".join([*self.worst_toxicities(), *worst_price])
            surely = (
                f"{intervals} over {self.seeds} training seeds; the worst seed of each: {worst}"
            )
        return f"{subject}: after {prompts}, {changes}, {price} ({surely})."

    def changes(self) -> list[str]:
        """Return what became of each kind of toxicity."""
        told = []
        for judge in LEADING:
            mine, none = (self.toxicity(name, judge) for name in (self.method, REFERENCE))
            if mine:
                name = f"{judge} toxicity" if told else f"{judge} toxicity (TP)"
                ratio = self.toxicity(self.method, judge, "_ratio")
                told.append(f"{name} {_change(mine, none, ratio)}")
        return told

    def worst_toxicities(self) -> list[str]:
        rows = [self.toxicity(self.method, judge, "_worst") for judge in LEADING]
        return [f"{row['value']:.2f}" for row in rows if row]

    def toxicity(self, method: str, judge: str, suffix: str = "") -> Row | None:
        return self.rows.get((method, self.benchmark, self.split, f"{judge}_tp{suffix}"))

    def price(self, control: str | None) -> tuple[str, list[str]]:
        """Return the rise of perplexity, and that of the worst seed where it is known."""
        metric = "perplexity_increase"
        rise = self.fluency(f"{metric}{FROM_CONTROL}") if control else None
        against = f" against its control `{control}`" if rise else ""
        worst = None if rise else self.fluency(f"{metric}_worst")
        rise = rise or self.fluency(metric)
        if rise is None:
            return "at a price in perplexity that was not measured", []
        text = "clean" if self.clean == "nontoxic" else "held-out"
        bounds = ""
        if not math.isnan(rise["ci_low"]):
            bounds = f" ({_percent(rise['ci_low'])} to {_percent(rise['ci_high'])})"
        told = f"at {_percent(rise['value'])} %{bounds} perplexity on {text} text{against}"
        return told, [f"{_percent(worst['value'])} %"] if worst else []

    def fluency(self, metric: str) -> Row | None:
        return self.rows.get((self.method, "heldout", self.clean, metric))


def _change(mine: Row, none: Row | None, ratio: Row | None) -> str:
    """Return what became of one kind of toxicity; a change is one where the ratio's bounds say so.

    ratio: the uncensored model's TP over the method's.
    """
    if none is None or ratio is None:
        return f"is {mine['value']:.2f} ({mine['ci_low']:.2f}–{mine['ci_high']:.2f})"
    both = f"from {none['value']:.2f} to {mine['value']:.2f}"
    low, high = ratio["ci_low"], ratio["ci_high"]
    if low > 1.0:
        if math.isinf(high):
            return f"falls {both} (at least {_times(low)} times lower)"
        times = f"{_times(ratio['value'])} times lower, {_times(low)} to {_times(high)}"
        return f"falls {both} ({times})"
    if high < 1.0:
        most = "any number" if low == 0.0 else _times(1.0 / low)
        return f"rises {both} ({_times(1.0 / high)} to {most} times higher)"
    return (
        f"is not shown to fall, {both} (the interval of the ratio, {_times(low)} to "
        f"{_times(high)}, includes 1)"
    )


def _times(ratio: float) -> str:
    """Return a ratio, cut off: `at least` so many times must hold."""
    if math.isinf(ratio):
        return "∞"
    decimals = 0 if ratio >= 10.0 else 1 if ratio >= 2.0 else 2
    return f"{math.floor(ratio * 10**decimals) / 10**decimals:.{decimals}f}"


def _percent(share: float) -> str:
    rounded = round(100.0 * share, 1) + 0.0  # no negative zero
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"
