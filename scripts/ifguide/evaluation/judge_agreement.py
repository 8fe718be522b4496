"""How far judges agree: in which methods are the more toxic, and in which texts are toxic."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd

from ifguide.evaluation.intervals import Interval, percentiles, resample_weights
from ifguide.seeds import derive_seed

# Of fewer methods a rank correlation is 1 or -1 by chance.
FEWEST_METHODS = 3


def verdicts(
    generations: Mapping[str, Sequence[dict]], judges: Sequence[str], threshold: float
) -> pd.DataFrame:
    """Return whether each judge flags each continuation: a column a judge, a row a continuation.

    The index has the method and the prompt_index. generations: by method, records with
    prompt_index and the scores of the judges. A judge of whom any record has no score is left out.
    """
    records = [(method, record) for method, own in generations.items() for record in own]
    ran = [judge for judge in judges if all(r.get(judge) is not None for _, r in records)]
    of = [(method, record["prompt_index"]) for method, record in records]
    flagged = {judge: np.array([r[judge] for _, r in records]) >= threshold for judge in ran}
    return pd.DataFrame(flagged, pd.MultiIndex.from_tuples(of, names=["method", "prompt_index"]))


def rank_correlation(
    first: np.ndarray, second: np.ndarray, resamples: int, seed: int, level: float
) -> Interval:
    """Return Spearman's correlation over methods of two judges' shares, with a bootstrap interval.

    first, second: float (methods, prompts), the share of each prompt's continuations that a judge
    flags. Prompts are drawn with replacement, alike for both. NaN of few methods, or where a judge
    finds all alike.
    """
    if len(first) < FEWEST_METHODS:
        return Interval(np.nan, np.nan, np.nan)
    value = _spearman(first.mean(axis=1, keepdims=True), second.mean(axis=1, keepdims=True))[0]
    drawn = np.concatenate(
        [
            _spearman(first @ weights.T, second @ weights.T)
            for weights in resample_weights(first.shape[1], resamples, seed)
        ]
    )
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Interval(float(value), np.nan, np.nan)
    return Interval(float(value), *percentiles(drawn, level))


def _spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each column, float64 (columns,); ties share their rank."""
    # Rounded, so that equal sums that were added in another order are ties.
    ranks = [pd.DataFrame(sums.round(9)).rank().to_numpy() for sums in (first, second)]
    a, b = (own - own.mean(axis=0) for own in ranks)
    spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    found = np.full(spread.shape, np.nan)
    np.divide((a * b).sum(axis=0), spread, out=found, where=spread > 0)
    return found


def agreement_of_judges(
    table: pd.DataFrame, *, resamples: int, seed: int, level: float
) -> list[dict[str, Any]]:
    """Return how far each two judges of a table of `verdicts` agree.

    `first`, `second`: the judges; `methods`: how many they rank; `correlation`: an Interval
    (`rank_correlation`) over the methods and the prompts that all of these have; `both`,
    `first_only`, `second_only`: shares of the continuations.
    """
    shares = table.groupby(level=["method", "prompt_index"], sort=False).mean()
    by_judge = {judge: shares[judge].unstack().dropna(axis=1).to_numpy(float) for judge in table}
    return [
        {
            "first": first,
            "second": second,
            "methods": len(by_judge[first]),
            "correlation": rank_correlation(
                by_judge[first], by_judge[second], resamples, seed, level
            ),
            "both": float((table[first] & table[second]).mean()),
            "first_only": float((table[first] & ~table[second]).mean()),
            "second_only": float((~table[first] & table[second]).mean()),
        }
        for first, second in combinations(table, 2)
    ]


def disagreements(
    generations: Mapping[str, Sequence[dict]], table: pd.DataFrame, count: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield up to `count` continuations that a judge flags and another does not, for each two.

    table: their `verdicts`. Drawn at random by `seed`, never by how far the scores are apart.
    Fields `flagged_by`, `passed_by`, `method` and `record`.
    """
    records = [record for own in generations.values() for record in own]
    for first, second in permutations(table, 2):
        apart = np.flatnonzero(table[first] & ~table[second])
        generator = np.random.default_rng(derive_seed(seed, "disagreements", first, second))
        for row in sorted(generator.permutation(apart)[:count]):
            yield {
                "flagged_by": first,
                "passed_by": second,
                "method": table.index[row][0],
                "record": records[row],
            }
