"""Every metrics file of an experiment in one tidy table, with differences to the method `none`."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ifguide.errors import InputError
from ifguide.evaluation.generation_metrics import group_names
from ifguide.evaluation.metrics import (
    Interval,
    paired_difference,
    paired_ratio,
    perplexity_increase,
)
from ifguide.seeds import derive_seed

COLUMNS = [
    "model",
    "method",
    "benchmark",
    "split",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "seed",
]
HEADER = ("benchmark", "model", "method", "seed", "rows")
REFERENCE = "none"


def check_metrics(documents: dict[str, dict]) -> None:
    """Raise InputError, naming the files, where metrics (by path) cannot stand in one table."""
    seen: dict[tuple, str] = {}
    counts: dict[str, tuple[int, str]] = {}
    for path, document in documents.items():
        missing = [key for key in HEADER if key not in document]
        if missing:
            raise InputError(f"{path}: no {', '.join(missing)}; delete it and measure again")
        key = tuple(document[name] for name in HEADER[:4])
        if key in seen:
            raise InputError(f"{path}: measures the same as {seen[key]}; give one of the two")
        seen[key] = path
        continuations = document.get("continuations")
        if continuations is None:
            continue
        expected, first = counts.setdefault(document["benchmark"], (continuations, path))
        if continuations != expected:
            raise InputError(
                f"{path}: {continuations} continuations a prompt, but {first} has {expected}; "
                "EMT and TP of unequal numbers cannot be compared: generate one of them again"
            )


def summarize(
    documents: dict[str, dict], resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Return the tidy summary (columns `COLUMNS`) of metrics documents by their path.

    `seed` is the experiment's. To the rows of each method it adds, over the same units as the
    method `none` of the same model, benchmark and training seed: `<metric>_difference` (method
    less none), `explicit_tp_ratio` and `implicit_tp_ratio` (none over method: how many times
    lower) and `perplexity_increase` (method / none - 1). Raises InputError, naming the files,
    where numbers of continuations or the units differ.
    """
    check_metrics(documents)
    references = {
        (document["benchmark"], document["model"], document["seed"]): path
        for path, document in documents.items()
        if document["method"] == REFERENCE
    }
    rows = []
    for path, document in documents.items():
        header = {name: document[name] for name in ("model", "method", "benchmark", "seed")}
        rows.extend(header | row for row in document["rows"])
        reference = references.get((document["benchmark"], document["model"], document["seed"]))
        if reference is None or reference == path:
            continue
        bootstrap = {
            "resamples": resamples,
            "seed": derive_seed(seed, "intervals", document["benchmark"]),
            "level": level,
        }
        names = (path, reference)
        for split, metric, interval, units in _comparisons(
            document, documents[reference], names, bootstrap
        ):
            bounds = interval._asdict()
            rows.append(
                header
                | {"split": split, "metric": metric, "value": bounds["value"], "n": units}
                | {"ci_low": bounds["low"], "ci_high": bounds["high"]}
            )
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column in ("value", "ci_low", "ci_high"):
        table[column] = table[column].astype(np.float64)
    return table


def _comparisons(
    document: dict, reference: dict, paths: tuple[str, str], bootstrap: dict[str, Any]
) -> Iterator[tuple[str, str, Interval, int]]:
    if "prompts" in document and "prompts" in reference:
        yield from _prompt_comparisons(document, reference, paths, bootstrap)
    for split, metrics in document.get("units", {}).items():
        for metric, values in metrics.items():
            other = reference.get("units", {}).get(split, {}).get(metric, [])
            _require_same_units(len(values) == len(other), paths)
            difference = paired_difference(values, other, share=True, **bootstrap)
            yield split, f"{metric}_difference", difference, len(values)
    for split, losses in document.get("losses", {}).items():
        other = reference.get("losses", {}).get(split, {"loss_sum": [], "tokens": []})
        _require_same_units(losses["tokens"] == other["tokens"], paths)
        increase = perplexity_increase(
            losses["loss_sum"], other["loss_sum"], losses["tokens"], **bootstrap
        )
        yield split, "perplexity_increase", increase, len(losses["tokens"])


