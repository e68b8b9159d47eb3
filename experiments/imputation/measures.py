"""What is measured of filled cells, and the methods that are compared."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

NEIGHBOURS = 10


def crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score, without bias by the number of samples: ``(n, K)``, ``(K,)``.

    ``mean |X - y| - mean |X - X'| / 2`` over pairs of different samples (Gneiting and Raftery 2007, eq. 21);
    of one sample ``|X - y|``.
    """
    count = len(samples)
    error = np.abs(samples - truth).mean(axis=0)
    if count == 1:
        return error
    ranked = np.sort(samples, axis=0)
    weights = (2 * np.arange(1, count + 1) - count - 1)[:, None]
    return error - (weights * ranked).sum(axis=0) / (count * (count - 1))


def scores(samples: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """CRPS, error of the mean, and share of the truth inside the intervals: ``(n, K)`` and ``(K,)``."""
    found = {
        "crps": float(crps(samples, truth).mean()),
        "rmse": float(np.sqrt(((samples.mean(axis=0) - truth) ** 2).mean())),
        "mae": float(np.abs(np.median(samples, axis=0) - truth).mean()),
    }
    if len(samples) > 1:
        for share in (0.5, 0.9):
            low, high = np.quantile(samples, [(1 - share) / 2, (1 + share) / 2], axis=0)
            found[f"cover_{round(100 * share)}"] = float(((low <= truth) & (truth <= high)).mean())
    return found


def neighbours(train: np.ndarray, holes: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """The training rows nearest in what is seen: ``(M, F)``, ``(N, F)`` with NaN to ``(count, N, F)``."""
    seen = ~np.isnan(holes)
    filled = np.where(seen, holes, 0.0)
    square = (filled**2).sum(axis=1)[:, None] - 2 * filled @ train.T + seen.astype(float) @ (train**2).T
    nearest = np.argsort(square, axis=1, kind="stable")[:, :count]
    return train[nearest].transpose(1, 0, 2)


def iterative(train: np.ndarray, holes: np.ndarray, draws: int, seed: int, others: int | None) -> np.ndarray:
    """IterativeImputer with its default Bayesian ridge regression: its mean, or draws of its posterior.

    Args:
      train: ``(M, F)``, NaN where a cell is missing: rows like those that are to be filled.
      draws: 0: the mean, ``(1, N, F)``; or ``(draws, N, F)``.
      others: columns that each regression sees; None: all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer = IterativeImputer(
            sample_posterior=draws > 0, max_iter=5, random_state=seed, n_nearest_features=others
        )
        imputer.fit(train)
        return np.stack([imputer.transform(holes) for _ in range(max(draws, 1))])


def linear(holes: np.ndarray) -> np.ndarray:
    """Linear interpolation along time in each channel, constant beyond the ends, the mean (zero) where
    nothing is
    seen: ``(N, L, C)`` with NaN to ``(1, N, L, C)``."""
    filled = np.zeros_like(holes)
    place = np.arange(holes.shape[1])
    for i, window in enumerate(holes):
        for c, channel in enumerate(window.T):
            seen = ~np.isnan(channel)
            if seen.any():
                filled[i, :, c] = np.interp(place, place[seen], channel[seen])
    return filled[None]


def wrong(states: np.ndarray, truth: np.ndarray, hidden: np.ndarray, widths: np.ndarray) -> float | None:
    """Share of hidden categories of which another was drawn most often; None without categories.

    Args:
      states: ``(n, N, *S, W)``; of a method that fills in the mean of codes the largest counts.
      hidden: ``(N, *S, F)``.
      widths: of the columns, ``(F,)``: 1 for numbers.
    """
    errors, start = [], 0
    for i, width in enumerate(widths):
        own = slice(start, start + width)
        start += width
        if width > 1 and hidden[..., i].any():
            drawn = np.eye(width)[states[..., own].argmax(axis=-1)].mean(axis=0).argmax(axis=-1)
            errors.append((drawn != truth[..., own].argmax(axis=-1))[hidden[..., i]])
    return float(np.concatenate(errors).mean()) if errors else None


def without_last(flat: np.ndarray, widths: np.ndarray, length: int) -> np.ndarray:
    """States ``(N, length W)`` without the last entry of each category, which the others determine: with it,
    a regression of one missing entry on the others that are missing with it learns nothing."""
    states = flat.reshape(len(flat), length, -1)
    return states[..., _kept(widths)].reshape(len(flat), -1)


def with_last(samples: np.ndarray, widths: np.ndarray, length: int) -> np.ndarray:
    """The inverse: ``(n, N, length V)`` to ``(n, N, length W)``; codes of a category sum to ``2 - width``."""
    kept, ends = _kept(widths), np.cumsum(widths)
    states = np.zeros((*samples.shape[:2], length, int(ends[-1])))
    states[..., kept] = samples.reshape(*samples.shape[:2], length, -1)
    for width, end in zip(widths, ends, strict=True):
        if width > 1:
            states[..., end - 1] = 2 - width - states[..., end - width : end - 1].sum(axis=-1)
    return states.reshape(*samples.shape[:2], -1)


def _kept(widths: np.ndarray) -> np.ndarray:
    ends = np.cumsum(widths)
    kept = np.ones(int(ends[-1]), bool)
    kept[ends[widths > 1] - 1] = False
    return kept
