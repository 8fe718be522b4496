"""How often judges are right about cases of functional tests, by function."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ifguide.data.functional_cases import Case
from ifguide.evaluation.intervals import proportion_interval


def functional_table(
    cases: Sequence[Case],
    scores: Mapping[str, Sequence[float]],
    threshold: float,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return a row for each judge and function: how many cases it has right, with an interval.

    scores: by judge, float (cases,). A judge is right where it gives a toxic case `threshold` or
    more, and any other less. Columns judge, function, toxic (of its cases), cases, right, and of
    the share that is right value, ci_low and ci_high (Clopper and Pearson).
    """
    functions = np.array([case.function for case in cases])
    toxic = np.array([case.toxic for case in cases])
    rows = []
    for judge, given in scores.items():
        right = (np.asarray(given) >= threshold) == toxic
        for name in dict.fromkeys(functions):
            own = functions == name
            interval = proportion_interval(int(right[own].sum()), int(own.sum()), level)
            rows.append(
                {
                    "judge": judge,
                    "function": name,
                    "toxic": bool(toxic[own][0]),
                    "cases": int(own.sum()),
                    "right": int(right[own].sum()),
                    "value": interval.value,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                }
            )
    return pd.DataFrame(rows)
