"""Snapshots of EDM (Karras et al. 2022, arXiv:2206.00364): pickles ``{ema: network, ...}``.

A network is an object whose class travels as source text, which is not looked at.  What counts is data: the
name of its class, the arguments that it was made with, and the tensors of the modules in it.  The class says
how the network is scaled (table 1 of the paper), which here is a process, a prediction and a time input.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from score_sde.conditions import labelled
from score_sde.convert.errors import CheckpointError
from score_sde.convert.inert import Record
from score_sde.convert.release import Release, Rename, Section
from score_sde.data import AUGMENTED, Spec
from score_sde.names import frozen
from score_sde.nets.edm_names import from_edm_names
from score_sde.solvers.grids import Power

# The scalings by section of the config: table 1 of the paper in our terms.
PROCESSES: dict[str, dict[str, Section]] = {
    "EDMPrecond": {
        "sde": {"name": "edm"},
        "denoiser": {"prediction": "edm", "time_input": "quarter_log_sigma"},
        "loss": {"weight": "edm"},
        "sampling": {
            "solver": "heun",
            "grid": {"name": "power", "rho": 7.0},
            "steps": 17,
            "t_end": 0.002,
        },
    },
    # c_in x = alpha x: the network sees the VP process itself, and the time input is 999 t.
    "VPPrecond": {
        "sde": {"name": "vp"},
        "denoiser": {"prediction": "noise", "time_input": "time_999"},
        "loss": {"weight": "noise"},
        "sampling": {"solver": "ode", "t_end": 1e-3},
    },
    # c_noise = log(sigma / 2) on [-1, 1] is log sigma on [0, 1], where sigma is half as large.
    "VEPrecond": {
        "codec": {"low": 0.0, "high": 1.0},
        "model": {"input_range": (0.0, 1.0)},
        "sde": {"name": "ve", "sigma_min": 0.01, "sigma_max": 50.0},
        "denoiser": {"prediction": "score", "time_input": "log_sigma"},
        "loss": {"weight": "noise"},
        "sampling": {"solver": "ode", "t_end": 1e-5},
    },
    # Trained at 1000 levels; the other half of the output is a variance, which nothing reads.
    "iDDPMPrecond": {
        "sde": {"name": "edm"},
        "denoiser": {"prediction": "scaled_noise", "time_input": "iddpm_index"},
        "loss": {"weight": "noise"},
        "sampling": {"solver": "heun"},
    },
}


Translate = Callable[[Any], Section]  # a value in a file to our fields


class Model(NamedTuple):
    """A network of theirs that is here.

    Attributes:
      name: in ``NETS``.
      fields: for each of their arguments, its default and our fields of ``config.model`` for a value; a value
        that the network does not have here is a ``KeyError``.
      rename: as in ``Release``.
    """

    name: str
    fields: Mapping[str, tuple[object, Translate]]
    rename: Rename


def _as(ours: str) -> Translate:
    return lambda value: {ours: frozen(value)}


def _filter(value: Any) -> Section:
    """Two taps of a box, or another symmetric filter of even length; they turn no filter around."""
    taps = frozen(value)
    if len(taps) % 2 or taps != taps[::-1]:
        raise KeyError(taps)
    return {"fir": False} if taps == (1, 1) else {"fir": True, "fir_kernel": taps}


def _only(*allowed: object) -> Translate:
    """An argument that is the same here at these values, and has no field."""
    return lambda value: {known: {} for known in allowed}[value]


_SHARED = {"channel_mult_emb": (4, _as("embedding_mult")), "M": (1000, _only(1000))}
PYRAMIDS = {"standard": "none", "skip": "input_skip", "residual": "residual"}
MODELS: dict[str, Model] = {
    "SongUNet": Model(
        "songunet",
        {
            "model_channels": (128, _as("nf")),
            "channel_mult": ((1, 2, 2, 2), _as("ch_mult")),
            "num_blocks": (4, _as("num_res_blocks")),
            "attn_resolutions": ((16,), _as("attn_resolutions")),
            "dropout": (0.10, _as("dropout")),
            "embedding_type": ("positional", _as("embedding_type")),
            "encoder_type": ("standard", lambda value: {"progressive_input": PYRAMIDS[value]}),
            "decoder_type": (
                "standard",
                lambda value: {"progressive": {"standard": "none", "skip": "output_skip"}[value]},
            ),
            "resample_filter": ((1, 1), _filter),
            "channel_mult_noise": (1, _as("noise_mult")),
            **_SHARED,
        },
        from_edm_names,
    ),
    "DhariwalUNet": Model(
        "adm",
        {
            "model_channels": (192, _as("nf")),
            "channel_mult": ((1, 2, 3, 4), _as("ch_mult")),
            "num_blocks": (3, _as("num_res_blocks")),
            "attn_resolutions": ((32, 16, 8), _as("attn_resolutions")),
            "dropout": (0.10, _as("dropout")),
            **_SHARED,
        },
        from_edm_names,
    ),
}
# Arguments that are said elsewhere, or change nothing in the released networks.
_ELSEWHERE = {
    "img_resolution",
    "img_channels",
    "model_type",
    "use_fp16",
    "label_dim",
    "label_dropout",
    "augment_dim",
    "beta_min",
    "beta_d",
    "epsilon_t",
    "sigma_min",
    "sigma_max",
    "sigma_data",
    "C_1",  # of iDDPM's noise levels, which are stored
    "C_2",
}
_AUGMENT = 0.12  # how often the published recipe augments; a snapshot says only that it was augmented


def is_snapshot(saved: object) -> TypeGuard[dict[str, Record]]:
    """Whether the value of a pickle is a snapshot."""
    return isinstance(saved, dict) and isinstance(saved.get("ema"), Record)


def read(saved: Mapping[str, Record]) -> Release:
    """Of the value of a pickle.

    Raises:
      CheckpointError: a network or a scaling that is not here, naming it; does not name the file.
    """
    network = saved["ema"]
    if network.name not in PROCESSES:
        raise CheckpointError(f"a snapshot of a {network.name}; known are {', '.join(PROCESSES)}")
    made = _arguments(network)
    kind = made.get("model_type", "DhariwalUNet")
    if kind not in MODELS:
        raise CheckpointError(
            f"a network of type {kind}, which is not here; there are: {', '.join(MODELS) or 'none'}"
        )
    model, sections = MODELS[kind], PROCESSES[network.name]
    size, classes = made["img_resolution"], made.get("label_dim", 0)
    outputs = {"out_channels": 2 * made["img_channels"]} if network.name == "iDDPMPrecond" else {}
    return Release(
        what=f"an EDM snapshot ({network.name} of {kind})",
        rename=model.rename,
        average={name: x for name, x in _tensors(network, "") if name != "u"},  # iDDPM's noise levels
        config={
            **sections,  # of which some get more fields
            "data": {"source": "folder", **_augmentation(made)},
            "model": {"name": model.name, **sections.get("model", {}), **outputs, **_fields(made, model)},
            "sde": sections["sde"] | _range(network, made),
            "sampling": sections["sampling"] | _levels(network),
            "denoiser": sections["denoiser"] | _sigma_data(network),
            "conditions": {"names": tuple(dict(labelled(classes))), "dropout": _label_dropout(made)},
        },
        spec=Spec((size, size, made["img_channels"]), 256, labelled(classes)),
    )


def _fields(made: Section, model: Model) -> Section:
    unknown = [name for name in made if name not in model.fields and name not in _ELSEWHERE]
    if unknown:
        raise CheckpointError(f"its network was made with {unknown[0]} = {made[unknown[0]]!r}: not ours")
    fields: Section = {}
    for name, (default, translate) in model.fields.items():
        try:
            fields |= translate(made.get(name, default))
        except KeyError:
            raise CheckpointError(f"its network was made with {name} = {made[name]!r}: not ours") from None
    return fields


def _augmentation(made: Section) -> Section:
    """A network that takes augmentations as an input keeps it; nine numbers describe them."""
    width, known = made.get("augment_dim", 0), AUGMENTED[0][1].shape[0]
    if width not in (0, known):
        raise CheckpointError(f"its network was made with augment_dim = {width}; known is {known}")
    return {"augment_probability": _AUGMENT} if width else {"random_flip": True}


def _label_dropout(made: Section) -> float:
    """How often training drops the class, which here is up to the training."""
    return float(made.get("label_dropout", 0)) if made.get("label_dim", 0) else 0.0


def _sigma_data(network: Record) -> Section:
    """What EDM's prediction takes the standard deviation of the data to be."""
    if network.name != "EDMPrecond":
        return {}
    return {"prediction": {"name": "edm", "sigma_data": float(network.state.get("sigma_data", 0.5))}}


