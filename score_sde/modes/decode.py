"""``--mode=decode``."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from score_sde.conditions import Conditions
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.inversion.latents import temper
from score_sde.modes.run import conditions_of, examples_path, model_of
from score_sde.names import ConfigError
from score_sde.runs.examples import array_names
from score_sde.runs.given import Latents
from score_sde.runs.inverter import map_with
from score_sde.runtime.processes import is_chief, say


def decode(options: Options) -> int:
    """Examples of the latents in ``--samples``: a row of the grid each, a column for each temperature."""
    if options.samples is None:
        raise ConfigError("--mode=decode: name latents: --samples=FILE, the .npz of --mode=encode or a .npy")
    model = model_of(options)
    architecture = model.architecture
    path = Path(options.samples).expanduser()
    latents, given = read_latents(path, architecture.state_shape, architecture.conditions)
    temperatures = np.asarray(model.config.inversion.temperature, np.float32)
    output = examples_path(options, architecture.spec, "decoded")
    for name, value in conditions_of(options, architecture.conditions).items():
        given[name][:] = value
    columns, factors = len(temperatures), np.tile(temperatures, len(latents))
    tempered = temper(jnp.asarray(latents.repeat(columns, axis=0)), jnp.asarray(factors))
    several = Latents(
        np.asarray(tempered), {name: values.repeat(columns, axis=0) for name, values in given.items()}
    )
    found = map_with(model, model.inverter.decode, several, "decode")
    x = architecture.decode(model.parts, found["x"])
    if is_chief():
        if output.suffix == ".png" and columns > 1:
            pictures.grid(x, columns=columns).save(output)
        elif output.suffix == ".npz":
            np.savez(output, samples=x, temperature=factors)
        else:
            pictures.write(output, x, seed=0)
    shown = ", ".join(f"{t:g}" for t in temperatures)
    say(f"{len(latents)} latents decoded at temperature {shown} in {output}")
    return 0


def read_latents(
    path: Path, shape: tuple[int, ...], conditions: Conditions
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Latents and conditions of a file of ``--mode=encode``, or latents of a .npy, whose conditions are null.

    Raises:
      ConfigError: not such a file; names it.
    """
    where = f"--samples={path}"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file; latents are the .npz of --mode=encode, or a .npy")
    given: dict[str, np.ndarray] = {}
    try:
        if path.suffix == ".npz":
            names = array_names(path)
            with np.load(path, allow_pickle=False) as file:
                if "latent" not in names:
                    raise ValueError(f"holds no array 'latent', only {', '.join(names)}")
                latent = file["latent"]
                given = {name: one.check(name, file[name]) for name, one in conditions if name in names}
        else:
            latent = np.load(path, allow_pickle=False)
    except Exception as error:  # zip, pickle and header errors all mean the same here
        raise ConfigError(f"{where}: not latents of --mode=encode: {error}") from error
    if latent.shape[1:] != shape or not len(latent) or not np.issubdtype(latent.dtype, np.floating):
        raise ConfigError(
            f"{where}: holds {latent.dtype} of shape {latent.shape}; latents of this model are floats (N, "
            f"{', '.join(map(str, shape))})"
        )
    if not np.isfinite(latent).all():
        raise ConfigError(f"{where}: holds latents that are not finite")
    return latent, {name: given.get(name, one.nulls(len(latent))) for name, one in conditions}
