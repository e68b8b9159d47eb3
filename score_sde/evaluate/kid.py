"""Kernel distance of two sets of features (Binkowski et al. 2018, arXiv:1801.01401, section 4).

The squared maximum mean discrepancy with the kernel ``(x . y / d + 1)^3``.  Unlike the Frechet distance its
estimate is unbiased, so that small sets can be compared.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from score_sde.evaluate.scores import Reference, Sampled, Score

ESTIMATORS = ("biased", "unbiased", "u_statistic")


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``(N, d)`` and ``(M, d)`` to ``(N, M)`` float64."""
    product = np.asarray(x, np.float64) @ np.asarray(y, np.float64).T
    return (product / x.shape[1] + 1.0) ** 3


def squared_mmd(x: np.ndarray, y: np.ndarray, estimator: str = "unbiased") -> float:
    """Squared maximum mean discrepancy of ``(N, d)`` and ``(M, d)`` features.

    Args:
      estimator: "unbiased" leaves out the pairs of an example with itself (Gretton et al. 2012, eq. 3);
        "u_statistic" also leaves out the pairs ``(x_i, y_i)`` of two sets of one size (eq. 4);
        "biased" keeps all (eq. 5), and is 0 for identical sets.

    Raises:
      ValueError: an unknown estimator, fewer than 2 examples, or unequal sizes for "u_statistic".
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator = {estimator!r}: must be one of {', '.join(ESTIMATORS)}")
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"the kernel distance needs 2 examples on each side, there are {n} and {m}")
    xx, yy, xy = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    if estimator == "biased":
        return float(xx.mean() + yy.mean() - 2 * xy.mean())
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    if estimator == "unbiased":
        return float(within - 2 * xy.mean())
    if n != m:
        raise ValueError(f"estimator = 'u_statistic' needs sets of one size, there are {n} and {m}")
    return float(within - 2 * (xy.sum() - np.trace(xy)) / (n * (n - 1)))


def squared_mmd_score(x: np.ndarray, y: np.ndarray) -> Score:
    """The unbiased estimate of all of ``(N, d)`` against all of ``(M, d)``, for N that is small.

    The error is that of ``x``, which is taken to be much the smaller set: the jackknife's (Efron and Stein
    1981, eq. 1.4), from the estimates that leave out one example each; None below 3 examples.

    Raises:
      ValueError: fewer than 2 examples on a side.
    """
    n, value = len(x), squared_mmd(x, y)
    if n < 3:
        return Score(value)
    kernel = polynomial_kernel(x, x)
    np.fill_diagonal(kernel, 0.0)
    own, other = kernel.sum(axis=1), polynomial_kernel(x, y).mean(axis=1)
    # What does not depend on the example left out, the pairs within y, is left out too.
    without = (own.sum() - 2 * own) / ((n - 1) * (n - 2)) - 2 * (other.sum() - other) / (n - 1)
    return Score(value, float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))))


@dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """The mean of the unbiased estimate over random subsets, as torch-fidelity draws them.

    Attributes:
      subsets: number of subsets.
      subset_size: examples of each set in a subset; no more than the smaller set has.
      seed: of numpy's RandomState, which draws from the generated set, then from the reference.
    """

    subsets: int = 100
    subset_size: int = 1000
    seed: int = 2020
    least = 2

    def __call__(self, sampled: Sampled, reference: Reference) -> dict[str, Score]:
        """``{"kid": mean over the subsets, with their standard deviation as the error}``."""
        x, y = sampled.features, reference.need_features("kid")
        size = min(self.subset_size, len(x), len(y))
        if size < 2 or self.subsets < 1:
            raise ValueError(
                f"evaluate.kid.subsets = {self.subsets}, evaluate.kid.subset_size = {size}: the kernel "
                "distance needs at least 1 subset of 2 examples"
            )
        if size < self.subset_size:
            warnings.warn(
                f"evaluate.kid.subset_size = {self.subset_size}: the sets have {len(x)} and {len(y)} "
                f"examples; subsets of {size} are used, which repeat each other more",
                stacklevel=2,
            )
        draws = np.random.RandomState(self.seed)
        values = []
        for _ in range(self.subsets):
            rows = draws.choice(len(x), size, replace=False)
            columns = draws.choice(len(y), size, replace=False)
            values.append(squared_mmd(x[rows], y[columns]))
        differ = size < max(len(x), len(y))  # else every subset is the whole, and tells of no error
        return {"kid": Score(float(np.mean(values)), float(np.std(values)) if differ else None)}