def _range(network: Record, made: Section) -> dict[str, float]:
    """The levels of VP; times that the network itself restricts; by default its scaling restricts none."""
    if network.name == "VPPrecond":
        start = float(made.get("beta_min", 0.1))
        return {"beta_min": start, "beta_max": start + float(made.get("beta_d", 19.9))}
    if network.name == "iDDPMPrecond":
        return {"t_max": _levels(network)["grid"]["times"][0]}
    if network.name != "EDMPrecond":
        return {}
    limits = {"t_min": network.state.get("sigma_min"), "t_max": network.state.get("sigma_max")}
    return {
        name: float(value)
        for name, value in limits.items()
        if isinstance(value, int | float) and 0 < value < float("inf")
    }


def _levels(network: Record) -> Section:
    """EDM's grid of 18 levels, each rounded to one of those that a discrete network knows."""
    if network.name != "iDDPMPrecond":
        return {}
    known = network.state.get("_buffers", {}).get("u")
    if known is None or np.size(known) < 2:
        raise CheckpointError("an iDDPMPrecond without its noise levels, the buffer u")
    known = np.ravel(np.asarray(known, np.float64))
    wanted = Power(7.0)(min(80.0, known[0]), max(0.002, known[-2]), 17)
    times = known[np.abs(wanted[:, None] - known[None, :]).argmin(axis=1)]
    grid = {"name": "list", "times": tuple(times.tolist())}
    return {"grid": grid, "steps": 17, "t_end": times[-1].item()}


def _arguments(network: Record) -> Section:
    made = network.state.get("_init_kwargs") if isinstance(network.state, dict) else None
    if not isinstance(made, dict) or not {"img_resolution", "img_channels"} <= set(made):
        raise CheckpointError(f"a {network.name} that does not say how it was made")
    return made


def _tensors(module: object, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
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
