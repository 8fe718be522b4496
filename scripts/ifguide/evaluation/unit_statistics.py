"""The statistics of a metrics file by unit, from which figures are made, compared and merged.

A metrics file has rows (split, metric, value, ci_low, ci_high, n) and, of what is to be compared or
put together over seeds, the statistics by unit, in the same order in every file of a benchmark:

- `prompts`: one record a prompt, with prompt_index, split, group and the metrics by their names; of
  a classifier's EMT and TP, `<classifier>_max`, the highest score (`any_max` of `any_tp`);
- `units`: {split: {metric: values}}, of which the metric is the mean;
- `losses`: {split: {"loss_sum", "tokens"}}, of which `perplexity` is made;
- `sums`: {split: {metric: {"sum", "tokens"}}}, of which the metric is the mean per token or, where
  its name ends in `perplexity`, exp of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ifguide.evaluation.generation_metrics import group_names
from ifguide.evaluation.intervals import (
    Interval,
    mean_interval,
    paired_difference,
    paired_ratio,
    perplexity_increase,
    perplexity_interval,
    share_interval,
    weighted_mean_difference,
    weighted_mean_interval,
)
from ifguide.evaluation.metrics import is_share


@dataclass(frozen=True)
class Statistics:
    """What one figure is made of, unit by unit: `values`, float64 (seeds, units).

    A mean per token and a perplexity have `values` summed over the `tokens`, of the same shape.
    """

    metric: str
    values: np.ndarray
    tokens: np.ndarray | None = None

    @property
    def units(self) -> int:
        return self.values.shape[1]

    def value(self) -> float:
        """Return the figure over all units and seeds."""
        if self.tokens is None:
            return float(self.values.mean())
        mean = float(self.values.sum() / self.tokens.sum())
        return float(np.exp(mean)) if self._is_perplexity else mean

    def interval(self, **bootstrap: Any) -> Interval:
        """Return the figure with its interval."""
        if self.tokens is not None:
            of_sums = perplexity_interval if self._is_perplexity else weighted_mean_interval
            return of_sums(self.values, self.tokens, **bootstrap)
        return (share_interval if is_share(self.metric) else mean_interval)(
            self.values, **bootstrap
        )

    def less(self, other: "Statistics", **bootstrap: Any) -> Interval:
        """Return the figure less that of `other`; of perplexities, their ratio - 1."""
        if self.tokens is not None:
            of_sums = perplexity_increase if self._is_perplexity else weighted_mean_difference
            return of_sums(self.values, self.tokens, other.values, other.tokens, **bootstrap)
        share = is_share(self.metric)
        return paired_difference(self.values, other.values, share=share, **bootstrap)

    def compared(self, none: "Statistics", **bootstrap: Any) -> Iterator[tuple[str, Interval]]:
        """Yield the names of the comparisons with the uncensored model, and these."""
        change = "increase" if self._is_perplexity else "difference"
        yield f"{self.metric}_{change}", self.less(none, **bootstrap)
        if self.metric.endswith("_tp"):
            yield f"{self.metric}_ratio", paired_ratio(none.values, self.values, **bootstrap)

    @property
    def _is_perplexity(self) -> bool:
        return self.tokens is not None and self.metric.endswith("perplexity")


# Of one model, method and benchmark: by training seed, the statistics of each (split, metric).
BySeed = Mapping[Any, Mapping[tuple[str, str], Statistics]]


def together(by_seed: BySeed, seeds: Sequence, key: tuple[str, str]) -> Statistics | None:
    """Return the statistics of `seeds` as one, or None where one of them has none."""
    own = [by_seed[seed].get(key) for seed in seeds]
    if any(one is None for one in own):
        return None
    tokens = None if own[0].tokens is None else np.concatenate([one.tokens for one in own])
    return Statistics(own[0].metric, np.concatenate([one.values for one in own]), tokens)


def unit_statistics(document: dict) -> dict[tuple[str, str], Statistics]:
    """Return the statistics of each (split, metric) that the document has by unit."""
    found = {}
    if "prompts" in document:
        prompts = pd.DataFrame(document["prompts"])
        for row in document["rows"]:
            values = _per_prompt(prompts, row["metric"], document["threshold"])
            if values is not None:
                members = _members(prompts, row["split"])
                found[row["split"], row["metric"]] = Statistics(
                    row["metric"], values[None, members].astype(np.float64)
                )
    for split, metrics in document.get("units", {}).items():
        for metric, values in metrics.items():
            found[split, metric] = Statistics(metric, np.array([values], dtype=np.float64))
    sums = {
        split: {"perplexity": {"sum": losses["loss_sum"], "tokens": losses["tokens"]}}
        for split, losses in document.get("losses", {}).items()
    }
    for source in (sums, document.get("sums", {})):
        for split, metrics in source.items():
            for metric, own in metrics.items():
                columns = (np.array([own[name]], dtype=np.float64) for name in ("sum", "tokens"))
                found[split, metric] = Statistics(metric, *columns)
    return found


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


def unit_identity(document: dict) -> dict[Any, Any]:
    """Return what tells the units of a document from others, by the place that it stands in."""
    found: dict[Any, Any] = {}
    if "prompts" in document:
        identity = ("prompt_index", "split", "group")
        found["prompts"] = [[prompt[name] for name in identity] for prompt in document["prompts"]]
    for split, losses in document.get("losses", {}).items():
        found["losses", split] = losses["tokens"]
    for split, metrics in document.get("units", {}).items():
        found |= {(split, metric): len(values) for metric, values in metrics.items()}
    for split, metrics in document.get("sums", {}).items():
        found |= {(split, metric): len(own["sum"]) for metric, own in metrics.items()}
    return found
