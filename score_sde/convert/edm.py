"""Snapshots of EDM (Karras et al. 2022, arXiv:2206.00364): pickles ``{ema: network, ...}``.

A network is an object whose class travels as source text, which is not looked at.  What counts is data: the
name of its class, the arguments that it was made with, and the tensors of the modules in it.  The class says
how the network is scaled (table 1 of the paper), which here is a process, a prediction and a label.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from score_sde.convert.errors import CheckpointError
from score_sde.convert.inert import Record
from score_sde.convert.release import Release
from score_sde.data import Spec
from score_sde.nets import NETS

try:  # the networks of EDM
    from score_sde.nets.edm_names import from_edm_names
except ImportError:
    from_edm_names = None

_HEUN = {"solver": "heun", "steps": 18, "t_end": 0.002, "grid": "karras", "rho": 7.0}
# Section by section: table 1 of the paper in our terms.
PROCESSES: dict[str, dict[str, Any]] = {
    "EDMPrecond": {
        "sde": {"name": "edm"},
        "denoiser": {"prediction": "edm", "label": "quarter_log_sigma"},
        "loss": {"weight": "edm", "times": "edm"},
    },
    # c_in x = alpha x: the network sees the VP process itself, and the label is 999 t.
    "VPPrecond": {
        "sde": {"name": "vp"},
        "denoiser": {"prediction": "noise", "label": "time_999"},
        "loss": {"weight": "noise"},
    },
    # c_noise = log(sigma / 2) on [-1, 1] is log sigma on [0, 1], where sigma is half as large.
    "VEPrecond": {
        "data": {"low": 0.0, "high": 1.0},
        "sde": {"name": "ve", "sigma_min": 0.01, "sigma_max": 50.0},
        "denoiser": {"prediction": "score", "label": "log_sigma"},
        "loss": {"weight": "noise"},
    },
}
# The networks here that bear the names of theirs, and our fields for their arguments.
MODELS = {"SongUNet": "song_unet", "DhariwalUNet": "dhariwal_unet"}
FIELDS = {
    "model_channels": "nf",
    "channel_mult": "ch_mult",
    "num_blocks": "num_res_blocks",
    "attn_resolutions": "attn_resolutions",
    "dropout": "dropout",
}


def is_snapshot(saved: Any) -> bool:
    """Whether the value of a pickle is a snapshot."""
    return isinstance(saved, dict) and isinstance(saved.get("ema"), Record)


def read(saved: Mapping[str, Any]) -> Release:
    """Of the value of a pickle.

    Raises:
      CheckpointError: a network or a scaling that is not here, naming it; does not name the file.
    """
    network: Record = saved["ema"]
    if network.name not in PROCESSES:
        raise CheckpointError(
            f"a snapshot of a {network.name}; known are {', '.join(PROCESSES)}"
            + (" (iDDPM levels are no process here)" if network.name == "iDDPMPrecond" else "")
        )
    made = _arguments(network)
    tensors = dict(_tensors(network, ""))
    kind = made.get("model_type", "DhariwalUNet")
    name = MODELS.get(kind)
    if name not in NETS or from_edm_names is None:
        raise CheckpointError(f"a network of type {kind}, which is not here; there are {', '.join(NETS)}")
    size, channels = made["img_resolution"], made["img_channels"]
    classes = made.get("label_dim", 0)
    sections = PROCESSES[network.name]
    return Release(
        what=f"an EDM snapshot ({network.name} of {kind})",
        rename=from_edm_names,
        average=tensors,
        config={
            **sections,
            "data": {"source": "folder", "random_flip": True, **sections.get("data", {})},
            "model": {"name": name, **model_of(made)},
            "sde": sections["sde"] | _range(network),
            "training": {"conditional": classes > 0},
        },
        spec=Spec((size, size, channels), 256, classes),
    )


def model_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``config.model`` from the arguments that a network was made with."""
    return {ours: made[theirs] for theirs, ours in FIELDS.items() if theirs in made}


def _range(network: Record) -> dict[str, float]:
    """Times that the network itself restricts; by default its scaling restricts none."""
    if network.name != "EDMPrecond":
        return {}
    limits = {"t_min": network.state.get("sigma_min"), "t_max": network.state.get("sigma_max")}
    return {
        name: float(value)
        for name, value in limits.items()
        if isinstance(value, int | float) and 0 < value < float("inf")
    }


def _arguments(network: Record) -> dict[str, Any]:
    made = network.state.get("_init_kwargs") if isinstance(network.state, dict) else None
    if not isinstance(made, dict) or not {"img_resolution", "img_channels"} <= set(made):
        raise CheckpointError(f"a {network.name} that does not say how it was made")
    return made


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters and buffers of a module and those in it, under the names of a state dict."""
    state = module.state if isinstance(module, Record) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"its module {prefix.rstrip('.') or 'ema'} holds no data")
    for group in ("_parameters", "_buffers"):
        for name, value in state.get(group, {}).items():
            if value is not None:
                yield prefix + name, np.asarray(value)
    for name, child in state.get("_modules", {}).items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")
