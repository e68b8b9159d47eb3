"""``--mode=encode``."""

import numpy as np

from score_sde.conditions import Json
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.modes.run import conditions_of, model_of, output_of
from score_sde.runs.inputs import Conditioned, everything, open_inputs, to_user
from score_sde.runs.inverter import map_with
from score_sde.runs.model import Model
from score_sde.runs.vectors import transport_of
from score_sde.runtime.files import write_json
from score_sde.runtime.processes import is_chief, say

_SHOWN = 12
_KEPT = ("latent", "rms", "largest", "evaluations")


def encode(options: Options) -> int:
    """Latents of the data, or of ``--samples``, and the error of decoding them again."""
    output = output_of(options, "latents.npz", "latents are a .npz", ".npz")
    model = model_of(options)
    section, conditions = model.config.inversion, model.architecture.conditions
    inputs = open_inputs(model.workdir, options.samples, section.split, section.num_examples)
    fixed = conditions_of(options, conditions)
    given = Conditioned(inputs, conditions, fixed, own=options.samples is None)
    keep = model.fingerprint(
        kind="round trip",
        name=inputs.name,
        count=len(inputs),
        batch=section.batch_size,
        **transport_of(model),
    )
    result = map_with(model, model.inverter.round_trip, given, "encode", keep=keep)
    report: dict[str, Json] = {"step": model.step, "source": inputs.name, **_summary(result), **about(model)}
    if is_chief():
        output.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: result[name] for name in _KEPT}
        if options.samples is None:  # also what the model does not take: latents have a class
            arrays |= {name: values for name, values in everything(inputs).items() if name != "x"}
        arrays |= given.conditions()
        np.savez(output, **arrays)  # type: ignore[arg-type]
        write_json(output.with_suffix(".json"), report)
        if model.architecture.is_picture:
            _strip(model, given, result).save(output.with_suffix(".png"))
    say(
        f"{len(inputs)} latents in {output}: round-trip error {report['round_trip_rms_mean']:.3g} rms, at "
        f"most {report['round_trip_rms_max']:.3g} ({report['round_trip_largest']:.3g} for one value), in "
        f"units of the model's range; {report['evaluations_mean']:.0f} evaluations an example both ways"
    )
    return 0


def about(model: Model) -> dict[str, Json]:
    """How latents were made, for a report."""
    return {**transport_of(model), "t_min": model.inverter.t_min}


def _summary(result: dict[str, np.ndarray]) -> dict[str, Json]:
    """Round-trip errors in units of the model's range, and the length of the latents, 1 under the prior."""
    flat = result["latent"].reshape(len(result["latent"]), -1).astype(np.float64)
    length = np.sqrt(np.mean(flat**2, axis=1))
    return {
        "examples": len(length),
        "round_trip_rms_mean": float(result["rms"].mean()),
        "round_trip_rms_max": float(result["rms"].max()),
        "round_trip_largest": float(result["largest"].max()),
        "evaluations_mean": float(result["evaluations"].mean()),
        "latent_rms_mean": float(length.mean()),
        "latent_rms_standard_deviation": float(length.std()),
    }


def _strip(model: Model, given: Conditioned, result: dict[str, np.ndarray]) -> pictures.Picture:
    """Three rows: examples, their latents with 0 as middle grey and 3 as white, and the decoded latents."""
    count = min(_SHOWN, len(given))
    latent = np.clip(np.rint(127.5 + 42.5 * result["latent"][:count]), 0, 255).astype(np.uint8)
    examples = to_user(given.read(np.arange(count))["x"], model.architecture.spec)
    back = model.architecture.decode(model.parts, result["back"][:count])
    return pictures.grid(np.concatenate([examples, latent, back]), columns=count)
