"""Exact nearest neighbours among vectors, and how often they share a class."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.evaluate.neighbours import Neighbours
from score_sde.evaluate.scores import Score
from score_sde.runtime.mesh import batch_sharding, make_mesh, replicated, round_up

METRICS = ("cosine", "euclidean")
_BLOCK = 4096  # vectors compared with a block of queries at a time
_QUERIES = 512
_SPARE = 8  # more candidates than asked for, as float32 may confuse the last ones


class _Best(NamedTuple):
    """The best so far of every query, ``(M, k)`` each."""

    score: Array
    number: Array


class Index:
    """Vectors that can be searched.

    Candidates are found on the devices, which share the queries, and ranked again by their exact differences
    in float64: an equal vector has distance 0 and comes first.

    Args:
      vectors: ``(N, d)``.
      metric: "cosine", ``1 - cos`` of the angle between vectors less their mean; or "euclidean", the root
        mean square difference.

    Raises:
      ValueError: an unknown metric, or vectors of the wrong rank.
    """

    def __init__(self, vectors: np.ndarray, metric: str = "cosine"):
        if metric not in METRICS:
            raise ValueError(f"metric = {metric!r}: must be one of {', '.join(METRICS)}")
        if vectors.ndim != 2 or not len(vectors):
            raise ValueError(f"an index takes vectors (N, d), N > 0, got shape {vectors.shape}")
        self._metric, self._mesh = metric, make_mesh()
        self._mean = vectors.astype(np.float64).mean(axis=0, keepdims=True)
        self._vectors = self._prepared(vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: np.ndarray, k: int, *, own: np.ndarray | None = None) -> Neighbours:
        """The ``k`` nearest of each query ``(M, d)``, nearest first; of equals, the lower number.

        Args:
          own: ``(M,)``, a number that each query must not find: its own, to leave it out.

        Raises:
          ValueError: another number of columns, or fewer vectors than ``k``.
        """
        available = len(self) - (own is not None)
        if not 1 <= k <= available:
            raise ValueError(f"nearest = {k}: must be from 1 to {available}, the number of other examples")
        if queries.shape[1:] != self._vectors.shape[1:]:
            raise ValueError(f"queries have shape {queries.shape}, the index {self._vectors.shape}")
        q = self._prepared(queries)
        found = self._candidates(q, min(k + _SPARE, len(self)))
        distance = np.empty(found.shape)
        for i, numbers in enumerate(found):
            distance[i] = np.mean((self._vectors[numbers] - q[i]) ** 2, axis=1)
        if own is not None:
            distance = np.where(found == own[:, None], np.inf, distance)
        order = np.lexsort((found, distance), axis=1)[:, :k]
        distance = np.take_along_axis(distance, order, axis=1)
        number = np.take_along_axis(found, order, axis=1)
        if self._metric == "cosine":
            return Neighbours(0.5 * distance * q.shape[1], number)
        return Neighbours(np.sqrt(distance), number)

    def _prepared(self, vectors: np.ndarray) -> np.ndarray:
        v = (
            np.asarray(vectors, np.float64) - self._mean
        )  # of no account to differences, but to their rounding
        if self._metric == "euclidean":
            return v
        return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-30)

    def _candidates(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Numbers of about the ``k`` nearest, ``(M, k)``."""
        blocks = -(-len(self) // _BLOCK)
        padded = np.zeros((blocks * _BLOCK, queries.shape[1]), np.float32)
        padded[: len(self)] = self._vectors
        size = round_up(min(_QUERIES, len(queries)), self._mesh)
        split, whole = batch_sharding(self._mesh), replicated(self._mesh)
        run = jax.jit(
            functools.partial(_nearest, count=len(self), k=k),
            in_shardings=(split, whole),
            out_shardings=whole,
        )
        placed, found = jax.device_put(padded.reshape(blocks, _BLOCK, -1), whole), []
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            full = np.zeros((size, queries.shape[1]), np.float32)
            full[: len(part)] = part
            found.append(np.asarray(run(jax.device_put(full, split), placed))[: len(part)])
        return np.concatenate(found)


def _nearest(queries: Array, blocks: Array, *, count: int, k: int) -> Array:
    """Numbers of the nearest among the first ``count`` vectors: ``(M, d), (n, block, d) -> (M, k)``."""

    def merge(best: _Best, block: tuple[Array, Array]) -> tuple[_Best, None]:
        first, vectors = block
        numbers = first + jnp.arange(vectors.shape[0])
        products = jnp.matmul(queries, vectors.T, precision=jax.lax.Precision.HIGHEST)
        score = products - 0.5 * jnp.sum(vectors**2, axis=1)[None, :]  # orders like minus the distance
        score = jnp.where((numbers < count)[None, :], score, -jnp.inf)
        both = jnp.concatenate([best.score, score], axis=1)
        known = jnp.broadcast_to(numbers[None, :], score.shape)
        top, place = jax.lax.top_k(both, k)
        return _Best(top, jnp.take_along_axis(jnp.concatenate([best.number, known], axis=1), place, 1)), None

    empty = (queries.shape[0], k)
    start = _Best(jnp.full(empty, -jnp.inf), jnp.zeros(empty, jnp.int32))
    firsts = jnp.arange(blocks.shape[0]) * blocks.shape[1]
    return jax.lax.scan(merge, start, (firsts, blocks))[0].number


def precision(classes: np.ndarray, found: np.ndarray, k: int) -> Score:
    """Share of the first ``k`` found that are of the query's class, mean and standard error over queries.

    Args:
      classes: of the queries, ``(M,)``.
      found: classes of the neighbours, nearest first, ``(M, n)``.
    """
    share = np.mean(found[:, :k] == classes[:, None], axis=1)
    error = float(share.std(ddof=1) / np.sqrt(len(share))) if len(share) > 1 else None
    return Score(float(share.mean()), error)


def leave_one_out(
    vectors: np.ndarray, classes: np.ndarray, ks: tuple[int, ...], metric: str
) -> dict[int, Score]:
    """``precision`` at each of ``ks`` when every vector looks for its nearest among the others.

    Args:
      vectors: ``(N, d)``.
      classes: ``(N,)``; examples of class -1 are left out.

    Raises:
      ValueError: not more labelled examples than the largest of ``ks``.
    """
    known = classes >= 0
    vectors, classes = vectors[known], classes[known]
    if len(vectors) <= max(ks):
        raise ValueError(f"retrieval accuracy at {max(ks)} needs more than {max(ks)} labelled examples")
    found = Index(vectors, metric).search(vectors, max(ks), own=np.arange(len(vectors)))
    return {k: precision(classes, classes[found.number], k) for k in ks}
