"""Checkpoints of the official code: PyTorch files, and msgpack files of its JAX version and descendants.

PyTorch (``score_sde_pytorch``):  ``{optimizer, model, ema, step}``.  Names carry ``module.``; the average is
a list without names, in the order of the parameters, and lacks those that are not trained.  Adam numbers all
of them.  JAX (``score_sde``):  ``{step, optimizer: {target, state}, lr, model_state, ema_rate, params_ema,
rng}``; consistency models (``consistency_models_cifar10``) have ``params`` in place of ``optimizer.target``.
"""

import functools
import re
from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from score_sde.arrays import Tree
from score_sde.convert.errors import CheckpointError
from score_sde.convert.release import Arrays, Release
from score_sde.nets import official

# The frequencies of the Fourier embedding: a parameter without a gradient.
_UNTRAINED = re.compile(r"all_modules\.\d+\.W")
_BUFFERS = ("sigmas",)


def from_torch(saved: object) -> Release:
    """Of the value of a torch file.

    Raises:
      CheckpointError: it does not look like one; does not name the file.
    """
    if _is_state_dict(saved):
        model, rest = saved, {}
    elif isinstance(saved, dict) and _is_state_dict(saved.get("model")):
        model, rest = saved["model"], saved
    else:
        keys = ", ".join(map(str, list(saved)[:6])) if isinstance(saved, dict) else type(saved).__name__
        raise CheckpointError(f"a torch file without a 'model' of named tensors; it holds: {keys}")
    params = {
        name.removeprefix("module."): array
        for name, array in model.items()
        if name.removeprefix("module.") not in _BUFFERS
    }
    return Release(
        what="a PyTorch checkpoint of score_sde",
        rename=official.from_torch_names,
        raw=params,
        average=_average(params, rest["ema"]) if isinstance(rest.get("ema"), dict) else params,
        step=int(rest.get("step", 0)),
        moments=_torch_moments(params, rest.get("optimizer")),
    )


def _is_state_dict(value: object) -> TypeGuard[dict[str, np.ndarray]]:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items())
    )


def _average(params: Arrays, ema: Mapping[str, object]) -> Arrays:
    """The positional list of averages by name; what is not trained is its own average."""
    shadow = ema.get("shadow_params")
    if not isinstance(shadow, list):
        raise CheckpointError(f"its 'ema' has no list 'shadow_params'; it holds: {', '.join(map(str, ema))}")
    names = list(params)
    if len(shadow) != len(names):
        names = [name for name in names if not _UNTRAINED.fullmatch(name)]
    if len(shadow) != len(names):
        raise CheckpointError(
            f"its average has {len(shadow)} tensors, and the model {len(names)} that are trained"
        )
    for name, value in zip(names, shadow, strict=True):
        if np.shape(value) != params[name].shape:
            raise CheckpointError(
                f"{name} has shape {params[name].shape} in the model and {np.shape(value)} in its average"
            )
    return {**params, **dict(zip(names, shadow, strict=True))}


def _torch_moments(params: Arrays, optimizer: object) -> tuple[Arrays, Arrays] | None:
    """Adam's moments by name; zero where Adam has seen no gradient.  None where they do not fit."""
    states = optimizer.get("state") if isinstance(optimizer, dict) else None
    names = list(params)
    if not isinstance(states, dict) or not states or not set(states) <= set(range(len(names))):
        return None
    moments = []
    for key in ("exp_avg", "exp_avg_sq"):
        values = {names[i]: state.get(key) for i, state in states.items()}
        if any(np.shape(value) != params[name].shape for name, value in values.items()):
            return None
        moments.append({name: values.get(name, np.zeros_like(array)) for name, array in params.items()})
    return moments[0], moments[1]


def from_flax(saved: object) -> Release:
    """Of the tree of a msgpack file.

    Raises:
      CheckpointError: it does not look like one; does not name the file.
    """
    tree = saved if isinstance(saved, dict) else {}
    optimizer = tree.get("optimizer")
    raw = optimizer.get("target") if isinstance(optimizer, dict) else tree.get("params")
    average = tree.get("params_ema")
    if not isinstance(raw, dict) or not isinstance(average, dict):
        keys = ", ".join(list(tree)[:8]) or type(saved).__name__
        raise CheckpointError(f"a msgpack file without 'params_ema' and the parameters; it holds: {keys}")
    return Release(
        what="a JAX checkpoint of score_sde",
        rename=official.from_flax_names,
        raw=_bare(raw),
        average=_bare(average),
        step=int(tree.get("step", 0)),
        moments=_flax_moments(optimizer),
    )


def _bare(tree: Arrays) -> Arrays:
    """The tree without an outer ``params``."""
    return tree["params"] if set(tree) == {"params"} else tree


def _flax_moments(optimizer: object) -> tuple[Arrays, Arrays] | None:
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    states = state.get("param_states") if isinstance(state, dict) else None
    if not isinstance(states, dict):
        return None
    try:
        first, second = (functools.partial(_pick, key=key)(states) for key in ("grad_ema", "grad_sq_ema"))
    except (KeyError, AttributeError):
        return None
    return _bare(first), _bare(second)


def _pick(tree: Arrays, key: str) -> Tree:
    """The tree of one of the two arrays that Adam keeps for every parameter."""
    if key in tree:
        return tree[key]
    return {name: _pick(child, key) for name, child in tree.items()}
