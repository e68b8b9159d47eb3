"""Reference statistics as a file: moments, some features, and how they were made."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.conditions import Json
from score_sde.evaluate.moments import Gaussian, Moments
from score_sde.evaluate.protocol import Protocol, check_comparable
from score_sde.evaluate.scores import Reference, Sampled


def gather(parts: Iterator[Sampled], keep: int) -> Reference:
    """Stream features into a reference.

    Args:
      parts: features of the reference examples, in an order that owes nothing to their classes.
      keep: how many of the first features to hold, for the metrics that compare examples.

    Raises:
      ValueError: fewer than 2 examples.
    """
    moments, kept, held = None, [], 0
    for part in parts:
        more = Moments.of(part.features)
        moments = more if moments is None else moments.merge(more)
        if held < keep:
            kept.append(part.features[: keep - held])
            held += len(kept[-1])
    if moments is None or moments.count < 2:
        raise ValueError("a reference needs at least 2 examples")
    return Reference(moments.gaussian, int(moments.count), np.concatenate(kept) if kept else None)


def save_reference(path: Path, reference: Reference, protocol: Protocol, about: Mapping[str, Json]) -> None:
    """Write a .npz, whole or not at all: ``mu`` and ``sigma`` as pytorch-fid names them, and the rest.

    Args:
      about: what else a reader should know: source, split, count.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "mu": reference.gaussian.mean,
        "sigma": reference.gaussian.covariance,
        "protocol": json.dumps({**about, "count": reference.count, **asdict(protocol)}),
    }
    if reference.features is not None:
        arrays["features"] = reference.features.astype(np.float32)
    fresh = path.with_name(path.name + ".tmp.npz")
    np.savez(fresh, **arrays)
    os.replace(fresh, path)


def load_reference(path: Path, protocol: Protocol) -> tuple[Reference, dict[str, Json]]:
    """The reference of a file, and what it says about itself.

    A file with ``mu`` and ``sigma`` alone, as pytorch-fid writes it, is taken for statistics of Inception
    features; how they were made is then unknown, and ``{"protocol": "unknown"}`` says so.

    Args:
      protocol: how the features to be compared with it are made.

    Raises:
      ValueError: not such a file, or made differently; the message names the file and what differs.
    """
    where = f"the reference {path}"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file}
    except Exception as error:  # zip, header and pickle errors all mean the same here
        raise ValueError(f"{where}: not a readable .npz: {error}") from error
    if not {"mu", "sigma"} <= arrays.keys():
        raise ValueError(f"{where}: holds {sorted(arrays)}, statistics have 'mu' and 'sigma'")
    mean, covariance = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{where}: mu of shape {mean.shape} and sigma of shape {covariance.shape} do not fit"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"{where}: mu or sigma is not finite")
    if "protocol" not in arrays:
        if protocol.features != "inception":
            raise ValueError(
                f"{where}: has no protocol; it is taken for Inception statistics, but evaluate.features = "
                f"{protocol.features!r}"
            )
        return Reference(Gaussian(mean, covariance)), {"protocol": "unknown (mu and sigma only)"}
    about = json.loads(str(arrays["protocol"]))
    try:
        saved = Protocol.of(about)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    check_comparable(saved, where, protocol, "the samples")
    return Reference(Gaussian(mean, covariance), about.get("count"), arrays.get("features")), about
