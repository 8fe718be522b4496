"""Every metrics file of an experiment in one tidy table: by training seed, over seeds, compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ifguide.errors import InputError
from ifguide.evaluation.generation_metrics import RESERVED_SPLITS
from ifguide.evaluation.intervals import Interval, seeds_interval
from ifguide.evaluation.metrics import direction
from ifguide.evaluation.prevalence import (
    RATED_AT,
    JudgeRates,
    corrected_ratio,
    corrected_share,
    judge_rates,
)
from ifguide.evaluation.unit_statistics import (
    BySeed,
    Statistics,
    together,
    unit_identity,
    unit_statistics,
)
from ifguide.files.checksums import remedy
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
# What stands for a training seed in the rows over all of a method's training seeds.
OVER_SEEDS = "all"
# How the names of metrics end of which the rows over seeds also give the worst seed, and the
# standard deviation between seeds.
WORST_OF = ("_tp", "_tp_ratio", "perplexity", "perplexity_increase", "_kl", "_accuracy")
SPREAD_OF = ("_tp", "perplexity", "_kl", "_accuracy", "mean_length")
# How the names of metrics end that compare a method with its control, in place of `none`.
FROM_CONTROL = "_from_control"
# The share of a prompt's continuations that a judge flags, and that share without its mistakes.
FRACTION = "_fraction"
CORRECTED = f"{FRACTION}_corrected"


def check_metrics(documents: dict[str, dict]) -> None:
    """Raise InputError, naming the files, where metrics (by path) cannot stand in one table."""
    seen: dict[tuple, str] = {}
    counts: dict[str, tuple[int, str]] = {}
    records: dict[tuple, tuple[dict, str]] = {}
    for path, document in documents.items():
        missing = [key for key in HEADER if key not in document]
        if missing:
            raise InputError(f"{path}: no {', '.join(missing)}; {remedy(path)}")
        key = tuple(document[name] for name in HEADER[:4])
        if key in seen:
            raise InputError(f"{path}: measures the same as {seen[key]}; give one of the two")
        seen[key] = path
        mine = unit_identity(document)
        theirs, first = records.setdefault(key[:2], (mine, path))
        if any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys()):
            raise InputError(
                f"{path}: not evaluated on the same records as {first}; evaluate both again"
            )
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
    documents: dict[str, dict],
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    *,
    controls: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the tidy summary (columns `COLUMNS`) of metrics documents by their path.

    `seed` is the experiment's. A row has the training seed that it was measured with, or
    `OVER_SEEDS` where it is of all that a method has, which are two or more.

    To the rows of each method it adds, over the same units as the method `none` of the same model
    and benchmark and the same training seeds: `<metric>_difference` (method less none),
    `explicit_tp_ratio` and `implicit_tp_ratio` (none over method: how many times lower) and
    `perplexity_increase` (method / none - 1). Of a method that has one in `controls`, the same rows
    are added with that one in the place of `none`; their metrics end in `FROM_CONTROL`. Of a judge
    whose mistakes on held-out texts are among the documents, `<judge>_fraction_corrected` is its
    fraction without them (`prevalence`), and `<judge>_fraction_corrected_ratio` that of `none` over
    the method's. Over seeds, `<metric>_worst` is the row of the worst seed, and `<metric>_spread`
    the standard deviation between seeds. `<metric>_lead`, a row of the best method of a model, is
    its difference from the second best. Raises InputError, naming the files, where numbers of
    continuations or the units differ.
    """
    check_metrics(documents)
    runs: dict[tuple, dict[Any, dict[tuple[str, str], Statistics]]] = {}
    rows: dict[tuple, list[dict]] = {}
    rates = judge_rates(documents.values())
    thresholds: dict[tuple, float | None] = {}
    for document in documents.values():
        key = (document["model"], document["method"], document["benchmark"])
        thresholds[key] = document.get("threshold")
        runs.setdefault(key, {})[document["seed"]] = unit_statistics(document)
        rows.setdefault(key, []).extend({"seed": document["seed"]} | r for r in document["rows"])
    found = []
    for key, by_seed in runs.items():
        model, method, benchmark = key
        bootstrap = _bootstrap(resamples, seed, level, benchmark)
        references = {
            suffix: runs.get((model, other, benchmark), {})
            for other, suffix in _compared_with(method, controls or {})
        }
        own = rows[key] + [
            row for one in by_seed for row in _compared(by_seed, references, [one], bootstrap)
        ]
        if len(by_seed) > 1:
            own += [
                *_over_seeds(by_seed, rows[key], bootstrap),
                *_compared(by_seed, references, list(by_seed), bootstrap),
                *_worst_and_spread(own),
            ]
        if thresholds[key] == RATED_AT:
            own += _corrected(by_seed, references.get("", {}), rates, bootstrap)
        found += [{"model": model, "method": method, "benchmark": benchmark} | row for row in own]
    for model, benchmark in dict.fromkeys((model, benchmark) for model, _, benchmark in runs):
        methods = {key[1]: runs[key] for key in runs if key[::2] == (model, benchmark)}
        leads = _leads(methods, _bootstrap(resamples, seed, level, benchmark))
        found += [{"model": model, "benchmark": benchmark} | row for row in leads]
    table = pd.DataFrame(found, columns=COLUMNS)
    for column in ("value", "ci_low", "ci_high"):
        table[column] = table[column].astype(np.float64)
    return table


