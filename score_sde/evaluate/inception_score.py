"""Inception Score: how sure a classifier is, and how many classes it sees.

Salimans et al. 2016, arXiv:1606.03498, section 4: ``exp(E_x KL(p(y|x) || p(y)))``.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from score_sde.evaluate.rows import blocks
from score_sde.evaluate.scores import Reference, Sampled, Score, resamplings


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Log-softmax of ``(N, K)`` in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def inception_scores(logits: np.ndarray, splits: int = 1, shuffle_seed: int | None = None) -> np.ndarray:
    """The score of each of ``splits`` equal parts of ``(N, K)`` logits, ``(splits,)``.

    Args:
      shuffle_seed: of numpy's RandomState, which shuffles the examples first; None: as they are.

    Raises:
      ValueError: fewer examples than splits.
    """
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"evaluate.splits = {splits}: must be from 1 to the number of examples, {count}")
    if shuffle_seed is not None:
        order = np.random.RandomState(shuffle_seed).permutation(count)
        logits = logits[order]
    borders = [i * count // splits for i in range(splits + 1)]
    parts = [logits[a:b] for a, b in itertools.pairwise(borders)]
    return np.concatenate([weighted_scores(part, np.ones((1, len(part)))) for part in parts])


def weighted_scores(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The score ``(R,)`` of ``(N, K)`` logits under each of ``(R, N)`` weights, in one pass."""
    marginal = np.zeros((len(weights), logits.shape[1]))
    certainty = np.zeros(len(weights))
    for rows in blocks(len(logits)):
        log_p = log_probabilities(logits[rows])
        p = np.exp(log_p)
        marginal += weights[:, rows] @ p
        certainty += weights[:, rows] @ np.sum(p * log_p, axis=1)
    total = weights.sum(axis=1)
    marginal /= total[:, None]
    logs = np.log(np.where(marginal > 0, marginal, 1.0))  # a class that no example has contributes nothing
    return np.exp(certainty / total - np.sum(marginal * logs, axis=1))


@dataclass(frozen=True, kw_only=True)
class InceptionScore:
    """The score of all examples at once, and the mean over splits.

    Attributes:
      splits: number of parts of the second form.
      bootstrap: resamplings for the error bar of the first form; 0: none.
      seed: of the resampling.
    """

    splits: int = 10
    bootstrap: int = 20
    seed: int = 0
    least = 2

    def __call__(self, sampled: Sampled, reference: Reference) -> dict[str, Score]:
        """``{"inception_score": one split, "inception_score_<splits>": mean and deviation over splits}``."""
        del reference  # the score knows no data
        if sampled.logits is None:
            raise ValueError(
                "evaluate.metrics: 'inception_score' needs class scores, which these features have not"
            )
        count, rounds = len(sampled.logits), self.bootstrap if self.bootstrap > 1 else 0
        weights = np.concatenate([np.ones((1, count)), resamplings(count, rounds, self.seed)])
        value, *again = weighted_scores(sampled.logits, weights)
        parts = inception_scores(sampled.logits, self.splits)
        return {
            "inception_score": Score(float(value), float(np.std(again, ddof=1)) if again else None),
            f"inception_score_{self.splits}": Score(float(parts.mean()), float(parts.std())),
        }