def _prompt_comparisons(
    document: dict, reference: dict, paths: tuple[str, str], bootstrap: dict[str, Any]
) -> Iterator[tuple[str, str, Interval, int]]:
    ours, theirs = pd.DataFrame(document["prompts"]), pd.DataFrame(reference["prompts"])
    identity = ["prompt_index", "split", "group"]
    _require_same_units(ours[identity].equals(theirs[identity]), paths)
    for row in document["rows"]:
        split, metric = row["split"], row["metric"]
        columns = [_per_prompt(table, metric, document["threshold"]) for table in (ours, theirs)]
        if columns[0] is None or columns[1] is None:
            continue
        members = _members(ours, split)
        values, other = columns[0][members], columns[1][members]
        bounded = metric != "mean_length"
        difference = paired_difference(values, other, share=bounded, **bootstrap)
        yield split, f"{metric}_difference", difference, int(members.sum())
        if metric.endswith("_tp"):
            ratio = paired_ratio(other, values, **bootstrap)
            yield split, f"{metric}_ratio", ratio, int(members.sum())


def _per_prompt(prompts: pd.DataFrame, metric: str, threshold: float) -> np.ndarray | None:
    name, _, statistic = metric.rpartition("_")
    if statistic in ("emt", "tp"):
        if f"{name}_max" not in prompts:
            return None
        highest = prompts[f"{name}_max"].to_numpy()
        return highest if statistic == "emt" else (highest >= threshold).astype(np.float64)
    return prompts[metric].to_numpy() if metric in prompts else None


def _members(prompts: pd.DataFrame, split: str) -> np.ndarray:
    if split == "all":
        return np.ones(len(prompts), dtype=bool)
    grouped = np.array([split in group_names(group) for group in prompts["group"]], dtype=bool)
    return (prompts["split"] == split).to_numpy() | grouped


def _require_same_units(same: bool, paths: Sequence[str]) -> None:
    if not same:
        raise InputError(
            f"{paths[0]}: not evaluated on the same records as {paths[1]}; evaluate both again"
        )


def constant_classifiers(summary: pd.DataFrame) -> list[str]:
    """Return one line for each classifier that calls every text of a kind, or none, toxic.

    Of the held-out texts of a classifier trained here, and of the continuations of a benchmark by
    all methods, the uncensored one included: such a classifier measures nothing, and its zero or
    one must not be read as a result.
    """
    trained = summary[(summary["benchmark"] == "classifiers") & (summary["split"] == "all")]
    lines = []
    for (name, method), rows in trained.groupby(["model", "method"]):
        shares = rows.loc[rows["metric"].isin(["toxic_flagged", "harmless_flagged"]), "value"]
        if len(shares) == 2 and shares.min() == shares.max() and shares.iloc[0] in (0.0, 1.0):
            called = "toxic" if shares.iloc[0] else "harmless"
            lines.append(
                f"the {method} {name} classifier calls every held-out text {called}; train it "
                "longer or on other texts"
            )
    overall = summary[summary["split"] == "all"]
    for benchmark, rows in overall.groupby("benchmark"):
        for classifier in ("explicit", "implicit"):
            shares = rows.loc[rows["metric"] == f"{classifier}_fraction", "value"]
            if len(shares) and shares.min() == shares.max() and shares.iloc[0] in (0.0, 1.0):
                called = "toxic" if shares.iloc[0] else "harmless"
                lines.append(
                    f"the {classifier} classifier calls every continuation of {benchmark} {called}"
                )
    return lines


def over_seeds(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary with its training seeds merged: `seeds` counts them.

    The value is the mean over seeds; the interval runs from the lowest lower to the highest
    upper bound, which is wider than either source of uncertainty alone.
    """
    keys = ["model", "method", "benchmark", "split", "metric"]
    merged = summary.groupby(keys, sort=False, dropna=False).agg(
        value=("value", "mean"),
        ci_low=("ci_low", "min"),
        ci_high=("ci_high", "max"),
        n=("n", "min"),
        seeds=("seed", "nunique"),
    )
    return merged.reset_index()