def _compared_with(method: str, controls: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the methods that a method is compared with, and how its metrics' names then end."""
    if method != REFERENCE:
        yield REFERENCE, ""
    if method in controls:
        yield controls[method], FROM_CONTROL


def _bootstrap(resamples: int, seed: int, level: float, benchmark: str) -> dict[str, Any]:
    seed = derive_seed(seed, "intervals", benchmark)
    return {"resamples": resamples, "seed": seed, "level": level}


def _row(seed: Any, split: str, metric: str, interval: Interval, units: int) -> dict[str, Any]:
    value, low, high = interval
    bounds = {"value": value, "ci_low": low, "ci_high": high}
    return {"seed": seed, "split": split, "metric": metric, "n": units} | bounds


def _label(seeds: Sequence) -> Any:
    return seeds[0] if len(seeds) == 1 else OVER_SEEDS


def _compared(
    by_seed: BySeed,
    references: Mapping[str, BySeed],
    seeds: Sequence,
    bootstrap: dict[str, Any],
) -> Iterator[dict]:
    """Yield the rows that compare a method with others, over the training seeds both have.

    references: by how the names of the metrics then end. Of several `seeds` no row, where but one
    of them is in both: its own row says as much.
    """
    for suffix, reference in references.items():
        common = [seed for seed in seeds if seed in reference]
        if not common or (len(seeds) > 1 and len(common) == 1):
            continue
        for key in by_seed[common[0]]:
            mine, theirs = together(by_seed, common, key), together(reference, common, key)
            if mine is not None and theirs is not None:
                for metric, interval in mine.compared(theirs, **bootstrap):
                    yield _row(_label(common), key[0], f"{metric}{suffix}", interval, mine.units)


def _corrected(
    by_seed: BySeed,
    reference: BySeed,
    rates: Mapping[str, JudgeRates],
    bootstrap: dict[str, Any],
) -> Iterator[dict]:
    """Yield the fractions of judges with known mistakes without these, and their ratios to `none`.

    Each for each seed and, where there are several, over all. A judge that does not tell toxic
    texts from harmless ones corrects nothing.
    """
    for judge, known in rates.items():
        if not known.tells_apart:
            continue
        for split in RESERVED_SPLITS:
            key = (split, f"{judge}{FRACTION}")
            for seeds in _each_and_all(by_seed):
                mine = together(by_seed, seeds, key)
                if mine is not None:
                    interval = corrected_share(mine.values, known, **bootstrap)
                    metric = f"{judge}{CORRECTED}"
                    yield _row(_label(seeds), split, metric, interval, mine.units)
            for seeds in _each_and_all([seed for seed in by_seed if seed in reference]):
                mine, theirs = together(by_seed, seeds, key), together(reference, seeds, key)
                if mine is not None and theirs is not None:
                    interval = corrected_ratio(theirs.values, mine.values, known, **bootstrap)
                    metric = f"{judge}{CORRECTED}_ratio"
                    yield _row(_label(seeds), split, metric, interval, mine.units)


def _each_and_all(seeds: Iterable) -> list[list]:
    seeds = list(seeds)
    return [[seed] for seed in seeds] + ([seeds] if len(seeds) > 1 else [])


def _by_figure(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Return the rows of each (split, metric)."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["split"], row["metric"]), []).append(row)
    return found


def _over_seeds(by_seed: BySeed, rows: list[dict], bootstrap: dict[str, Any]) -> Iterator[dict]:
    """Yield the row over all training seeds of each figure in `rows`."""
    for (split, metric), own in _by_figure(rows).items():
        if len(own) > 1:
            seeds = [row["seed"] for row in own]
            statistics = together(by_seed, seeds, (split, metric))
            if statistics is None:
                values = [np.nan if row["value"] is None else row["value"] for row in own]
                interval = seeds_interval(np.array(values), bootstrap["level"])
            else:
                interval = statistics.interval(**bootstrap)
            yield _row(OVER_SEEDS, split, metric, interval, min(row["n"] for row in own))


def _worst_and_spread(rows: list[dict]) -> Iterator[dict]:
    """Yield the worst and the standard deviation of the headline figures, given by seed."""
    for (split, metric), found in _by_figure(rows).items():
        own = [row for row in found if row["value"] is not None and not np.isnan(row["value"])]
        if len(own) < 2 or split not in RESERVED_SPLITS:
            continue
        if metric.endswith(WORST_OF):
            better = direction(metric)
            worst = min(own, key=lambda row, better=better: better * row["value"])
            yield worst | {"seed": OVER_SEEDS, "metric": f"{metric}_worst"}
        if metric.endswith(SPREAD_OF):
            deviation = float(np.std([row["value"] for row in own], ddof=1))
            interval = Interval(deviation, np.nan, np.nan)
            units = min(row["n"] for row in own)
            yield _row(OVER_SEEDS, split, f"{metric}_spread", interval, units)


def _leads(methods: Mapping[str, BySeed], bootstrap: dict[str, Any]) -> Iterator[dict]:
    """Yield, for each figure of a model, by how much its best method leads the second best."""
    keys = dict.fromkeys(
        key for by_seed in methods.values() for one in by_seed.values() for key in one
    )
    for split, metric in keys:
        better = direction(metric)
        if not better or split not in RESERVED_SPLITS:
            continue
        values = {}
        for method, by_seed in methods.items():
            measured = [seed for seed in by_seed if (split, metric) in by_seed[seed]]
            if measured:
                values[method] = together(by_seed, measured, (split, metric)).value()
        order = sorted(values, key=lambda method: better * values[method], reverse=True)
        if len(order) < 2 or values[order[0]] == values[order[1]]:
            continue
        best, second = methods[order[0]], methods[order[1]]
        key = (split, metric)
        common = [seed for seed in best if key in best[seed] and key in second.get(seed, {})]
        if common:
            first = together(best, common, key)
            lead = first.less(together(second, common, key), **bootstrap)
            row = _row(_label(common), split, f"{metric}_lead", lead, first.units)
            yield {"method": order[0]} | row


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
        fractions = rows[rows["metric"].str.endswith("_fraction")]
        for metric, shares in fractions.groupby("metric")["value"]:
            classifier = metric.removesuffix("_fraction")
            if classifier == "empty":
                continue
            if len(shares) and shares.min() == shares.max() and shares.iloc[0] in (0.0, 1.0):
                called = "toxic" if shares.iloc[0] else "harmless"
                lines.append(
                    f"the {classifier} classifier calls every continuation of {benchmark} {called}"
                )
    return lines


def uncorrected_judges(summary: pd.DataFrame) -> list[str]:
    """Return one line for each reason why fractions of judges in `summary` are not corrected."""
    of_prompts = summary[summary["split"].isin(RESERVED_SPLITS)]
    metrics = dict.fromkeys(of_prompts["metric"])
    judges = [
        metric.removesuffix(FRACTION)
        for metric in metrics
        if metric.endswith(FRACTION) and metric != "empty_fraction"
    ]
    rated = summary[(summary["benchmark"] == "classifiers") & (summary["method"] == "trained")]
    reasons: dict[str, list[str]] = {}
    for judge in judges:
        if f"{judge}{CORRECTED}" in metrics:
            continue
        shares = rated[(rated["model"] == judge) & (rated["split"] == "all")].set_index("metric")
        if {"toxic_flagged", "harmless_flagged"} - set(shares.index):
            reason = "their mistakes were not measured, as they are not trained here"
        elif shares["value"]["toxic_flagged"] <= shares["value"]["harmless_flagged"]:
            reason = "they flag held-out toxic texts no more often than harmless ones"
        else:
            reason = f"their mistakes are known at the threshold {RATED_AT} only"
        reasons.setdefault(reason, []).append(judge)
    return [f"of {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def clean_split(summary: pd.DataFrame) -> str:
    """Return the split of held-out text that fluency is told by: the non-toxic one where known."""
    held_out = (summary["benchmark"] == "heldout") & (summary["metric"] == "perplexity")
    return "nontoxic" if "nontoxic" in set(summary.loc[held_out, "split"]) else "all"


def over_seeds(summary: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model, method, benchmark, split and metric of the tidy `summary`.

    It is the row over training seeds where there are several, else that of the one; `seeds`
    counts them. Raises InputError for several seeds without a row over them.
    """
    keys = ["model", "method", "benchmark", "split", "metric"]
    over = summary["seed"].astype(str) == OVER_SEEDS
    measured = summary[~over].groupby(keys, sort=False, dropna=False)["seed"].nunique()
    rows = pd.concat([summary[over], summary[~over]]).drop_duplicates(keys).sort_index()
    derived = rows["metric"].str.replace(r"_(worst|spread)$", "", regex=True)
    counted = pd.MultiIndex.from_frame(rows[keys].assign(metric=derived))
    seeds = measured.reindex(counted).fillna(1).to_numpy(dtype=np.int64)
    alone = rows[(seeds > 1) & (rows["seed"].astype(str) != OVER_SEEDS).to_numpy()]
    if len(alone):
        row = alone.iloc[0]
        raise InputError(
            f"summary.csv: {row['metric']} of {row['method']} on {row['benchmark']} has several "
            "training seeds and no row over them; summarize again"
        )
    return rows.drop(columns="seed").assign(seeds=seeds).reset_index(drop=True)
