"""``--mode=encode``."""

from pathlib import Path
from typing import Any

import numpy as np

from score_sde.conditions import first_class
from score_sde.data import Spec
from score_sde.experiment.assemble import Experiment
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.modes.coder import Coder
from score_sde.modes.inputs import Inputs, open_inputs
from score_sde.modes.workdir import drawable, is_chief, outside, say, write_report
from score_sde.names import ConfigError

_SHOWN = 12
_NAMES = ("code", "rms", "largest", "evaluations")


def encode(options: Options) -> int:
    """Codes of the data, or of ``--samples``, and the error of decoding them again."""
    output = _output(options)
    coder = Coder(options)
    experiment, config = coder.experiment, coder.experiment.config.codes
    inputs = open_inputs(options, experiment.spec, config.split, config.num_examples)
    result = coder.run(coder.round_trip, inputs, "encode", keep=["round trip", inputs.name, len(inputs)])
    every = conditions_of(inputs)
    cond = {k: np.asarray(v) for k, v in coder.cond(every, len(inputs)).items()}  # type: ignore[arg-type]
    known = every if options.samples is None else {}  # a class of other files may have another number
    report = {"step": coder.step, "source": inputs.name, **_summary(result), **about(coder)}
    if is_chief():
        arrays: dict[str, Any] = {**known, **cond, **{name: result[name] for name in _NAMES}}
        np.savez(output, **arrays)
        write_report(output.with_suffix(".json"), report)
        if drawable(experiment.spec):
            strip(experiment, inputs, result).save(output.with_suffix(".png"))
    say(
        f"{len(inputs)} codes in {output}: round-trip error {report['round_trip_rms_mean']:.3g} rms, at most "
        f"{report['round_trip_rms_max']:.3g} ({report['round_trip_largest']:.3g} for one value), in units of "
        f"the model's range; {report['evaluations_mean']:.0f} evaluations an example both ways"
    )
    return 0


def about(coder: Coder) -> dict[str, Any]:
    """How codes were made, for a report."""
    config = coder.experiment.config.codes
    fields = ("rtol", "atol", "method") if config.solver == "ode" else ("steps", "grid")
    return {"solver": config.solver, **{f: config[f] for f in fields}, "t_min": coder.t_min}


def _output(options: Options) -> Path:
    path = options.workdir / "codes.npz" if options.output is None else Path(options.output)
    if path.suffix != ".npz":
        raise ConfigError(f"--output={path}: codes are a .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def conditions_of(inputs: Inputs) -> dict[str, np.ndarray]:
    """Conditions of all examples, ``(N, *shape)`` each."""
    parts = [
        inputs.read(np.arange(start, min(start + 1024, len(inputs)))) for start in range(0, len(inputs), 1024)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name, _ in inputs.spec.conditions}


def classes_of(inputs: Inputs) -> np.ndarray:
    """Classes of all examples, ``(N,)``; -1 where they have none."""
    found = first_class(inputs.spec.conditions)
    return np.full(len(inputs), -1) if found is None else conditions_of(inputs)[found[0]]


def _summary(result: dict[str, np.ndarray]) -> dict[str, Any]:
    """Round-trip errors in units of the model's range, and the length of the codes, 1 under the prior."""
    length = np.sqrt(np.mean(result["code"].reshape(len(result["code"]), -1).astype(np.float64) ** 2, axis=1))
    return {
        "examples": len(length),
        "round_trip_rms_mean": float(result["rms"].mean()),
        "round_trip_rms_max": float(result["rms"].max()),
        "round_trip_largest": float(result["largest"].max()),
        "evaluations_mean": float(result["evaluations"].mean()),
        "code_rms_mean": float(length.mean()),
        "code_rms_standard_deviation": float(length.std()),
    }


def strip(experiment: Experiment, inputs: Inputs, result: dict[str, np.ndarray]) -> Any:
    """Three rows: examples, their codes with 0 as middle grey and 3 as white, and the decoded codes."""
    count = min(_SHOWN, len(inputs))
    code = np.clip(np.rint(127.5 + 42.5 * result["code"][:count]), 0, 255).astype(np.uint8)
    rows = [shown(experiment.spec, inputs.read(np.arange(count))["x"]), code]
    return pictures.grid(np.concatenate([*rows, outside(experiment, result["back"][:count])]), columns=count)


def shown(spec: Spec, raw: np.ndarray) -> np.ndarray:
    """Grey levels of a picture as values 0 .. 255."""
    assert spec.grey_levels is not None
    return np.rint(raw * (255 / (spec.grey_levels - 1))).astype(np.uint8)
