"""From a judge's scores to probabilities, and from a rate of false alarms to a threshold.

Platt's scaling of a score s, fitted on texts that the judge has not learned from:

    p = σ( a · logit(s) + b ),      targets (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2)

with N₊ toxic and N₋ harmless texts; these targets keep a and b finite where s parts them without
error. p rises with s, so that the order of texts stays.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from ifguide.errors import InputError

# A score of 0 or 1, which is rounded, stands for one that is this near.
NEAREST = 1e-6
# From this probability on, a text is likelier toxic than harmless.
LIKELIER = 0.5


@dataclass(frozen=True)
class Calibration:
    """The scaling a, b (`slope`, `intercept`), and how harmless texts came out.

    harmless: the probabilities of the harmless texts that it was fitted on, ascending; empty where
    there were none. method: "platt", or "identity" where nothing could be fitted.
    """

    method: str = "identity"
    slope: float = 1.0
    intercept: float = 0.0
    harmless: tuple[float, ...] = ()

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return the probability that belongs to each score in [0, 1], float64, same shape."""
        scores = np.asarray(scores, np.float64)
        if self.method == "identity":
            return scores
        return expit(self.slope * _logits(scores) + self.intercept)

    def threshold(self, false_alarms: float) -> float:
        """Return the lowest threshold that at most that share of the harmless texts reaches.

        It is no lower than LIKELIER: a judge that makes fewer mistakes than it may is not to make
        more of them. Probabilities are compared with it in float32. Raises InputError where there
        was no harmless text.
        """
        if not self.harmless:
            raise InputError(
                "no harmless text was held out when the judge was trained, so that none tells a "
                "threshold; give a number"
            )
        # Rounded, because a share of 0.29 of 100 texts is a hair below 29.
        alarms = int(round(false_alarms * len(self.harmless), 6))
        highest = np.float32(self.harmless[len(self.harmless) - alarms - 1])
        return max(LIKELIER, float(np.nextafter(highest, np.float32(np.inf))))


def fit_calibration(scores: np.ndarray, toxic: np.ndarray) -> Calibration:
    """Fit a calibration to scores in [0, 1] and labels (bool), both (texts,).

    The identity where all texts have one label, or where the scores of toxic texts are not higher.
    """
    scores, toxic = np.asarray(scores, np.float64), np.asarray(toxic, bool)
    positive, negative = int(toxic.sum()), int((~toxic).sum())
    fitted = Calibration()
    if positive and negative:
        target = np.where(toxic, (positive + 1) / (positive + 2), 1 / (negative + 2))
        slope, intercept = _least_cross_entropy(_logits(scores), target)
        if slope > 0:
            fitted = Calibration("platt", slope, intercept)
    harmless = np.sort(fitted.probabilities(scores[~toxic]))
    return Calibration(fitted.method, fitted.slope, fitted.intercept, tuple(harmless.tolist()))


def _logits(scores: np.ndarray) -> np.ndarray:
    return logit(np.clip(scores, NEAREST, 1 - NEAREST))


def _least_cross_entropy(logits: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Return a and b of the least mean cross-entropy of σ(a · logits + b) against the targets."""

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margin = parameters[0] * logits + parameters[1]
        excess = expit(margin) - target
        entropy = (np.logaddexp(0, margin) - target * margin).mean()
        return entropy, np.array([(excess * logits).mean(), excess.mean()])

    found = minimize(loss, [1.0, 0.0], jac=True, method="BFGS", options={"gtol": 1e-9})
    return float(found.x[0]), float(found.x[1])
